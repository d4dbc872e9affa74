"""A small process that makes namespaces, because each guest's must be born in a process of its own.

A guest's network namespace is to be owned by the guest's own user namespace, and a process that
has entered a new user namespace cannot come back: so one is forked for each guest. Forking is
paid by the page: from the lab's own process it would cost several times what the kernel's part
does, so this one stays small (it imports nothing but the standard library's least) and hands
descriptors over. It also gives a guest its first process, when one is asked for.

Protocol, on a SOCK_SEQPACKET socket pair: one JSON array a request with descriptors beside it,
answers likewise; `Factory` is the other end.
"""

import array
import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from netemu.errors import MachineCannot
from netemu.kernel import confinement
from netemu.kernel import namespaces as ns
from netemu.kernel.errors import KernelError

# The kernel passes at most 253 descriptors in one message (SCM_MAX_FD).
BATCH = 200
FIRST_HELD = 3
_MESSAGE = 65536
# What container engines have read-only, too: no namespace divides it.
_OF_THE_MACHINE = ("/proc/sys", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sysrq-trigger")
_NAMESPACES_OF_A_GUEST = ("user", "mnt", "pid", "net", "uts", "ipc")

# What a guest's first process is sent.
FREEZE = signal.SIGUSR1
THAW = signal.SIGUSR2
_ASKED = {signal.SIGCHLD, FREEZE, THAW}


class Program(NamedTuple):
    """What a guest runs at boot; `output` is the descriptor that takes what it says."""

    command: Sequence[str]
    directory: str
    environment: Mapping[str, str]
    output: int


class Factory:
    """The other end: asks the process for namespaces. One question at a time."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = ours
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        self._ordered = 0

    @property
    def pid(self) -> int:
        """The process's ID, as this process sees it."""
        return self._process.pid

    def nodes(self, count: int) -> list[int]:
        """Descriptors of `count` (at most BATCH) new network namespaces, owned as we are."""
        return self._ask(["nodes", count], [])[1]

    def guests(self, count: int, *, following: int = 0) -> list[int]:
        """Descriptors of `count` (at most BATCH) network namespaces, each owned by its own user.

        `following` ones are begun at once, while the caller does something with these: the next
        question must be for them.
        """
        if not self._ordered:
            _send(self._socket, ["guests", count], [])
            self._ordered = count
        if count != self._ordered:
            raise ValueError(f"{self._ordered} guests were ordered, {count} are asked for")
        made = self._answer()[1]
        self._ordered = following
        if following:
            _send(self._socket, ["guests", following], [])
        return made

    def boot(
        self, net: int, hostname: str, *, hosts: str = "", program: "Program | None" = None
    ) -> tuple[int, dict[str, int]]:
        """Give the guest that owns `net` its first process.

        It and whatever runs beside it see processes of their own only, a private /run, and an
        /etc/hosts that says `hosts`. The first process starts `program` and is its parent; on
        FREEZE it stops all others, on THAW it has them go on. Returns a pidfd and the guest's
        namespaces by kind.
        """
        question: list[Any] = ["boot", hostname]
        # By a file: with many names it is longer than a message may be.
        descriptors = [net, _file_of(hosts)]
        if program is not None:
            question += [list(program.command), program.directory, program.environment]
            descriptors.append(program.output)
        try:
            answer, made = self._ask(question, descriptors)
        finally:
            os.close(descriptors[1])
        return made[0], dict(zip(answer, made[1:], strict=True))

    def hold(self, descriptors: list[int]) -> int:
        """Have a process hold these (at most BATCH) descriptors too, until the lab ends.

        Gives its process ID; there they are FIRST_HELD and the following, in the same order.

        Closing one waits for the kernel's readers (synchronize_net, some 13 ms), and a process
        that ends closes its own one after another: a thousand would take it 13 seconds. Held by
        several processes, they are closed side by side.
        """
        return int(self._ask(["hold"], descriptors)[0][0])

    def _ask(self, question: list[Any], descriptors: list[int]) -> tuple[list[Any], list[int]]:
        if self._ordered:
            raise ValueError(f"{self._ordered} guests were ordered, and have to be taken first")
        _send(self._socket, question, descriptors)
        return self._answer()

    def _answer(self) -> tuple[list[Any], list[int]]:
        answer, received = _receive(self._socket)
        if not answer:
            raise MachineCannot("the process that makes namespaces has died")
        if answer[0] == "failed":
            raise MachineCannot(str(answer[1]))
        return answer[1:], received


def _send(link: socket.socket, message: list[Any], descriptors: list[int]) -> None:
    ancillary = (
        [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors).tobytes())]
        if descriptors
        else []
    )
    link.sendmsg([json.dumps(message).encode()], ancillary)


def _receive(link: socket.socket) -> tuple[list[Any], list[int]]:
    data, ancillary, _, _ = link.recvmsg(
        _MESSAGE, socket.CMSG_SPACE(4 * 253), socket.MSG_CMSG_CLOEXEC
    )
    received = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            received.frombytes(content[: len(content) - len(content) % received.itemsize])
    return (json.loads(data) if data else []), list(received)


def _serve(link: socket.socket) -> None:
    while True:
        question, received = _receive(link)
        if not question:
            return
        answer: list[Any]
        try:
            match question:
                case ["nodes", int(count)]:
                    answer, made = ["made"], [_node() for _ in range(count)]
                case ["guests", int(count)]:
                    answer, made = ["made"], [_guest() for _ in range(count)]
                case ["boot", str(hostname), *program]:
                    pidfd, opened = _boot(received, hostname, program)
                    answer = ["booted", *_NAMESPACES_OF_A_GUEST]
                    made = [pidfd, *opened]
                case ["hold"]:
                    answer, made = ["held", _hold(received)], []
                case _:
                    answer, made = ["failed", f"not a question: {question!r}"], []
        except (MachineCannot, OSError) as error:
            answer, made = ["failed", str(error)], []
        _send(link, answer, made)
        for descriptor in (*made, *received):
            os.close(descriptor)


def _node() -> int:
    home = ns.open_own("net")
    try:
        ns.unshare(ns.NEWNET)
        made = ns.open_own("net")
        ns.setns(home, ns.NEWNET)
    finally:
        os.close(home)
    return made


def _guest() -> int:
    try:
        child = ns.clone_placeholder(ns.NEWUSER | ns.NEWNET)
    except KernelError as error:
        hint = "a chroot, or a setting of this machine, forbids it"
        hint = hint if error.errno == errno.EPERM else "user.max_user_namespaces is reached"
        raise KernelError("a guest's user namespace", error.errno, hint) from None
    try:
        ns.identity_map(child)
        return os.open(f"/proc/{child}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.kill(child, signal.SIGKILL)


def _wait_for_the_end() -> NoReturn:
    while True:
        signal.pause()


def _hold(descriptors: list[int]) -> int:
    ready, tell = os.pipe()
    child = ns.clone(0)
    if child == 0:
        # The kernel has numbered them in order: none is put where another is still to come from.
        for place, descriptor in enumerate(descriptors, start=FIRST_HELD):
            os.dup2(descriptor, place)
        os.write(tell, b".")
        os.closerange(FIRST_HELD + len(descriptors), os.sysconf("SC_OPEN_MAX"))
        _wait_for_the_end()
    os.close(tell)
    os.read(ready, 1)
    os.close(ready)
    return child


def _file_of(text: str) -> int:
    """A descriptor of a file in memory that is to be read from its beginning."""
    descriptor = os.memfd_create("hosts", os.MFD_CLOEXEC)
    with open(descriptor, "w", closefd=False) as file:
        file.write(text)
    return descriptor


def _boot(received: list[int], hostname: str, program: list[Any]) -> tuple[int, list[int]]:
    """Fork a guest's first process and wait until it is in place."""
    net, hosts, *output = received
    ready, tell = os.pipe()
    child = ns.clone(ns.NEWPID | ns.NEWNS | ns.NEWIPC)
    if child == 0:
        os.close(ready)
        try:
            # Blocked, they wait for the first process to ask for them; else the kernel drops them.
            signal.pthread_sigmask(signal.SIG_BLOCK, _ASKED)
            _settle(net, hostname, hosts)
            os.write(tell, b".")
        except BaseException as error:
            os.write(tell, str(error).encode() or b"?")
            os._exit(1)
        for stream in (1, 2):  # what is said from here on is not the lab's to keep
            os.dup2(output[0] if output else 0, stream)
        confinement.keep_standard_streams_only()
        confinement.leave_keys_behind()
        _be_the_first(program)
    os.close(tell)
    try:
        said = os.read(ready, 4096)
        if said != b".":
            raise MachineCannot(f"{hostname} does not boot: {said.decode(errors='replace')}")
        pidfd = os.pidfd_open(child)
        return pidfd, [
            os.open(f"/proc/{child}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
            for kind in _NAMESPACES_OF_A_GUEST
        ]
    finally:
        os.close(ready)


def _settle(net: int, hostname: str, hosts: int) -> None:
    """In the guest's first process: dress the mounts, then become the guest.

    What is mounted before entering the guest's user namespace is locked when that namespace takes
    a copy (mount_namespaces(7)): root in the guest cannot lift it to see what is beneath.
    """
    ns.setns(net, ns.NEWNET)
    ns.mount("none", "/", flags=ns.MS_REC | ns.MS_PRIVATE)
    ns.mount("proc", "/proc", "proc", ns.MS_NOSUID | ns.MS_NODEV | ns.MS_NOEXEC)
    ns.mount("sysfs", "/sys", "sysfs", ns.MS_RDONLY | ns.MS_NOSUID | ns.MS_NODEV | ns.MS_NOEXEC)
    ns.mount("tmpfs", "/run", "tmpfs", ns.MS_NOSUID | ns.MS_NODEV, "mode=755")
    _keep_the_machine_settings()
    _private("resolv.conf", "# no name server is within a guest's reach\n")
    _private("hosts", os.pread(hosts, os.fstat(hosts).st_size, 0).decode())
    user = ns.owner_of(net)
    ns.setns(user, ns.NEWUSER)
    ns.unshare(ns.NEWNS | ns.NEWUTS)
    socket.sethostname(hostname)
    ns.set_process_name(f"init {hostname}")
    ns.set_dumpable()  # else nobody, not even its own root, could look at /proc/1


def _keep_the_machine_settings() -> None:
    """/proc/sys but for /proc/sys/net is the whole machine's, and so is more: to be read only.

    A guest's root has the lab owner's user ID, to which those files belong.
    """
    aside = "/run/.net"
    os.mkdir(aside)
    ns.mount("/proc/sys/net", aside, flags=ns.MS_BIND)
    for path in filter(os.path.exists, _OF_THE_MACHINE):
        ns.mount(path, path, flags=ns.MS_BIND)
        ns.mount(path, path, flags=ns.MS_BIND | ns.MS_REMOUNT | ns.MS_RDONLY)
    ns.mount(aside, "/proc/sys/net", flags=ns.MS_MOVE)
    os.rmdir(aside)


def _private(name: str, text: str) -> None:
    """Give the guest a file of its own in the place of the machine's /etc/`name`.

    A guest's DHCP client writes /etc/resolv.conf; it must not be the machine's.
    """
    if os.path.exists(f"/etc/{name}"):
        own = f"/run/{name}"
        with open(own, "w") as file:
            file.write(text)
        ns.mount(own, os.path.realpath(f"/etc/{name}"), flags=ns.MS_BIND)


def _be_the_first(program: list[Any]) -> NoReturn:
    """What is asked of a first process: to be the parent of orphans, and to freeze and thaw.

    It starts the guest's program, and says into its output how it ended.
    """
    started = _start(*program) if program else 0
    while True:
        received = signal.sigwait(_ASKED)
        if received == FREEZE:
            # One call, and no process of the guest can fork past it; ourselves it passes over.
            _signal_all(signal.SIGSTOP)
        elif received == THAW:
            _signal_all(signal.SIGCONT)
        else:
            for pid, status in _reap():
                if pid == started:
                    _tell_the_end(status)


def _signal_all(number: int) -> None:
    try:
        os.kill(-1, number)
    except ProcessLookupError:  # there is nobody else
        pass


def _start(command: list[str], directory: str, environment: dict[str, str]) -> int:
    child = os.fork()
    if child:
        return child
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    os.setsid()
    try:
        os.chdir(directory)
    except OSError as error:
        os.write(2, f"netemu: {directory}: {error.strerror}; started in / instead\n".encode())
        os.chdir("/")
    try:
        os.execvpe(command[0], command, {**os.environ, **environment})
    except OSError as error:
        os.write(2, f"netemu: {command[0]}: {error.strerror}\n".encode())
    os._exit(127)


def _tell_the_end(status: int) -> None:
    code = os.waitstatus_to_exitcode(status)
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    try:
        os.write(2, f"netemu: the guest's program has ended with {how}\n".encode())
    except OSError:  # nobody listens: the lab is ending
        pass


def _reap(*_: object) -> list[tuple[int, int]]:
    """Take note of every child that has ended; gives their IDs and statuses."""
    ended = []
    try:
        while (child := os.waitpid(-1, os.WNOHANG))[0]:
            ended.append(child)
    except ChildProcessError:
        pass
    return ended


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, _reap)
    try:
        _serve(socket.socket(fileno=int(sys.argv[1])))
    except ConnectionError:  # the lab has ended in the middle of a question
        sys.exit(0)
