"""Which wires are impaired, and when terms change: on virtual time, without relay and links."""

import asyncio
from collections.abc import Coroutine, Iterator, Mapping
from typing import Any, TypeVar

import pytest

from netemu.errors import BadInput, NotSo
from netemu.impairment import plan
from netemu.impairment.plan import Plan
from netemu.simulation.loop import Loop
from netemu.supervisor.nodes import wires
from netemu.supervisor.nodes.splice import Place, Splice
from netemu.supervisor.nodes.wires import Key, Wire, Wires

T = TypeVar("T")
A, B = ("a", Wire.LINK_LOCAL), ("b", Wire.LINK_LOCAL)


class Relay:
    """Stands for the relay's service: notes what it is told."""

    def __init__(self, again: Any) -> None:
        self.again = again
        self.running = False
        self.hangs = False
        self.refuses = ""
        self.told: list[tuple[Any, ...]] = []
        self.services: list[Any] = []

    async def start(self) -> None:
        self.running = True

    def stop(self) -> None:
        self.running = False

    async def lay(self, wire: str, ends: Any) -> None:
        if wire == self.refuses:
            raise NotSo("the relay does not answer")
        self.told.append(("lay", wire))

    def begin(self, wire: str, seed: int, terms: Any, traces: Mapping[str, bytes]) -> None:
        self.told.append(("begin", wire, seed, *terms))

    def change(self, wire: str, terms: Any, traces: Mapping[str, bytes]) -> None:
        self.told.append(("change", wire, *terms))

    def flush(self, wire: str) -> None:
        self.told.append(("flush", wire))

    def take(self, wire: str) -> None:
        self.told.append(("take", wire))

    async def heard(self) -> bool:
        return not self.hangs

    async def counts(self) -> dict[str, Any]:
        return {}

    def words(self) -> list[tuple[Any, ...]]:
        """What it was told since the last look, without terms."""
        told, self.told = [one[:2] for one in self.told], []
        return told


class Stage:
    """Two guests, whose wires are as `Wires` has them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loop = Loop()
        self.carriers: list[tuple[Key, bool]] = []
        self.spliced: set[str] = set()
        self.off: set[str] = set()
        self.notes: list[str] = []

        async def to_thread(what: Any, *given: Any) -> Any:
            return what(*given)

        monkeypatch.setattr(asyncio, "to_thread", to_thread)
        monkeypatch.setattr(wires, "RelayService", Relay)
        monkeypatch.setattr(Splice, "open", lambda one: one)
        for name, change in (
            ("make", list),
            ("enter", self._enter),
            ("leave", self._leave),
            ("drop", self._leave),
        ):
            monkeypatch.setattr(wires.splice, name, change)

        async def make() -> Wires:
            return Wires(self._where, lambda *told: self.carriers.append(told), self.notes.append)

        self.wires = self.do(make())
        self.relay: Relay = self.wires._relay  # type: ignore[assignment]

    def _where(self, key: Key) -> Place | None:
        if key[0] in self.off or key[1] is not Wire.LINK_LOCAL:
            return None
        return Place(3, f"p-{key[0]}", 100, 2, lambda _: (), "", "")

    def _enter(self, splices: list[Splice]) -> None:
        for one in splices:
            one.entered = True
            self.spliced.add(one.place.port)

    def _leave(self, splices: list[Splice]) -> None:
        self.spliced -= {one.place.port for one in splices}

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def wait(self, seconds: float) -> None:
        self.do(asyncio.sleep(seconds))

    def give(self, *keys: Key, **terms: Any) -> None:
        self.do(self.wires.give(dict.fromkeys(keys, plan.read(terms)), {}))

    def states(self) -> dict[str, str]:
        return {one.guest: one.state for one in self.do(self.wires.list())}


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    made = Stage(monkeypatch)
    yield made
    made.loop.close()
    assert made.loop.problems == []


def test_the_relay_is_there_for_as_long_as_a_wire_needs_it(stage: Stage) -> None:
    assert not stage.relay.running
    stage.give(A, B, loss="5%")
    assert stage.relay.running
    assert stage.spliced == {"p-a", "p-b"}
    both = ("a/link-local", "b/link-local")
    assert stage.relay.words() == [(word, wire) for word in ("lay", "begin") for wire in both]
    stage.do(stage.wires.clear([A]))
    assert stage.relay.running
    stage.do(stage.wires.clear([B]))
    assert not stage.relay.running
    assert stage.spliced == set()
    assert stage.states() == {}


def test_other_terms_for_a_wire_take_the_place_of_what_it_had(stage: Stage) -> None:
    stage.give(A, loss="5%", delay="1ms")
    stage.relay.words()
    stage.give(A, loss="7%", seed=3)
    ((word, wire, seed, to, from_),) = stage.relay.told
    assert (word, wire, seed) == ("begin", "a/link-local", 3)
    assert to == from_ == plan.read({"loss": "7%"}).to


def test_one_direction_may_change_alone(stage: Stage) -> None:
    stage.give(A, loss="5%")
    stage.do(stage.wires.give_direction([A], "to", plan.read({"delay": "1ms"}), {}))
    *_, to, from_ = stage.relay.told[-1]
    assert to == plan.read({"delay": "1ms"}).to
    assert from_ == plan.read({"loss": "5%"}).to


def test_a_wire_that_is_only_down_at_times_needs_no_relay(stage: Stage) -> None:
    flap = {"at": 1, "for": "100ms", "every": 1, "times": 2, "down": True}
    stage.give(A, schedule=[flap])
    assert not stage.relay.running
    stage.wait(1.05)
    assert stage.carriers == [(A, False)]
    assert stage.wires.is_down(A)
    assert stage.states() == {"a": "down"}
    stage.wait(5)
    assert stage.carriers == [(A, False), (A, True), (A, False), (A, True)]
    assert not stage.wires.is_down(A)


def test_terms_change_when_the_schedule_says(stage: Stage) -> None:
    stage.give(A, delay="1ms", schedule=[{"at": 10, "for": 5, "loss": "30%"}])
    stage.relay.told.clear()
    stage.wait(9.9)
    assert stage.relay.told == []
    stage.wait(0.2)
    assert stage.relay.told[-1][2] == plan.read({"delay": "1ms", "loss": "30%"}).to
    stage.wait(5)
    assert stage.relay.told[-1][2] == plan.read({"delay": "1ms"}).to
    stage.wait(100)
    assert len(stage.relay.told) == 2


def test_a_change_is_added_from_now_on_beside_what_there_is(stage: Stage) -> None:
    stage.give(A, delay="1ms")
    stage.wait(50)
    stage.relay.told.clear()
    stage.do(stage.wires.add([A], plan.timed({"at": 2, "for": 1, "loss": "30%"}), {}))
    stage.wait(2.5)
    assert stage.relay.told[-1][2] == plan.read({"delay": "1ms", "loss": "30%"}).to
    assert {one[0] for one in stage.relay.told} == {"change"}  # frames are counted on


def test_a_change_that_has_no_meaning_beside_what_there_is_is_refused(stage: Stage) -> None:
    stage.give(A, rate="1mbit")
    stage.relay.told.clear()
    with pytest.raises(BadInput, match="a rate or a trace"):
        stage.do(stage.wires.add([A], plan.timed({"at": 2, "trace": "x"}), {"x": b""}))
    stage.wait(5)
    assert stage.relay.told == []


def test_changes_that_are_over_make_room(stage: Stage) -> None:
    for _ in range(plan.MAX_TIMED + 50):
        stage.do(stage.wires.add([A], plan.timed({"at": 0, "for": 1, "down": True}), {}))
        stage.wait(2)


def test_if_one_wire_cannot_be_impaired_none_is(stage: Stage) -> None:
    stage.relay.refuses = "b/link-local"
    with pytest.raises(NotSo):
        stage.give(A, B, loss="5%")
    assert stage.spliced == set()
    assert stage.states() == {}
    assert not stage.relay.running
    stage.relay.refuses = ""
    stage.give(A, B, loss="5%")
    assert stage.spliced == {"p-a", "p-b"}


def test_nothing_is_said_to_be_done_that_the_relay_has_not_heard(stage: Stage) -> None:
    stage.give(A, loss="5%")
    stage.relay.hangs = True
    with pytest.raises(NotSo, match="the relay hangs: what was asked holds as soon as another"):
        stage.give(A, loss="7%")
    stage.loop.call_soon(stage.relay.again, "hung for 8 s")
    stage.wait(0.1)
    assert stage.relay.told[-1][3] == plan.read({"loss": "7%"}).to


def test_a_wire_that_its_guest_has_destroyed_is_said_to_be(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_: Splice) -> None:
        raise NotSo("the guest has removed its interface: reboot it")

    monkeypatch.setattr(Splice, "open", gone)
    with pytest.raises(NotSo, match="a/link-local: the guest has removed its interface"):
        stage.give(A, loss="5%")
    assert stage.states() == {}


def test_a_guest_that_boots_keeps_what_its_wire_has(stage: Stage) -> None:
    stage.give(A, loss="5%", schedule=[{"at": 10, "loss": "30%"}])
    stage.relay.words()
    stage.do(stage.wires.detach(["a"]))
    assert stage.spliced == set()
    stage.wait(20)
    assert stage.relay.words() == [("take", "a/link-local")]
    stage.do(stage.wires.attach("a"))
    assert stage.spliced == {"p-a"}
    assert stage.relay.told[-1][3] == plan.read({"loss": "30%"}).to
    assert stage.relay.words() == [("lay", "a/link-local"), ("begin", "a/link-local")]


def test_a_guest_that_cannot_be_impaired_when_it_boots_is_cut_off_and_shown(stage: Stage) -> None:
    """An impairment that silently is none would make a run look better than it was."""
    stage.give(A, loss="5%")
    stage.do(stage.wires.detach(["a"]))
    stage.relay.refuses = "a/link-local"
    stage.do(stage.wires.attach("a"))
    assert stage.carriers == [(A, False)]
    assert stage.states()["a"].startswith("down: the relay does not answer")
    stage.do(stage.wires.clear([A]))
    assert stage.carriers[-1] == (A, True)


def test_a_guest_that_is_off_is_impaired_when_it_boots(stage: Stage) -> None:
    stage.off.add("a")
    stage.give(A, loss="5%")
    assert stage.states() == {"a": "off"}
    stage.off.clear()
    stage.do(stage.wires.attach("a"))
    assert stage.states() == {"a": "impaired"}


def test_a_relay_that_has_begun_again_is_told_everything(stage: Stage) -> None:
    stage.give(A, loss="5%")
    stage.give(B, down=True)
    stage.relay.words()
    stage.loop.call_soon(stage.relay.again, "signal 9")
    stage.wait(0.1)
    assert stage.notes == ["signal 9"]
    assert stage.relay.words() == [("lay", "a/link-local"), ("begin", "a/link-local")]


def test_a_guest_that_is_gone_is_forgotten(stage: Stage) -> None:
    stage.give(A, loss="5%", schedule=[{"at": 1, "for": 1, "every": 2, "down": True}])
    stage.do(stage.wires.detach(["a"]))
    stage.wires.forget("a")
    stage.wait(10)
    assert stage.carriers == []
    assert not stage.relay.running
    assert Plan() == stage.wires._plan(A)
