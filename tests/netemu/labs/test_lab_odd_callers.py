"""Commands work, or say why not, however they were started and whatever disk they find."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import TIME_SCALE, Person, RunningLab
from tests.netemu.labs.test_lab_bottle import alone, gone, processes_of

pytestmark = pytest.mark.lab

__all__ = ["alone"]
SCALE = f"--time-scale {TIME_SCALE}"


def shell(person: Person, script: str, *, code: int = 0) -> str:
    """Run a shell's script in which "$@" is the command line; what it printed."""
    done = subprocess.run(
        [*person.prefix, "sh", "-c", script, "sh", sys.executable, "-P", "-m", "netemu"],
        env=person.environment,
        cwd="/tmp",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", "<&- >&- 2>&-"])
def test_a_command_without_a_standard_stream(alone: Person, closed: str) -> None:
    """A user's cron or daemon starts commands without some of the three streams."""
    shell(alone, f'"$@" up --name bare {SCALE} {closed}')
    assert '"_web1"' in RunningLab(alone, "bare").get("web1")
    shell(alone, f'"$@" exec --name bare web1 -- sh -c "exit 7" {closed}', code=7)
    shell(alone, f'"$@" down bare {closed}')
    assert gone(lambda: not processes_of(alone))


def test_a_program_without_standard_streams(alone: Person) -> None:
    """A user's daemon that has closed all three streams has a lab, and runs commands in it."""
    program = f"""
import os
for number in (0, 1, 2): os.close(number)
import netemu
with netemu.Lab(time_scale={TIME_SCALE}) as lab:
    done = lab.run("web1", ["sh", "-c", "echo said; exit 3"], check=False)
os._exit(40 + done.returncode if done.stdout == "said\\n" else 1)
"""
    done = alone.start_python("-c", program)
    done.communicate(timeout=120)
    assert done.returncode == 43


def test_a_command_whose_caller_ignores_the_end_of_children(alone: Person) -> None:
    """A user's shell ignores SIGCHLD: commands wait for theirs all the same."""
    script = f"""
trap '' CHLD
"$@" up --name heedless {SCALE} || exit 1
"$@" exec --name heedless web1 -- sh -c 'sleep 0.1 & wait; exit 7'
[ $? -eq 7 ] || exit 2
"$@" reboot --name heedless web1 || exit 3
"$@" down heedless
"""
    assert shell(alone, script).endswith("heedless: down\n")


def test_a_command_in_a_directory_that_is_gone(alone: Person, place: Path) -> None:
    """A user's working directory has been removed: every verb works, or says so."""
    script = f"""
mkdir "$NETEMU_RUNTIME_DIR-gone" && cd "$NETEMU_RUNTIME_DIR-gone" && rmdir "$PWD" || exit 9
"$@" up --name nowhere {SCALE} || exit 1
"$@" exec --name nowhere web1 -- pwd || exit 2
"$@" status nowhere >/dev/null || exit 3
"$@" down nowhere || exit 4
NETEMU_RUNTIME_DIR=labs "$@" list
"""
    said = shell(alone, script, code=3)
    assert said.endswith("the working directory has been removed, so this leads nowhere; "
                         "write the whole path\n")  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small disk")
@pytest.mark.parametrize(
    "room", [*(f"nr_inodes={one}" for one in range(2, 7)), "size=4k", "size=8k"]
)
def test_a_disk_that_is_full(alone: Person, room: str) -> None:
    """A user's runtime directory has no inodes or no room left: the lab works, or it is said."""
    if alone.prefix:
        pytest.skip("one user is enough: the disk is the same")
    script = f"""
mount -t tmpfs -o mode=700,{room} none "$NETEMU_RUNTIME_DIR" || exit 9
"$@" up --name tight {SCALE}
code=$?
if [ $code -eq 0 ]; then "$@" exec --name tight web1 -- true || exit 8; fi
"$@" down --all >/dev/null || exit 7
rest=$(ls "$NETEMU_RUNTIME_DIR")
[ -z "$rest" ] || {{ echo "left: $rest"; exit 6; }}
exit $code
"""
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", sys.executable, "-P", "-m", "netemu"],
        env=alone.environment,
        cwd="/tmp",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode in (0, 3), (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    if done.returncode == 3:
        assert "No space left on device" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert gone(lambda: not processes_of(alone))


def test_a_path_that_is_no_text_is_refused(alone: Person) -> None:
    """A user's labs' directory has a name that is not UTF-8: that is said, and nothing is begun."""
    script = f"""
export NETEMU_RUNTIME_DIR="$NETEMU_RUNTIME_DIR/$(printf '\\377\\376')"
"$@" up --name odd {SCALE}
code=$?
[ -e "$NETEMU_RUNTIME_DIR" ] && exit 9
exit $code
"""
    assert "only paths that are UTF-8 text" in shell(alone, script, code=2)


def test_a_program_without_descriptors_left_is_told(alone: Person) -> None:
    """A user's program has too many files open to bring a lab up: it is told, and soon."""
    program = """
import os, resource, netemu
from netemu.errors import MachineCannot
netemu.Lab(name="warm")
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
held = []
while len(held) < 4050: held.append(os.open("/dev/null", os.O_RDONLY))
lab = netemu.Lab(name="few")
for left in range(4, 60, 3):
    resource.setrlimit(resource.RLIMIT_NOFILE, (held[-1] + left, 4096))
    try:
        with netemu.Lab(name=f"few{left}", time_scale=0.02): break
    except (MachineCannot, OSError): continue
os._exit(0)
"""
    done = alone.start_python("-c", program)
    _, wrong = done.communicate(timeout=100)
    assert done.returncode == 0, wrong
    assert gone(lambda: not processes_of(alone))
