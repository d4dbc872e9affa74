"""Frames that no row has: close families of the catalogue's, and mutations of it, by the thousand.

All are judged by what observers saw and by `law`, the policies written down a second time; then the
tables have to be what they were, the responder must have taken nobody for another, and the honest
guest must be answered. That a family can be seen at all is shown where there is no guard.
"""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pytest
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from netemu.conformance import weakened
from netemu.conformance.labstage import STANDARD, Ground, LabStage, running
from netemu.conformance.roles import BROADCAST
from netemu.conformance.rows import CATALOGUE
from netemu.conformance.rows.ethernet import asking
from netemu.topology import DEMO, Policy, load
from tests.netemu.conformance.families import FAMILIES, MUTATIONS, built, mutations
from tests.netemu.conformance.law import Law

pytestmark = [pytest.mark.lab, pytest.mark.long]

BATCH = 400
# RFC 3927 ten times as fast.
SCALE = 0.1


# How they are judged.


def tables(stage: LabStage) -> dict[str, Any]:
    """What the node believes: stations, neighbours, its own addresses, and who holds which."""
    return {
        "stations": stage.stations(),
        "neighbours": stage.neighbours(),
        "addresses": stage.addresses(),
        "bound": {one.port: stage.bound_to(one.port) for one in stage.cast.guests[:3]},
    }


NOT_ANSWERED = "the honest guest was not answered"


def attack(stage: LabStage, law: Law, frames: Iterable[Packet | bytes]) -> tuple[int, list[str]]:
    """Send them, the honest guest asking meanwhile: how many were seen, and what breaks the law."""
    rest = iter(frames)
    seen = 0
    stage.begin_control()
    while batch := [built(one) for one in islice(rest, BATCH)]:
        # A right probe for another address is a claim, and gives up the one that is held.
        quiet = [
            one for one in batch if one[28:32] != bytes(4) or not law.allows(law.stage.node, one)
        ]
        stage.attacker.send([one + stage.token for one in quiet])
        heard = stage.heard()
        seen += sum(stage.token in frame for _, outgoing, frame in heard if not outgoing)
        if broken := law.broken(heard):
            stage.end_control()
            return seen, broken
    if not stage.end_control():
        return seen, [NOT_ANSWERED]
    return seen, []


BARE = Ground(weakened.without(*weakened.GUARD))


@contextmanager
def lab(policy: Policy, ground: Ground = STANDARD) -> Iterator[LabStage]:
    place = Path(f"/tmp/nt-mutations-{os.getpid()}-{ground is BARE}")
    place.mkdir(mode=0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NETEMU_RUNTIME_DIR", str(place))
        made = msgspec.structs.replace(load(DEMO, name="mutations"), policy=policy)
        with running(made, SCALE, ground) as stage:
            stage.begin(CATALOGUE[0][1], 1)
            yield stage
    (place / ".netemu").unlink(missing_ok=True)
    place.rmdir()


@pytest.fixture(scope="module", params=list(Policy))
def stage(request: pytest.FixtureRequest) -> Iterator[LabStage]:
    with lab(request.param) as made:
        yield made


@pytest.mark.parametrize("family", [*FAMILIES, "mutations"])
def test_of_all_variants_is_seen_what_the_policy_allows_alone(stage: LabStage, family: str) -> None:
    frames = mutations if family == "mutations" else FAMILIES[family]
    stage.begin(CATALOGUE[0][1], 1)
    assert stage.control()
    stage.record()
    law, before = Law(stage), tables(stage)
    seen, broken = attack(stage, law, frames(stage))
    assert not broken, broken[:3]
    assert tables(stage) == before
    assert stage.control()
    assert stage.well()
    marks = {guest.port.removeprefix("p"): guest.name for guest in stage.cast.guests[:3]}
    assert all(marks.get(one.caller, one.guest) == one.guest for one in stage.record())
    if family == "mutations":
        assert seen > MUTATIONS / 100


# What a kernel by itself drops, or answers with nothing that breaks the law: to a listener.
HARMLESS_BY_ITSELF = {"tcp_to_responder"}


def quiet(stage: LabStage, law: Law) -> bool:
    """Whether an honest question breaks nothing. What the family before has left half open is
    answered again, at longer and longer intervals.
    """
    question = [Ether(dst=BROADCAST, src=stage.m1) / asking(stage)]
    for _ in range(10):
        if attack(stage, law, question)[1] in ([], [NOT_ANSWERED]):
            return True
        time.sleep(1)
    return False


def test_without_a_guard_each_family_is_seen() -> None:
    """Under responder-only ports are isolated besides: some show under same-node alone."""
    unseen = set(FAMILIES)
    for policy in Policy:
        with lab(policy, BARE) as stage:
            for name in sorted(unseen):
                stage.begin(CATALOGUE[0][1], 1)
                law = Law(stage, unicast=True)
                assert quiet(stage, law)
                _, broken = attack(stage, law, islice(FAMILIES[name](stage), 4 * BATCH))
                if broken and broken != [NOT_ANSWERED]:
                    unseen.remove(name)
                stage.heal()
    assert unseen <= HARMLESS_BY_ITSELF
