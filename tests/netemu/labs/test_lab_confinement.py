"""What a command in a guest is given of the person who runs it, and what it is not."""

import dataclasses
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from netemu.kernel import guest_limits
from netemu.wire import runtime_dir
from tests.conftest import NOBODY, TIME_SCALE, Person, RunningLab
from tests.netemu.labs.test_lab_isolation import wait_until

pytestmark = pytest.mark.lab

# The descriptor by which the list itself is read ends with it.
LIST = (
    "import os; fds = '/proc/self/fd/'; "
    "print(sorted(one for one in os.listdir(fds) if os.path.exists(fds + one)))"
)
STREAMS = "['0', '1', '2']\n"


def test_a_command_has_its_three_streams_and_no_other_descriptor(lab: RunningLab) -> None:
    """A user runs commands in a guest, on a node and in the sandbox: they hold 0, 1 and 2 only."""
    script = ["-c", LIST]
    for place in ("web1", "node1"):
        assert lab.exec(place, sys.executable, *script).stdout == STREAMS
    # Also where the caller's shell has more open, and hands it on.
    command = lab.person.command("exec", "--name", lab.name, "web1", "--", sys.executable, *script)
    with Path("/etc/passwd").open() as secret:
        os.set_inheritable(secret.fileno(), True)
        done = subprocess.run(
            command, env=lab.person.environment, close_fds=False, capture_output=True, text=True
        )
    assert done.stdout == STREAMS, done.stderr


RUN = """
import os, sys, netemu
with netemu.AttachedLab(sys.argv[1]) as lab:
    for how in ({}, {"env": {**os.environ, "NT_GIVEN": "given"}}):
        print(lab.run("web1", ["env"], **how).stdout)
"""


def test_a_command_in_a_guest_has_none_of_a_users_secrets(lab: RunningLab) -> None:
    """A user has a token in the environment: a guest's root finds it in no command that is run."""
    environment = {**lab.person.environment, "NT_TOKEN": "secret"}
    person = dataclasses.replace(lab.person, environment=environment)
    for place, has_it in (("web1", False), ("node1", True)):
        said = person.netemu("exec", "--name", lab.name, place, "--", "env").stdout
        assert ("NT_TOKEN=secret" in said) == has_it
        assert "\nPATH=" in f"\n{said}"
    out, err = person.start_python("-c", RUN, lab.name).communicate(timeout=60)
    assert "NT_GIVEN=given" in out, err
    assert out.count("NT_TOKEN=secret") == 1  # in the environment that was given


PROGRAM = """
import sys, netemu
with netemu.Lab() as lab:
    command = [sys.executable, "-c", sys.argv[1]]
    print(lab.run("web1", command).stdout, end="")
    lab.reboot("web1")
    print(lab.run("web1", command).stdout, end="", flush=True)
    lab.popen("web1", command).wait()
"""


def test_a_program_hands_its_commands_no_descriptors(person: object) -> None:
    """A Python program runs commands in a guest, also after a reboot: they hold 0, 1 and 2 only."""
    process = person.start_python("-c", PROGRAM, LIST)  # type: ignore[attr-defined]
    out, err = process.communicate(timeout=60)
    assert out == 3 * STREAMS, err


def test_a_guests_own_program_has_three_streams(fresh_lab: Callable[..., RunningLab]) -> None:
    """What `run:` starts holds 0, 1 and 2 only, at the first boot and at the second."""
    lab = fresh_lab(
        f'nodes: {{n: {{guests: [{{name: a, run: [{sys.executable}, -c, "{LIST}"]}}]}}}}'
    )
    wait_until(lambda: lab.netemu("logs", "a").stdout.count(STREAMS) == 1)
    lab.netemu("reboot", "a")
    wait_until(lambda: lab.netemu("logs", "a").stdout.count(STREAMS) == 2)


CONNECT = """
import os, socket, sys
for name in sys.argv[1:]:
    with socket.socket(socket.AF_UNIX) as link:
        try:
            link.connect(os.fsencode(name).replace(b'@', b'\\0'))
            link.sendall(b'?')
            link.settimeout(1)
            print('reached' if link.recv(1) else 'refused')
        except TimeoutError:
            print('reached')
        except ConnectionError:
            print('refused')
"""
REFUSED = "refused\n"


def test_sockets_of_labs_are_out_of_reach(lab: RunningLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest connects to no lab's control or agent socket, whatever file system it shares.

    Nor does another user of the machine; who runs the lab does.
    """
    monkeypatch.setenv("NETEMU_RUNTIME_DIR", str(lab.person.labs))
    names = (runtime_dir.CONTROL, runtime_dir.agent_socket(0), runtime_dir.agent_socket(1))
    told = [
        runtime_dir.address(lab.person.labs / lab.name, one).replace("\0", "@") for one in names
    ]
    for place in ("web1", "node1"):
        assert lab.python(place, CONNECT, *told).stdout == len(told) * REFUSED
    everything = Path("/proc/net/unix").read_text()
    assert all(one in everything for one in told)
    assert str(lab.person.labs) not in everything  # there is none with a path
    outside = [sys.executable, "-c", CONNECT, *told]
    stranger = ["setpriv", "--reuid=65533", "--regid=65533", "--clear-groups", "--", *outside]
    if os.geteuid() == 0:
        done = subprocess.run(stranger, capture_output=True, text=True, timeout=20)
        assert done.stdout == len(told) * REFUSED
    owner = [*lab.person.prefix, *outside]
    assert subprocess.run(owner, capture_output=True, text=True).stdout == len(told) * "reached\n"


LEAVE_A_KEY = """
import ctypes, os
found = any(' netemu-test' in line for line in open('/proc/keys'))
libc = ctypes.CDLL(None)
add_key = {'x86_64': 248, 'aarch64': 217}[os.uname().machine]
libc.syscall(add_key, b'user', b'netemu-test', b'x', 1, -3)
print('found' if found else 'nothing')
"""


def test_keys_stay_with_those_who_have_them(lab: RunningLab) -> None:
    """A user's session keyring is not a guest's: commands there see no keys, and leave none."""
    for place in ("web1", "web1", "web2", "node1"):
        assert lab.python(place, LEAVE_A_KEY).stdout == "nothing\n"


ASK = """
import ctypes, fcntl, os, socket, termios
for family in range(1, 46):
    try:
        kind = socket.SOCK_DGRAM if family in (1, 2, 10) else socket.SOCK_RAW
        socket.socket(family, kind).close()
        print('family', family)
    except OSError:
        pass
libc = ctypes.CDLL(None, use_errno=True)
numbers = {'x86_64': (206, 248, 249, 250, 425, 426, 427, 0x40000000 + 39),
           'aarch64': (0, 217, 218, 219, 425, 426, 427)}[os.uname().machine]
for number in numbers:
    ctypes.set_errno(0)
    if libc.syscall(number, 0, 0, 0, 0, 0) != -1 or ctypes.get_errno() != 38:
        print('call', number)
for path in ('kmsg', 'mem', 'kvm', 'vda', 'loop0', 'fuse', 'console', 'pts/0', 'hwrng'):
    if os.path.exists(f'/dev/{path}'):
        print('device', path)
own, theirs = os.openpty()
print(os.ttyname(theirs))
try:
    fcntl.ioctl(theirs, termios.TIOCSTI, b'x')
    print('typed')
except OSError:
    pass
with open('/dev/null', 'w') as null:
    null.write('x')
print(len(open('/dev/urandom', 'rb').read(8)))
"""


def test_a_guest_asks_the_kernel_for_nothing_that_is_the_machines(
    fresh_lab: Callable[..., RunningLab],
) -> None:
    """A guest has sockets for networks, devices of its own, and terminals that nobody else has.

    No AF_VSOCK and no keys, by which guests of one machine could speak; no disk, no kernel log.
    """
    path = Path(tempfile.mkdtemp(prefix="nt-ask-")) / "ask.py"
    path.parent.chmod(0o755)
    path.write_text(ASK)
    lab = fresh_lab(f"nodes: {{n: {{guests: [{{name: a, run: [{sys.executable}, {path}]}}]}}}}")
    expected = "".join(f"family {one}\n" for one in (1, 2, 10, 16, 17)) + "/dev/pts/0\n8\n"
    wait_until(lambda: "ended" in lab.netemu("logs", "a").stdout)
    assert lab.netemu("logs", "a").stdout.startswith(expected)
    assert lab.exec("a", sys.executable, str(path)).stdout == expected
    shutil.rmtree(path.parent)


def test_a_guest_writes_what_is_its_own(lab: RunningLab) -> None:
    """In root's lab a guest reads the machine's files as nobody and writes none of them.

    What it writes to /tmp is its own copy, root's home is its own; its user is nobody outside, and
    another than its neighbour's. In an ordinary user's lab a guest is the user, and writes what the
    user may.
    """
    name = f"nt-own-{os.getpid()}"
    script = f"cat /proc/self/uid_map; echo mine > /tmp/{name} && cat /tmp/{name}"
    users = []
    for guest in ("web1", "web2"):
        users.append(lab.exec(guest, "sh", "-c", script).stdout)
        assert users[-1].endswith("mine\n")
    if lab.person.kind == "user":
        Path(f"/tmp/{name}").unlink()
        return
    assert not Path(f"/tmp/{name}").exists()
    (_, one, count), (_, two, _) = (list(map(int, text.split()[:3])) for text in users)
    assert one != two
    assert min(one, two) >= 0x70000000
    assert count == 65536
    for path in ("/etc", "/usr", "/var/lib"):
        lab.exec("web1", "touch", f"{path}/{name}", check=1)
    home = Path("/root") / name
    lab.exec("web1", "touch", str(home))
    assert not home.exists()
    lab.exec("web1", "cat", "/etc/shadow", check=1)
    with tempfile.TemporaryDirectory(prefix="nt-secret-") as secret:
        path = Path(secret) / "file"
        path.write_text("theirs\n")
        lab.exec("web2", "cat", str(path), check=1)  # root's, 0700
        os.chmod(secret, 0o755)
        assert lab.exec("web1", "cat", str(path)).stdout == "theirs\n"


SPEAK = """
import os, socket, sys
for place in sys.argv[1:]:
    with socket.socket(socket.AF_UNIX) as link:
        try:
            link.connect(f'{place}/socket')
            print('connected in', place)
        except PermissionError:
            pass
    try:
        os.open(f'{place}/pipe', os.O_RDWR)
        print('wrote in', place)
    except PermissionError:
        pass
"""


def listen_in(place: Path) -> socket.socket:
    """Leave a socket and a named pipe there, as a program of the machine's would, for all users."""
    os.mkfifo(place / "pipe")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(place / "socket"))
    listening.listen()
    for name in ("pipe", "socket"):
        (place / name).chmod(0o777)
    return listening


def test_guests_write_what_the_lab_file_shares(person: Person, place: Path) -> None:
    """Guests write in the directories that `share:` names; one that is gone hinders no boot."""
    for name in ("out", "gone"):
        (place / name).mkdir()
        if person.prefix:
            os.chown(place / name, NOBODY, NOBODY)
    file = place / "lab.yaml"
    file.write_text("share: [out, gone]\nnodes: {n: {guests: [a]}}")
    file.chmod(0o644)
    person.netemu("up", str(file), "--name", "sharing", "--time-scale", str(TIME_SCALE))
    lab = RunningLab(person, "sharing")
    try:
        lab.exec("a", "sh", "-c", f"echo first > {place}/out/a; test -w {place}/gone")
        (place / "gone").rmdir()
        lab.netemu("reboot", "a")
        lab.exec("a", "sh", "-c", f"echo second >> {place}/out/a")
        if person.kind == "root":
            lab.exec("a", "cat", str(file))  # the lab's own, in a private directory
            lab.exec("a", "touch", f"{place}/beside", check=1)
            lab.exec("a", "touch", "/etc/beside", check=1)
            with listen_in(place):  # in a private directory, which the guest reads as root
                assert lab.python("a", SPEAK, str(place)).stdout == ""
            with listen_in(place / "out"):  # root's are the guest's there, and no other user's
                assert lab.python("a", SPEAK, f"{place}/out").stdout.startswith("connected")
                for name in ("pipe", "socket"):
                    os.chown(place / "out" / name, NOBODY, NOBODY)
                assert lab.python("a", SPEAK, f"{place}/out").stdout == ""
    finally:
        lab.person.netemu("down", "sharing")
    assert (place / "out" / "a").read_text() == "first\nsecond\n"
    assert (place / "out" / "a").stat().st_uid == place.stat().st_uid
    assert not (place / "beside").exists() or person.kind == "user"


SETTINGS = """
import os, sys
def settings(top='/proc/sys'):
    for where, _, names in os.walk(top):
        for name in names:
            path = os.path.join(where, name)
            try:
                with open(path) as file:
                    yield path, file.read(200)
            except (OSError, ValueError):
                continue
"""
TURN = (
    SETTINGS
    + """
turned = {}
for path, text in settings('/proc/sys/net'):
    words = text.split()
    if len(words) == 1 and words[0].isdigit() and os.access(path, os.W_OK):
        for value in (int(words[0]) + 1, int(words[0]) - 1):
            try:
                with open(path, 'w') as file:
                    file.write(str(value))
                if int(open(path).read()) == value:
                    turned[path] = text
                    break
            except (OSError, ValueError):
                continue
print('\\n'.join(turned), flush=True)
print('done', flush=True)
sys.stdin.read()
for path, text in turned.items():
    try:
        open(path, 'w').write(text)
    except OSError:
        pass
"""
)
READ = SETTINGS + "for path, text in settings(): print(path, text.split())"


def test_what_a_guest_sets_is_its_own(lab: RunningLab) -> None:
    """A guest's root turns every number below /proc/sys that it can: nobody else's has changed."""

    def elsewhere() -> dict[str, dict[str, str]]:
        here = subprocess.run([sys.executable, "-c", READ], capture_output=True, text=True).stdout
        found = {"": here, "node": lab.python("node1", READ).stdout}
        found["neighbour"] = lab.python("web2", READ).stdout
        return {
            place: dict(line.split(" ", 1) for line in text.splitlines())
            for place, text in found.items()
        }

    before = elsewhere()
    person = lab.person
    words = person.command("exec", "--name", lab.name, "web1", "--", sys.executable, "-c", TURN)
    with subprocess.Popen(
        words,
        env=person.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as turning:
        assert turning.stdout is not None
        turned = list(iter(lambda: turning.stdout.readline().strip(), "done"))
        after = elsewhere()
        turning.communicate(timeout=60)
    assert len(turned) > 100
    # Of the machine's some change by themselves; none that a guest has turned does.
    changed = {
        (place, path)
        for place in before
        for path in turned
        if before[place].get(path) != after[place].get(path)
    }
    assert changed == set()
    assert '"_web1"' in lab.get("web1")


TAKE_ALL = """
import ctypes, os, resource, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def inotify():
    return libc.inotify_init() >= 0
def timer():
    return libc.timer_create(1, None, (ctypes.c_int * 1)()) == 0
for name, take in (('inotify', inotify), ('timers', timer)):
    count = 0
    while count < int(sys.argv[1]) and take():
        count += 1
    print(name, count)
for name in ('max_inotify_instances', 'max_user_namespaces'):
    try:
        open(f'/proc/sys/user/{name}', 'w').write('1000000')
        print('raised', name)
    except OSError:
        pass
for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC, resource.RLIMIT_SIGPENDING):
    hard = resource.getrlimit(kind)[1]
    try:
        resource.setrlimit(kind, (hard, hard + 1))
        print('raised', kind)
    except (OSError, ValueError):
        pass
print(open('/proc/self/oom_score_adj').read(), resource.getrlimit(resource.RLIMIT_CORE))
sys.stdout.flush()
if len(sys.argv) > 2:
    time.sleep(60)
"""


def test_a_guest_leaves_its_neighbours_what_a_user_has_one_number_of(lab: RunningLab) -> None:
    """A guest that takes all the inotify instances and timers that it can leaves others theirs.

    It cannot raise its limits; it dumps no core by a program of the machine's; and the kernel ends
    it before the lab when memory is short.
    """
    greedy = lab.start_python("web1", TAKE_ALL, "1000000", "stay")
    try:
        assert greedy.stdout is not None
        lines = [greedy.stdout.readline() for _ in range(3)]
        taken = {name: int(count) for name, count in (line.split() for line in lines[:2])}
        assert taken["inotify"] == guest_limits.OF_NAMESPACE["max_inotify_instances"]
        hard = resource.getrlimit(resource.RLIMIT_SIGPENDING)[1]
        assert hard < 0 or taken["timers"] <= hard // 4
        assert lines[2] == "500\n"
        assert lab.python("web2", TAKE_ALL, "10").stdout == (
            "inotify 10\ntimers 10\n500\n (1, 1)\n"
        )
    finally:
        greedy.terminate()
        greedy.communicate()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's home is a guest's own")
def test_a_lab_in_roots_home_is_seen_and_its_neighbours_are_not(person: Person) -> None:
    """Root's lab file is in a directory below its home, and names one beside it to write in.

    The guest reads what is beside the lab file, as it is now, and nothing else of root's home. It
    says nothing to a program that listens there.
    """
    if person.kind != "root":
        return
    with tempfile.TemporaryDirectory(prefix="nt-home-", dir="/root") as home:
        top = Path(home)
        for name in ("lab", "lab/private", "out", "secret"):
            (top / name).mkdir()
            (top / name / "file").write_text("first\n")
        (top / "lab" / "lab.yaml").write_text("share: [../out]\nnodes: {n: {guests: [a]}}")
        (top / "lab" / "key").touch(mode=0o600)
        person.netemu("up", f"{top}/lab/lab.yaml", "--name", "home", "--time-scale", "0.05")
        lab = RunningLab(person, "home")
        try:
            assert lab.exec("a", "cat", f"{top}/lab/file").stdout == "first\n"
            (top / "new").write_text("second\n")
            (top / "new").rename(top / "lab" / "file")  # as an editor does it
            assert lab.exec("a", "cat", f"{top}/lab/file").stdout == "second\n"
            lab.exec("a", "touch", f"{top}/out/written", f"{top}/own", "/root/own")
            lab.exec("a", "touch", f"{top}/lab/written", check=1)
            lab.exec("a", "cat", f"{top}/lab/key", check=1)
            with listen_in(top / "lab"):
                assert lab.python("a", SPEAK, f"{top}/lab").stdout == ""
            assert lab.exec("a", "ls", str(top)).stdout == "lab\nout\nown\n"
        finally:
            person.netemu("down", "home")
        assert (top / "out" / "written").exists()
        assert not (top / "own").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only in root's lab is a file root's")
def test_a_link_in_a_shared_directory_opens_nothing_else(person: Person, place: Path) -> None:
    """A guest that puts a link where another shared directory was is not given what it leads to.

    The link leads from `out/in` to /, and the file shares `out/in/etc`.
    """
    if person.kind != "root":
        return  # an ordinary user's guests write what the user may
    (place / "out" / "in" / "etc").mkdir(parents=True)
    file = place / "lab.yaml"
    file.write_text("share: [out, out/in/etc]\nnodes: {n: {guests: [a, b]}}")
    person.netemu("up", str(file), "--name", "linking", "--time-scale", str(TIME_SCALE))
    lab = RunningLab(person, "linking")
    try:
        lab.exec("a", "mv", f"{place}/out/in", f"{place}/out/moved")
        lab.exec("a", "ln", "-s", "../../..", f"{place}/out/in")
        lab.netemu("reboot", "b")
        lab.exec("b", "test", "-w", "/etc/passwd", check=1)
        log = (person.labs / "linking" / "lab.log").read_text()
        assert "out/in/etc is not shared" in log
    finally:
        person.netemu("down", "linking")
