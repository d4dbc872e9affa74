"""One of QEMU's two JSON channels: questions with an answer each, and events. Runs in the
supervisor's loop, which no answer holds up: each is waited for with a limit.
"""

import asyncio
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import count
from typing import Any, Final

from netemu.errors import NotSo
from netemu.supervisor.guests.qemu.json_lines import SHORT, Decoder, command, refusal

_CHUNK: Final = 65536


class NoAnswer(NotSo):
    """It did not answer in time, or has ended."""


class Refused(NotSo):
    """It answered that it will not."""


class JsonPeer:
    """`event` is called with each object that answers nothing, `ended` when the other side ends."""

    def __init__(
        self,
        link: socket.socket,
        event: Callable[[Mapping[str, Any]], None] = lambda _: None,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        self._link = link
        self._event, self._ended = event, ended
        self._decoder = Decoder()
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[Mapping[str, Any]]] = {}
        self._sending = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(link, self._readable)

    async def ask(
        self, execute: str, patience: float, *, longest: int = SHORT, **arguments: Any
    ) -> Any:
        """What a command returns. Raises NoAnswer after `patience` seconds, or Refused."""
        number = next(self._numbers)
        answer = self._waiting[number] = self._loop.create_future()
        self._decoder.longest = max(self._decoder.longest, longest)
        try:
            async with asyncio.timeout(patience):
                async with self._sending:
                    await self._loop.sock_sendall(self._link, command(number, execute, arguments))
                told = await answer
        except (TimeoutError, OSError, ValueError):  # ValueError: it was closed
            raise NoAnswer(f"{execute}: no answer within {patience:g} s") from None
        finally:
            del self._waiting[number]
            if not self._waiting:
                self._decoder.longest = SHORT
        if (reason := refusal(told)) is not None:
            raise Refused(f"{execute}: {reason}")
        return told.get("return")

    def close(self) -> None:
        """Stop: nothing more is told."""
        if self._link.fileno() < 0:
            return
        self._loop.remove_reader(self._link)
        self._link.close()
        for one in self._waiting.values():
            if not one.done():
                one.set_exception(OSError("it is closed"))

    def _readable(self) -> None:
        try:
            data = self._link.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            self._ended()
            return
        for told in self._decoder.feed(data):
            self._take(told)

    def _take(self, told: dict[str, Any] | None) -> None:
        if told is None:  # whose answer it was cannot be known
            for one in self._waiting.values():
                with suppress(asyncio.InvalidStateError):
                    one.set_result({"error": {"desc": "it said too much, or nothing that is JSON"}})
            return
        number = told.get("id")
        answer = self._waiting.get(number) if isinstance(number, int) else None
        if answer is None:
            self._event(told)
        elif not answer.done():
            answer.set_result(told)
