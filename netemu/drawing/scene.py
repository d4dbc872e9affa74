"""What a picture of a lab shows, independent of its format. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from netemu.interfaces import port_name
from netemu.linklocal import addresses

METADATA: Final = addresses.METADATA_TEXT


class Event(Protocol):
    """The part of a maintenance event that a picture shows."""

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
    """A guest: `says` is its event or state in words, empty if there is neither."""

    name: str
    address: str
    port: str
    mood: str  # well, warned (an event is planned), struck (it has started), or away
    says: str


class Node(NamedTuple):
    """A node and its current guests."""

    name: str
    failed: bool
    guests: tuple[Guest, ...]


class Scene(NamedTuple):
    """A lab at one moment."""

    name: str
    caption: str
    nodes: tuple[Node, ...]


def scene(status: Mapping[str, Any], events: Sequence[Event], now: float) -> Scene:
    """Return the scene of a lab's `status` and its `events` that have not ended.

    `now` is the metadata plane's time, epoch seconds. Of a guest's events the scene shows the
    started one, or else the earliest.
    """
    # The last event in this order wins.
    order = sorted(events, key=lambda one: (one.started is not None, -one.not_before))
    shown = {guest: event for event in order for guest in event.guests}
    nodes = tuple(
        Node(
            name=node["name"],
            failed=node.get("state") == "failed",
            guests=tuple(_guest(guest, shown.get(guest["name"]), now) for guest in node["guests"]),
        )
        for node in (*status["nodes"], *map(_elsewhere, status.get("elsewhere", ())))
    )
    number = sum(len(node.guests) for node in nodes)
    caption = f"{_count(len(nodes), 'node')}, {_count(number, 'guest')}, {status['policy']}"
    return Scene(status["name"], caption, nodes)


def _elsewhere(node: Mapping[str, Any]) -> dict[str, Any]:
    """A node on another machine, as a node's status is. What it does not say is not shown."""
    there = node["state"] == "there"
    machine = node["machine"] or "the first machine"
    guests = [
        {
            "name": name,
            "address": node["addresses"].get(name),
            "state": "unknown",
            "port_mark": node["ports"][name],
            "power": "running" if there else "on a machine that is away",
        }
        for name in node["guests"]
    ]
    return {"name": f"{node['name']} on {machine}", "guests": guests}


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
    return Guest(
        guest["name"], guest["address"] or "no address", port_name(guest["port_mark"]), mood, says
    )


def words(event: Event, now: float) -> str:
    """Return an event in words: "Reboot in 4 min", "Freeze, 12 s left"."""
    if event.started is None:
        return f"{event.type} in {length(max(0.0, event.not_before - now))}"
    if event.duration is None:
        return f"{event.type} now"
    return f"{event.type}, {length(max(0.0, event.started + event.duration - now))} left"


def length(seconds: float) -> str:
    """Return a duration in one unit: 4 s, 15 min, 3 h, 2 d."""
    for unit, size, most in (("s", 1, 120), ("min", 60, 120 * 60), ("h", 3600, 48 * 3600)):
        if seconds < most:
            return f"{round(seconds / size)} {unit}"
    return f"{round(seconds / 86400)} d"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
