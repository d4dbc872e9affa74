"""What a wire's terms are at any time: those that hold always, and those that hold for a while.

Pure: times are seconds since the plan began.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from netemu.impairment import terms
from netemu.impairment.terms import Change, TermError, Terms

Direction = Literal["to", "from"]
DIRECTIONS: Final[tuple[Direction, Direction]] = ("to", "from")
# Changes of one wire: each change has all of them examined.
MAX_TIMED: Final = 1_000
# A schedule that changes more often than frames come is a rate.
MIN_PERIOD: Final = 0.01
MAX_TIME: Final = 30 * 86400.0


class Timed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A change that holds from ``at`` on: ``lasts`` seconds, or for good.

    With ``every`` it comes back: ``times`` times, or without end.
    """

    at: float
    lasts: float | None = None
    every: float | None = None
    times: int | None = None
    to: Change = {}
    from_: Change = msgspec.field(default_factory=dict, name="from")

    # In whole microseconds: of doubles, the n-th turn may not begin when it is said to.

    def holds(self, now: float) -> bool:
        """Whether the change holds now."""
        since = _ticks(now) - _ticks(self.at)
        if since < 0:
            return False
        if self.every is not None:
            turn, since = divmod(since, _ticks(self.every))
            if self.times is not None and turn >= self.times:
                return False
        return self.lasts is None or since < _ticks(self.lasts)

    def next_after(self, now: float) -> float | None:
        """When it begins or ends next, after now."""
        ticks, begin = _ticks(now), _ticks(self.at)
        every = None if self.every is None else _ticks(self.every)
        turn = max(0, ticks - begin) // every if every else 0
        for n in (turn, turn + 1):
            if n and (every is None or (self.times is not None and n >= self.times)):
                return None
            edge = begin + n * (every or 0)
            if edge > ticks:
                return edge / _TICKS
            if self.lasts is not None and edge + _ticks(self.lasts) > ticks:
                return (edge + _ticks(self.lasts)) / _TICKS
        return None


_TICKS: Final = 1_000_000  # a second


def _ticks(seconds: float) -> int:
    return round(seconds * _TICKS)


class Plan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A wire's terms: to the guest and from it, always and for a while.

    The n-th frame of a wire has the same fate whenever a plan begins with the same ``seed``.
    """

    seed: int = 0
    to: Terms = terms.CLEAN
    from_: Terms = msgspec.field(default=terms.CLEAN, name="from")
    timed: tuple[Timed, ...] = ()

    @property
    def is_clean(self) -> bool:
        """Whether it never does anything to a frame."""
        return not self.timed and terms.CLEAN == self.to == self.from_

    def at(self, now: float) -> tuple[Terms, Terms]:
        """The terms that hold now: to the guest, and from it. Of two changes the later one wins."""
        to, from_ = self.to, self.from_
        for one in self.timed:
            if one.holds(now):
                to = msgspec.structs.replace(to, **one.to)
                from_ = msgspec.structs.replace(from_, **one.from_)
        return to, from_

    def next_change(self, now: float) -> float | None:
        """When the terms may change next, after now; None: never."""
        times = (one.next_after(now) for one in self.timed)
        return min((one for one in times if one is not None), default=None)

    @property
    def traces(self) -> set[str]:
        """The names of all traces in it."""
        changes = [change for one in self.timed for change in (one.to, one.from_)]
        named = [self.to.trace, self.from_.trace, *(one.get("trace", "") for one in changes)]
        return {one for one in named if one}


_TIMED: Final = ("at", "for", "every", "times", "to", "from")


def read(given: Mapping[str, Any]) -> Plan:
    """Read what a lab file says of a wire. Raises TermError.

    Terms stand for both directions, in `to:` and `from:` for one. `schedule:` is a list of changes:
    terms, `at:`, and perhaps `for:`, `every:` and `times:`.
    """
    to, from_ = _directions({key: given[key] for key in given if key not in ("seed", "schedule")})
    schedule = given.get("schedule", [])
    if not isinstance(schedule, Sequence) or isinstance(schedule, str):
        raise TermError("schedule", "a list is expected here")
    if len(schedule) > MAX_TIMED:
        raise TermError("schedule", f"a wire takes at most {MAX_TIMED} changes")
    return checked(
        Plan(
            seed=seed(given.get("seed", 0)),
            to=Terms(**to),
            from_=Terms(**from_),
            timed=tuple(_within(f"schedule[{n}]", timed, one) for n, one in enumerate(schedule)),
        )
    )


def seed(value: Any) -> int:
    """Read a seed. Raises TermError."""
    try:
        return terms.whole(0, terms.MAX_SEED)(value)
    except ValueError as error:
        raise TermError("seed", str(error)) from None


def timed(given: Mapping[str, Any]) -> Timed:
    """Read one change of a schedule. Raises TermError."""
    if "at" not in given:
        raise TermError("at", "is missing: when the change begins")
    at, lasts, every = (_time(given, key) for key in ("at", "for", "every"))
    times = None
    if given.get("times") is not None:
        try:
            times = terms.whole(1, 1_000_000)(given["times"])
        except ValueError as error:
            raise TermError("times", str(error)) from None
    if every is None and times is not None:
        raise TermError("times", "needs 'every': how often the change comes back")
    if every is not None and (lasts is None or lasts >= every):
        raise TermError("every", "needs a 'for' that is shorter")
    if lasts is not None and lasts < MIN_PERIOD:
        raise TermError("for", f"is shorter than {MIN_PERIOD:g}s")
    to, from_ = _directions({key: given[key] for key in given if key not in _TIMED[:4]})
    if not to and not from_:
        raise TermError("at", "nothing is to change then")
    return Timed(at=at or 0.0, lasts=lasts, every=every, times=times, to=to, from_=from_)


def checked(plan: Plan) -> Plan:
    """The plan itself. Raises TermError if terms of it have no meaning together."""
    for place, base, changes in (
        ("", plan.to, [one.to for one in plan.timed]),
        ("", plan.from_, [one.from_ for one in plan.timed]),
    ):
        _within(place, terms.check, base)
        for n, change in enumerate(changes):
            changed = msgspec.structs.replace(base, **change)
            _within(f"schedule[{n}]", terms.check, changed)
    return plan


def _time(given: Mapping[str, Any], key: str) -> float | None:
    if given.get(key) is None:
        return None
    try:
        read = terms.duration(given[key])
    except ValueError as error:
        raise TermError(key, str(error)) from None
    if read > MAX_TIME:
        raise TermError(key, f"{given[key]} is longer than {MAX_TIME / 86400:g} days")
    return read


def _directions(given: Mapping[str, Any]) -> tuple[Change, Change]:
    """What holds to the guest and from it. A wire has a carrier, or is down, in both."""
    both = terms.read({key: given[key] for key in given if key not in DIRECTIONS})
    changes = []
    for direction in DIRECTIONS:
        own = given.get(direction, {})
        if not isinstance(own, Mapping):
            raise TermError(direction, "a mapping (key: value) is expected here")
        if "down" in own:
            raise TermError(f"{direction}.down", "a wire is down in both directions: say it there")
        changes.append({**both, **_within(direction, terms.read, own)})
    return changes[0], changes[1]


def _within(place: str, read: Any, given: Any) -> Any:
    try:
        if place.startswith("schedule") and not isinstance(given, Mapping | Terms):
            raise TermError("", "a mapping (key: value) is expected here")
        return read(given)
    except TermError as error:
        raise TermError(".".join(filter(None, (place, error.place))), str(error)) from None


def schema() -> dict[str, Any]:
    """The JSON schemas of what an author may write of a wire, by key, for editors."""
    one = terms.schema()
    ways: dict[str, Any] = {way: {"type": "object", "properties": one} for way in DIRECTIONS}
    times: dict[str, Any] = {key: {} for key in _TIMED[:4]}
    change = {"type": "object", "properties": {**one, **ways, **times}}
    return {**one, **ways, "seed": {}, "schedule": {"type": "array", "items": change}}
