"""Faults of the metadata service on command: which request meets which. Pure; time is an argument.

A guest's faults are kept in the order in which they were added. A request meets the first that is
active and matches it. So faults with `times` are met one after another: a playbook is a list.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Annotated, Final

from msgspec import Meta, Struct
from msgspec.structs import asdict

MAX_FAULTS: Final = 32
"""Faults of one guest: twice the playbook. Each request looks at them in turn."""

MAX_BYTES: Final = 1 << 20
LONGEST_DELAY: Final = 3600.0
LONGEST_SKEW: Final = 10 * 366 * 86400.0

FaultId = Annotated[str, Meta(pattern=r"^[0-9a-f]{8}\Z")]
Glob = Annotated[str, Meta(min_length=1, max_length=256)]
Method = Annotated[str, Meta(pattern=r"^[A-Z]{1,16}\Z")]


class Effect(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a request meets: any of these together, or nothing, which lets it through.

    `status`: the answer is this, in the cloud's words. `throttle`: 429 above so many a second.
    `stale`: the answer is as of when the fault began. `expired`: credentials have expired. `clock`:
    the service's clock is wrong by so many seconds. `garble`: the body is garbage. `truncate`: the
    connection ends after so many bytes of the body. `delay`: the answer comes so many seconds
    later. `reset`: the connection is reset instead of the answer, or where it is truncated. `hang`:
    no answer is sent: the connection is closed after `delay`, or when the fault is over.
    """

    status: Annotated[int, Meta(ge=400, le=599)] | None = None
    throttle: Annotated[float, Meta(gt=0, le=1e6)] | None = None
    stale: bool = False
    expired: bool = False
    clock: Annotated[float, Meta(ge=-LONGEST_SKEW, le=LONGEST_SKEW)] | None = None
    garble: bool = False
    truncate: Annotated[int, Meta(ge=0, le=MAX_BYTES)] | None = None
    delay: Annotated[float, Meta(gt=0, le=LONGEST_DELAY)] | None = None
    reset: bool = False
    hang: bool = False


class Fault(Effect, frozen=True, kw_only=True):
    """One fault of one guest, between two times of the metadata plane's clock.

    It meets requests whose path matches `path` (as a shell's pattern, in any case) and whose method
    is one of `methods` (none: any), and is over after `times` of them. `used`: how many it has met,
    as far as that is stored.
    """

    id: FaultId
    path: Glob = "*"
    methods: Annotated[tuple[Method, ...], Meta(max_length=8)] = ()
    at: float
    until: float | None = None
    times: Annotated[int, Meta(ge=1, le=10000)] | None = None
    used: Annotated[int, Meta(ge=0)] = 0


def is_over(fault: Fault, now: float) -> bool:
    """Whether it will meet no request any more."""
    return (fault.until is not None and now >= fault.until) or (
        fault.times is not None and fault.used >= fault.times
    )


def matches(fault: Fault, method: str, path: str) -> bool:
    """Whether it is about such a request."""
    if fault.methods and method not in fault.methods:
        return False
    return fnmatchcase(path.lower(), fault.path.lower())


def in_words(fault: Fault) -> str:
    """Return what it does, on one line: `status 500, delay 3 s`."""
    units = {"throttle": "/s", "clock": " s", "truncate": " bytes", "delay": " s"}
    told = [
        name if value is True else f"{name} {value:g}{units.get(name, '')}"
        for name, value in asdict(fault).items()
        if name in Effect.__struct_fields__ and value not in (None, False)
    ]
    return ", ".join(told) or "lets requests through"


class Step(Effect, frozen=True, kw_only=True):
    """One fault of a playbook, and how many requests it meets."""

    times: int = 1


PLAYBOOK: Final = (
    Step(status=500, times=2),
    Step(),
    Step(delay=30.0),  # longer than any client waits
    Step(),
    Step(truncate=8, reset=True),
    Step(),
    Step(truncate=8),
    Step(),
    Step(status=429),
    Step(),
    Step(hang=True, delay=10.0),
    Step(),
    Step(stale=True, times=3),
    Step(),
    Step(garble=True),
)
"""What a client has to ride out: 500 twice, a time-out, a reset in the middle of the body, a
truncated body, 429 with Retry-After, a hang of 10 s, stale data, garbage. A good answer is between
any two of them."""


def not_over(faults: Iterable[Fault], now: float) -> tuple[Fault, ...]:
    """Return those that may still meet a request."""
    return tuple(fault for fault in faults if not is_over(fault, now))
