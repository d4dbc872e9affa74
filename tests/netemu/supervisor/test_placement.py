"""What agents are told of their guests: at first, and whenever something has changed."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import pytest

from hostagent.controller import AgentUnreachable, CommandRefused
from hostagent.model import Guest as PlacedGuest
from netemu.errors import BadInput, NotSo
from netemu.supervisor.control import placement
from netemu.supervisor.control.placement import Placement
from netemu.supervisor.nodes.wiring import WiredGuest, WiredNode
from netemu.topology import Guest, parse

LAB = """
properties: {tags.team: web}
nodes:
  one: {guests: [{name: a, properties: {vm_size: Big}}, {name: b, availability_set: s}]}
  two: {guests: [c]}
  none: {guests: 0}
"""


class FakeClaims:
    """Guests hold what a test says that they hold."""

    def __init__(self) -> None:
        self.change = asyncio.Event()
        self.held: dict[str, str] = {}
        self.unbound: set[str] = set()

    def address(self, guest: Guest) -> str | None:
        return self.held.get(guest.name)

    def bound(self, guest: Guest) -> bool:
        return guest.name in self.held and guest.name not in self.unbound

    def hold(self, **held: str) -> None:
        self.held |= held
        changed, self.change = self.change, asyncio.Event()
        changed.set()


class FakeAgents:
    """Take the place of `Controller`: what each agent was told, command by command."""

    def __init__(self) -> None:
        self.commands: list[tuple[str, list[PlacedGuest]]] = []
        self.refusing: str | None = None
        self.away = 0
        self.told = asyncio.Event()

    async def connect(self, path: str) -> "FakeController":
        if self.away:
            self.away -= 1
            raise AgentUnreachable(Path(path), OSError(111, "Connection refused"))
        return FakeController(self, path)

    def names(self) -> list[tuple[str, list[str]]]:
        return [(agent, [one.name for one in guests]) for agent, guests in self.commands]


class FakeController:
    def __init__(self, agents: FakeAgents, path: str) -> None:
        self.agents, self.path = agents, path

    async def place(self, guests: Iterable[PlacedGuest]) -> None:
        await asyncio.sleep(0)
        if self.agents.refusing:
            raise CommandRefused("conflict", self.agents.refusing)
        self.agents.commands.append((self.path, list(guests)))
        self.agents.told.set()

    async def close(self) -> None:
        pass


class Stage:
    """A placement between fake claims and fake agents."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **how: Any) -> None:
        self.claims, self.agents = FakeClaims(), FakeAgents()
        monkeypatch.setattr(placement, "Controller", self.agents)
        monkeypatch.setattr(placement, "_SWARM", 0.05)
        monkeypatch.setattr(placement, "_RETRY", 0.01)
        monkeypatch.setattr(placement, "_PAUSE", 0.001)
        self.nodes = [
            WiredNode(node, -1, [WiredGuest(guest, -1) for guest in node.guests])
            for node in parse(LAB, source="lab.yaml").nodes
        ]
        claims: Any = self.claims
        self.placement = Placement(self.nodes, ["A", "B", "C"], claims, **how)

    async def told(self) -> None:
        await asyncio.wait_for(self.agents.told.wait(), 5)
        self.agents.told.clear()


Script = Callable[[Stage], Coroutine[Any, Any, None]]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def run(script: Script, **how: Any) -> None:
        async def staged() -> None:
            await script(Stage(monkeypatch, **how))

        asyncio.run(staged())

    return run


def test_each_agent_is_told_of_its_own_guests_and_of_changes_only(
    play: Callable[..., None],
) -> None:
    async def script(stage: Stage) -> None:
        await stage.placement.tell_all()
        assert stage.agents.names() == [("A", ["a", "b"]), ("B", ["c"])]
        a, b = stage.agents.commands[0][1]
        assert a.properties["vm_size"] == "Big"
        assert a.properties["tags.team"] == b.properties["tags.team"] == "web"
        assert a.properties["mac"].startswith("02:")
        assert "address" not in a.properties
        assert (a.port, a.address, a.availability_set) == (1, None, None)
        assert (b.port, b.availability_set, b.update_domain) == (2, "s", 1)
        await stage.placement.tell_all()
        assert len(stage.agents.commands) == 2
        stage.claims.hold(b="169.254.7.7")
        await stage.placement.tell_all()
        assert stage.agents.names()[2:] == [("A", ["b"])]
        (b,) = stage.agents.commands[2][1]
        assert b.properties["address"] == "169.254.7.7"
        assert b.address is None

    play(script)


def test_an_address_is_told_once_it_is_bound_and_kept_until_there_is_another(
    play: Callable[..., None],
) -> None:
    async def script(stage: Stage) -> None:
        stage.claims.held["c"] = "169.254.1.1"
        stage.claims.unbound.add("c")
        await stage.placement.tell_all()
        assert "address" not in stage.agents.commands[1][1][0].properties
        stage.claims.unbound.clear()
        await stage.placement.tell_all()
        del stage.claims.held["c"]
        await stage.placement.tell_all()
        stage.claims.held["c"] = "169.254.2.2"
        await stage.placement.tell_all()
        told = [one.properties.get("address") for _, (one, *_) in stage.agents.commands[2:]]
        assert told == ["169.254.1.1", "169.254.2.2"]

    play(script)


def test_swarms_of_changes_are_one_command(play: Callable[..., None]) -> None:
    async def script(stage: Stage) -> None:
        await stage.placement.tell_all()
        stage.agents.told.clear()
        following = asyncio.create_task(stage.placement.follow())
        await asyncio.sleep(0.005)  # it waits by then
        stage.claims.hold(a="169.254.1.1")
        await asyncio.sleep(0.005)  # and now for the swarm
        stage.claims.hold(b="169.254.1.2")
        await stage.told()
        assert stage.agents.names()[2:] == [("A", ["a", "b"])]
        stage.claims.hold(c="169.254.1.3")
        await stage.told()
        assert stage.agents.names()[3:] == [("B", ["c"])]
        following.cancel()

    play(script)


def test_where_there_are_no_marks_the_address_is_the_identity(play: Callable[..., None]) -> None:
    async def script(stage: Stage) -> None:
        stage.claims.hold(c="169.254.1.3")
        await stage.placement.tell_all()
        assert stage.agents.commands[1][1][0].address == "169.254.1.3"

    play(script, by_address=True)


def test_an_agent_that_starts_or_refuses_is_told_again(
    play: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    async def script(stage: Stage) -> None:
        stage.agents.away = 3
        await stage.placement.tell_all()
        assert len(stage.agents.commands) == 2
        stage.agents.told.clear()
        stage.agents.refusing = "somebody else's"
        stage.claims.hold(c="169.254.1.3")
        with pytest.raises(NotSo, match="two: somebody else's"):
            await stage.placement.tell_all()
        following = asyncio.create_task(stage.placement.follow())
        await asyncio.sleep(0.03)
        assert "somebody else's" in caplog.text
        stage.agents.refusing = None
        await stage.told()
        assert stage.agents.commands[-1][1][0].properties["address"] == "169.254.1.3"
        following.cancel()

    play(script)


def test_properties_can_be_changed_and_taken_away(play: Callable[..., None]) -> None:
    async def script(stage: Stage) -> None:
        await stage.placement.tell_all()
        await stage.placement.change(stage.nodes[0], "a", {"region": "here", "vm_size": ""})
        assert stage.placement.properties("a") == {"tags.team": "web", "region": "here"}
        told = stage.agents.commands[-1][1][0].properties
        assert told["region"] == "here"
        assert "vm_size" not in told
        many = {f"tags.{number}": "x" for number in range(300)}
        with pytest.raises(BadInput, match=r"^a: properties: .*256"):
            await stage.placement.change(stage.nodes[0], "a", many)
        stage.agents.refusing = "no"
        with pytest.raises(BadInput, match=r"^a: one: no$"):
            await stage.placement.change(stage.nodes[0], "a", {"region": "there"})
        assert stage.placement.properties("a")["region"] == "here"
        stage.agents.refusing = None
        before = len(stage.agents.commands)
        await stage.placement.tell_all()
        assert len(stage.agents.commands) == before

    play(script)
