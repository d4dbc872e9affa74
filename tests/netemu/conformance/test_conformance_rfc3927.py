"""RFC 3927 on the wire: ours keeps every row, and what others are known to do is seen."""

import json
from pathlib import Path

import pytest

from netemu.conformance import rfc3927
from netemu.conformance.claimants import Foreign
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


def remembered(foreign: Foreign) -> list[Path]:
    place = Path(foreign.remembers_in)
    return sorted(place.iterdir()) if place.is_dir() else []
