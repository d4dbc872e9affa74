"""The sample that a guest's cron runs: it tells syslog of each event, once."""

import sys
from pathlib import Path

import pytest

import netemu
from tests.conftest import RunningLab

pytestmark = pytest.mark.lab

SAMPLE = Path(netemu.__file__).resolve().parent.parent / "netns-scripts/guest"
SAMPLE /= "is-vm-in-maintenance.sh"

# A guest has no syslog of its own, and shares /dev with the machine: a /dev for one run, in which
# we are syslog. Runs the script on standard input as many times as argv says; its last exit code.
CRON = """
import os, socket, subprocess, sys
os.makedirs('/run/dev', exist_ok=True)
run = lambda *command: subprocess.run(command, check=True)
run('mount', '-t', 'tmpfs', '-o', 'mode=755', 'none', '/run/dev')
for device in ('null', 'zero', 'urandom'):
    open('/run/dev/' + device, 'w').close()
    run('mount', '--bind', '/dev/' + device, '/run/dev/' + device)
run('mount', '--rbind', '/run/dev', '/dev')
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
log.bind('/dev/log')
log.settimeout(0.2)
script = sys.stdin.read()
for _ in range(int(sys.argv[1])):
    done = subprocess.run(['sh', '-s'], input=script, text=True)
while True:
    try:
        print(log.recv(4096).decode())
    except TimeoutError:
        break
sys.exit(done.returncode)
"""


def cron(lab: RunningLab, guest: str, times: int) -> tuple[int, list[str]]:
    """Run the sample as cron would, that often; its exit code, and the lines that syslog got."""
    command = ("unshare", "--mount", sys.executable, "-c", CRON, str(times))
    done = lab.exec(guest, *command, stdin=SAMPLE.read_text(), check=None)
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def test_the_sample_tells_syslog_of_each_event_once(lab: RunningLab) -> None:
    """A user's cron job runs the sample each minute: a line for each event, not for each minute."""
    assert cron(lab, "db2", 2) == (1, [])
    first = lab.maintenance("schedule", "db2", "--type", "reboot", "--in", "4m")
    code, (line,) = cron(lab, "db2", 3)
    assert code == 0
    assert "is-vm-in-maintenance" in line
    assert line.startswith("<12>")  # user.warning
    assert first["id"] in line
    assert "\\" not in line
    assert cron(lab, "db2", 2) == (0, [])
    assert cron(lab, "db3", 1) == (1, [])
    lab.maintenance("cancel", first["id"])
    second = lab.maintenance("schedule", "db2", "--type", "freeze", "--now")
    code, (line,) = cron(lab, "db2", 2)
    assert second["id"] in line
    lab.maintenance("complete", second["id"])
    assert cron(lab, "db2", 1) == (1, [])


def test_the_sample_says_when_nobody_answers(lab: RunningLab) -> None:
    """A user whose guest is cut off is told so on standard error, and not that all is well."""
    command = ("unshare", "--net", "sh", "-s")
    done = lab.exec("db3", *command, stdin=SAMPLE.read_text(), check=2)
    assert "curl" in done.stderr
