"""The process that makes namespaces: the factory.

A guest's network namespace is owned by the guest's own user namespace. A process that has entered a
new user namespace cannot come back, so one is forked for each guest. A fork costs by the page: from
the supervisor it would cost several times the kernel's part. So the factory is a process of its
own, which imports little, and hands over descriptors. It also starts guests' first processes.

Run as `python -m netemu.kernel.factory` by `netemu.kernel.factory_client.Factory`, in the sandbox.
It leads a process group of its own. A new process stays in the group until the client has taken it
over, so ending the group ends everything that is half made. It keeps no descriptor beyond a
question.

It is asked on a `descriptor_link` (descriptor LINK), with the questions of `factory_messages`. Each
has a number and the count of its descriptors before it; the answer has the question's number.
"""

import errno
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import NoReturn

from netemu.errors import MachineCannot
from netemu.kernel import (
    confinement,
    exhaustion,
    guest_files,
    guest_ids,
    guest_limits,
    guest_root,
    seccomp,
)
from netemu.kernel import namespaces as ns
from netemu.kernel.descriptor_link import close_all, receive, send
from netemu.kernel.ender import Ender
from netemu.kernel.errors import KernelError
from netemu.kernel.factory_messages import (
    Answer,
    Boot,
    Done,
    End,
    Failed,
    Freeze,
    Guests,
    Hold,
    Nodes,
    Question,
    read,
    written,
)
from netemu.kernel.tracer import Tracer

LINK = 3
# The kernel passes at most 253 descriptors in one message (SCM_MAX_FD).
BATCH = 200
FIRST_HELD = 3
NAMESPACES_OF_A_GUEST = ("user", "mnt", "pid", "net", "uts", "ipc")

TAKEN_OVER = b"."
"""The client writes this into a new process's leash once it has the process's descriptors."""


def _serve(link: socket.socket) -> None:
    while True:
        question, received, lost = receive(link)
        if not question:
            return
        number, expected, *told = question
        made: list[int] = []
        try:
            if lost or len(received) != expected:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            answer = _answer(read(told), received, made)
            send(link, [number, *written(answer)], made)
        except Exception as error:
            # No descriptors go along: their passing may be what was refused.
            send(link, [number, *written(Failed(exhaustion.words(error)))], [])
        finally:
            close_all([*made, *received])


def _answer(question: Question, received: list[int], made: list[int]) -> Answer:
    """Answer a question. The descriptors that go along are added to `made` one by one, so that an
    error loses none.
    """
    match question:
        case Nodes(number):
            made.extend(_node() for _ in range(number))
        case Guests(number):
            made.extend(_guest() for _ in range(number))
        case Boot():
            _boot(question, received, made)
        case Freeze():
            made.append(_freeze(*received))
        case End(grace):
            made.append(_end(grace, *received))
        case Hold():
            return Done(_hold(received))
    return Done()


def _node() -> int:
    home = ns.open_own("net")
    try:
        ns.unshare(ns.NEWNET)
        made = ns.open_own("net")
        ns.setns(home, ns.NEWNET)
    finally:
        os.close(home)
    return made


_ranges = guest_ids.Ranges()


def _guest() -> int:
    first = _ranges.take()
    with ExitStack() as stack:
        if first is not None:
            stack.enter_context(guest_limits.for_its_users())
            stack.enter_context(guest_ids.owner(first))
        child = ns.clone_placeholder(ns.NEWUSER | ns.NEWNET)
    try:
        if first is None:
            ns.identity_map(child)
        else:
            guest_ids.map_range(child, first)
        return os.open(f"/proc/{child}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.kill(child, signal.SIGKILL)


def _who_owns(user: int, received: list[int]) -> guest_root.Maps:
    """The maps of file owners for a guest whose root is `user`."""
    known = (guest_ids.ROOT, guest_ids.ROOT), (guest_ids.ROOT, guest_ids.NONE)
    for one, group in (*known, (guest_ids.NONE, guest_ids.NONE)):
        received.append(_one_as(user, one, group))
    return guest_root.Maps(*received[-3:])


def _one_as(user: int, one: int, group: int) -> int:
    """A user namespace that maps the user `one` and this group to `user`, and nobody else."""
    child = ns.clone_placeholder(ns.NEWUSER)
    try:
        ns.write_maps(child, f"{one} {user} 1\n".encode(), f"{group} {user} 1\n".encode())
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.kill(child, signal.SIGKILL)


def _wait_for_the_end() -> NoReturn:
    while True:
        signal.pause()


def _hold(received: list[int]) -> int:
    *descriptors, leash = received

    def begin() -> None:
        # The kernel has numbered them in order: none is put where another is still to come from.
        for place, descriptor in enumerate(descriptors, start=FIRST_HELD):
            os.dup2(descriptor, place)

    def go_on() -> NoReturn:
        os.closerange(FIRST_HELD + len(descriptors), os.sysconf("SC_OPEN_MAX"))
        _wait_for_the_end()

    return _fork(0, leash, begin, go_on)


def _freeze(pid_namespace: int, leash: int) -> int:
    """Fork a process that holds all of the guest's processes for as long as it lives. Returns its
    pidfd.
    """
    tracer = Tracer(pid_namespace)

    def begin() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # no child to reap: a stop
        signal.signal(signal.SIGTERM, tracer.let_go)
        tracer.hold()

    def go_on() -> NoReturn:
        confinement.keep_standard_streams_only()
        tracer.stay()

    return os.pidfd_open(_fork(0, leash, begin, go_on))


def _end(grace: float, pid_namespace: int, first: int, tell: int, leash: int) -> int:
    """A process that asks a guest's programs to end, and reports what they do: its pidfd."""
    ender = Ender.of(pid_namespace, first)

    def go_on() -> NoReturn:
        os.dup2(tell, 1)
        confinement.keep_standard_streams_only()
        ender.ask()
        os.write(1, ender.wait(grace))
        os._exit(0)

    # Nobody waits for it to begin: a guest may have many programs, and start ever more.
    return os.pidfd_open(_fork(0, leash, lambda: None, go_on))


def _boot(asked: Boot, received: list[int], made: list[int]) -> None:
    """Fork a guest's first process and wait until it is in place."""
    net, hosts, *handed, leash = received
    user = ns.owner_of(net)
    received.append(user)  # to be closed with the others
    owner = guest_ids.owner_of(user)
    maps = _who_owns(owner, received) if owner else None

    def begin() -> None:
        # Blocked, so that it is kept until the first process waits for it; the kernel drops it
        # otherwise.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        # The kernel delivers to a PID 1 only the signals that it handles. A guest must not end it.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        guest_limits.be_killed_first()
        confinement.hide_memory()
        limits = guest_limits.open_settings()  # while they are visible and writable
        if maps is not None:
            _change_root(asked, maps, owner)
        _settle(asked, net, hosts, user)
        guest_limits.bound_namespace(limits)

    def go_on() -> NoReturn:
        output, *descriptors = handed or [0]
        for stream in (1, 2):  # from here on, output is the guest's, not the lab's
            os.dup2(output, stream)
        confinement.keep_only(descriptors)
        confinement.leave_keys_behind()
        guest_limits.bound_process()
        seccomp.confine_guest()
        if asked.carries:
            _start_carrying(asked, confinement.FIRST_OTHER + len(descriptors) - 2)
        _be_the_first(asked)

    child = _fork(ns.NEWPID | ns.NEWNS | ns.NEWIPC, leash, begin, go_on)
    try:
        made.append(os.pidfd_open(child))
        made.extend(
            os.open(f"/proc/{child}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
            for kind in NAMESPACES_OF_A_GUEST
        )
    except OSError:
        os.kill(child, signal.SIGKILL)
        raise


def _fork(flags: int, leash: int, begin: Callable[[], None], go_on: Callable[[], NoReturn]) -> int:
    """Fork a process into new namespaces and wait until it has done `begin`. Raises MachineCannot
    if that fails.

    The process goes on once the client has written to the leash, and ends if the client closes it.
    """
    ready, tell = os.pipe()
    try:
        child = ns.clone(flags)
    except MachineCannot:
        close_all([ready, tell])
        raise
    if child == 0:
        _be_born(tell, leash, begin, go_on)
    os.close(tell)
    try:
        said = os.read(ready, 4096)
    finally:
        os.close(ready)
    if said != b".":
        raise MachineCannot(said.decode(errors="replace") or "it was killed while it began")
    return child


def _be_born(
    tell: int, leash: int, begin: Callable[[], None], go_on: Callable[[], NoReturn]
) -> NoReturn:
    try:
        begin()
        os.write(tell, b".")
        if os.read(leash, 1) == TAKEN_OVER:
            os.setpgid(0, 0)
            go_on()
    except BaseException as error:
        with suppress(OSError):
            os.write(tell, exhaustion.words(error).encode()[:4096])
    finally:
        os._exit(1)


def _change_root(asked: Boot, maps: guest_root.Maps, owner: int) -> None:
    try:
        wrong = guest_root.change(maps, owner, asked.shared, asked.readable)
    except KernelError as error:
        wrong = [f"it sees the machine's files as nobody, and its sockets: {error}"]
    for line in wrong:
        os.write(2, f"{asked.guest}: {line}\n".encode())


def _settle(asked: Boot, net: int, hosts: int, user: int) -> None:
    """In the guest's first process: dress the mounts, then become the guest."""
    owner = guest_ids.owner_of(user)
    ns.setns(net, ns.NEWNET)
    guest_files.dress(os.pread(hosts, os.fstat(hosts).st_size, 0).decode(), owner, asked.resolver)
    ns.setns(user, ns.NEWUSER)
    ns.unshare(ns.NEWNS | ns.NEWUTS)
    guest_ids.be_root()
    socket.sethostname(asked.hostname)
    ns.set_process_name(f"init {asked.guest}")


def _be_the_first(asked: Boot) -> NoReturn:
    """Be a guest's PID 1: start the guest's program and reap orphans. It takes no commands.

    When the program ends, a line in its output says how.
    """
    started = _start(asked) if asked.command else 0
    while True:
        signal.sigwait({signal.SIGCHLD})
        with suppress(ChildProcessError):
            # Told before it is reaped: a guest that shuts down is cut off once all are gone.
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if ended.si_pid == started:
                    _tell_the_end(ended)
                os.waitpid(ended.si_pid, 0)


def _start(asked: Boot) -> int:
    command, directory, environment = asked.command, asked.directory, asked.environment
    child = os.fork()
    if child:
        confinement.keep_standard_streams_only()  # the others are the program's
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
    if asked.emulates:
        _be_confined(asked)
    try:
        os.execvpe(command[0], command, {**os.environ, **environment})
    except OSError as error:
        os.write(2, f"netemu: {command[0]}: {error.strerror}\n".encode())
    os._exit(127)


def _start_carrying(asked: Boot, first: int) -> None:
    """Start what carries frames between the last two descriptors, which are nobody else's."""
    from netemu.kernel import frame_carrier  # now: its file cannot be read later

    if os.fork():
        confinement.close_from(first)
        return
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    # Of the emulator's own nothing: its other ends are told of its end by their closing.
    confinement.keep_only((first, first + 1))
    _be_confined(asked)
    frame_carrier.carry(confinement.FIRST_OTHER, confinement.FIRST_OTHER + 1)


def _be_confined(asked: Boot) -> None:
    from netemu.kernel import emulator  # no other guest's first process needs it

    for line in emulator.confine(asked.emulates, asked.files):
        os.write(2, f"netemu: {line}\n".encode())


def _tell_the_end(ended: os.waitid_result) -> None:
    how = "exit code" if ended.si_code == os.CLD_EXITED else "signal"
    try:
        os.write(
            2, f"netemu: the guest's program has ended with {how} {ended.si_status}\n".encode()
        )
    except OSError:  # nobody listens: the lab is ending
        pass


def _reap(*_: object) -> None:
    """Reap every child that has ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, _reap)
    try:
        _serve(socket.socket(fileno=LINK))
    except ConnectionError:  # the lab has ended in the middle of a question
        sys.exit(0)
