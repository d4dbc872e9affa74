"""A command in a lab has a terminal of its own: the caller's is out of its reach."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence

import pytest

from tests.conftest import RunningLab

pytestmark = pytest.mark.lab

WHAT = """
import os, sys
def name(status):
    return f'{status.st_dev:x}-{status.st_rdev:x}'
kinds = [name(os.fstat(fd)) if os.isatty(fd) else 'none' for fd in range(3)]
try:
    kinds.append('ctty' if os.open('/dev/tty', os.O_RDWR) else '')
except OSError:
    kinds.append('no ctty')
os.write(int(sys.argv[1]), ' '.join(kinds).encode() + b'.')
"""
TYPE = """
import fcntl, os, termios
for path in (0, 1, 2, '/dev/tty'):
    try:
        fd = path if isinstance(path, int) else os.open(path, os.O_RDWR)
        for one in 'touch typed\\n':
            fcntl.ioctl(fd, termios.TIOCSTI, one)
    except OSError:
        pass
"""


class Terminal:
    """A terminal with a person at it, who runs `netemu`."""

    def __init__(self, lab: RunningLab) -> None:
        self._lab = lab
        self._master, self.slave = pty.openpty()
        status = os.fstat(self.slave)
        self.device = f"{status.st_dev:x}-{status.st_rdev:x}"
        self._started: list[subprocess.Popen[bytes]] = []
        self.before = termios.tcgetattr(self.slave)

    def start(
        self, place: str, command: Sequence[str], streams: Sequence[int] = (0, 1, 2)
    ) -> "subprocess.Popen[bytes]":
        """Run a command by `netemu exec`, with these streams at the terminal, the others piped."""
        own = [self.slave if one in streams else subprocess.PIPE for one in range(3)]
        words = self._lab.person.command("exec", "--name", self._lab.name, place, "--", *command)

        def take() -> None:
            os.setsid()
            fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)

        started = subprocess.Popen(
            words,
            env=self._lab.person.environment,
            stdin=own[0],
            stdout=own[1],
            stderr=own[2],
            preexec_fn=take,
            pass_fds=[self.slave],
        )
        self._started.append(started)
        return started

    def type(self, text: bytes) -> None:
        os.write(self._master, text)

    def until(self, expected: bytes, patience: float = 20.0) -> bytes:
        """What is shown until something expected is."""
        shown = b""
        end = time.monotonic() + patience
        while expected not in shown:
            ready, _, _ = select.select([self._master], [], [], max(0, end - time.monotonic()))
            assert ready, shown
            shown += os.read(self._master, 65536)
        return shown

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def typed(self) -> int:
        """How many bytes somebody has typed that nobody has read."""
        raw = list(self.before)
        raw[3] &= ~termios.ICANON
        termios.tcsetattr(self.slave, termios.TCSANOW, raw)
        return int(struct.unpack("i", fcntl.ioctl(self.slave, termios.FIONREAD, b"\0" * 4))[0])

    def close(self) -> None:
        for one in self._started:
            one.kill()
            one.wait()
            for stream in filter(None, (one.stdin, one.stdout, one.stderr)):
                stream.close()
        os.close(self._master)
        os.close(self.slave)


@pytest.fixture
def terminal(lab: RunningLab) -> Iterator[Terminal]:
    made = Terminal(lab)
    yield made
    made.close()


def test_a_guest_never_holds_the_callers_terminal(terminal: Terminal) -> None:
    """A person at a terminal runs commands: they have another terminal, or none, but never that."""
    ran = terminal.start("web1", [sys.executable, "-c", WHAT, "1"])
    kinds = terminal.until(b".").decode().rstrip(".").split()
    assert ran.wait(20) == 0
    assert len(set(kinds[:3])) == 1
    assert kinds[3] == "ctty"
    assert kinds[0] not in (terminal.device, "none")
    for streams, told in (((0,), 1), ((1,), 2), ((2,), 1), ((0, 2), 1), ((1, 2), 1)):
        ran = terminal.start("web1", [sys.executable, "-c", WHAT, str(told)], streams)
        if told in streams:
            shown = terminal.until(b".")
        else:
            shown = (ran.stdout if told == 1 else ran.stderr).read()  # type: ignore[union-attr]
        assert ran.wait(20) == 0
        # What is piped is the command's own; of the terminal it has nothing.
        assert shown == b"none none none no ctty.", streams


def test_a_guest_cannot_type_into_the_callers_shell(terminal: Terminal) -> None:
    """A hostile guest types while a person runs something in it: nothing comes to their shell."""
    for streams in ((0, 1, 2), (0,), (2,)):
        ran = terminal.start("web1", [sys.executable, "-c", TYPE], streams)
        assert ran.wait(20) == 0
        assert terminal.typed() == 0
        termios.tcsetattr(terminal.slave, termios.TCSANOW, terminal.before)


def test_a_terminal_is_as_one_expects(terminal: Terminal) -> None:
    """Sizes, what is typed, ^C, ^D and exit codes mean in a lab what they mean elsewhere."""
    terminal.resize(33, 99)
    script = "trap 'stty size; exit 7' WINCH; stty size; read line; echo got $line; "
    ran = terminal.start("web1", ["sh", "-c", script + "while :; do sleep 0.05; done"])
    terminal.until(b"33 99\r\n")
    terminal.type(b"hello\r")
    terminal.until(b"got hello\r\n")
    assert termios.tcgetattr(terminal.slave)[3] & termios.ICANON == 0
    terminal.resize(40, 80)
    os.kill(ran.pid, signal.SIGWINCH)
    terminal.until(b"40 80")
    assert ran.wait(20) == 7
    assert termios.tcgetattr(terminal.slave) == terminal.before
    ran = terminal.start("web1", ["sh", "-c", "echo on; cat; echo off; read line"])
    terminal.until(b"on\r\n")
    terminal.type(b"\x04")
    terminal.until(b"off\r\n")
    terminal.type(b"\x03")
    assert ran.wait(20) == 130
    assert termios.tcgetattr(terminal.slave) == terminal.before


def test_a_command_is_stopped_and_goes_on(terminal: Terminal) -> None:
    """^Z stops the command and gives the terminal back; `fg` has it go on."""
    ran = terminal.start("web1", ["sh", "-c", "echo on; read line; echo $line"])
    terminal.until(b"on\r\n")
    terminal.type(b"\x1a")
    _, status = os.waitpid(ran.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    assert termios.tcgetattr(terminal.slave) == terminal.before
    os.kill(ran.pid, signal.SIGCONT)
    terminal.type(b"again\r")
    terminal.until(b"again\r\nagain\r\n")
    assert ran.wait(20) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_command_ends_with_the_caller(
    terminal: Terminal, lab: RunningLab, number: signal.Signals
) -> None:
    """The caller is ended: the command in the guest ends as well."""
    ran = terminal.start("web1", ["sh", "-c", "echo on; sleep 77"])
    terminal.until(b"on\r\n")
    os.kill(ran.pid, number)
    assert ran.wait(20) == (-number if number == signal.SIGKILL else 128 + number)
    end = time.monotonic() + 10
    while "sh -c echo on" in lab.exec("web1", "ps", "ax").stdout:
        assert time.monotonic() < end
    if number != signal.SIGKILL:
        assert termios.tcgetattr(terminal.slave) == terminal.before


def test_what_is_piped_passes_as_it_is(lab: RunningLab, terminal: Terminal) -> None:
    """Bytes that are piped through a command come out as they went in, in time and in order."""
    every = bytes(range(256)) * 4000
    for streams in ((), (2,)):
        ran = terminal.start("web1", ["cat"], streams)
        out, _ = ran.communicate(every, timeout=30)
        assert out == every
    ran = terminal.start("web1", ["sh", "-c", "sleep 30 & echo done"], (1,))
    terminal.until(b"done")  # and not when the last who holds the stream has ended
    assert ran.wait(10) == 0
