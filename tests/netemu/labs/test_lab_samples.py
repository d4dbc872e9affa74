"""The sample that a guest's cron runs: it tells syslog of each event, once."""

import os
import shutil
import sys
from pathlib import Path
from typing import IO

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


# A guest's syslog, and its cron with less patience: runs the script argv[2] every quarter
# of a second until SIGTERM, tells each exit code, and in the end what was logged. The log is
# rsyslog's, on a /dev of its own, or what `logger -s` says beside it.
POLLS = """
import os, pathlib, signal, subprocess, sys, time
how, script = sys.argv[1], sys.argv[2]
ending = []
signal.signal(signal.SIGTERM, lambda *_: ending.append(True))
log = pathlib.Path("/run/polls.log")
log.write_text("")
if how == "rsyslog":
    os.makedirs("/run/dev", exist_ok=True)
    run = lambda *command: subprocess.run(command, check=True)
    run("mount", "-t", "tmpfs", "-o", "mode=755", "none", "/run/dev")
    for device in ("null", "zero", "urandom"):
        open("/run/dev/" + device, "w").close()
        run("mount", "--bind", "/dev/" + device, "/run/dev/" + device)
    run("mount", "--rbind", "/run/dev", "/dev")
    pathlib.Path("/run/rsyslog.conf").write_text(
        'module(load="imuxsock" SysSock.Name="/dev/log")\\n*.* /run/polls.log\\n')
    daemon = subprocess.Popen(["rsyslogd", "-n", "-f", "/run/rsyslog.conf", "-i", "/run/rs.pid"])
    while not os.path.exists("/dev/log"):
        time.sleep(0.02)
    said = subprocess.DEVNULL
else:
    os.makedirs("/run/bin", exist_ok=True)
    logger = pathlib.Path("/run/bin/logger")
    logger.write_text('#!/bin/sh\\nexec /usr/bin/logger -s --socket-errors=off "$@"\\n')
    logger.chmod(0o755)
    os.environ["PATH"] = "/run/bin:" + os.environ["PATH"]
    said = log.open("a")
while not ending:
    print(subprocess.run(["sh", "-c", script], stderr=said).returncode, flush=True)
    time.sleep(0.25)
if how == "rsyslog":
    daemon.terminate()
    daemon.wait()
for line in log.read_text().splitlines():
    if "is-vm-in-maintenance" in line:
        print("logged: " + line)
"""
RSYSLOG = shutil.which("rsyslogd", path=f"{os.environ['PATH']}:/usr/sbin")


def cron(lab: RunningLab, guest: str, times: int) -> tuple[int, list[str]]:
    """Run the sample as cron would, that often; its exit code, and the lines that syslog got."""
    command = ("unshare", "--mount", sys.executable, "-c", CRON, str(times))
    done = lab.exec(guest, *command, stdin=SAMPLE.read_text(), check=None)
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def test_the_sample_tells_syslog_of_each_event_once(lab: RunningLab) -> None:
    """A user's cron job runs the sample each minute: a line for each event, not for each minute."""
    assert cron(lab, "db2", 2) == (1, [])
    first = lab.maintenance("schedule", "db2", "--type", "reboot", "--in", "4m", "--no-impact")
    code, (line,) = cron(lab, "db2", 3)
    assert code == 0
    assert "is-vm-in-maintenance" in line
    assert line.startswith("<12>")  # user.warning
    assert first["id"] in line
    assert "\\" not in line
    assert cron(lab, "db2", 2) == (0, [])
    assert cron(lab, "db3", 1) == (1, [])
    lab.maintenance("cancel", first["id"])
    second = lab.maintenance("schedule", "db2", "--type", "freeze", "--now", "--no-impact")
    code, (line,) = cron(lab, "db2", 2)
    assert second["id"] in line
    lab.maintenance("complete", second["id"])
    assert cron(lab, "db2", 1) == (1, [])


def test_the_sample_says_when_nobody_answers(lab: RunningLab) -> None:
    """A user whose guest is cut off is told so on standard error, and not that all is well."""
    command = ("unshare", "--net", "sh", "-s")
    done = lab.exec("db3", *command, stdin=SAMPLE.read_text(), check=2)
    assert "curl" in done.stderr


@pytest.mark.parametrize(
    "how",
    [
        "logger -s",
        pytest.param(
            "rsyslog",
            marks=pytest.mark.skipif(RSYSLOG is None, reason="Debian's rsyslog is not installed"),
        ),
    ],
)
def test_polled_all_the_time_the_sample_logs_a_line_an_event(lab: RunningLab, how: str) -> None:
    """A user polls every moment while two events come and go: the log has two lines, no more."""
    arguments = ("unshare", "--mount", sys.executable, "-c", POLLS, how)
    cron_job = lab.person.start(
        "exec", "--name", lab.name, "db3", "--", *arguments, SAMPLE.read_text()
    )
    assert cron_job.stdout is not None
    events, codes = [], []
    try:
        codes += read_until(cron_job.stdout, "1")
        for kind in ("reboot", "freeze"):
            event = lab.maintenance("schedule", "db3", "--type", kind, "--in", "4m", "--no-impact")
            events.append(event["id"])
            codes += read_until(cron_job.stdout, "0", times=5)
            lab.maintenance("cancel", event["id"])
            codes += read_until(cron_job.stdout, "1")
    finally:
        cron_job.terminate()
        out, err = cron_job.communicate(timeout=60)
    assert cron_job.returncode == 0, err
    lines = out.splitlines()
    logged = [line for line in lines if line.startswith("logged: ")]
    codes += [line for line in lines if line not in logged]
    assert codes.count("0") >= 10
    assert set(codes) == {"0", "1"}
    assert [event for line in logged for event in events if event in line] == events
    assert len(logged) == 2


def read_until(codes: IO[str], wanted: str, *, times: int = 1) -> list[str]:
    """Read exit codes until `wanted` has come so often."""
    seen: list[str] = []
    while seen.count(wanted) < times:
        line = codes.readline()
        assert line, "the polls ended"
        seen.append(line.strip())
        assert len(seen) < 60, f"{wanted} does not come: {seen}"
    return seen
