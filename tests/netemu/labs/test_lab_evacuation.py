"""Many guests move to one node at once: all of them are bound and answered there."""

import time

import pytest

from tests.conftest import Person
from tests.netemu.labs.following import Story
from tests.netemu.labs.test_lab_healing import bring_up

pytestmark = pytest.mark.lab

MOVED = 40
LAB = f"""
nodes:
  n1: {{fault_domain: 0, guests: {MOVED}}}
  n2: {{fault_domain: 1, guests: 2}}
"""
PATIENCE = 60.0


def test_a_crowd_that_moves_to_one_node_is_bound_and_answered(person: Person) -> None:
    """A user fails a node of forty guests: not one of them stays without an address elsewhere."""
    lab = bring_up(person, "evacuation", LAB)
    try:
        with Story(lab) as story:
            person.netemu("node", "fail", "--name", lab.name, "n1")
            moved = [f"n1-{number}" for number in range(1, MOVED + 1)]
            story.until(lambda: all(story.boots(guest) for guest in moved), PATIENCE)
        guests = lab.guests()
        assert {guests[name]["state"] for name in moved} == {"bound"}
        waiting = set(moved)
        end = time.monotonic() + PATIENCE
        while waiting and time.monotonic() < end:
            waiting = {name for name in waiting if not lab.get(name)}
        assert not waiting
    finally:
        person.netemu("down", lab.name)
