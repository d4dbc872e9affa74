"""The traffic of a lab's guests, from the counters of their ports. Runs in the user's process."""

import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple, Self

import msgspec

from netemu.client import labs
from netemu.client.dialler import Dialler, Kind
from netemu.interfaces import port_name
from netemu.kernel.counters import Counters, LinkCounters
from netemu.wire.status import MachineSeen


class Rates(NamedTuple):
    """What a guest sends and receives in a second, as its port sees it (before the guard)."""

    sent_frames: float = 0.0
    sent_bytes: float = 0.0
    received_frames: float = 0.0
    received_bytes: float = 0.0


class Sample(NamedTuple):
    """All ports' counters at one moment (monotonic seconds), by node and link.

    `elsewhere` are the other machines of the lab that have answered, by name.
    """

    moment: float
    links: Mapping[str, Mapping[str, Counters]]
    elsewhere: Mapping[str, MachineSeen] = {}


class Traffic:
    """Reads the counters of a running lab; a context manager. Raises NotSo if the lab is gone."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: dict[str, LinkCounters] = {}
        self._is_spread = False
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            told = labs.status(self._name)
            self._is_spread = "elsewhere" in told
            for node in told["nodes"]:
                entered = labs.enter(self._name, node["name"])
                try:
                    if not self._nodes:
                        dialler = Dialler().start(entered["user"])
                        undo.callback(dialler.close)
                    made = LinkCounters(dialler.socket(entered["net"], Kind.NETLINK))
                finally:
                    for descriptor in entered.values():
                        os.close(descriptor)
                undo.callback(made.close)
                self._nodes[node["name"]] = made
            self._open = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
        self._nodes.clear()

    def sample(self) -> Sample:
        """Read all counters now: one netlink dump a node; other machines are asked for theirs."""
        seen = labs.seen_elsewhere(self._name) if self._is_spread else ()
        links = {node: counters.read() for node, counters in self._nodes.items()}
        return Sample(time.monotonic(), links, {one.machine: one for one in seen})


def rates(before: Sample, after: Sample, status: Mapping[str, Any]) -> dict[str, Rates]:
    """What each guest has sent and received between two samples; `status` is the lab's.

    A guest that was not on its node at both moments has none: its counters are other ports'.
    """
    seconds = max(after.moment - before.moment, 1e-9)
    found = {}
    for node in status["nodes"]:
        one, other = (sample.links.get(node["name"], {}) for sample in (before, after))
        for guest in node["guests"]:
            port = port_name(guest["port_mark"])
            if port in one and port in other:
                found[guest["name"]] = _between(one[port], other[port], seconds)
    for machine, now in after.elsewhere.items():
        if (then := before.elsewhere.get(machine)) is not None:
            seconds = max(now.moment - then.moment, 1e-9)
            for guest in then.counters.keys() & now.counters.keys():
                found[guest] = _between(then.counters[guest], now.counters[guest], seconds)
    return found


def nodes(status: Mapping[str, Any], sample: Sample) -> list[dict[str, Any]]:
    """All nodes of a lab, as in its status; those on other machines have a `machine`.

    Of a machine that has not answered, only its guests are known.
    """
    found = list(status["nodes"])
    for node in status.get("elsewhere", ()):
        machine = sample.elsewhere.get(node["machine"])
        seen = () if machine is None else machine.nodes
        told = [msgspec.to_builtins(one) for one in seen if one.name == node["name"]]
        found.append({**(told[0] if told else _unseen(node)), "machine": node["machine"]})
    return found


def _unseen(node: Mapping[str, Any]) -> dict[str, Any]:
    guests = [
        {
            "name": guest,
            "address": node["addresses"].get(guest),
            "port_mark": node["ports"].get(guest),
            "state": "unknown",
            "power": "unknown",
        }
        for guest in node["guests"]
    ]
    return {"name": node["name"], "state": "away", "guests": guests}


def _between(one: Counters, other: Counters, seconds: float) -> Rates:
    # What the port receives, its guest has sent. A port that was made again counts from 0.
    return Rates(
        sent_frames=max(0, other.received_frames - one.received_frames) / seconds,
        sent_bytes=max(0, other.received_bytes - one.received_bytes) / seconds,
        received_frames=max(0, other.sent_frames - one.sent_frames) / seconds,
        received_bytes=max(0, other.sent_bytes - one.sent_bytes) / seconds,
    )
