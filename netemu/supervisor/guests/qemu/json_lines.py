"""What QEMU's monitor and its guest agent say: one JSON object a line. Pure.

The other side may be under the control of a guest: what it says is bounded, and nothing of it is
taken for granted.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

# Of events and short answers; a longer line is passed over, but where an answer may be longer.
SHORT: Final = 1 << 16
# The agent's delimiter before an answer, which no JSON contains.
_DELIMITER: Final = b"\xff"


class Decoder:
    """Takes bytes as they come. `longest` may be changed at any time."""

    def __init__(self) -> None:
        self.longest = SHORT
        self._held = bytearray()
        self._skipping = False

    def feed(self, data: bytes) -> Iterator[dict[str, Any] | None]:
        """The objects that are whole now; None for a line that is too long or no object."""
        *ended, rest = data.split(b"\n")
        for part in ended:
            whole, skipped = self._held + part, self._skipping
            self._held.clear()
            self._skipping = False
            if skipped or len(whole) > self.longest:
                yield None
            elif whole.strip():
                yield _object(bytes(whole))
        self._held += b"" if self._skipping else rest
        if len(self._held) > self.longest:
            self._held.clear()
            self._skipping = True


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        found = msgspec.json.decode(line.rpartition(_DELIMITER)[2])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def command(number: int, execute: str, arguments: Mapping[str, Any]) -> bytes:
    """A command's line."""
    told = {"execute": execute, "id": number, **({"arguments": arguments} if arguments else {})}
    return msgspec.json.encode(told) + b"\n"


def refusal(answer: Mapping[str, Any]) -> str | None:
    """Why a command was refused, or None."""
    error = answer.get("error")
    if error is None:
        return None
    words = error.get("desc") if isinstance(error, dict) else None
    return words if isinstance(words, str) else "it gives no reason"
