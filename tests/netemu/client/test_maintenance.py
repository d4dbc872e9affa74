"""Commands to the agents of several nodes: real agents, and no lab around them."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hostagent.controller import CommandRefused, SyncController
from hostagent.model import EventStatus, EventType, Guest
from netemu.client import maintenance
from netemu.client.maintenance import Maintenance
from netemu.errors import BadInput, NotSo
from tests.hostagent.daemons import Node


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Two nodes of a lab: `a` on n1 and `b` on n2 are a set, `c` on n2 is in none."""
    with tempfile.TemporaryDirectory(prefix="mt-") as directory:
        made = {}
        for name in ("n1", "n2"):
            (Path(directory) / name).mkdir()
            made[name] = Node(Path(directory) / name)
            made[name].start_agent()
        for name, guests in (("n1", "a"), ("n2", "bc")):
            with made[name].controller() as controller:
                controller.place(
                    [
                        Guest(name=guest, availability_set="s" if guest in "ab" else None)
                        for guest in guests
                    ]
                )
        told = {
            "nodes": [
                {"name": "n1", "guests": [{"name": "a"}]},
                {"name": "n2", "guests": [{"name": "b"}, {"name": "c"}]},
            ]
        }
        sockets = {name: node.directory / "command" for name, node in made.items()}
        monkeypatch.setattr(maintenance.labs, "status", lambda _lab: told)
        monkeypatch.setattr(maintenance.labs, "agents", lambda _lab: sockets)
        yield made
        for node in made.values():
            node.close()


def statuses(nodes: dict[str, Any]) -> list[EventStatus]:
    found = []
    for node in nodes.values():
        with node.controller() as controller:
            found += [event.status for event in controller.events(history=True)]
    return found


def test_what_a_guest_has_approved_on_one_node_is_completed_on_all(nodes: dict[str, Any]) -> None:
    with Maintenance("lab") as plan:
        event = plan.schedule(["a"], EventType.REBOOT, notice=None, duration=None)
        assert statuses(nodes) == ["Scheduled", "Scheduled"]
        with nodes["n2"].controller() as controller:
            controller.approve(event.id)  # as `b` would
        (shown,) = plan.events()
        assert (shown.status, shown.guests) == (EventStatus.STARTED, ("a",))
        with pytest.raises(NotSo, match="cannot cancel"):
            plan.cancel(event.id)
        assert plan.complete(event.id[:8]).status is EventStatus.COMPLETED
        assert statuses(nodes) == ["Completed", "Completed"]
        with pytest.raises(NotSo, match="cannot complete"):
            plan.complete(event.id)


def test_where_it_has_ended_it_is_left_alone(nodes: dict[str, Any]) -> None:
    with Maintenance("lab") as plan:
        event = plan.schedule(["a", "c"], EventType.REBOOT, notice=0.0, duration=None)
        with nodes["n1"].controller() as controller:
            controller.complete(event.id)
        (shown,) = plan.events()
        assert shown.status is EventStatus.STARTED
        assert plan.complete(event.id).status is EventStatus.COMPLETED


def test_that_the_lab_is_quicker_is_no_refusal(
    nodes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has gone further at one agent the lab carries on to the others, also meanwhile."""
    for verb in ("cancel", "start", "complete"):
        act = getattr(SyncController, verb)

        def everywhere(agent: SyncController, event_id: str, act: Any = act) -> Any:
            done = act(agent, event_id)
            for node in nodes.values():
                with node.controller() as other, contextlib.suppress(CommandRefused):
                    act(other, event_id)
            return done

        with Maintenance("lab") as plan:
            event = plan.schedule(["a", "c"], EventType.REBOOT, notice=60, duration=None)
            if verb == "complete":
                plan.start(event.id)
            with monkeypatch.context() as patch:
                patch.setattr(SyncController, verb, everywhere)
                assert getattr(plan, verb)(event.id).guests == ("a", "c")


def test_what_one_agent_refuses_is_taken_back_from_the_others(nodes: dict[str, Any]) -> None:
    with Maintenance("lab") as plan:
        with nodes["n2"].controller() as controller:
            controller.withdraw(["c"])
        with pytest.raises(NotSo, match="not on this node: c"):
            plan.schedule(["a", "c"], EventType.REBOOT, notice=60, duration=None)
        assert statuses(nodes) == ["Cancelled"]


def test_the_time_is_asked_and_not_moved(nodes: dict[str, Any]) -> None:
    with Maintenance("lab") as plan:
        moment = plan.advance(600)
        times = plan.now()
        assert set(times) == {"n1", "n2"}
        assert all(0 <= time - moment < 60 for time in times.values())
    for node in nodes.values():
        with node.controller() as controller:
            assert controller.now().clock_offset == 600


def test_a_node_that_an_arriving_guest_has_moved_is_not_moved_twice(nodes: dict[str, Any]) -> None:
    with nodes["n2"].controller() as controller:
        controller.adopt([], [], 3 * 86400.0)
    with Maintenance("lab") as plan:
        plan.advance(600)
        with pytest.raises(BadInput, match="3660 days ahead at most"):
            plan.advance(11000 * 86400.0)
    for node in nodes.values():
        with node.controller() as controller:
            assert controller.now().clock_offset == 3 * 86400 + 600


def test_a_notice_alone_is_told_as_such(nodes: dict[str, Any]) -> None:
    with Maintenance("lab") as plan:
        for alone in (True, False):
            plan.schedule(["c"], EventType.FREEZE, notice=60, duration=5, notice_only=alone)
        assert [event.notice_only for event in plan.events()] == [True, False]
