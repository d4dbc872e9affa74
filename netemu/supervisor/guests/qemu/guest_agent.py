"""Runs commands in a machine by QEMU's guest agent, a program of the machine's own system.

Runs in the supervisor.

The agent gives a command's output when the command has ended.
"""

import asyncio
import base64
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from netemu.errors import NetemuError, NotSo
from netemu.supervisor.guests.machine import Command, Done
from netemu.supervisor.guests.qemu.json_peer import JsonPeer, NoAnswer, Refused

# The agent answers in milliseconds, once the machine's system has started it.
_PATIENCE: Final = 10.0
# Looks at a command that runs: soon at first, then ever more rarely.
_FIRST_LOOK, _LAST_LOOK = 0.02, 0.5
# Bytes of an answer: a command's two outputs, encoded.
_LONGEST: Final = 4 << 20
# Commands in one machine at one time.
MOST: Final = 16
# As in a shell: a command that is not there, and one that a signal ended.
_NOT_FOUND, _SIGNALLED = 127, 128


class GuestAgent:
    """`peer` is the channel to the agent."""

    def __init__(self, peer: JsonPeer) -> None:
        self._peer = peer
        self._running = 0

    async def run(self, asked: Command) -> Done:
        """Run a command to its end, or until its time is over. Raises NotSo."""
        if self._running >= MOST:
            raise NotSo(f"{MOST} commands run in the machine already")
        self._running += 1
        try:
            return await self._run(asked)
        except NoAnswer:
            raise NotSo(
                "the machine's guest agent does not answer: it has not been started yet, or its "
                "system has no qemu-guest-agent"
            ) from None
        finally:
            self._running -= 1

    async def _run(self, asked: Command) -> Done:
        command, given, timeout = asked
        arguments: dict[str, Any] = {"path": command[0], "arg": list(command[1:])}
        if given:
            arguments["input-data"] = base64.b64encode(given).decode()
        try:
            started = await self._peer.ask(
                "guest-exec", _PATIENCE, **arguments, **{"capture-output": True}
            )
        except Refused as error:
            return Done(_NOT_FOUND, b"", f"netemu: {command[0]}: {error}\n".encode())
        pid = _field(started, "pid", int)
        try:
            async with asyncio.timeout(timeout):
                return _done(await self._ended(pid))
        except TimeoutError:
            await self._kill(pid)
            return Done(None, b"", b"")
        except asyncio.CancelledError:
            await self._kill(pid)
            raise

    async def _ended(self, pid: int) -> Mapping[str, Any]:
        pause = _FIRST_LOOK
        while True:
            try:
                told = await self._peer.ask(
                    "guest-exec-status", _PATIENCE, longest=_LONGEST, pid=pid
                )
            except Refused:
                raise NotSo(
                    "how the command ended is not known: its output is longer than "
                    f"{_LONGEST * 3 // 4:,} bytes, or the guest agent has been started again"
                ) from None
            if isinstance(told, dict) and told.get("exited") is True:
                return told
            await asyncio.sleep(pause)
            pause = min(1.5 * pause, _LAST_LOOK)

    async def _kill(self, pid: int) -> None:
        with suppress(NetemuError):
            await self._peer.ask("guest-exec", _PATIENCE, path="kill", arg=["-9", str(pid)])


def _done(told: Mapping[str, Any]) -> Done:
    signal = told.get("signal")
    code = _SIGNALLED + signal if isinstance(signal, int) else _field(told, "exitcode", int)
    return Done(code & 0xFF, _data(told, "out-data"), _data(told, "err-data"))


def _data(told: Mapping[str, Any], key: str) -> bytes:
    try:
        return base64.b64decode(_field(told, key, str), validate=True) if key in told else b""
    except ValueError:
        raise NotSo(f"the machine's guest agent gave {key} that cannot be decoded") from None


def _field(told: Any, key: str, kind: type) -> Any:
    found = told.get(key) if isinstance(told, dict) else None
    if not isinstance(found, kind):
        raise NotSo(f"the machine's guest agent gave no {key}")
    return found
