"""That each row can fail, and that others' rules on the same table do what they document."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from netemu.cli.conformance_runs import own_lab
from netemu.conformance.baselines import RIVALS, compare
from netemu.conformance.prove import LABS, prove
from netemu.conformance.row import ALLOWED
from netemu.conformance.rows import CATALOGUE, by_lab
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


# The lab of the proof in which each row was seen to fail first; `netemu conformance --prove` plays
# all rows in all labs.
FAILS_IN = {
    "responder": "64 65 66 67 68 69 70 71 72 73 74 75",
    "guard": "02 03 05 06 07 08 10 11 12 13 14 15 16 17 18 19 21 22 24 25 26 28 29 30 31 32 33 34 "
    "35 36 37 38 39 40 41 43 44 45 46 47 48 49 50 51 53 54 55 56 57 58 59 60 61 62 77 78 93",
    "plain bridge": "09 20 23 27 42 52",
    "ingress list": "63",
    "settings": "76",
    "namespaces": "79 80 81 82 83 84 85 86 87 88 89 91 92 94 95 96 97 98 99 100 101 102 103 104 "
    "105 106 107 108 109 110 111 112 113 114 115 116 117",
    "guard and marks": "301 302 303 304 305 306",
}
SAME_NODE_FAILS_IN = {"guard": "24 25 26 62", "plain bridge": "09"}
# Rows that are played in one lab, by one process of the suite.
AT_ONCE = 20
# Of these it is the kernel that holds them, and there is no lab without that.
HELD_BY_KERNEL = "04 90"


def parts(told: dict[str, str]) -> list[Any]:
    """Each lab of the proof with so many rows; the parts are spread over the suite's processes."""
    cut = [
        (name, " ".join(some))
        for name, numbers in told.items()
        for some in batched(numbers.split(), AT_ONCE)
    ]
    return [pytest.param(*one, id=f"part{place}-{one[0]}") for place, one in enumerate(cut)]


def batched(items: list[str], many: int) -> Iterator[list[str]]:
    for begin in range(0, len(items), many):
        yield items[begin : begin + many]


def fails_there(policy: Policy, lab_name: str, numbers: str) -> None:
    rows = [(family, row) for family, row in CATALOGUE if row.id in numbers.split()]
    kind = "dhcp" if by_lab(rows).dhcp else "any"
    built = replace(own_lab(str(policy), kind=kind), name="proof")
    for _ in range(2):  # on a busy machine what is let through may come too late to be seen
        proof = prove(built, rows, time_scale=SCALE, grounds={lab_name: LABS[lab_name]})
        rows = [(family, row) for family, row in rows if row in proof.unproven()]
        if not rows:
            return
    assert [row.id for _, row in rows] == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("name", "numbers"), parts(FAILS_IN))
def test_every_row_can_be_seen_to_fail(name: str, numbers: str) -> None:
    fails_there(Policy.RESPONDER_ONLY, name, numbers)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("name", "numbers"), parts(SAME_NODE_FAILS_IN))
def test_rows_that_same_node_judges_otherwise_can_fail_there_too(name: str, numbers: str) -> None:
    fails_there(Policy.SAME_NODE, name, numbers)


def test_of_each_row_it_is_said_where_it_fails_or_why_not() -> None:
    rows = by_lab(CATALOGUE).playable(ipv6=False, dhcp=True)  # those of IPv6: test_lab_ipv6
    said = " ".join([*FAILS_IN.values(), HELD_BY_KERNEL]).split()
    assert sorted(said) == sorted(
        row.id for _, row in rows if row.expected(Policy.RESPONDER_ONLY) != ALLOWED
    )
    assert {row.id for _, row in CATALOGUE if row.held_by_kernel} >= set(HELD_BY_KERNEL.split())
    said = " ".join(SAME_NODE_FAILS_IN.values()).split()
    assert sorted(said) == sorted(
        row.id for _, row in rows if row.same_node and row.expected(Policy.SAME_NODE) != ALLOWED
    )


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
