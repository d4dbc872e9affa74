"""The store that the agents keep: real agents on one loop, where they refuse and are silent."""

import asyncio
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from hostagent import agent as agent_module
from hostagent.agent import Agent
from hostagent.channel.requests import Place
from hostagent.controller import Watch, calls
from hostagent.controller.calls import Call
from hostagent.model import EventType, Guest
from hostagent.repository import Repository
from hostagent.sockets import listen_unix
from netemu.errors import NotSo
from netemu.supervisor.control.agent_store import AgentStore
from netemu.supervisor.control.store import AgentRefuses, AgentSilent, Known, NodeFailed


class Stage:
    """One node, `n`, whose agent serves while `begin` has been called and `end` has not."""

    def __init__(self, directory: Path) -> None:
        self.host: Any = SimpleNamespace(
            name="n",
            commands=directory / "command",
            feed=directory / "feed",
            repository=directory / "n.sqlite",
        )
        self.store = AgentStore([self.host])

    async def begin(self) -> None:
        self.stop, ready = asyncio.Event(), asyncio.Event()
        self.serving = asyncio.create_task(self._serve(ready.set))
        await ready.wait()

    async def _serve(self, ready: Callable[[], None]) -> None:
        repository = Repository.open(self.host.repository)
        with listen_unix(self.host.commands) as command, listen_unix(self.host.feed) as feed:
            await Agent("n", repository).serve(command, feed, self.stop, ready)
        repository.close()

    async def end(self) -> None:
        self.stop.set()
        await self.serving


Script = Callable[[Stage], Coroutine[Any, Any, None]]


@pytest.fixture
def play() -> Callable[[Script], None]:
    def run(script: Script) -> None:
        with tempfile.TemporaryDirectory(prefix="mt-") as directory:  # sockets' names are short
            asyncio.run(script(Stage(Path(directory))))

    return run


def test_what_was_stored_is_known_to_watchers_and_after_the_agents_end(
    play: Callable[[Script], None],
) -> None:
    async def script(stage: Stage) -> None:
        await stage.begin()
        watch = Watch(lambda: None)
        watching = asyncio.create_task(stage.store.watch("n", watch))
        await stage.store.append("n", calls.place([Guest(name="a")]))
        event = await stage.store.append("n", calls.schedule(["a"], EventType.REBOOT))
        left = await stage.store.settle("n", calls.withdraw(["a"], "mine"))
        async with asyncio.timeout(10):
            while event.id not in watch.events:
                await asyncio.sleep(0.001)
        assert (await stage.store.snapshot("n")) == Known(0.0, (), (event,))
        watching.cancel()
        await stage.end()
        stage.store.fail("n")
        with stage.store.dead("n") as dead:
            assert [one.id for one in dead.snapshot().events] == [event.id]
            done = dead.answer("mine")
            assert done is not None
            assert done.left == left
            assert dead.answer("another's") is None
            dead.append(Place(command_id="later", guests=(Guest(name="b"),)))
            assert [one.guest.name for one in dead.snapshot().guests] == ["b"]
            with pytest.raises(NotSo, match=r"^n: its repository does not take it: .*twice"):
                dead.append(Place(command_id="x", guests=(Guest(name="c"), Guest(name="c"))))

    play(script)


def test_the_exit_code_is_that_of_the_refusal_whichever_verb_it_was(
    play: Callable[[Script], None],
) -> None:
    """2 for what no agent would take, from `set` as from `maintenance schedule`; 1 otherwise."""
    bad_input: list[Call[Any]] = [
        calls.place([Guest(name="a", properties={"colour": "red"})]),
        calls.place([Guest(name="a", properties={"user_data": "x" * (20 << 20)})]),
        calls.schedule(["a"], EventType.REBOOT, description="x" * 100_000),
        calls.advance_to(1e12),
    ]
    not_so: list[Call[Any]] = [
        calls.place([Guest(name="a"), Guest(name="a")]),
        calls.schedule(["nobody"], EventType.REBOOT),
        calls.start(str(UUID(int=7))),
    ]

    async def script(stage: Stage) -> None:
        await stage.begin()
        for code, refused in ((2, bad_input), (1, not_so)):
            for call in refused:
                with pytest.raises(AgentRefuses) as error:
                    await stage.store.append("n", call)
                assert error.value.exit_code == code, error.value
        await stage.end()

    play(script)


def test_errors_say_whether_the_command_may_have_been_carried_out(
    play: Callable[[Script], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(stage: Stage) -> None:
        with pytest.raises(AgentSilent, match=r"^n: its agent does not answer: No such") as silent:
            await stage.store.append("n", calls.now())
        assert not silent.value.in_doubt
        await stage.begin()
        with pytest.raises(AgentRefuses, match=r"^n: not on this node: nobody$") as refused:
            await stage.store.settle("n", calls.schedule(["nobody"], EventType.REBOOT))
        assert (refused.value.code, refused.value.in_doubt) == ("unknown-guest", False)
        huge = Guest(name="a", properties={f"tags.{number}": "x" * 1000 for number in range(20000)})
        with pytest.raises(AgentRefuses) as refused:
            await stage.store.append("n", calls.place([huge]))
        assert refused.value.code == "bad-frame"
        monkeypatch.setitem(agent_module.MAX_CONNECTIONS, "command", 0)
        with pytest.raises(AgentRefuses) as refused:
            await stage.store.append("n", calls.now())
        assert (refused.value.code, refused.value.in_doubt) == ("busy", False)
        stage.store.fail("n")
        with pytest.raises(NodeFailed, match=r"^n has failed$"):
            await stage.store.append("n", calls.now())
        stage.store.restore("n")
        assert not stage.store.away("n")
        await stage.end()

    play(script)


def test_a_repository_that_cannot_be_read_is_named(play: Callable[[Script], None]) -> None:
    async def script(stage: Stage) -> None:
        stage.host.repository.write_bytes(b"not a repository at all, but long enough" * 50)
        with pytest.raises(NotSo, match="n: its repository cannot be read"), stage.store.dead("n"):
            pass

    play(script)
