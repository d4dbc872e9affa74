"""What a picture of a lab shows, whatever it is drawn with."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol


class Event(Protocol):
    """As much of a maintenance event as a picture tells."""

    @property
    def type(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def guests(self) -> Sequence[str]: ...
    @property
    def not_before(self) -> float: ...
    @property
    def duration(self) -> float | None: ...
    @property
    def started(self) -> float | None: ...


class Guest(NamedTuple):
    """A guest: `says` is what befalls it, in words, empty if nothing does."""

    name: str
    address: str
    port: str
    mood: str  # well, warned (an event is planned), struck (it has started), or away
    says: str


class Node(NamedTuple):
    """A node and the guests that are on it now."""

    name: str
    failed: bool
    guests: tuple[Guest, ...]


class Scene(NamedTuple):
    """A lab at one moment."""

    name: str
    caption: str
    nodes: tuple[Node, ...]


def scene(status: Mapping[str, Any], events: Sequence[Event], now: float) -> Scene:
    """What there is to see: `status` is a lab's, `events` those not ended, `now` epoch seconds.

    `now` is the metadata plane's time. Of several events the one that has started, or else the
    first, is a guest's.
    """
    # The later in this order stays: what has started is told last.
    order = sorted(events, key=lambda one: (one.started is not None, -one.not_before))
    befalls = {guest: event for event in order for guest in event.guests}
    nodes = tuple(
        Node(
            name=node["name"],
            failed=node.get("state") == "failed",
            guests=tuple(
                _guest(guest, befalls.get(guest["name"]), now) for guest in node["guests"]
            ),
        )
        for node in status["nodes"]
    )
    number = sum(len(node.guests) for node in nodes)
    caption = f"{_count(len(nodes), 'node')}, {_count(number, 'guest')}, {status['policy']}"
    return Scene(status["name"], caption, nodes)


def _guest(guest: Mapping[str, Any], event: Event | None, now: float) -> Guest:
    power = guest.get("power", "running")
    mood, says = "well", ""
    if event is not None:
        mood = "warned" if event.started is None else "struck"
        says = words(event, now)
    if power != "running":
        mood = "away"
        says = says or power
    elif guest["address"] is None:
        mood = "away" if mood == "well" else mood
        says = says or guest["state"]
    return Guest(guest["name"], guest["address"] or "no address", _port(guest), mood, says)


def _port(guest: Mapping[str, Any]) -> str:
    return f"p{guest['port_mark']}"


def words(event: Event, now: float) -> str:
    """As in "Reboot in 4 min", "Freeze, 12 s left"."""
    if event.started is None:
        return f"{event.type} in {length(max(0.0, event.not_before - now))}"
    if event.duration is None:
        return f"{event.type} now"
    return f"{event.type}, {length(max(0.0, event.started + event.duration - now))} left"


def length(seconds: float) -> str:
    """A length of time in one unit, as people say it: 4 s, 15 min, 3 h, 2 d."""
    for unit, size, most in (("s", 1, 120), ("min", 60, 120 * 60), ("h", 3600, 48 * 3600)):
        if seconds < most:
            return f"{round(seconds / size)} {unit}"
    return f"{round(seconds / 86400)} d"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
