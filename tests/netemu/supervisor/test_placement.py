"""What agents are told of their guests: at first, and whenever something has changed."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import pytest

from hostagent.controller import AgentUnreachable, CommandRefused
from hostagent.model import Guest as PlacedGuest
from netemu.errors import BadInput, NotSo
from netemu.supervisor.control import agents, placement
from netemu.supervisor.control.agents import Agents, NodeFailed
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
        self.code = "conflict"
        self.before_place: Callable[[], Coroutine[Any, Any, None]] | None = None
        self.withdrawn: list[tuple[str, list[str]]] = []
        self.away = 0
        self.full = False
        self.silent = 0  # so many commands are carried out, and their answers lost
        self.lost: list[str] = []  # their IDs
        self.told = asyncio.Event()

    async def connect(self, path: str) -> "FakeController":
        if self.full:
            raise CommandRefused("busy", "too many command connections")
        if self.away:
            self.away -= 1
            raise AgentUnreachable(Path(path), OSError(111, "Connection refused"))
        return FakeController(self, path)

    def names(self) -> list[tuple[str, list[str]]]:
        return [(agent, [one.name for one in guests]) for agent, guests in self.commands]


class FakeController:
    def __init__(self, agents: FakeAgents, path: str) -> None:
        self.agents, self.path = agents, path

    async def place(self, guests: Iterable[PlacedGuest], command_id: str | None = None) -> None:
        await asyncio.sleep(0)
        if self.agents.before_place is not None:
            await self.agents.before_place()
        if self.agents.refusing:
            raise CommandRefused(self.agents.code, self.agents.refusing)
        if command_id not in self.agents.lost:
            self.agents.commands.append((self.path, list(guests)))
        if self.agents.silent:
            self.agents.silent -= 1
            self.agents.lost.append(command_id or "")
            raise AgentUnreachable(self.path, TimeoutError())
        self.agents.told.set()

    async def withdraw(self, names: Iterable[str]) -> None:
        self.agents.withdrawn.append((self.path, list(names)))

    async def __aenter__(self) -> "FakeController":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


class Stage:
    """A placement between fake claims and fake agents."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **how: Any) -> None:
        self.claims, self.agents = FakeClaims(), FakeAgents()
        monkeypatch.setattr(agents, "Controller", self.agents)
        monkeypatch.setattr(agents, "_FIRST_PAUSE", 0.001)
        monkeypatch.setattr(placement, "_SWARM", 0.05)
        monkeypatch.setattr(placement, "_FIRST_RETRY", 0.001)
        monkeypatch.setattr(placement, "_LAST_RETRY", 0.01)
        self.nodes = [
            WiredNode(node, -1, [WiredGuest(guest, -1) for guest in node.guests])
            for node in parse(LAB, source="lab.yaml").nodes
        ]
        claims: Any = self.claims
        self.border = Agents(dict(zip(["one", "two", "none"], "ABC", strict=True)))
        self.lost: list[tuple[str, str]] = []
        self.border.lose = lambda node, reason: self.lost.append((node, reason))
        self.placement = Placement(self.border, self.nodes, claims, **how)

    async def until(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not what():
                await asyncio.sleep(0.001)

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
        await stage.placement.change("a", {"region": "westeurope", "vm_size": ""})
        assert stage.placement.properties("a") == {"tags.team": "web", "region": "westeurope"}
        told = stage.agents.commands[-1][1][0].properties
        assert told["region"] == "westeurope"
        assert "vm_size" not in told
        many = {f"tags.{number}": "x" for number in range(300)}
        with pytest.raises(BadInput, match=r"^a: properties: .*256"):
            await stage.placement.change("a", many)
        stage.agents.refusing = "no"
        for code, kind in (("conflict", NotSo), ("bad-property", BadInput)):
            stage.agents.code = code
            with pytest.raises(kind, match=r"^a: one: no$"):
                await stage.placement.change("a", {"region": "eastus"})
        assert stage.placement.properties("a")["region"] == "westeurope"
        stage.agents.refusing = None
        await stage.placement.tell_all()
        assert stage.agents.commands[-1][1][0].properties["region"] == "westeurope"

    play(script)


def test_a_full_agent_is_told_later_and_takes_nobody_along(play: Callable[..., None]) -> None:
    """Somebody holds all of an agent's connections: the lab goes on, and `set` says why not."""

    async def script(stage: Stage) -> None:
        await stage.placement.tell_all()
        following = asyncio.create_task(stage.placement.follow())
        stage.agents.full = True
        stage.claims.hold(c="169.254.1.3")
        await asyncio.sleep(0.1)
        assert not following.done()
        with pytest.raises(NotSo, match=r"^a: one: too many command connections$"):
            await stage.placement.change("a", {"region": "eastus"})
        assert "region" not in stage.placement.properties("a")
        stage.agents.full = False
        await stage.until(lambda: ("B", ["c"]) in stage.agents.names()[2:])
        assert not following.done()
        following.cancel()

    play(script)


def test_what_one_set_is_refused_another_that_was_acknowledged_keeps(
    play: Callable[..., None],
) -> None:
    """Two change a guest at once: the one that fails takes back its own change and no other."""

    async def script(stage: Stage) -> None:
        await stage.placement.tell_all()

        async def refuse_once() -> None:
            stage.agents.before_place = None
            await asyncio.sleep(0.01)
            stage.agents.refusing = "no"

        stage.agents.before_place = refuse_once
        refused = asyncio.create_task(stage.placement.change("a", {"region": "eastus"}))
        await asyncio.sleep(0.001)
        kept = asyncio.create_task(stage.placement.change("a", {"tags.team": "db"}))
        with pytest.raises(NotSo, match="no"):
            await refused
        stage.agents.refusing = None
        await kept
        assert stage.placement.properties("a") == {"tags.team": "db", "vm_size": "Big"}
        await stage.placement.tell_all()
        told = stage.agents.commands[-1][1][0].properties
        assert (told["tags.team"], told.get("region")) == ("db", None)

    play(script)


def test_a_set_whose_answer_is_lost_is_asked_again_until_it_is_known(
    play: Callable[..., None],
) -> None:
    """Under the same ID, so that it is done once; and what is told afterwards is what is so."""

    async def script(stage: Stage) -> None:
        await stage.placement.tell_all()
        before = len(stage.agents.commands)
        stage.agents.silent = 2
        await stage.placement.change("a", {"region": "eastus"})
        assert len(set(stage.agents.lost)) == 1
        assert len(stage.agents.commands) == before + 1
        assert stage.placement.properties("a")["region"] == "eastus"

    play(script)


def test_an_agent_that_heeds_no_command_makes_its_node_fail(
    play: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows what it has done: its guests go elsewhere, with what is on its disk."""
    monkeypatch.setattr(agents, "SETTLED_WITHIN", 0.02)

    async def script(stage: Stage) -> None:
        await stage.placement.tell_all()
        stage.agents.silent = 10_000
        await stage.placement.change("a", {"region": "eastus"})  # its next agent is told
        ((node, reason),) = stage.lost
        assert node == "one"
        assert reason.startswith("its agent heeds no command: one: its agent does not answer: ")
        stage.agents.silent = 0
        stage.placement.restore("one")
        await stage.placement.tell_all()
        assert stage.agents.commands[-1][1][0].properties["region"] == "eastus"

    play(script)


def test_a_node_that_fails_ends_what_is_being_asked_of_it(play: Callable[..., None]) -> None:
    async def script(stage: Stage) -> None:
        stage.agents.before_place = lambda: asyncio.sleep(60)
        telling = asyncio.create_task(stage.placement.tell("one"))
        asking = asyncio.create_task(stage.border.settle("one", lambda _: asyncio.sleep(60)))
        await asyncio.sleep(0.01)
        stage.border.fail("one")
        with pytest.raises(NodeFailed, match=r"^one has failed$"):
            await asking
        await telling
        with pytest.raises(NodeFailed):
            async with stage.border.agent("one"):
                pass

    play(script)


def test_a_set_goes_where_the_guest_is_once_it_has_moved(play: Callable[..., None]) -> None:
    async def script(stage: Stage) -> None:
        await stage.placement.tell_all()
        one, two, _ = stage.nodes
        async with stage.placement._locks["one"]:  # as a telling that takes its time
            setting = asyncio.create_task(stage.placement.change("a", {"region": "eastus"}))
            await asyncio.sleep(0.001)
            (moved,) = (wired for wired in one.guests if wired.guest.name == "a")
            one.guests.remove(moved)
            two.guests.append(moved)
        await setting
        path, (told,) = stage.agents.commands[-1]
        assert (path, told.name, told.properties["region"]) == ("B", "a", "eastus")

    play(script)


def test_what_is_refused_of_one_guest_is_not_refused_of_the_others(
    play: Callable[..., None],
) -> None:
    async def script(stage: Stage) -> None:
        async def refuse() -> None:
            stage.agents.refusing = "no" if sizes.pop(0) else None

        sizes = [True, True, False]  # both together, then `a`, then `b`
        stage.agents.before_place = refuse
        with pytest.raises(NotSo, match="one: no"):
            await stage.placement.tell("one")
        assert stage.agents.names() == [("A", ["b"])]

    play(script)


def test_a_guest_that_a_node_may_know_and_has_not_is_withdrawn(play: Callable[..., None]) -> None:
    async def script(stage: Stage) -> None:
        await stage.placement.tell_all()
        following = asyncio.create_task(stage.placement.follow())
        stage.placement.disown("two", ["a", "c"])  # `c` is on it
        await asyncio.sleep(0.02)
        assert stage.agents.withdrawn == [("B", ["a"])]
        following.cancel()

    play(script)


def test_a_guest_that_is_gone_is_forgotten_as_soon_as_its_agent_can(
    play: Callable[..., None],
) -> None:
    async def script(stage: Stage) -> None:
        await stage.placement.tell_all()
        following = asyncio.create_task(stage.placement.follow())
        stage.agents.full = True
        await stage.placement.remove("one", "a")
        assert stage.agents.withdrawn == []
        stage.agents.full = False
        await stage.until(lambda: stage.agents.withdrawn == [("A", ["a"])])
        following.cancel()

    play(script)
