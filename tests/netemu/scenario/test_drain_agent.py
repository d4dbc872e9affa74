"""The drain agent of `netns-scripts/guest`, with a pool and a metadata service made up here."""

import importlib.util
import json
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import SOURCE

SCRIPT = SOURCE / "netns-scripts" / "guest" / "drain-agent.py"
HEALTH = "http://localhost:8080/health"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("drain_agent", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


agent = _load()


class World:
    """HAProxy with one server, and the metadata service of its guest, as the agent sees them."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.status = "UP"
        self.queued = self.sessions = 0
        self.healthy = True
        self.other = "9,9,UP"
        self.refusal = ""
        self.commands: list[str] = []
        self.approved: list[str] = []

    def announce(self, event_id: str = "e1", guest: str = "web1", **more: Any) -> None:
        event = {"EventId": event_id, "EventType": "Reboot", "EventStatus": "Scheduled"}
        self.events.append({**event, "Resources": [guest], **more})

    def ask(self, url: str, body: bytes | None = None) -> bytes:
        if url == HEALTH:
            if not self.healthy:
                raise OSError("Connection refused")
            return b"web1"
        assert url == agent.EVENTS
        if body is not None:
            started = [one["EventId"] for one in json.loads(body)["StartRequests"]]
            self.approved += started
            for event in self.events:
                if event["EventId"] in started:
                    event["EventStatus"] = "Started"
            return b""
        return json.dumps({"DocumentIncarnation": 1, "Events": self.events}).encode()

    def tell(self, haproxy: str, command: str) -> str:
        assert haproxy == "lb:9999"
        if command == "show stat web 4 -1":
            return (
                "# pxname,svname,qcur,scur,status,\n"
                f"web,other,{self.other},\n"
                f"web,web1,{self.queued},{self.sessions},{self.status},\n\n"
            )
        self.commands.append(command)
        if self.refusal:
            return self.refusal
        self.status = {"maint": "MAINT", "ready": "UP"}[command.rpartition(" ")[2]]
        return "\n"

    def look(self) -> str:
        """What the agent says that it does."""
        with redirect_stdout(StringIO()) as out:
            agent.look("lb:9999", "web/web1", HEALTH)
        return out.getvalue().rstrip("\n").removeprefix("web/web1: ")


def put_in_place(world: World, patch: pytest.MonkeyPatch) -> World:
    patch.setattr(agent, "ask", world.ask)
    patch.setattr(agent, "tell", world.tell)
    patch.setattr(agent.socket, "gethostname", lambda: "web1")
    return world


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return put_in_place(World(), monkeypatch)


def test_without_events_nothing_is_done(world: World) -> None:
    assert world.look() == ""
    world.status = "DOWN"  # that is HAProxy's own finding
    assert world.look() == ""
    assert world.commands == []


def test_an_event_from_its_announcement_to_its_end(world: World) -> None:
    world.sessions = 2
    world.announce()
    assert world.look() == "out of the pool, for Reboot"
    assert world.commands == ["set server web/web1 state maint"]
    assert world.look() == ""  # two requests are under way
    world.sessions, world.queued = 0, 1
    assert world.look() == ""  # and one waits for this server
    assert world.approved == []
    world.queued = 0
    assert world.look() == "nothing is under way; approves e1"
    assert world.look() == ""  # Started: it is asked for once
    assert world.approved == ["e1"]
    world.events.clear()
    world.healthy = False
    with pytest.raises(OSError, match="refused"):
        world.look()
    assert world.status == "MAINT"
    world.healthy = True
    assert world.look() == "back in the pool"
    assert world.look() == ""
    assert world.commands[1:] == ["set server web/web1 state ready"]


def test_what_befalls_others_is_no_matter(world: World) -> None:
    world.announce(guest="web2")
    assert world.look() == ""
    assert world.commands == world.approved == []


def test_maintenance_is_known_by_its_beginning(world: World) -> None:
    world.announce()
    world.status = "MAINT (via web/other)"
    assert world.look() == "nothing is under way; approves e1"


def test_only_what_waits_is_approved(world: World) -> None:
    world.status = "MAINT"
    world.announce("e1", EventStatus="Started")
    world.announce("e2")
    world.announce("e3")
    assert world.look() == "nothing is under way; approves e2 e3"


def test_an_event_of_two_guests_is_approved_by_the_last_that_is_drained(world: World) -> None:
    """An approval starts it for both: while the other one serves, it would be noticed."""
    world.status = "MAINT"
    world.announce(Resources=["web1", "other"])
    for serving in ("0,1,UP", "0,0,UP", "0,1,MAINT"):
        world.other = serving
        assert world.look() == ""
    world.other = "0,0,MAINT"
    assert world.look() == "nothing is under way; approves e1"


def test_what_haproxy_refuses_is_said(world: World) -> None:
    world.announce()
    world.refusal = "Permission denied\n"
    with pytest.raises(OSError, match="HAProxy: Permission denied"):
        world.look()
    with pytest.raises(OSError, match="knows no web/web7"):
        agent.look("lb:9999", "web/web7", HEALTH)


def test_whatever_fails_is_said_once_and_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Over(Exception):
        pass

    def nap(seconds: float) -> None:
        assert seconds == agent.EVERY
        naps.append(seconds)
        if len(naps) == 3:
            broken.clear()
        if len(naps) == 6:
            raise Over

    naps: list[float] = []
    broken = [KeyError("Events")]
    honest = world.ask

    def ask(url: str, body: bytes | None = None) -> bytes:
        if broken:
            raise broken[0]
        return honest(url, body)

    monkeypatch.setattr(agent, "ask", ask)
    monkeypatch.setattr(agent.time, "sleep", nap)
    world.announce()
    with pytest.raises(Over):
        agent.main("lb:9999", "web/web1", HEALTH)
    assert capsys.readouterr().out.splitlines() == [
        "web/web1: tries again: 'Events'",
        "web/web1: out of the pool, for Reboot",
        "web/web1: nothing is under way; approves e1",
    ]


_ids = st.integers(0, 3).map(lambda number: f"e{number}")
_changes = st.lists(
    st.one_of(
        st.just(("look", "")),
        st.tuples(st.sampled_from(["announce", "end", "theirs"]), _ids),
        st.tuples(st.just("requests"), st.integers(0, 2).map(str)),
    ),
    max_size=40,
)


@given(_changes)
def test_no_reboot_is_approved_that_somebody_would_notice(changes: list[tuple[str, str]]) -> None:
    """Whatever comes and goes: approved is only what is drained, and the guest comes back."""
    world = World()
    with pytest.MonkeyPatch.context() as patch:
        put_in_place(world, patch)
        for what, which in changes:
            if what == "announce" and which not in {one["EventId"] for one in world.events}:
                world.announce(which)
            elif what == "theirs":
                world.announce(f"their-{which}", guest="web2")
            elif what == "end":
                world.events = [one for one in world.events if one["EventId"] != which]
            elif what == "requests":
                world.sessions = int(which)
            else:
                drained = world.status == "MAINT" and world.sessions == 0
                before, commands = list(world.approved), len(world.commands)
                world.look()
                if world.approved != before:
                    assert drained
                    assert not [one for one in world.approved if one.startswith("their")]
                assert len(world.commands) - commands + (world.approved != before) <= 1
        own = [one for one in world.events if one["Resources"] == ["web1"]]
        world.sessions = 0
        world.look()
        assert world.status == ("MAINT" if own else "UP")


def test_it_says_how_it_is_called() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "lb:9999"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "drain-agent.py lb:9999 web/web1 http://localhost:8080/health" in done.stderr


def test_the_scenario_plays_the_very_agent_that_people_copy() -> None:
    played = SOURCE / "netemu" / "scenario" / "masked_reboot" / "drain-agent.py"
    assert played.resolve() == SCRIPT.resolve()
