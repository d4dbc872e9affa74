"""The machine's files: what a guest reads of them, and what it reaches through them.

The person who runs the suite puts files beside the machine's, as a program of hers would: all may
use them. In an ordinary user's lab a guest is that user, and uses what she may; so there is nothing
to be refused.
"""

import fcntl
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from netemu.conformance.inside import Inside
from netemu.conformance.labstage import LabStage
from netemu.conformance.probe import Place
from netemu.conformance.row import FAILED, REFUSED, Observed, Row, refused
from netemu.conformance.rows.lab import scripted

# Of what is the machine's own, a guest sees here what the machine has.
_WHERE: Final = "/var/lib"
_ORDINARY: Final = "an ordinary user's guests are that user"
_PATIENCE: Final = 20.0
# Seconds between two writes to a file that may be watched.
_PAUSE: Final = 0.02

_READ: Final = """
import os, stat
for top in ('/etc', '/var/log', '/var/lib', '/boot', '/root'):
    for where, below, names in os.walk(top):
        for name in names:
            path = os.path.join(where, name)
            try:
                found = os.lstat(path)
                if stat.S_ISREG(found.st_mode) and not found.st_mode & 0o004 and found.st_size:
                    os.close(os.open(path, os.O_RDONLY))
                    print(path)
            except OSError:
                pass
        if where.count('/') > 4:
            below.clear()
"""
_CONNECT: Final = """
import socket, sys
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    with socket.socket(socket.AF_UNIX, kind) as link:
        try:
            link.connect(f'{sys.argv[1]}/socket-{int(kind)}')
            print('connected to', f'socket-{int(kind)}')
        except OSError:
            pass
"""
_WRITE: Final = """
import os, sys
try:
    pipe = os.open(f'{sys.argv[1]}/pipe', os.O_RDWR | os.O_NONBLOCK)
    os.write(pipe, b'netemu-row')
except OSError:
    pass
"""
_LOCK: Final = """
import fcntl, os, sys
file = os.open(f'{sys.argv[1]}/file', os.O_RDONLY)
for name, lock in (('flock', lambda: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)),
                   ('fcntl', lambda: fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB))):
    try:
        lock()
    except OSError:
        print('waits for the machine by', name)
"""
_WATCH: Final = """
import ctypes, os, select, sys
libc = ctypes.CDLL(None)
instance = libc.inotify_init1(0)
if libc.inotify_add_watch(instance, f'{sys.argv[1]}/file'.encode(), 0x2) >= 0:
    poll = select.poll()
    poll.register(instance, select.POLLIN)
    if poll.poll(500):
        print('heard a write')
"""

_HOLD: Final = """
import fcntl, os, sys, time
for path in sys.argv[2:]:
    fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX)
open(sys.argv[1], 'w').close()
time.sleep(20)
"""
_TRY: Final = """
import fcntl, os, sys
for path in sys.argv[1:]:
    try:
        fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        print(path)
"""
_HELD: Final = "/run/netemu-row-held"
_SEEN_BY_ALL: Final = ("/dev/null", "/dev/urandom", "/etc/passwd", "/usr", "/proc/self/ns/user")


@contextmanager
def _beside_the_machines() -> Iterator[str]:
    """A directory with a socket of each kind, a pipe and a file, which all users may use."""
    place = tempfile.mkdtemp(prefix="netemu-row-", dir=_WHERE)
    try:
        os.chmod(place, 0o755)
        os.mkfifo(f"{place}/pipe")
        Path(f"{place}/file").touch()
        for name in ("pipe", "file"):
            os.chmod(f"{place}/{name}", 0o666)
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams,
        ):
            for made in (stream, datagrams):
                made.bind(f"{place}/socket-{int(made.type)}")
                os.chmod(f"{place}/socket-{int(made.type)}", 0o777)
            stream.listen()
            yield place
    finally:
        shutil.rmtree(place)


Attempt = Callable[[Place, str], tuple[int, str, str]]


def _of_roots_lab(attempt: Attempt) -> Callable[[LabStage], Observed]:
    """Try it in the attacking guest, on files that are made while the lab runs."""

    def play(stage: LabStage) -> Observed:
        if not os.access(_WHERE, os.W_OK):
            return Observed(REFUSED, [_ORDINARY])
        with _beside_the_machines() as place, stage.process_of_attacker() as guest:
            code, out, err = attempt(guest, place)
        if code != 0:
            return Observed(FAILED, err.splitlines()[-3:])
        return Observed("reached" if out else REFUSED, out.splitlines())

    return play


def _run(script: str) -> Attempt:
    return lambda guest, place: guest.run(sys.executable, "-c", script, place)


def _write(guest: Place, place: str) -> tuple[int, str, str]:
    pipe = os.open(f"{place}/pipe", os.O_RDWR | os.O_NONBLOCK)
    try:
        code, _, err = guest.run(sys.executable, "-c", _WRITE, place)
        return code, os.read(pipe, 100).decode(), err
    except BlockingIOError:  # nothing came
        return code, "", err
    finally:
        os.close(pipe)


def _lock(guest: Place, place: str) -> tuple[int, str, str]:
    with Path(f"{place}/file").open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        fcntl.lockf(file, fcntl.LOCK_EX)
        return guest.run(sys.executable, "-c", _LOCK, place)


def _watch(guest: Place, place: str) -> tuple[int, str, str]:
    ending = threading.Event()

    def write() -> None:
        while not ending.wait(_PAUSE):
            Path(f"{place}/file").write_text("x")

    writing = threading.Thread(target=write, daemon=True)
    writing.start()
    try:
        return guest.run(sys.executable, "-c", _WATCH, place)
    finally:
        ending.set()
        writing.join()


def _neighbours_locks(stage: LabStage) -> Observed:
    """Hold locks in the attacking guest on what the victim sees as well."""
    if os.geteuid() != 0:
        return Observed(REFUSED, [_ORDINARY])
    with stage.process_of_attacker() as guest:
        wrong = guest.call(Inside.start, [sys.executable, "-c", _HOLD, _HELD, *_SEEN_BY_ALL], {})
        end = time.monotonic() + _PATIENCE
        while not wrong and guest.run("test", "-e", _HELD)[0]:
            time.sleep(_PAUSE)
            wrong = "no locks are held" if time.monotonic() > end else ""
        with stage.process_of(stage.two) as victim:
            code, out, err = victim.run(sys.executable, "-c", _TRY, *_SEEN_BY_ALL)
        guest.call(Inside.stop)
        guest.run("rm", "-f", _HELD)
    if wrong or code != 0:
        return Observed(FAILED, [wrong, *err.splitlines()[-3:]])
    return Observed("found" if out else REFUSED, out.splitlines())


def _row(number: int, title: str, reference: str, attempt: Attempt) -> Row:
    return refused(number, title, reference, _of_roots_lab(attempt))


ROWS: Final = (
    scripted(111, "Read what only the machine's root may", "CVE-2018-15664", _READ),
    _row(112, "The machine's sockets, made later", "CVE-2020-15257", _run(_CONNECT)),
    _row(113, "The machine's named pipes", "fifo(7)", _write),
    _row(114, "Hold up the machine by locks", "flock(2)", _lock),
    _row(115, "Watch the machine's files", "inotify(7)", _watch),
    refused(116, "A neighbour's locks", "flock(2)", _neighbours_locks),
)
