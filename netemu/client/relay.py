"""What stands between the caller's terminal and a command in a lab, so that they never meet.

A guest that holds a descriptor of the caller's terminal can type into it (TIOCSTI), read from it
and set it up. So a command gets a terminal of its own where the caller's input and output are
terminals, and else a pipe for each stream that is one. What passes is relayed here, in the caller's
process, byte by byte as it is. Streams that are not terminals are the command's own.
"""

import errno
import fcntl
import os
import select
import signal
import stat
import termios
import tty
from collections.abc import Callable
from typing import Any, Final, NoReturn

from netemu.kernel import confinement

# As in shells: the exit code of a command that a signal has ended is this plus the signal.
SIGNALLED: Final = 128
# The signals that a caller may send the command, as if it were its own child.
FORWARDED: Final = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_OF_THE_TERMINAL: Final = (signal.SIGWINCH, signal.SIGCONT, signal.SIGTSTP)
_HEARD: Final = (*FORWARDED, *_OF_THE_TERMINAL, signal.SIGCHLD)
_TO_ALL: Final = (signal.SIGINT, signal.SIGQUIT)  # sent by a terminal
_INPUT, _OUTPUT, _ERRORS = 0, 1, 2
_FIRST_OTHER: Final = 3
_STREAMS: Final = (_INPUT, _OUTPUT, _ERRORS)
_CHUNK: Final = 65536
_LOCAL_MODES: Final = 3  # in what tcgetattr gives
# Seconds after which a caller that may not read looks whether it may.
_LOOK_EVERY: Final = 1.0
_PTMX: Final = os.makedev(5, 2)
# asm-generic/ioctls.h, which Python's termios leaves out.
_TIOCSPTLCK: Final = 0x40045431
_TIOCGPTPEER: Final = 0x5441
# The size of a pipe, which limits the unread output of a command.
_MOST_LEFT: Final = 1 << 20
_STOPPED: Final = b"z"


class Relay:
    """The command's streams, and what passes between them and the caller's.

    `make`, then fork; the child calls `take`, the parent `follow`.
    """

    def __init__(self) -> None:
        # From where to where; and what the command has instead of each stream.
        self._flows: dict[int, int] = {}
        self._theirs: dict[int, int] = {}
        self._terminal: int | None = None
        self._waiting = b""
        self._before: list[Any] | None = None

    @classmethod
    def make(cls, *, terminal: bool) -> "Relay":
        """What the present streams need. With `terminal` the command may have one of its own.

        To be called where the command will be: its terminal is one of that place.
        """
        relay = cls()
        mine = [stream for stream in _STREAMS if os.isatty(stream)]
        try:
            if terminal and {_INPUT, _OUTPUT} <= set(mine):
                relay._open_terminal(mine)
                return relay
        except OSError as error:
            os.write(_ERRORS, f"netemu: no terminal there ({error.strerror}): pipes\n".encode())
        for stream in mine:
            relay._open_pipe(stream)
        return relay

    @property
    def terminal(self) -> bool:
        """Whether the command has a terminal of its own."""
        return self._terminal is not None

    def _open_pipe(self, stream: int) -> None:
        hear, tell = os.pipe()
        if stream == _INPUT:
            ours, self._theirs[stream], self._flows[stream] = tell, hear, tell
        else:
            ours, self._theirs[stream], self._flows[hear] = hear, tell, stream
        os.set_blocking(ours, False)

    def _open_terminal(self, mine: list[int]) -> None:
        master, slave = _new_terminal()
        termios.tcsetattr(slave, termios.TCSANOW, termios.tcgetattr(_INPUT))
        self._terminal = master
        self._flows = {_INPUT: master, master: _OUTPUT}
        self._theirs = dict.fromkeys(mine, slave)
        self._copy_size()
        os.set_blocking(master, False)

    # In the child.

    def take(self) -> None:
        """Be the command's process: with its streams, and in a session of its own."""
        unblock()
        os.setsid()
        for stream, descriptor in self._theirs.items():
            os.dup2(descriptor, stream)
        if self.terminal:
            fcntl.ioctl(_INPUT, termios.TIOCSCTTY, 0)

    # In the parent.

    def follow(self, child: int, *, told: int | None = None, caller: int | None = None) -> int:
        """Relay until the child ends, and give its wait status.

        Signals go to the child. When the process of the pidfd `caller` ends, the child is killed.
        When `told` can be read, the command has stopped itself, and the caller's shell gets the
        terminal. `block` has been called before the fork.
        """
        for descriptor in set(self._theirs.values()):
            os.close(descriptor)
        hear, tell = os.pipe()
        os.set_blocking(hear, False)
        os.set_blocking(tell, False)
        signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
        for number in _HEARD:
            signal.signal(number, lambda *_: None)
        unblock()
        self._child = child
        try:
            self._enter_raw_mode()
            return self._pass_until_the_end(hear, told, caller)
        finally:
            self._leave_raw_mode()
            signal.set_wakeup_fd(-1)

    def _pass_until_the_end(self, hear: int, told: int | None, caller: int | None) -> int:
        while True:
            poll = select.poll()
            for descriptor in (hear, told, caller):
                if descriptor is not None:
                    poll.register(descriptor, select.POLLIN)
            held_back = False
            for source, sink in self._flows.items():
                if source != _INPUT:
                    poll.register(source, select.POLLIN)
                elif self._waiting:
                    poll.register(sink, select.POLLOUT | (select.POLLIN * self.terminal))
                elif self._may_read():
                    poll.register(source, select.POLLIN)
                else:
                    held_back = True
            for descriptor, _ in poll.poll(_LOOK_EVERY * 1000 if held_back else None):
                if descriptor == hear:
                    for number in os.read(hear, _CHUNK):
                        if (status := self._received(number)) is not None:
                            self._drain()
                            return status
                elif descriptor == caller:
                    self._send(signal.SIGKILL, to_all=not self.terminal)
                    caller = None
                elif descriptor == told:
                    if os.read(told, 1) == _STOPPED:
                        self._be_stopped()
                    else:
                        told = None
                else:
                    self._pass(descriptor)

    def _pass(self, descriptor: int) -> None:
        """Pass on what there is; a stream that has ended ends for the other side, too."""
        if self._waiting and self._flows.get(_INPUT) == descriptor:
            self._write_waiting()
        if descriptor not in self._flows or (descriptor == _INPUT and not self._may_read()):
            return
        sink = self._flows[descriptor]
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return
        except OSError:  # the other end of a terminal has been closed
            data = b""
        if not data:
            del self._flows[descriptor]
            if descriptor == _INPUT and not self.terminal:
                os.close(sink)
        elif descriptor == _INPUT:
            self._waiting = data
            self._write_waiting()
        elif not _write_all(sink, data):
            del self._flows[descriptor]  # nobody listens: the command sees that, too
            if not self.terminal:
                os.close(descriptor)

    def _write_waiting(self) -> None:
        sink = self._flows[_INPUT]
        try:
            self._waiting = self._waiting[os.write(sink, self._waiting) :]
        except BlockingIOError:
            pass
        except OSError:  # the command reads no more
            self._waiting = b""
            del self._flows[_INPUT]

    def _drain(self) -> None:
        """Pass on what the command has said before it ended; others may still hold its streams."""
        for source, sink in self._flows.items():
            if source == _INPUT:
                continue
            left = _MOST_LEFT
            try:
                while left > 0 and (data := os.read(source, _CHUNK)) and _write_all(sink, data):
                    left -= len(data)
            except OSError:  # nothing is left, or the other end is closed
                pass

    # Signals to the caller.

    def _received(self, number: int) -> int | None:
        """Do what a signal asks for. Returns the child's status when it has ended."""
        if number == signal.SIGCHLD:
            ended, status = os.waitpid(self._child, os.WNOHANG)
            return status if ended else None
        if number == signal.SIGWINCH:
            self._copy_size()
        elif number == signal.SIGCONT:
            self._enter_raw_mode()
            self._copy_size()
        elif number == signal.SIGTSTP:
            self._send(signal.SIGSTOP, to_all=True)
            self._be_stopped()
        else:
            self._send(signal.Signals(number), to_all=number in _TO_ALL and not self.terminal)
        return None

    def _be_stopped(self) -> None:
        """Stop, as the command has, until the caller's shell continues us."""
        self._leave_raw_mode()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._enter_raw_mode()
        self._send(signal.SIGCONT, to_all=not self.terminal)

    def _send(self, number: signal.Signals, *, to_all: bool) -> None:
        """Send the child a signal, or all of its process group: it leads one."""
        try:
            os.kill(-self._child if to_all else self._child, number)
        except ProcessLookupError:
            pass

    # The caller's terminal.

    def _may_read(self) -> bool:
        """Whether what is typed is ours: not in the background, nor beside a pager in raw mode."""
        if not _in_foreground():
            return False
        return self.terminal or bool(termios.tcgetattr(_INPUT)[_LOCAL_MODES] & termios.ICANON)

    def _enter_raw_mode(self) -> None:
        if self.terminal and self._before is None and _in_foreground():
            self._before = termios.tcgetattr(_INPUT)
            tty.setraw(_INPUT, termios.TCSANOW)

    def _leave_raw_mode(self) -> None:
        if self._before is not None:
            try:
                termios.tcsetattr(_INPUT, termios.TCSADRAIN, self._before)
            except termios.error:  # it is gone
                pass
            self._before = None

    def _copy_size(self) -> None:
        if self._terminal is not None:
            try:
                size = fcntl.ioctl(_OUTPUT, termios.TIOCGWINSZ, b"\0" * 8)
                fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, size)
            except OSError:  # it is gone
                pass


def block() -> None:
    """Block signals until `follow` hears them, or the child has been forked."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)


def unblock() -> None:
    """Unblock signals."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)


def lead(told: int, become: Callable[[], NoReturn]) -> NoReturn:
    """Lead the session of the command's terminal, for the command to be stopped by ^Z and go on.

    The kernel stops only processes whose parent is in their session. Ends as the command does.
    """
    os.dup2(told, _FIRST_OTHER)
    confinement.close_from(_FIRST_OTHER + 1)
    block()
    child = os.fork()
    if child == 0:
        confinement.end_with_parent()
        os.setpgid(0, 0)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        os.tcsetpgrp(_INPUT, os.getpid())
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        unblock()
        become()
    signal.signal(signal.SIGCONT, lambda *_: _pass_on(-child, signal.SIGCONT))
    for number in FORWARDED:
        signal.signal(number, lambda received, _: _pass_on(child, received))
    unblock()
    while os.WIFSTOPPED(status := os.waitpid(child, os.WUNTRACED)[1]):
        os.write(_FIRST_OTHER, _STOPPED)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else SIGNALLED - code)


def _pass_on(process: int, number: int) -> None:
    try:
        os.kill(process, number)
    except ProcessLookupError:
        pass


def _new_terminal() -> tuple[int, int]:
    """Both ends of a new terminal of this place. Raises OSError if it has none to give.

    What stands at a guest's /dev/ptmx is the guest's to say, so it is looked at before it is used.
    """
    master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        status = os.fstat(master)
        if not stat.S_ISCHR(status.st_mode) or status.st_rdev != _PTMX:
            raise OSError(errno.ENODEV, "/dev/ptmx is another thing")
        fcntl.ioctl(master, _TIOCSPTLCK, b"\0" * 4)
        return master, fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY)
    except OSError:
        os.close(master)
        raise


def _in_foreground() -> bool:
    """Whether the caller may read from its terminal now, and set it up."""
    try:
        return os.tcgetpgrp(_INPUT) == os.getpgrp()
    except OSError:  # it is not a terminal of this session: nobody asks
        return True


def _write_all(sink: int, data: bytes) -> bool:
    try:
        while data:
            data = data[os.write(sink, data) :]
    except OSError:
        return False
    return True
