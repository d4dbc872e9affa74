"""What agents are told of their guests: at first, and whenever something has changed."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from hostagent.channel.requests import Place, Withdraw
from hostagent.controller import calls
from hostagent.model import Guest as PlacedGuest
from netemu.errors import BadInput, NotSo
from netemu.supervisor.control import placement, store
from netemu.supervisor.control.placement import Placement
from netemu.supervisor.control.store import NodeFailed
from netemu.supervisor.nodes.wiring import WiredGuest, WiredNode
from netemu.topology import Guest, parse
from tests.netemu.supervisor.fake_store import FakeStore

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


class Stage:
    """A placement between fake claims and a fake store."""

    def __init__(self, fake_store: Callable[..., FakeStore], **how: Any) -> None:
        self.claims, self.store = FakeClaims(), fake_store("one", "two", "none")
        self.nodes = [
            WiredNode(node, -1, [WiredGuest(guest, -1) for guest in node.guests])
            for node in parse(LAB, source="lab.yaml").nodes
        ]
        claims: Any = self.claims
        self.lost: list[tuple[str, str]] = []
        self.store.lose = lambda node, reason: self.lost.append((node, reason))
        self.placement = Placement(self.store, self.nodes, claims, **how)

    async def until(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not what():
                await asyncio.sleep(0.001)

    def placings(self) -> list[tuple[str, list[str]]]:
        """The guests of each command that placed some."""
        return [(node, [guest.name for guest in one.guests]) for node, one in self.placed()]

    def placed(self) -> list[tuple[str, Place]]:
        return self.store.commands(Place)

    def last(self) -> PlacedGuest:
        """The guest that was placed last."""
        guest: PlacedGuest = self.placed()[-1][1].guests[-1]
        return guest

    def withdrawn(self) -> list[tuple[str, list[str]]]:
        return [(node, list(one.names)) for node, one in self.store.commands(Withdraw)]


Script = Callable[[Stage], Coroutine[Any, Any, None]]


@pytest.fixture
def play(
    fake_store: Callable[..., FakeStore], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    monkeypatch.setattr(placement, "_BURST", 0.05)
    monkeypatch.setattr(placement, "_FIRST_RETRY", 0.001)
    monkeypatch.setattr(placement, "_LAST_RETRY", 0.01)

    def run(script: Script, **how: Any) -> None:
        async def staged() -> None:
            await script(Stage(fake_store, **how))

        asyncio.run(staged())

    return run


def test_each_agent_is_told_of_its_own_guests_and_of_changes_only(
    play: Callable[..., None],
) -> None:
    async def script(stage: Stage) -> None:
        await stage.placement.tell_all()
        assert stage.placings() == [("one", ["a", "b"]), ("two", ["c"])]
        a, b = stage.placed()[0][1].guests
        assert a.properties["vm_size"] == "Big"
        assert a.properties["tags.team"] == b.properties["tags.team"] == "web"
        assert a.properties["mac"].startswith("02:")
        assert "address" not in a.properties
        assert (a.port, a.address, a.availability_set) == (1, None, None)
        assert (b.port, b.availability_set, b.update_domain) == (2, "s", 1)
        await stage.placement.tell_all()
        assert len(stage.placed()) == 2
        stage.claims.hold(b="169.254.7.7")
        await stage.placement.tell_all()
        assert stage.placings()[2:] == [("one", ["b"])]
        (b,) = stage.placed()[2][1].guests
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
        assert "address" not in stage.placed()[1][1].guests[0].properties
        stage.claims.unbound.clear()
        await stage.placement.tell_all()
        del stage.claims.held["c"]
        await stage.placement.tell_all()
        stage.claims.held["c"] = "169.254.2.2"
        await stage.placement.tell_all()
        later = [one for _, command in stage.placed()[2:] for one in command.guests]
        told = [one.properties.get("address") for one in later]
        assert told == ["169.254.1.1", "169.254.2.2"]

    play(script)


def test_swarms_of_changes_are_one_command(play: Callable[..., None]) -> None:
    async def script(stage: Stage) -> None:
        await stage.placement.tell_all()
        following = asyncio.create_task(stage.placement.follow())
        await asyncio.sleep(0.005)  # it waits by then
        stage.claims.hold(a="169.254.1.1")
        await asyncio.sleep(0.005)  # and now for the swarm
        stage.claims.hold(b="169.254.1.2")
        await stage.until(lambda: stage.placings()[2:] == [("one", ["a", "b"])])
        stage.claims.hold(c="169.254.1.3")
        await stage.until(lambda: stage.placings()[3:] == [("two", ["c"])])
        following.cancel()

    play(script)


def test_where_there_are_no_marks_the_address_is_the_identity(play: Callable[..., None]) -> None:
    async def script(stage: Stage) -> None:
        stage.claims.hold(c="169.254.1.3")
        await stage.placement.tell_all()
        assert stage.placed()[1][1].guests[0].address == "169.254.1.3"

    play(script, by_address=True)


def test_an_agent_that_starts_or_refuses_is_told_again(
    play: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    async def script(stage: Stage) -> None:
        stage.store.unreachable = 3
        await stage.placement.tell_all()
        assert len(stage.placed()) == 2
        stage.store.refusals["c"] = ("conflict", "somebody else's")
        stage.claims.hold(c="169.254.1.3")
        with pytest.raises(NotSo, match="two: somebody else's"):
            await stage.placement.tell_all()
        following = asyncio.create_task(stage.placement.follow())
        await asyncio.sleep(0.03)
        assert "somebody else's" in caplog.text
        stage.store.refusals.clear()
        await stage.until(lambda: stage.last().properties.get("address") == "169.254.1.3")
        following.cancel()

    play(script)


def test_properties_can_be_changed_and_taken_away(play: Callable[..., None]) -> None:
    async def script(stage: Stage) -> None:
        await stage.placement.tell_all()
        await stage.placement.change("a", {"region": "westeurope", "vm_size": ""})
        assert stage.placement.properties("a") == {"tags.team": "web", "region": "westeurope"}
        told = stage.last().properties
        assert told["region"] == "westeurope"
        assert "vm_size" not in told
        many = {f"tags.{number}": "x" for number in range(300)}
        with pytest.raises(BadInput, match=r"^a: properties: .*256"):
            await stage.placement.change("a", many)
        refusals = (("conflict", NotSo), ("bad-property", BadInput), ("bad-frame", BadInput))
        for code, kind in refusals:
            stage.store.refusals["a"] = (code, "no")
            with pytest.raises(kind, match=r"^a: one: no$"):
                await stage.placement.change("a", {"region": "eastus"})
        assert stage.placement.properties("a")["region"] == "westeurope"
        stage.store.refusals.clear()
        await stage.placement.tell_all()
        assert stage.last().properties["region"] == "westeurope"

    play(script)


def test_a_full_agent_is_told_later_and_takes_nobody_along(play: Callable[..., None]) -> None:
    """Somebody holds all of an agent's connections: the lab goes on, and `set` says why not."""

    async def script(stage: Stage) -> None:
        await stage.placement.tell_all()
        following = asyncio.create_task(stage.placement.follow())
        stage.store.busy |= {"one", "two"}
        stage.claims.hold(c="169.254.1.3")
        await asyncio.sleep(0.1)
        assert not following.done()
        with pytest.raises(NotSo, match=r"^a: one: too many command connections$"):
            await stage.placement.change("a", {"region": "eastus"})
        assert "region" not in stage.placement.properties("a")
        stage.store.busy.clear()
        await stage.until(lambda: ("two", ["c"]) in stage.placings()[2:])
        assert not following.done()
        following.cancel()

    play(script)


def test_what_one_set_is_refused_another_that_was_acknowledged_keeps(
    play: Callable[..., None],
) -> None:
    """Two change a guest at once: the one that fails takes back its own change and no other."""

    async def script(stage: Stage) -> None:
        await stage.placement.tell_all()

        def refuse() -> None:
            stage.store.refusals["a"] = ("conflict", "no")

        stage.store.before["place", "one"] = refuse
        stage.store.hanging.add("one")
        refused = asyncio.create_task(stage.placement.change("a", {"region": "eastus"}))
        await asyncio.sleep(0.001)
        kept = asyncio.create_task(stage.placement.change("a", {"tags.team": "db"}))
        stage.store.hanging.clear()
        with pytest.raises(NotSo, match="no"):
            await refused
        stage.store.refusals.clear()
        await kept
        assert stage.placement.properties("a") == {"tags.team": "db", "vm_size": "Big"}
        await stage.placement.tell_all()
        told = stage.last().properties
        assert (told["tags.team"], told.get("region")) == ("db", None)

    play(script)


def test_a_set_whose_answer_is_lost_is_asked_again_until_it_is_known(
    play: Callable[..., None],
) -> None:
    """Under the same ID, so that it is done once; and what is told afterwards is what is so."""

    async def script(stage: Stage) -> None:
        await stage.placement.tell_all()
        stage.store.lost_answers = 2
        await stage.placement.change("a", {"region": "eastus"})
        tries = [one for _, one in stage.placed()[2:]]
        assert len(tries) == 3
        assert tries[0] == tries[1] == tries[2]
        assert stage.placement.properties("a")["region"] == "eastus"

    play(script)


def test_an_agent_that_heeds_no_command_makes_its_node_fail(
    play: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows what it has done: its guests go elsewhere, with what is on its disk."""
    monkeypatch.setattr(store, "SETTLED_WITHIN", 0.02)

    async def script(stage: Stage) -> None:
        await stage.placement.tell_all()
        stage.store.lost_answers = 10_000
        await stage.placement.change("a", {"region": "eastus"})  # its next agent is told
        ((node, reason),) = stage.lost
        assert node == "one"
        assert reason.startswith("its agent heeds no command: one: its agent does not answer: ")
        stage.store.lost_answers = 0
        stage.placement.restore("one")
        await stage.placement.tell_all()
        a, _ = stage.placed()[-1][1].guests
        assert a.properties["region"] == "eastus"

    play(script)


def test_a_node_that_fails_ends_what_is_being_asked_of_it(play: Callable[..., None]) -> None:
    async def script(stage: Stage) -> None:
        stage.store.hanging.add("one")
        telling = asyncio.create_task(stage.placement.tell("one"))
        asking = asyncio.create_task(stage.store.settle("one", calls.now()))
        await asyncio.sleep(0.01)
        stage.store.fail("one")
        with pytest.raises(NodeFailed, match=r"^one has failed$"):
            await asking
        await telling
        with pytest.raises(NodeFailed):
            await stage.store.append("one", calls.now())

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
        assert stage.placings()[-1] == ("two", ["a"])
        assert stage.last().properties["region"] == "eastus"

    play(script)


def test_what_is_refused_of_one_guest_is_not_refused_of_the_others(
    play: Callable[..., None],
) -> None:
    async def script(stage: Stage) -> None:
        stage.store.refusals["a"] = ("conflict", "no")
        with pytest.raises(NotSo, match="one: no"):
            await stage.placement.tell("one")
        assert stage.placings() == [("one", ["b"])]

    play(script)


def test_a_guest_that_a_node_may_know_and_has_not_is_withdrawn(play: Callable[..., None]) -> None:
    async def script(stage: Stage) -> None:
        await stage.placement.tell_all()
        following = asyncio.create_task(stage.placement.follow())
        stage.placement.disown("two", ["a", "c"])  # `c` is on it
        await stage.until(lambda: stage.withdrawn() == [("two", ["a"])])
        following.cancel()

    play(script)


def test_a_guest_that_is_gone_is_forgotten_as_soon_as_its_agent_can(
    play: Callable[..., None],
) -> None:
    async def script(stage: Stage) -> None:
        await stage.placement.tell_all()
        following = asyncio.create_task(stage.placement.follow())
        stage.store.busy |= {"one", "two"}
        await stage.placement.remove("one", "a")
        assert stage.withdrawn() == []
        stage.store.busy.clear()
        await stage.until(lambda: stage.withdrawn() == [("one", ["a"])])
        following.cancel()

    play(script)
