"""Commands that are kept in a store outside: done once, and taken only while the store is there."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from hostagent.channel.messages import encode
from hostagent.channel.requests import Place, Start
from hostagent.controller import calls
from hostagent.model import Event, EventType, Guest
from netemu.errors import NotSo
from netemu.supervisor.control import membership, shared_store, store
from netemu.supervisor.control.membership import Part
from netemu.supervisor.control.store import AgentRefuses, AgentSilent, NodeFailed, StoreAway
from netemu.topology import parse
from tests.netemu.supervisor.fake_etcd import FakeEtcd
from tests.netemu.supervisor.fake_store import FakeStore
from tests.netemu.supervisor.shared import Shared

PLACE = [Guest(name="a")]
LAB = parse("nodes: {n1: {guests: [a]}, n2: {guests: 0}}", source="lab.yaml")


class Stage:
    """A lab of two nodes, whose agents are a fake store, on a store that is a fake, too."""

    def __init__(self, local: FakeStore) -> None:
        self.local, self.etcd = local, FakeEtcd()
        self.told: list[str] = []
        self.lost: list[tuple[str, str]] = []
        self.shared = self.of_lab(local)
        self.store = self.shared.store
        self.store.lose = lambda node, reason: self.lost.append((node, reason))

    def of_lab(self, local: FakeStore) -> Shared:
        part = Part("lab", "here", ("n1", "n2"), (), None, b"")
        return Shared(self.etcd, part, LAB, local, self.told.append)

    def keys(self, kind: str) -> list[str]:
        return [key.split("/", 5)[5] for key in self.etcd.keys if f"/{kind}/" in key]

    async def until(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not what():
                await asyncio.sleep(0.001)


Script = Callable[[Stage], Coroutine[Any, Any, None]]


@pytest.fixture
def play(
    fake_store: Callable[..., FakeStore], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Script], None]:
    monkeypatch.setattr(membership, "RENEWED_EVERY", 0.005)
    monkeypatch.setattr(membership, "ALIVE", 0.05)
    monkeypatch.setattr(shared_store, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(shared_store, "_LONGEST_PAUSE", 0.001)

    def run(script: Script) -> None:
        async def staged() -> None:
            stage = Stage(fake_store("n1", "n2"))
            await stage.shared.begin()
            running = asyncio.create_task(stage.shared.run())
            await script(stage)
            running.cancel()
            await asyncio.wait([running])
            assert running.cancelled(), running.exception()

        asyncio.run(staged())

    return run


def test_a_command_is_kept_with_its_answer_and_carried_out_once(
    play: Callable[[Script], None],
) -> None:
    async def script(stage: Stage) -> None:
        await stage.store.append("n1", calls.place(PLACE, "p"))
        event = await stage.store.append("n1", calls.schedule(["a"], EventType.REBOOT))
        first = await stage.store.append("n1", calls.start(event.id, "mine"))
        again = await stage.store.settle("n1", calls.start(event.id, "mine"))
        assert first == again
        assert len(stage.local.commands(Start)) == 1
        assert stage.keys("commands")[::2] == ["n1/p", "n1/mine"]
        assert stage.keys("answers") == stage.keys("commands")
        with pytest.raises(AgentRefuses, match="mine was used for another command") as refused:
            await stage.store.append("n1", calls.cancel(event.id, "mine"))
        assert refused.value.code == "command-id-reused"
        assert [one.id for one in (await stage.store.snapshot("n1")).events] == [event.id]

    play(script)


def test_commands_that_come_at_once_share_a_transaction(play: Callable[[Script], None]) -> None:
    """One of them uses another's ID: it alone is refused."""

    async def script(stage: Stage) -> None:
        await stage.store.append("n1", calls.place(PLACE, "used"))
        stage.etcd.made_together.clear()
        names = [str(number) for number in range(20)]
        plans = [calls.schedule(["a"], EventType.FREEZE, command_id=one) for one in names]
        events = await asyncio.gather(*(stage.store.append("n1", one) for one in plans))
        assert len({one.id for one in events}) == 20
        assert stage.etcd.made_together == [20]
        assert len(stage.keys("answers")) == 21
        again = [calls.withdraw(["a"], "used"), calls.start(events[0].id, "new")]
        found = await asyncio.gather(
            *(stage.store.append("n1", one) for one in again), return_exceptions=True
        )
        assert isinstance(found[0], AgentRefuses)
        assert found[0].code == "command-id-reused"
        assert isinstance(found[1], Event)

    play(script)


def test_a_refusal_is_told_and_not_kept(play: Callable[[Script], None]) -> None:
    """A disk that was full has room later: the same command is carried out then."""

    async def script(stage: Stage) -> None:
        stage.local.full.add("n1")
        with pytest.raises(AgentRefuses, match=r"^n1: the repository has failed: disk is full$"):
            await stage.store.append("n1", calls.place(PLACE, "p"))
        assert stage.keys("commands") == []
        settling = asyncio.create_task(stage.store.settle("n1", calls.place(PLACE, "p")))
        await asyncio.sleep(0.01)
        stage.local.full.clear()
        await settling
        assert stage.keys("answers") == ["n1/p"]

    play(script)


def test_while_the_store_is_away_no_command_is_taken_and_nodes_stay(
    play: Callable[[Script], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user is told why at once; what is asked and not commanded is answered; nothing fails."""
    monkeypatch.setattr(store, "SETTLED_WITHIN", 0.01)

    async def script(stage: Stage) -> None:
        await stage.store.append("n1", calls.place(PLACE))
        stage.etcd.away = True
        await stage.until(lambda: bool(stage.store.trouble))
        for act in (stage.store.append, stage.store.settle):
            with pytest.raises(StoreAway, match=r"^no command is taken: the store does not answer"):
                await act("n1", calls.withdraw(["a"]))
        assert len((await stage.store.snapshot("n1")).guests) == 1
        assert stage.lost == []
        stage.etcd.back()
        await stage.until(lambda: not stage.store.trouble)
        await stage.store.append("n1", calls.withdraw(["a"]))
        assert [bool(one) for one in stage.told] == [True, False]

    play(script)


def test_a_command_whose_keeping_was_not_confirmed_is_carried_out_once(
    play: Callable[[Script], None],
) -> None:
    async def script(stage: Stage) -> None:
        stage.store._kept = (1e9, await stage.etcd.grant(1))
        stage.etcd.losing = 1
        with pytest.raises(StoreAway):
            await stage.store.append("n1", calls.place(PLACE, "p"))
        await stage.until(lambda: stage.keys("answers") == ["n1/p"])
        await stage.store.append("n1", calls.place(PLACE, "p"))
        assert len(stage.local.commands(Place)) == 1

    play(script)


def test_what_was_kept_before_is_carried_out_in_its_order(play: Callable[[Script], None]) -> None:
    """Commands of others, from before the first look and after it; nonsense is passed over."""

    async def script(stage: Stage) -> None:
        prefix = stage.store._membership.key("commands", "n2")
        names = ["z", "y", "x"]
        for number, name in enumerate(names):
            if number == 2:
                await stage.until(lambda: len(stage.local.asked) == 2)
                await stage.etcd.put(f"{prefix}/junk", b"nonsense")
            command = Place(command_id=name, guests=(Guest(name=name),))
            await stage.etcd.put(f"{prefix}/{name}", encode(command))
        await stage.until(lambda: len(stage.keys("answers")) == 3)
        assert [one.command_id for _, one in stage.local.asked] == names

    play(script)


def test_a_machine_that_was_cut_off_for_too_long_to_be_told_of_each_change_looks_at_all(
    play: Callable[[Script], None],
) -> None:
    """What it has carried out before it does not carry out again."""

    async def script(stage: Stage) -> None:
        await stage.store.append("n1", calls.place(PLACE, "p"))
        late = Place(command_id="late", guests=(Guest(name="b"),))
        stage.etcd.dropped = len(stage.etcd.history) + 1
        await stage.etcd.put(stage.store._membership.key("commands", "n1", "late"), encode(late))
        await stage.until(lambda: "n1/late" in stage.keys("answers"))
        assert [one.command_id for _, one in stage.local.asked] == ["p", "late"]

    play(script)


def test_a_node_that_hangs_holds_up_no_other_and_a_failed_one_is_told(
    play: Callable[[Script], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(stage: Stage) -> None:
        stage.local.hanging.add("n1")
        silent = "n1: its agent does not answer: no answer in time"
        with monkeypatch.context() as patch:
            patch.setattr(shared_store, "_ANSWERED_WITHIN", 0.05)
            with pytest.raises(AgentSilent, match=silent):
                await stage.store.append("n1", calls.place(PLACE, "p"))
        await stage.store.append("n2", calls.place([Guest(name="b")]))
        waiting = asyncio.create_task(stage.store.append("n1", calls.place(PLACE, "p")))
        await asyncio.sleep(0.01)
        stage.store.fail("n1")
        with pytest.raises(NodeFailed, match=r"^n1 has failed$"):
            await waiting
        await stage.until(lambda: stage.keys("commands")[0].startswith("n2/"))
        stage.local.hanging.clear()
        stage.store.restore("n1")
        await stage.store.append("n1", calls.place(PLACE, "q"))
        assert [one.command_id for _, one in stage.local.commands(Place)][1:] == ["q"]

    play(script)


def test_a_machine_that_was_away_for_too_long_takes_its_place_again(
    play: Callable[[Script], None],
) -> None:
    async def script(stage: Stage) -> None:
        stage.etcd.end(stage.store._membership.lease)
        await stage.until(lambda: stage.keys("machines") == ["here"])
        await stage.store.append("n1", calls.place(PLACE))

    play(script)


def test_one_lab_of_a_name_has_its_commands_in_a_store(
    play: Callable[[Script], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(stage: Stage) -> None:
        other = stage.of_lab(stage.local)
        with pytest.raises(NotSo, match="a lab of this name keeps its commands in this store"):
            await other.begin()
        monkeypatch.setattr(membership, "ALIVE", 5.0)  # the time that it is waited for
        beginning = asyncio.create_task(other.begin())
        await stage.store.append("n1", calls.place(PLACE))
        await stage.shared.end()
        await beginning
        assert stage.keys("commands") == []

    play(script)
