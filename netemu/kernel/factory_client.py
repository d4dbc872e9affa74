"""Asks the process of `netemu.kernel.factory` for namespaces, and keeps that process running.

Runs in the supervisor's loop and never blocks it: questions are awaited, one at a time, each for
PATIENCE at most. A factory that ends, hangs or is stopped is killed together with what it has half
made, and another is started. What it had handed over before stays.
"""

import asyncio
import errno
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple, TypeAlias

from netemu.errors import MachineCannot
from netemu.kernel import exhaustion, guest_environment
from netemu.kernel import factory_messages as messages
from netemu.kernel.descriptor_link import close_all, receive, send
from netemu.kernel.factory import LINK, NAMESPACES_OF_A_GUEST, TAKEN_OVER

# An answer takes milliseconds; on an overloaded machine perhaps a second.
PATIENCE: Final = 10.0
# The delay doubles with each end in a row, and starts again from the first after an answer.
_FIRST_DELAY: Final = 0.05
_LONGEST_DELAY: Final = 5.0
_NONE: Final = -1

_Made: TypeAlias = tuple[messages.Done, list[int]]


class FactoryFailed(MachineCannot):
    """The factory has failed, not the request."""


class Program(NamedTuple):
    """The program that a guest runs at boot. `output` is a descriptor that takes its output.

    `descriptors` are the program's from 3 on. One that `emulates` a machine may map so many bytes,
    and reads its `files`: see `emulator`. Frames are carried between the two descriptors `carried`.
    """

    command: Sequence[str]
    directory: str
    environment: Mapping[str, str]
    output: int
    descriptors: Sequence[int] = ()
    emulates: int = 0
    files: Sequence[str] = ()
    carried: Sequence[int] = ()


class Factory:
    """The factory as its users see it. `on_end` is called with the reason when a factory has ended.

    `shared` are directories that guests may write to, `readable` those that they may read, wherever
    these are.
    Methods raise MachineCannot, which names the limit that was reached, if one was.
    """

    def __init__(
        self,
        on_end: Callable[[str], None] = lambda _: None,
        shared: Sequence[str] = (),
        readable: Mapping[str, str] | None = None,
    ) -> None:
        self._shared, self._readable = list(shared), dict(readable or {})
        self.restarts = 0
        self.last_end: str | None = None
        self.pid = _NONE
        self._on_end = on_end
        self._link: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turn = asyncio.Lock()
        self._number = 0
        self._waiting: asyncio.Future[tuple[messages.Answer, list[int]]] | None = None
        self._delay = _FIRST_DELAY
        self._wanted = True

    def close(self) -> None:
        """End the factory for good."""
        self._wanted = False
        self._end("is no longer needed")

    async def nodes(self, count: int) -> list[int]:
        """Descriptors of `count` (at most BATCH) new network namespaces, owned as we are."""
        return (await self._ask(messages.Nodes(count), []))[1]

    async def guests(self, count: int) -> list[int]:
        """Descriptors of `count` (at most BATCH) namespaces, each owned by a user of its own."""
        return (await self._ask(messages.Guests(count), []))[1]

    async def boot(
        self,
        net: int,
        guest: str,
        *,
        hostname: str = "",
        hosts: str = "",
        resolver: str = "",
        program: Program | None = None,
    ) -> tuple[int, dict[str, int]]:
        """Start the first process of the guest that owns `net`.

        The guest's processes see only each other, a private /run, the host name `hostname` (by
        default `guest`), an /etc/hosts that says `hosts`, and the name server `resolver`, if any.
        The first process starts `program` and is its parent. Returns a pidfd and the guest's
        namespaces by kind.
        """
        question = messages.Boot(
            guest,
            hostname or guest,
            resolver,
            self._shared,
            self._readable,
            command=list(program.command) if program else [],
            directory=program.directory if program else "/",
            environment=dict(program.environment) if program else {},
            emulates=program.emulates if program else 0,
            files=list(program.files) if program else [],
            carries=bool(program and program.carried),
        )
        # In a file: with many names it is longer than a message may be.
        descriptors = [net, _file_of(hosts)]
        if program is not None:
            descriptors += [program.output, *program.descriptors, *program.carried]
        try:
            _, made = await self._ask_for_process(question, descriptors)
        finally:
            os.close(descriptors[1])
        return made[0], dict(zip(NAMESPACES_OF_A_GUEST, made[1:], strict=True))

    async def freeze(self, pid_namespace: int) -> int:
        """Freeze all processes of a guest. Returns the pidfd of the process that holds them.

        They go on when that process gets SIGTERM, or ends in any other way.
        """
        _, (pidfd,) = await self._ask_for_process(messages.Freeze(), [pid_namespace])
        return pidfd

    async def end(self, pid_namespace: int, first: int, grace: float, tell: int) -> None:
        """Ask a guest's programs to end, but for its first process, whose pidfd is `first`.

        When all have ended, or after `grace` seconds, what they did is written to `tell`, as JSON.
        """
        _, (pidfd,) = await self._ask_for_process(messages.End(grace), [pid_namespace, first, tell])
        os.close(pidfd)

    async def hold(self, descriptors: list[int]) -> int:
        """Have another process hold these descriptors (at most BATCH) too, until the lab ends.
        Returns its ID.

        There they have the numbers from FIRST_HELD on, in the same order.

        Closing one waits for the kernel's readers (synchronize_net, some 13 ms), and a process that
        ends closes its descriptors one after another: a thousand take it 13 seconds. Several
        processes close them in parallel.
        """
        answer, _ = await self._ask_for_process(messages.Hold(), descriptors)
        return answer.process

    async def _ask_for_process(self, question: messages.Question, descriptors: list[int]) -> _Made:
        """Ask for a process that outlives the factory, and take it over once its descriptors are
        here.
        """
        theirs, leash = os.pipe()
        try:
            answer = await self._ask(question, [*descriptors, theirs])
            with suppress(BrokenPipeError):  # it has ended already, which its pidfd tells
                os.write(leash, TAKEN_OVER)
            return answer
        finally:
            close_all([theirs, leash])

    async def _ask(self, question: messages.Question, descriptors: list[int]) -> _Made:
        async with self._turn:
            try:
                return await self._exchange(question, descriptors)
            except _Ended:
                # The factory may have ended long ago. What it had begun has ended with it: ask the
                # next one.
                return await self._exchange(question, descriptors)

    async def _exchange(self, question: messages.Question, descriptors: list[int]) -> _Made:
        link = self._living()
        self._number += 1
        waiting = self._waiting = asyncio.get_running_loop().create_future()
        try:
            self._put(
                link, [self._number, len(descriptors), *messages.written(question)], descriptors
            )
            async with asyncio.timeout(PATIENCE):
                answer, made = await waiting
        except TimeoutError:
            self._end(f"gave no answer for {PATIENCE:g} s")
            raise FactoryFailed(
                f"the process that makes namespaces gave no answer for {PATIENCE:g} s: "
                "another is started"
            ) from None
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled() and waiting.exception() is None:
                close_all(waiting.result()[1])
            raise
        finally:
            self._waiting = None
        self._delay = _FIRST_DELAY
        if isinstance(answer, messages.Failed):
            raise MachineCannot(answer.reason)
        return answer, made

    def _put(self, link: socket.socket, message: list[Any], descriptors: list[int]) -> None:
        try:
            send(link, message, descriptors)
        except ConnectionError as error:
            self._end(f"is not there: {error}")
            raise _Ended from None
        except OSError as error:
            raise MachineCannot(f"asking for namespaces: {exhaustion.words(error)}") from None

    # The life of the factory's process.

    @property
    def runs(self) -> bool:
        """Whether there is a factory now."""
        return self._link is not None

    def ended(self, status: int) -> None:
        """The factory has ended with this status, as waitpid(2) reports it."""
        code = os.waitstatus_to_exitcode(status)
        self.last_end = f"signal {-code}" if code < 0 else f"exit code {code}"

    def watch(self) -> None:
        """From now on, start another factory as soon as one ends, in the running loop."""
        loop = asyncio.get_running_loop()
        if self._link is not None and self._loop is not loop:
            self._loop = loop
            loop.add_reader(self._link, self._heard)

    def _living(self) -> socket.socket:
        """The link to a factory that runs, started if need be."""
        if self._link is None:
            self.restarts += self.pid != _NONE
            self.start()
        self.watch()
        assert self._link is not None
        return self._link

    def start(self) -> None:
        """Start the process. A question starts it as well. Raises FactoryFailed."""
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise FactoryFailed(f"starting the factory: {exhaustion.words(error)}") from None
        try:
            self.pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-P", "-m", "netemu.kernel.factory"],
                guest_environment.of(os.environ),
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, theirs.fileno(), LINK),
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                ],
                setpgroup=0,
                setsigdef=[signal.SIGCHLD, signal.SIGPIPE],
                setsigmask=[],
            )
        except OSError as error:
            ours.close()
            raise FactoryFailed(f"starting the factory: {exhaustion.words(error)}") from None
        finally:
            theirs.close()
        ours.setblocking(False)
        self._link, self._loop = ours, None

    def _end(self, reason: str) -> None:
        """Kill the factory and everything that has not been taken over from it."""
        if self._link is None:
            return
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.remove_reader(self._link)
        self._link.close()
        self._link = None
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        if self._wanted:
            self._on_end(reason)
            if loop is not None:
                self._start_later(loop)

    def _start_later(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_later(self._delay, self._again, loop)
        self._delay = min(2 * self._delay, _LONGEST_DELAY)

    def _again(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            if self._wanted:
                self._living()
        except MachineCannot as error:
            self._on_end(str(error))
            self._start_later(loop)

    def _heard(self) -> None:
        """An answer, or the end."""
        assert self._link is not None
        try:
            answer, made, lost = receive(self._link)
        except BlockingIOError:
            return
        except (OSError, ValueError) as error:
            answer, made, lost = [], [], False
            self.last_end = str(error)
        waiting = self._waiting
        if not answer:
            close_all(made)
            self._end("has ended")
            if waiting is not None and not waiting.done():
                waiting.set_exception(_Ended())
        elif waiting is None or waiting.done() or answer[0] != self._number:
            close_all(made)  # nobody waits for it any more
        elif lost:
            close_all(made)
            code = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            waiting.set_result((messages.Failed(exhaustion.words(code)), []))
        else:
            waiting.set_result((messages.read(answer[1:]), made))


class _Ended(FactoryFailed):
    """The factory has ended before it answered."""

    def __init__(self) -> None:
        super().__init__("the process that makes namespaces has ended, twice: see the lab's log")


def _file_of(text: str) -> int:
    """A descriptor of a file in memory that is to be read from its beginning."""
    descriptor = os.memfd_create("hosts", os.MFD_CLOEXEC)
    with open(descriptor, "w", closefd=False) as file:
        file.write(text)
    return descriptor
