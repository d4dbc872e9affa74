"""What a guest learns of what is about to happen to it."""

import json
import re
from collections.abc import Callable

import pytest

from tests.conftest import RunningLab
from tests.netemu.labs.following import Story
from tests.netemu.labs.test_lab_isolation import wait_until

pytestmark = pytest.mark.lab

# The seed's own way of asking.
GREP = "curl -s http://169.254.169.254/metadata/v1/InstanceInfo | grep -i reboot"


def greps(lab: RunningLab, guest: str) -> bool:
    """Whether the cron pattern `curl … | grep -i reboot` hits in the guest."""
    return lab.exec(guest, "sh", "-c", GREP, check=None).returncode == 0


def test_the_old_way_of_asking_hits_during_the_notice_and_only_then(lab: RunningLab) -> None:
    """A user's cron job greps for `reboot`: it hits in this guest, in the notice only."""
    assert not greps(lab, "web1")
    event = lab.maintenance("schedule", "web1", "--type", "reboot", "--in", "4m", "--no-impact")
    wait_until(lambda: greps(lab, "web1"))
    assert not any(greps(lab, other) for other in ("web2", "web3", "db1"))
    told = json.loads(lab.get("web1", "/metadata/v1/maintenance"))
    assert told["EventID"] == event["id"]
    assert re.fullmatch(r"\d{1,2}/\d{1,2}/\d{4} \d{1,2}:\d\d:\d\d [AP]M", told["EventCreationTime"])
    assert lab.get("web2", "/metadata/v1/maintenance") == "{}"
    lab.maintenance("start", event["id"])
    assert greps(lab, "web1")
    lab.maintenance("complete", event["id"])
    wait_until(lambda: not greps(lab, "web1"))
    assert lab.get("web1", "/metadata/v1/maintenance") == "{}"


def test_a_notice_begins_five_minutes_before_and_an_event_starts_and_ends_by_itself(
    fresh_lab: Callable[[str], RunningLab],
) -> None:
    """A user plans a reboot: the guest knows five minutes before; nobody has to start or end it."""
    lab = fresh_lab("nodes: {n1: {guests: [a]}}")
    when = ("--in", "2h", "--duration", "1h", "--no-impact")
    event = lab.maintenance("schedule", "a", "--type", "reboot", *when)

    def status() -> str:
        listed = {one["id"]: one for one in lab.maintenance("list", "--history")}
        return str(listed[event["id"]]["status"])

    # The lab's clock is moved: a minute is left for a busy machine to look in.
    lab.person.netemu("clock", "advance", "--name", lab.name, "114m")
    assert not greps(lab, "a")
    lab.person.netemu("clock", "advance", "--name", lab.name, "2m")
    wait_until(lambda: greps(lab, "a"))
    assert status() == "Scheduled"
    lab.person.netemu("clock", "advance", "--name", lab.name, "4m")
    wait_until(lambda: status() == "Started")
    assert greps(lab, "a")
    lab.person.netemu("clock", "advance", "--name", lab.name, "1h")
    wait_until(lambda: status() == "Completed")
    wait_until(lambda: not greps(lab, "a"))
    assert event["id"] not in {one["id"] for one in lab.maintenance("list")}


def test_an_event_starts_and_ends_with_time(fresh_lab: Callable[[str], RunningLab]) -> None:
    """A user plans a reboot in a second, for a second: both pass without the clock being moved."""
    lab = fresh_lab("nodes: {n1: {guests: [a]}}")
    with Story(lab) as story:
        when = ("--in", "1s", "--duration", "1s", "--no-impact")
        event = lab.maintenance("schedule", "a", "--type", "reboot", *when)
        story.until(lambda: "Completed" in story.statuses(event["id"]))
    assert story.statuses(event["id"]) == ["Scheduled", "Started", "Completed"]


def test_one_event_for_guests_of_two_nodes(lab: RunningLab) -> None:
    """A user plans one event for guests of both nodes; each sees it, and it is cancelled as one."""
    event = lab.maintenance(
        "schedule", "web3", "db3", "--type", "freeze", "--in", "1m", "--no-impact"
    )
    assert set(event["guests"]) == {"web3", "db3"}
    for guest in ("web3", "db3"):
        wait_until(lambda guest=guest: "Freeze" in lab.get(guest))  # type: ignore[misc]
    listed = [one for one in lab.maintenance("list") if one["id"] == event["id"]]
    assert len(listed) == 1
    assert set(listed[0]["guests"]) == {"web3", "db3"}
    lab.maintenance("cancel", event["id"])
    for guest in ("web3", "db3"):
        wait_until(lambda guest=guest: "Freeze" not in lab.get(guest))  # type: ignore[misc]


def test_what_is_not_so_is_said(lab: RunningLab) -> None:
    """A user who asks for the impossible is told why, with the exit code for it."""
    event = lab.maintenance("schedule", "web1", "--in", "10m")
    assert "cannot complete" in lab.maintenance("complete", event["id"], check=1).stderr
    lab.maintenance("cancel", event["id"])
    assert "Cancelled" in lab.maintenance("start", event["id"], check=1).stderr
    assert "no such event" in lab.maintenance("start", "nope", check=1).stderr
    assert "no such guest" in lab.maintenance("schedule", "nobody", check=2).stderr
    assert "write 90, 500ms" in lab.maintenance("schedule", "web1", "--in", "soon", check=2).stderr
    assert lab.maintenance("schedule", "web1", "--type", "explode", check=2).stderr
    assert event["id"] not in {one["id"] for one in lab.maintenance("list")}
