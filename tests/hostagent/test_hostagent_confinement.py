"""What an agent's or a responder's process can no longer do: each is tried before and after."""

import subprocess
import sys
from pathlib import Path

import pytest

from hostagent import confinement

SOURCE = Path(confinement.__file__).parent.parent

TRY = """
import ctypes, errno, os, signal, socket, sqlite3, sys, threading
from pathlib import Path
from hostagent import confinement
libc = ctypes.CDLL(None, use_errno=True)
store, parent = Path(sys.argv[1]), os.getppid()

def socket_of(family, kind):
    return lambda: socket.socket(family, kind).close()

def call(number, *arguments):
    def act():
        ctypes.set_errno(0)
        # An error of its own says that the kernel has looked at it.
        if libc.syscall(number, *arguments) < 0 and ctypes.get_errno() in (1, 38):
            raise OSError
    return act

def fork():
    if (child := os.fork()) == 0:
        os._exit(0)
    os.waitpid(child, 0)

def program():
    # A program that is not there: where programs can be started it is looked for.
    try:
        os.execv(str(store / 'none'), ['none'])
    except FileNotFoundError:
        pass

def connect():
    with socket.socket(fileno=inner) as made:
        made.settimeout(1)
        try:
            made.connect(('127.0.0.1', 9))
        except ConnectionRefusedError:
            pass

def thread():
    one = threading.Thread(target=lambda: None)
    one.start()
    one.join()

def database():
    db = sqlite3.connect(store / 'db')
    db.execute('PRAGMA journal_mode = WAL')
    db.execute('CREATE TABLE IF NOT EXISTS t (x)')
    db.execute('INSERT INTO t VALUES (1)')
    db.commit()
    db.close()

def abstract():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.connect(b'\\0' + sys.argv[2].encode())

x86 = os.uname().machine == 'x86_64'
attempts = {
    'a thread': thread,
    'a database': database,
    'a Unix socket': socket_of(socket.AF_UNIX, socket.SOCK_STREAM),
    'read': lambda: open('/etc/hostname').close(),
    'list': lambda: os.listdir('/home'),
    'process': lambda: open(f'/proc/{parent}/status').close(),
    'write': lambda: (store.parent / 'beside').write_text('x'),
    'signal': lambda: os.kill(parent, 0),
    'abstract': abstract,
    'connect': connect,
    'inet': socket_of(socket.AF_INET, socket.SOCK_DGRAM),
    'packet': socket_of(socket.AF_NETLINK, socket.SOCK_RAW),
    'fork': fork,
    'program': program,
    'unshare': call(272 if x86 else 97, 0x10000000 | (1 << 63)),
    'ptrace': call(101 if x86 else 117, 16, parent, 0, 0),
    'io_uring': call(425, 0, 0),
    'keys': call(250 if x86 else 219, 0, -3, 0),
    'x32': call(0x40000000 + 39) if x86 else call(9999),
}
inner = -1
for when in 'before', 'after':
    inner = os.dup(socket.socket(socket.AF_INET).detach()) if when == 'before' else kept
    kept = os.dup(inner)
    for name, act in attempts.items():
        try:
            act()
            print(when, name, 'done')
        except OSError as error:
            print(when, name, 'refused')
    if when == 'before':
        print(*confinement.confine(store), sep='\\n')
"""
KEPT = {"a thread", "a database", "a Unix socket"}
FILES = {"read", "list", "process", "write"}
BY_VERSION = {4: {"connect"}, 6: {"signal", "abstract"}}


@pytest.mark.skipif(confinement.landlock_version() < 1, reason="no Landlock in this kernel")
def test_a_daemon_does_its_work_and_nothing_else(tmp_path: Path) -> None:
    """It keeps its store, its threads and Unix sockets; files, programs and processes are gone."""
    import socket

    store = tmp_path / "store"
    store.mkdir()
    name = f"netemu-test-{tmp_path.name}-{tmp_path.parent.name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as elsewhere:
        elsewhere.bind(b"\0" + name.encode())
        done = subprocess.run(
            [sys.executable, "-c", TRY, str(store), name],
            capture_output=True,
            text=True,
            timeout=30,
            cwd=SOURCE,
        )
    assert done.stderr == ""
    lines = [tuple(line.split(" ", 1)) for line in done.stdout.splitlines() if line]
    told = {line: rest.rsplit(" ", 1)[1] for line in lines for rest in [line[1]]}
    after = {rest.rsplit(" ", 1)[0]: how for (when, rest), how in told.items() if when == "after"}
    before = {rest.rsplit(" ", 1)[0]: how for (when, rest), how in told.items() if when == "before"}
    possible = {name for name, how in before.items() if how == "done"}
    assert KEPT | FILES | {"fork", "program", "inet", "signal", "connect"} <= possible
    newer = {one for since, some in BY_VERSION.items() for one in some}
    known = {
        one
        for since, some in BY_VERSION.items()
        if confinement.landlock_version() >= since
        for one in some
    }
    expected = KEPT | (newer - known)
    assert {name for name, how in after.items() if how == "done"} <= expected
    assert {name for name, how in after.items() if how == "done"} >= KEPT


def test_what_a_kernel_lacks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where neither is there a daemon goes on, and says what it does not hold."""

    def lacking(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(confinement, "restrict_files", lacking)
    monkeypatch.setattr(confinement, "_filter_calls", lacking)
    assert [one.split(":")[0] for one in confinement.confine(None)] == ["Landlock", "seccomp"]


@pytest.mark.parametrize("machine", confinement._MACHINES.values())
def test_every_jump_of_the_filter_ends_within_it(machine: confinement._Machine) -> None:
    steps = confinement._steps(machine)
    for place, (code, yes, no, _) in enumerate(steps):
        if code in (0x15, 0x35, 0x45):
            assert max(place + 1 + yes, place + 1 + no) < len(steps)
    assert steps[-1][0] == 0x06
