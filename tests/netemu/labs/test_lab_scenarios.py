"""What clouds do to machines, by name, in a running lab."""

import json

import pytest

from tests.conftest import RunningLab

pytestmark = pytest.mark.lab


def test_a_live_migration_is_played_in_compressed_time(lab: RunningLab) -> None:
    """A user sees the event scheduled, started and completed, and the guest's power follow."""
    said = lab.person.netemu(
        "scenario", "live-migration", "--name", lab.name, "web2", "--speed", "900", "--json"
    ).stdout
    told = [json.loads(line) for line in said.splitlines()]
    assert [one["status"] for one in told][-1] == "Completed"
    assert {one["type"] for one in told} == {"Freeze"}
    (event,) = [one for one in lab.maintenance("list", "--history") if one["id"] == told[0]["id"]]
    assert "Live Migration" in event["description"]


def test_a_story_of_a_guest_that_is_not_there_is_refused(lab: RunningLab) -> None:
    done = lab.person.netemu("scenario", "redeploy", "--name", lab.name, "nobody", check=2)
    assert "no such guest" in done.stderr
