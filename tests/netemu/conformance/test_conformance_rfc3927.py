"""RFC 3927 on the wire: ours keeps every row, and what others are known to do is seen."""

import json
import os
from pathlib import Path

import pytest

from netemu.client import labs
from netemu.conformance.rfc3927.claimants import FOREIGN, Foreign
from netemu.conformance.rfc3927.judge import PROFILE, judge, room_for
from netemu.conformance.rfc3927.rows import ROWS
from tests.conftest import Person

# What Linux's own ARP and routes do not do for a claimant, whatever it claims by.
KERNELS = {"R16", "R17", "R19"}
# What the node has to do; one claimant is enough to see it.
NODES = {"R24", "R25"}


@pytest.mark.lab
def test_our_guests_keep_every_row(person: Person) -> None:
    arguments = ("--suite", "rfc3927", "--time-scale", "0.1", "--json")
    done = person.netemu("conformance", *arguments, check=None, timeout=100)
    told = json.loads(done.stdout)
    wrong = [(one["id"], one["evidence"]) for one in told["rows"] if not one["ok"]]
    assert not wrong
    assert done.returncode == 0
    assert told["name"] == "ours"
    assert [one["id"] for one in told["rows"]] == [row.id for _, row in ROWS]


@pytest.mark.lab
@pytest.mark.root
@pytest.mark.timeout(120)
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: they give up privileges by themselves")
def test_others_are_judged_beside_ours_on_one_bridge(monkeypatch: pytest.MonkeyPatch) -> None:
    """At RFC 3927's own pace, which is the only one that they know."""
    foreign = [one for one in FOREIGN if not one.missing]
    if not foreign:
        pytest.skip("; ".join(one.missing for one in FOREIGN))
    place = Path(f"/tmp/nt-rfc-{os.getpid()}")
    place.mkdir(mode=0o700)
    monkeypatch.setenv("NETEMU_RUNTIME_DIR", str(place))
    before = [remembered(one) for one in foreign]
    lab = room_for(foreign, "judged")
    labs.bring_up(lab, access_log=True, profile=PROFILE)
    try:
        told = judge(lab.name, foreign)
    finally:
        labs.take_down(lab.name)
        (place / ".netemu").unlink(missing_ok=True)
        place.rmdir()
    assert {row for row, one in told["ours"].items() if not one.ok} == set()
    for one in foreign:
        failed = {row for row, result in told[one.name].items() if not result.ok}
        assert failed == KERNELS, {row: told[one.name][row].evidence for row in failed}
        assert list(told[one.name]) == [row.id for _, row in ROWS if row.id not in NODES]
    # They kept what they remember in their guests.
    assert [remembered(one) for one in foreign] == before


def remembered(foreign: Foreign) -> list[Path]:
    place = Path(foreign.remembers_in)
    return sorted(place.iterdir()) if place.is_dir() else []
