"""RFC 3927 on the wire: ours keeps every row, and what others are known to do is seen."""

import json
import os
from pathlib import Path

import msgspec
import pytest

from netemu.conformance import rfc3927
from netemu.conformance.claimants import FOREIGN, Foreign
from netemu.kernel.protections import Protection
from netemu.lab import client
from netemu.topology import DEMO, Policy, load
from tests.conftest import Person

# What Linux's own ARP and routes do not do for a claimant, whatever it claims by.
KERNELS = {"R16", "R17", "R19"}


@pytest.mark.lab
def test_our_guests_keep_every_row(person: Person) -> None:
    arguments = ("--suite", "rfc3927", "--time-scale", "0.1", "--json", "-")
    done = person.netemu("conformance", *arguments, check=None, timeout=100)
    told = json.loads(done.stdout)
    wrong = [(one["id"], one["evidence"]) for one in told["rows"] if not one["ok"]]
    assert not wrong
    assert done.returncode == 0
    assert told["name"] == "ours"
    assert [one["id"] for one in told["rows"]] == [row.id for _, row in rfc3927.ROWS]


@pytest.mark.lab
@pytest.mark.root
@pytest.mark.timeout(300)
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: they give up privileges by other users")
def test_others_are_judged_beside_ours_on_one_bridge(monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = [one for one in FOREIGN if one.installed]
    if not foreign:
        packages = " ".join(one.package for one in FOREIGN)
        pytest.skip(f"no foreign claimant is installed: apt-get install {packages}")
    place = Path(f"/tmp/nt-rfc-{os.getpid()}")
    place.mkdir(mode=0o700, exist_ok=True)
    monkeypatch.setenv("NETEMU_RUNTIME_DIR", str(place))
    before = [remembered(one) for one in foreign]
    lab = msgspec.structs.replace(load(DEMO, name="judged"), policy=Policy.SAME_NODE)
    client.bring_up(lab, access_log=True, without=[Protection.EGRESS])
    try:
        told = rfc3927.judge(lab.name, foreign)
    finally:
        client.take_down(lab.name)
        place.rmdir()
    assert {row for row, one in told["ours"].items() if not one.ok} == set()
    for one in foreign:
        failed = {row for row, result in told[one.name].items() if not result.ok}
        assert failed == KERNELS, {row: told[one.name][row].evidence for row in failed}
    # They kept what they remember in their guests.
    assert [remembered(one) for one in foreign] == before


def remembered(foreign: Foreign) -> list[Path]:
    place = Path(foreign.remembers_in)
    return sorted(place.iterdir()) if place.is_dir() else []
