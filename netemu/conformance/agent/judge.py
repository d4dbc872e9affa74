"""Judges an agent by the record of a play: records in, verdict out. Pure.

A row's demands are judged in order; the first that does not hold gives the verdict.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from netemu.conformance.agent.records import DRAINED, RETURNED, Happened, Record

IN_TIME: Final = "in time"
LATE: Final = "late"
NEVER: Final = "never drained"
WRONGLY: Final = "wrongly drained"
TOO_EARLY: Final = "approved too early"
NOT_BACK: Final = "never returned"
BACK_TOO_EARLY: Final = "returned too early"
CRASHED: Final = "crashed"
DEAD: Final = "watcher dead"
TOO_OFTEN: Final = "polls too often"
LEFT_ALONE: Final = "left alone"
ALL_OUT: Final = "all out at once"

SHORT_NOTICE: Final = 120.0
"""Seconds. The agent has to be done before the effect; of a longer notice, it also has to be
prompt."""

SLACK: Final = 0.05
"""Seconds. The journal and the lab read the same clock, and write down what has just happened."""

AZURE_RATE: Final = 5.0
"""Requests a second of one VM: https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service"""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a demand found: None as the verdict, and it holds."""

    verdict: str | None
    text: str


Demand = Callable[[Record], Finding]


def judge(record: Record, demands: Sequence[Demand], expected: str) -> tuple[str, list[str]]:
    """Return the verdict, and what it rests on."""
    told: list[str] = []
    verdict = None
    for demand in demands:
        found = demand(record)
        told.append(found.text)
        if verdict is None:
            verdict = found.verdict
    return verdict or expected, [*told, *_crashes(record)]


def _crashes(record: Record) -> list[str]:
    ended = [one for one in record.marks if one.what == "ended" and one.text != "0"]
    return [f"{one.guest}: the agent ended with {one.text}, {since(record, one.at)}"
            for one in ended[:3]]  # fmt: skip


def since(record: Record, at: float) -> str:
    """A time, in words: seconds since the story's beginning."""
    return f"at {at - record.begun:+.1f} s"


def drains(guest: str, label: str, after: str | None = None) -> Demand:
    """The guest is drained in time for an event; `after`: the moment from which it could know."""

    def demand(record: Record) -> Finding:
        event = record.events[label]
        known = event.created if after is None else max(event.created, record.at(after))
        mark = record.first(guest, DRAINED, event.created - SLACK)
        limit, why = _limit(record, event, known)
        if mark is None:
            return _missing(record, guest, NEVER, known, f"{guest} is not drained for {label}")
        told = min((at for at, name in event.told if name == guest), default=None)
        said = f"{guest} is drained {mark.at - event.created:.1f} s after the notice of {label}"
        if told is not None:
            said += f", of which it was first told after {told - event.created:.1f} s"
        if mark.at > limit + SLACK:
            return Finding(LATE, f"{said}; at most {limit - event.created:.1f} s: {why}")
        return Finding(None, said)

    return demand


def _limit(record: Record, event: Happened, known: float) -> tuple[float, str]:
    """Until when the guest has to be drained."""
    if 0 < event.not_before - event.created <= SHORT_NOTICE:
        return event.not_before, "then it takes effect"
    return known + record.patience, f"two polls of {record.poll:.1f} s, and 5 s"


def out_at(guest: str, label: str) -> Demand:
    """The guest is drained when an event starts."""

    def demand(record: Record) -> Finding:
        event = record.events[label]
        if event.started is None or record.out(guest, event.started + SLACK):
            return Finding(None, f"{guest} is out when {label} starts")
        return Finding(TOO_EARLY, f"{label} has started, and {guest} was not drained")

    return demand


def approves_late(label: str) -> Demand:
    """Nobody approves the event before all of its guests that run the agent are drained."""

    def demand(record: Record) -> Finding:
        event = record.events[label]
        if event.approved is None or event.approved_by is None:
            return Finding(None, f"no guest has approved {label}")
        undrained = [one for one in event.guests if not record.out(one, event.approved + SLACK)]
        if undrained:
            said = f"{event.approved_by} approved {label} while {', '.join(undrained)} served"
            return Finding(TOO_EARLY, said)
        return Finding(
            None, f"{event.approved_by} approved {label} {since(record, event.approved)}"
        )

    return demand


def stays(guest: str) -> Demand:
    """The guest is not drained."""

    def demand(record: Record) -> Finding:
        mark = record.first(guest, DRAINED, record.at("begin") - SLACK)
        if mark is None:
            return Finding(None, f"{guest} is left alone")
        return Finding(WRONGLY, f"{guest} is drained {since(record, mark.at)}")

    return demand


def returns(guest: str, after: str) -> Demand:
    """The guest is put back after a moment, and not before."""

    def demand(record: Record) -> Finding:
        over = record.at(after)
        drained = record.first(guest, DRAINED, record.begun)
        begin = drained.at if drained else record.begun
        early = record.first(guest, RETURNED, begin, over - SLACK)
        if early is not None and not record.out(guest, over):
            said = f"{guest} is back {over - early.at:.1f} s before {after}"
            return Finding(BACK_TOO_EARLY, said)
        back = record.first(guest, RETURNED, over - SLACK)
        if back is None:
            return _missing(record, guest, NOT_BACK, over, f"{guest} is not back after {after}")
        return Finding(None, f"{guest} is back {back.at - over:.1f} s after {after}")

    return demand


def stays_out(guest: str, until: str) -> Demand:
    """The guest, once drained, is not put back before a moment."""

    def demand(record: Record) -> Finding:
        drained = record.first(guest, DRAINED, record.begun)
        if drained is None:
            return Finding(None, f"{guest} was not out")
        back = record.first(guest, RETURNED, drained.at, record.at(until) - SLACK)
        if back is None:
            return Finding(None, f"{guest} stays out until {until}")
        said = f"{guest} is back {record.at(until) - back.at:.1f} s before {until}"
        return Finding(BACK_TOO_EARLY, said)

    return demand


def asks_at_all(guest: str) -> Demand:
    """The agent has asked anything."""

    def demand(record: Record) -> Finding:
        said = f"{guest} has asked nothing since its start"
        if record.asked(guest, 0.0, record.closed):
            return Finding(None, f"{guest} asks")
        return _missing(record, guest, DEAD, record.begun, said)

    return demand


def polls_on(guest: str, after: str) -> Demand:
    """The agent asks after a moment."""

    def demand(record: Record) -> Finding:
        begin = record.at(after)
        if record.asked(guest, begin, record.closed) or not record.watches_at_wire:
            return Finding(None, f"{guest} asks after {after}")
        return _missing(record, guest, DEAD, begin, f"{guest} asks nothing after {after}")

    return demand


def seldom(guest: str) -> Demand:
    """The agent asks no more often than the cloud lets it."""

    def demand(record: Record) -> Finding:
        asked = record.asked(guest, record.begun, record.closed)
        rate = len(asked) / max(record.closed - record.begun, 1.0)
        said = f"{guest} asks {rate:.1f} times a second; {AZURE_RATE:g} at most"
        refused = [one for one in asked if one.status == 429]
        return Finding(TOO_OFTEN if rate > AZURE_RATE or refused else None, said)

    return demand


def one_serves(*guests: str) -> Demand:
    """At no time are all of the guests out."""

    def demand(record: Record) -> Finding:
        for mark in record.marks:
            if mark.what == DRAINED and all(record.out(one, mark.at + SLACK) for one in guests):
                said = f"{', '.join(guests)} are all out {since(record, mark.at)}"
                return Finding(ALL_OUT, said)
        return Finding(None, f"one of {', '.join(guests)} serves at all times")

    return demand


def _missing(record: Record, guest: str, verdict: str, begin: float, said: str) -> Finding:
    """Why something is missing: the agent has crashed, or asks no more, or neither."""
    ended = record.running(guest, record.closed)
    if ended not in (None, "0", "killed"):
        return Finding(CRASHED, f"{said}: the agent ended with {ended}")
    last = max((one.at for one in record.requests if one.guest == guest), default=None)
    if ended is None and record.watches_at_wire:
        quiet = record.closed - max(last or record.begun, record.begun)
        if quiet > record.patience and record.closed - begin > record.patience:
            return Finding(DEAD, f"{said}: the agent runs, and has asked nothing for {quiet:.0f} s")
    if ended == "0":
        return Finding(verdict, f"{said}: the agent has ended by itself")
    return Finding(verdict, said)
