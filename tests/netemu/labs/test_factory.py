"""The process that makes namespaces fails in every way: every wait for it is bounded."""

import asyncio
import errno
import os
import resource
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from netemu.errors import MachineCannot
from netemu.kernel import factory_client
from netemu.kernel import namespaces as ns
from netemu.kernel.descriptor_link import close_all
from netemu.kernel.exhaustion import words
from netemu.kernel.factory_client import Factory, FactoryFailed

pytestmark = pytest.mark.root


def run(story: Callable[[Factory], Awaitable[None]]) -> None:
    """Tell a story with a factory; afterwards nothing is left open here."""
    before = len(os.listdir("/proc/self/fd"))

    async def tell() -> None:
        factory = Factory()
        try:
            factory.start()
            factory.watch()
            await story(factory)
        finally:
            factory.close()

    asyncio.run(tell())
    assert len(os.listdir("/proc/self/fd")) == before


async def works(factory: Factory) -> None:
    """It makes a guest's namespace and boots it; all of it is ended again."""
    (net,) = await factory.guests(1)
    pidfd, namespaces = await factory.boot(net, "web1")
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    close_all([net, pidfd, *namespaces.values()])


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.01)


def open_in(process: int) -> int:
    return len(os.listdir(f"/proc/{process}/fd"))


async def settled(process: int) -> int:
    """How many descriptors it has when it has closed those of its last answer."""
    await asyncio.sleep(0.2)
    return open_in(process)


def group(leader: int) -> list[int]:
    """The living processes of a process group."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if fields[0] != "Z" and int(fields[2]) == leader:
                found.append(int(path.parent.name))
    return found


@contextmanager
def limit_of_files(process: int, count: int) -> Iterator[None]:
    before = resource.prlimit(process, resource.RLIMIT_NOFILE)
    resource.prlimit(process, resource.RLIMIT_NOFILE, (count, before[1]))
    try:
        yield
    finally:
        resource.prlimit(process, resource.RLIMIT_NOFILE, before)


def test_one_that_is_killed_is_started_again_before_anybody_asks() -> None:
    """A user kills the factory: reboots go on as if nothing had been."""

    async def story(factory: Factory) -> None:
        for _ in range(3):
            before = factory.pid
            os.kill(before, signal.SIGKILL)
            await until(lambda before=before: factory.pid != before)  # type: ignore[misc]
            await works(factory)
        assert factory.restarts == 3
        assert factory.runs

    run(story)


def test_one_that_is_killed_while_it_works_is_asked_again() -> None:
    async def story(factory: Factory) -> None:
        asked = asyncio.create_task(factory.guests(100))
        await asyncio.sleep(0.005)
        os.kill(factory.pid, signal.SIGKILL)
        close_all(await asked)

    run(story)


def test_one_that_is_stopped_is_replaced_and_its_caller_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Somebody stops the factory: who reboots a guest is told within seconds, and then can."""

    async def story(factory: Factory) -> None:
        await works(factory)
        monkeypatch.setattr(factory_client, "PATIENCE", 0.3)
        stopped = factory.pid
        os.kill(stopped, signal.SIGSTOP)
        with pytest.raises(FactoryFailed, match="gave no answer"):
            await factory.guests(1)
        monkeypatch.setattr(factory_client, "PATIENCE", 30.0)
        await works(factory)
        assert group(stopped) == []

    run(story)


def test_what_nobody_takes_over_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest's first process that was begun when the factory ended is not left behind."""
    monkeypatch.setattr(factory_client, "TAKEN_OVER", b"?")

    async def story(factory: Factory) -> None:
        (net,) = await factory.guests(1)
        pidfd, namespaces = await factory.boot(net, "web1")
        await asyncio.sleep(0.1)
        with pytest.raises(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, 0)
        close_all([net, pidfd, *namespaces.values()])

    run(story)


def test_what_was_taken_over_outlives_it() -> None:
    async def story(factory: Factory) -> None:
        (net,) = await factory.guests(1)
        pidfd, namespaces = await factory.boot(net, "web1")
        holder = await factory.hold([net])
        os.kill(factory.pid, signal.SIGKILL)
        await until(lambda: factory.restarts == 1)
        signal.pidfd_send_signal(pidfd, 0)
        os.kill(holder, 0)
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.kill(holder, signal.SIGKILL)
        close_all([net, pidfd, *namespaces.values()])

    run(story)


@pytest.mark.parametrize("room", range(9))
def test_without_descriptors_it_says_so_and_goes_on(room: int) -> None:
    """The factory runs out of descriptors wherever it is: a clear word, and nothing is lost."""

    async def story(factory: Factory) -> None:
        await works(factory)
        pid = factory.pid
        idle = await settled(pid)
        with limit_of_files(pid, idle + room):
            for _ in range(20):
                nets: list[int] = []
                try:
                    nets = await factory.guests(1)
                    pidfd, namespaces = await factory.boot(nets[0], "web1")
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    close_all([pidfd, *namespaces.values()])
                except MachineCannot as error:
                    assert "ulimit -n" in str(error)
                close_all(nets)
            assert await settled(pid) == idle
        assert factory.pid == pid
        await works(factory)

    run(story)


def test_without_descriptors_here_it_says_so_and_goes_on() -> None:
    """The supervisor's own limit is reached: what arrives is closed, and the caller told."""

    async def story(factory: Factory) -> None:
        await works(factory)
        here = open_in(os.getpid())
        with limit_of_files(os.getpid(), here + 2):
            for _ in range(5):
                with pytest.raises(MachineCannot, match="ulimit -n"):
                    await factory.guests(50)
                assert open_in(os.getpid()) == here
        await works(factory)

    run(story)


@pytest.mark.parametrize("kind", ["user", "net", "pid", "mnt"])
def test_the_limit_that_was_reached_is_named(kind: str) -> None:
    """A machine allows no more namespaces of one kind: the error names the setting."""
    setting = Path(f"/proc/sys/user/max_{kind}_namespaces")
    most = setting.read_text()

    async def story(factory: Factory) -> None:
        (net,) = await factory.guests(1)
        setting.write_text("0")
        try:
            made = factory.guests(1) if kind in ("user", "net") else factory.boot(net, "web1")
            with pytest.raises(MachineCannot, match=f"user.max_{kind}_namespaces is 0"):
                await made
        finally:
            setting.write_text(most)
        await works(factory)
        os.close(net)

    pid = os.fork()
    if pid:
        assert os.waitpid(pid, 0)[1] == 0
        return
    try:
        # In a user namespace of its own: there the setting is nobody else's.
        os.setpgid(0, 0)
        own_user_namespace()
        run(story)
        os._exit(0)
    except BaseException as error:
        os.write(2, f"{error!r}\n".encode())
        os._exit(1)


def own_user_namespace() -> None:
    ns.unshare(ns.NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text("0 0 1")
    Path("/proc/self/gid_map").write_text("0 0 1")


def test_an_answer_that_cannot_be_sent_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Descriptors in flight are at the user's limit: the question fails, and no more than it."""

    async def story(factory: Factory) -> None:
        def refused(*_: object) -> None:
            raise OSError(errno.ETOOMANYREFS, os.strerror(errno.ETOOMANYREFS))

        with monkeypatch.context() as patch:
            patch.setattr(factory_client, "send", refused)
            with pytest.raises(MachineCannot, match="in flight"):
                await factory.guests(1)
        await works(factory)

    run(story)


def test_an_answer_that_nobody_waits_for_is_closed() -> None:
    """A lab goes down while a guest boots: the next answer is not taken for the one before."""

    async def story(factory: Factory) -> None:
        for _ in range(20):
            asked = asyncio.create_task(factory.guests(3))
            await asyncio.sleep(0)
            asked.cancel()
            with suppress(asyncio.CancelledError):
                await asked
            made = await factory.guests(2)
            assert len(made) == 2
            close_all(made)

    run(story)


def test_it_names_the_words_of_a_full_machine() -> None:
    assert "ulimit -u" in words(OSError(errno.EAGAIN, "again"))
    assert "memory.max" in words(OSError(errno.ENOMEM, "memory"))
    assert "fs.file-max" in words(OSError(errno.ENFILE, "files"))
    assert words(OSError(errno.EIO, "io")) == "[Errno 5] io"
