"""What may be wrong with a wire, in netem's words. Pure.

Everything is per direction: a delay of 50 ms on a wire makes a round trip of 100 ms.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import msgspec

# Longer than any handshake waits.
MAX_DELAY: Final = 60.0
# Frames: at 1,500 bytes each 150 MB of a direction, if it is filled.
MAX_LIMIT: Final = 100_000
LIMIT: Final = 1_000
MIN_RATE: Final = 1e3  # bits a second
MAX_RATE: Final = 1e11
MAX_SEED: Final = 2**63 - 1


class TermError(ValueError):
    """A term is wrong: `place` is its key, the text what would be right."""

    def __init__(self, place: str, text: str) -> None:
        super().__init__(text)
        self.place = place


class Terms(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What happens to the frames of one direction. Times in seconds, shares from 0 to 1.

    ``gemodel`` are the Gilbert-Elliott model's p, r, 1-h and 1-k, in place of ``loss``; ``rate`` is
    in bits a second, 0 is any; ``trace`` names a trace, in place of ``rate``; ``limit`` is how many
    frames may wait. A wire that is ``down`` in any direction has no carrier; a ``blackhole`` keeps
    it and passes nothing.
    """

    delay: float = 0.0
    jitter: float = 0.0
    distribution: Literal["uniform", "normal"] = "uniform"
    ordered: bool = False
    loss: float = 0.0
    gemodel: tuple[float, float, float, float] | None = None
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0
    rate: float = 0.0
    trace: str = ""
    limit: int = LIMIT
    down: bool = False
    blackhole: bool = False


CLEAN: Final = Terms()
# What an author says, read: a key of Terms, and its value.
Change = dict[str, Any]

_SECONDS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_BITS: Final = {"bit": 1.0, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
_NUMBER: Final = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)"


def duration(value: Any) -> float:
    """Read 50ms, 1.5s, 2m; a plain number is in seconds. Raises ValueError."""
    return _measured(value, _SECONDS, "s", "a length of time, as in 50ms or 2s")


def rate(value: Any) -> float:
    """Read 1mbit, 64kbit: bits a second. Raises ValueError."""
    read = _measured(value, _BITS, None, "a rate, as in 64kbit or 1mbit")
    if read and not MIN_RATE <= read <= MAX_RATE:
        raise ValueError(f"{value} is not from 1kbit to 100gbit")
    return read


def share(value: Any) -> float:
    """Read 5%: 0.05. Raises ValueError."""
    read = _measured(value, {"%": 0.01}, None, "a percentage, as in 5%")
    if read > 1:
        raise ValueError(f"{value} is more than 100%")
    return read


def _measured(value: Any, units: Mapping[str, float], plain: str | None, wanted: str) -> float:
    text = f"{value:f}" if isinstance(value, float) else str(value).strip().lower()
    known = "|".join(units)
    match = re.fullmatch(rf"{_NUMBER}\s*({known})?", text)
    if match is None or isinstance(value, bool):
        raise ValueError(f"{str(value)[:40]!r} is not {wanted}")
    number, unit = float(match[1]), match[2] or plain
    if unit is None and number:
        raise ValueError(f"{str(value)[:40]!r} has no unit: {wanted}")
    return number * units[unit] if unit else 0.0


def _wait(value: Any) -> float:
    read = duration(value)
    if read > MAX_DELAY:
        raise ValueError(f"{value} is longer than {MAX_DELAY:g}s")
    return read


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is not true or false")
    return value


def whole(low: int, high: int) -> Callable[[Any], int]:
    """Read a whole number within bounds. Raises ValueError."""

    def read(value: Any) -> int:
        text = str(value).strip()
        if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,20}", text):
            raise ValueError(f"{value!r} is not a whole number")
        if not low <= int(text) <= high:
            raise ValueError(f"{text} is not from {low} to {high}")
        return int(text)

    return read


def _distribution(value: Any) -> str:
    if value not in ("uniform", "normal"):
        raise ValueError(f"{value!r} is not uniform or normal")
    return str(value)


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not the path of a trace")
    return value


# netem's own names and defaults; the first two have none.
_MODEL: Final = {"p": None, "r": None, "1-h": "100%", "1-k": "0%"}


def _gemodel(value: Any) -> tuple[float, ...] | None:
    """Read p, r, 1-h and 1-k: a list or a mapping, of which the last two may be left out."""
    if value is None:
        return None
    if isinstance(value, str):
        value = value.replace(",", " ").split()
    if isinstance(value, Mapping):
        if unknown := [key for key in value if key not in _MODEL]:
            raise ValueError(f"{unknown[0]!r} is not one of {', '.join(_MODEL)}")
        value = list({**_MODEL, **value}.values())
    if not isinstance(value, list | tuple) or not 2 <= len(value) <= 4:
        raise ValueError("the model has p and r, and perhaps 1-h and 1-k, as in 1% 10%")
    return tuple(share(one) for one in [*value, *list(_MODEL.values())[len(value) :]])


_READ: Final[Mapping[str, Callable[[Any], Any]]] = {
    "delay": _wait,
    "jitter": _wait,
    "distribution": _distribution,
    "ordered": _flag,
    "loss": share,
    "gemodel": _gemodel,
    "duplicate": share,
    "reorder": share,
    "corrupt": share,
    "rate": rate,
    "trace": _name,
    "limit": whole(1, MAX_LIMIT),
    "down": _flag,
    "blackhole": _flag,
}
KEYS: Final = tuple(_READ)


def read(given: Mapping[str, Any]) -> Change:
    """Read terms as an author writes them, those that are given. Raises TermError."""
    change: Change = {}
    for key, value in given.items():
        if key not in _READ:
            raise TermError(key, f"unknown key; known here are {', '.join(sorted(_READ))}")
        try:
            change[key] = _READ[key](value)
        except ValueError as error:
            raise TermError(key, str(error)) from None
    return change


def check(terms: Terms) -> None:
    """Raise TermError for terms that have no meaning together."""
    if terms.loss and terms.gemodel:
        raise TermError("gemodel", "a wire has a loss or a gemodel, not both")
    if terms.rate and terms.trace:
        raise TermError("trace", "a wire has a rate or a trace, not both")
    if terms.reorder and not terms.delay:
        raise TermError("reorder", "needs a delay: what is reordered overtakes what is delayed")
    if terms.jitter > terms.delay:
        raise TermError("jitter", "is more than the delay: no frame comes before it was sent")


def schema() -> dict[str, Any]:
    """The JSON schema of what an author may write of one direction, for editors."""
    flags = {key: {"type": "boolean"} for key, kind in _READ.items() if kind is _flag}
    return {**{key: {} for key in KEYS}, **flags}
