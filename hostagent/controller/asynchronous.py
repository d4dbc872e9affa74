"""The controller for asyncio. Runs in the caller's process, on any event loop."""

import asyncio
from pathlib import Path
from typing import TypeVar

from hostagent.channel.messages import Answer, Welcome
from hostagent.channel.requests import Command, Query
from hostagent.controller.calls import Call, Verbs
from hostagent.controller.conversation import (
    CHUNK,
    GREETING,
    RETRY_DELAY,
    TIMEOUT,
    AgentUnreachable,
    CommandRefused,
    Conversation,
    Question,
    check,
)
from hostagent.verb import Awaited

T = TypeVar("T")


class Controller(Verbs, Awaited):
    """Commands one node's agent; calls on one Controller run one after another."""

    def __init__(self, path: Path | str, timeout: float = TIMEOUT) -> None:
        """Use the agent whose command socket is at `path`; `connect` also opens the connection."""
        self.path = Path(path)
        self.timeout = timeout
        self.node = ""
        self._lock = asyncio.Lock()
        self._conversation = Conversation()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    @classmethod
    async def connect(
        cls,
        path: Path | str,
        timeout: float = TIMEOUT,  # noqa: ASYNC109
    ) -> "Controller":
        """Connect, and learn the node's name; raises AgentUnreachable, CommandRefused."""
        controller = cls(path, timeout)
        try:
            async with asyncio.timeout(timeout):
                await controller._open()
        except OSError as error:  # TimeoutError is one
            await controller.close()
            raise AgentUnreachable(path, error) from error
        except CommandRefused:
            await controller.close()
            raise
        return controller

    async def close(self) -> None:
        """Close the connection. A later call opens a new one."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def __aenter__(self) -> "Controller":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def make(self, call: Call[T]) -> T:
        """Ask what the call asks; returns what it reads from the answers."""
        return call.read([await self._ask(question) for question in call.questions()])

    async def _open(self) -> None:
        self._conversation = Conversation()
        self._streams = await asyncio.open_unix_connection(self.path)
        (welcome,) = check(await self._exchange(GREETING))
        assert isinstance(welcome, Welcome)
        self.node = welcome.node

    async def _exchange(self, question: Question) -> list[Answer | Welcome]:
        assert self._streams is not None
        reader, writer = self._streams
        writer.write(self._conversation.ask(question))
        await writer.drain()
        while (answers := self._conversation.feed(await reader.read(CHUNK))) is None:
            pass
        return answers

    async def _ask(self, request: Command | Query) -> list[Answer | Welcome]:
        problem: OSError = TimeoutError("no answer in time")
        sent = in_doubt = False
        try:
            async with asyncio.timeout(self.timeout), self._lock:
                while True:
                    try:
                        if self._streams is None:
                            await self._open()
                        sent = True
                        return check(await self._exchange(request))
                    except OSError as error:
                        problem = error
                    except CommandRefused as error:
                        if not (in_doubt and error.of_connection):
                            raise
                        problem = ConnectionAbortedError(str(error))
                    except BaseException:  # it leaves the connection out of step
                        await self.close()
                        raise
                    in_doubt = sent
                    await self.close()
                    await asyncio.sleep(RETRY_DELAY)
        except TimeoutError as error:
            raise AgentUnreachable(self.path, problem) from error
