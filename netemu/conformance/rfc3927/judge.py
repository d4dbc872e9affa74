"""Judges claimants on a running lab: each in a guest of its own, side by side on one bridge."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

from netemu.client import labs
from netemu.conformance.probe import Place
from netemu.conformance.rfc3927.claimants import Claimant, Foreign, ForeignClaimant, OurClaimant
from netemu.conformance.rfc3927.rows import PASS, ROWS
from netemu.conformance.rfc3927.trial import PARTS, Trial
from netemu.conformance.rfc3927.wire import LATE
from netemu.conformance.row import Observed, Result, Row
from netemu.conformance.weakened import egress, without
from netemu.errors import NotSo
from netemu.interfaces import BRIDGE, GUEST_WIRE
from netemu.linklocal.timing import Timing
from netemu.topology import Lab, Policy, parse

# With the egress list, a guest would not hear some frames that other hosts send it here.
PROFILE: Final = without(egress)


def room_for(foreign: Sequence[Foreign], name: str) -> Lab:
    """A lab with a guest for each claimant and each part of the trials."""
    guests = len(PARTS) * (1 + len(foreign))
    text = f"name: {name}\npolicy: same-node\nnodes: {{node1: {{guests: {guests}}}}}\n"
    return parse(text, source=name)


def judge(
    lab: str, foreign: Sequence[Foreign], on_done: Callable[[str], None] = lambda _: None
) -> dict[str, dict[str, Result]]:
    """Try our claimant and the foreign ones on a running lab, side by side on one bridge.

    A row is not tried if the lab's guard would drop its frames. Returns results by the claimant's
    name, then by the row's number; `on_done` is called with the claimant after each part. The lab's
    first node needs a guest for each claimant. With more guests, parts of the trials run at the
    same time, and the whole takes as long as the longest part.
    """
    told = labs.status(lab)
    near = told["nodes"][0]
    claimants = [None, *foreign]
    each = min(len(near["guests"]) // len(claimants), len(PARTS))
    if not each:
        raise NotSo(f"{lab}: {near['name']} needs {len(claimants)} guests, one a claimant")
    timing = Timing().scaled(float(told["time_scale"]))
    policy = Policy(told["policy"])
    time.sleep(timing.announce_interval + LATE)  # the last announcement of the claims before

    def attempt(number: int) -> tuple[str, dict[str, Observed], float]:
        guest = near["guests"][number]
        begun = time.monotonic()
        peers = policy is Policy.SAME_NODE
        with _manned(lab, near["name"], guest, claimants[number // each]) as manned:
            node, wire, claimant = manned
            other = near["guests"][number - 1]["mac"] if peers else _mac_of_bridge(node)
            trial = Trial(node, wire, guest, claimant, timing, other)
            for part in PARTS[number % each :: each]:
                trial.run(part)
                on_done(claimant.name)
        return claimant.name, trial.told, time.monotonic() - begun

    number = each * len(claimants)
    with ThreadPoolExecutor(max_workers=number) as pool:
        attempts = list(pool.map(attempt, range(number)))
    found: dict[str, dict[str, Result]] = {}
    for name, seen, taken in attempts:
        results = found.setdefault(name, {})
        for _, row in ROWS:
            # A row that was tried twice must hold both times. A row that nobody tried is left out:
            # for the node's own rows one claimant is enough.
            if row.id in seen and (row.id not in results or results[row.id].ok):
                results[row.id] = _result(row, seen[row.id], policy, taken / len(seen))
    order = [row.id for _, row in ROWS]
    return {name: dict(sorted(one.items(), key=lambda of: order.index(of[0])))
            for name, one in found.items()}  # fmt: skip


def _result(row: Row, seen: Observed, policy: Policy, seconds: float) -> Result:
    return Result(
        row=row,
        family="RFC 3927",
        policy=policy,
        expected=PASS,
        observed=seen.verdict,
        control=True,
        evidence=tuple(seen.evidence),
        sent=(),
        said=(),
        frames=(),
        capture=(),
        seconds=seconds,
    )


@contextmanager
def _manned(
    lab: str, node_name: str, guest: dict[str, Any], foreign: Foreign | None
) -> Iterator[tuple[Place, Place, Claimant]]:
    node = Place(node_name, BRIDGE).start(labs.enter(lab, node_name))
    wire = Place(guest["name"], GUEST_WIRE).start(labs.enter(lab, guest["name"]))
    claimant: Claimant | None = None
    try:
        node.ready()
        wire.ready()
        if foreign is None:
            claimant = OurClaimant(lab, guest["name"], wire)
        else:
            claimant = ForeignClaimant(lab, guest["name"], wire, foreign)
        yield node, wire, claimant
    finally:
        if claimant is not None:
            claimant.close()
        node.close()
        wire.close()


def _mac_of_bridge(node: Place) -> str:
    _, out, _ = node.run("ip", "-j", "link", "show", "dev", node.interface)
    return str(json.loads(out)[0]["address"])
