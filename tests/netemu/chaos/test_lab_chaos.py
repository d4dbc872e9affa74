"""`netemu chaos` on real labs: what it says, and what it leaves."""

import json

import pytest

from tests.conftest import Person

pytestmark = pytest.mark.lab


def test_a_lab_holds_its_promises_under_thirty_faults(person: Person) -> None:
    """A user strikes a lab for half a minute: every promise holds, and the lab is gone after."""
    done = person.netemu("chaos", "--for", "30", "--seed", "11", "--json", timeout=200)
    told = json.loads(done.stdout)
    assert told["held"], told["breaches"]
    assert told["acknowledged"] > 10
    assert told["answered"] > 50
    assert sum(told["faults"].values()) >= 10
    assert told["lab"] not in person.netemu("list").stdout


def test_what_is_no_fault_is_refused(person: Person) -> None:
    """A user who asks for a fault that does not exist is told which there are."""
    done = person.netemu("chaos", "--only", "flood", check=2)
    assert "kill, stop, fail" in done.stderr
