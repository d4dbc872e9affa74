"""That each row can fail, and that others' rules on the same table do what they document."""

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from netemu.conformance.baselines import RIVALS, compare
from netemu.conformance.prove import prove
from netemu.conformance.rows import CATALOGUE
from netemu.topology import DEMO, Lab, Policy, load

pytestmark = [pytest.mark.lab, pytest.mark.long]

# RFC 3927 ten times as fast: storms take half a second.
SCALE = 0.1


@pytest.fixture(autouse=True)
def labs_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = os.environ.get("NETEMU_RUNTIME_DIR")
    place = Path(f"/tmp/nt-proof-{os.getpid()}")
    place.mkdir(mode=0o700, exist_ok=True)
    os.environ["NETEMU_RUNTIME_DIR"] = str(place)
    yield
    (place / ".netemu").unlink(missing_ok=True)
    place.rmdir()
    if before is None:
        del os.environ["NETEMU_RUNTIME_DIR"]
    else:
        os.environ["NETEMU_RUNTIME_DIR"] = before


def lab(name: str, policy: Policy) -> Lab:
    return msgspec.structs.replace(load(DEMO, name=name), policy=policy)


@pytest.mark.timeout(600)
def test_every_row_can_be_seen_to_fail_or_says_why_not() -> None:
    proof = prove(lab("proof", Policy.RESPONDER_ONLY), CATALOGUE, time_scale=SCALE, each_once=True)
    unseen = proof.unproven()
    if unseen:  # on a busy machine what is let through may come too late to be seen
        rows = [(family, row) for family, row in CATALOGUE if row in unseen]
        again = prove(lab("proof", Policy.RESPONDER_ONLY), rows, time_scale=SCALE, each_once=True)
        unseen = again.unproven()
    assert [row.id for row in unseen] == []
    held = [row.id for _, row in CATALOGUE if row.held_by_kernel and not proof.fails(row)]
    assert held == ["04", "90"]


@pytest.mark.timeout(600)
def test_rows_that_same_node_judges_otherwise_can_fail_there_too() -> None:
    rows = [(family, row) for family, row in CATALOGUE if row.strict != row.same_node]
    proof = prove(lab("proof", Policy.SAME_NODE), rows, time_scale=SCALE, each_once=True)
    assert [row.id for row in proof.unproven()] == []


# What the sources say that each rule set does, and a thing that it does not: (holds, lets through).
KNOWN = {
    "plain-bridge": ({"01", "20"}, {"02", "06", "18", "21", "29", "38"}),
    "isolated-ports": ({"01", "20"}, {"39", "44", "38", "35"}),
    "clean-traffic": ({"02", "06", "07", "18", "38", "56"}, {"17", "54", "35"}),
    "port-security": ({"02", "06", "18", "38", "59", "56"}, {"07", "21", "32", "54"}),
    "bridge-allow-list": ({"02", "06", "18", "20", "29", "38", "49", "54"}, {"35", "36"}),
}


@pytest.mark.parametrize("rival", RIVALS, ids=lambda rival: rival.name)
def test_others_rules_do_what_they_document(rival: object) -> None:
    chosen = next(one for one in RIVALS if one is rival)
    holds, lets_through = KNOWN[chosen.name]
    rows = [(family, row) for family, row in CATALOGUE if row.id in holds | lets_through]
    told = compare(
        lab("rival", chosen.policy), chosen, rows, time_scale=SCALE, on_result=lambda _: None
    )
    wrong = {number for number, one in told.items() if one.observed != one.expected}
    assert wrong == lets_through
    assert chosen.sources
