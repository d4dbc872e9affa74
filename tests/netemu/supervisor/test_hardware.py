"""Machines of any kind that refuse and fail, and what becomes of their guests: no lab."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from netemu.errors import MachineCannot, NotSo
from netemu.linklocal.timing import Timing
from netemu.supervisor.boot import readiness
from netemu.supervisor.guests.machine import Capability
from netemu.supervisor.guests.power import Action, Power
from netemu.supervisor.nodes import claims
from netemu.topology import parse
from tests.netemu.supervisor.machines import FakeLab

LAB = "nodes: {n1: {guests: [a, b]}, n2: {guests: [c]}}"


@pytest.fixture
def lab() -> FakeLab:
    return FakeLab(parse(LAB, source="lab.yaml"))


@pytest.mark.parametrize("verb", ["renew", "attach", "boot"])
def test_a_boot_that_fails_anywhere_leaves_the_guest_off_and_dark(lab: FakeLab, verb: str) -> None:
    """Whatever the boot had begun is ended, and the next boot succeeds."""

    async def script() -> None:
        await lab.hardware.do("a", Action.SHUT_DOWN)
        lab.failing["a", verb] = MachineCannot("no room")
        with pytest.raises(MachineCannot, match="no room"):
            await lab.hardware.do("a", Action.BOOT)
        assert lab.done[-1] == ("a", "cut")
        assert (lab.hardware.power("a"), lab.ports.dark["a"]) == (Power.OFF, True)
        assert not lab.hardware.bound("a")
        lab.failing.clear()
        await lab.hardware.do("a", Action.BOOT)
        assert (lab.hardware.power("a"), lab.ports.dark["a"]) == (Power.RUNNING, False)
        assert lab.hardware.bound("a")

    asyncio.run(script())


def test_a_machine_that_cannot_be_frozen_is_silent_all_the_same(
    lab: FakeLab, caplog: pytest.LogCaptureFixture
) -> None:
    async def script() -> None:
        lab.failing["a", "freeze"] = MachineCannot("no tracer")
        await lab.hardware.do("a", Action.FREEZE)
        assert lab.hardware.power("a") is Power.FROZEN
        assert lab.ports.silent["a"]
        assert lab.claims.paused == {"a"}
        await lab.hardware.do("a", Action.SHUT_DOWN)
        assert not lab.ports.silent["a"]
        assert lab.claims.paused == set()

    asyncio.run(script())
    assert "a: its wires are silent, but its processes go on: no tracer" in caplog.text


def test_a_machine_that_turns_itself_off_gives_up_its_address_and_one_that_reboots_does_not(
    lab: FakeLab,
) -> None:
    lab.hardware._told("a", "rebooted by itself", False)
    assert lab.claims.off == set()
    lab.hardware._told("a", "turned itself off", True)
    assert lab.claims.off == {"a"}
    assert lab.ports.dark["a"]


def test_nothing_is_run_in_a_guest_that_is_off_or_by_a_console_that_it_lacks(lab: FakeLab) -> None:
    async def script() -> None:
        assert await lab.hardware.enter("a") == {"net": -1}
        await lab.hardware.do("a", Action.SHUT_DOWN)
        with pytest.raises(NotSo, match="a is off: nothing can be run in it"):
            await lab.hardware.enter("a")
        assert lab.hardware.can("b", Capability.ENTER)
        with pytest.raises(NotSo, match="b has no kernel of its own, and no console"):
            lab.hardware.with_console("b")

    asyncio.run(script())


def test_a_machine_is_the_same_one_on_its_next_node(lab: FakeLab) -> None:
    async def script() -> None:
        old, new = lab.nodes
        await lab.hardware.do("a", Action.SHUT_DOWN)
        before = lab.hardware.wired("a")
        await lab.hardware.rewire(["a"], new)
        lab.hardware.replace(before.taken_over(before.guest), new)
        await lab.hardware.do("a", Action.BOOT)
        assert lab.hardware.wired("a").machine is lab.machines["a"]
        assert [one.guest.name for one in old.guests] == ["b"]
        assert [one.guest.name for one in new.guests] == ["c", "a"]
        await lab.hardware.do("a", Action.SHUT_DOWN)
        await lab.hardware.do("a", Action.REMOVE)
        assert lab.done[-1] == ("a", "remove")

    asyncio.run(script())


def test_readiness_asks_from_each_machine_that_the_lab_can_connect_from(
    lab: FakeLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "_PAUSE", 0.001)
    steps: list[int] = []
    progress: Any = SimpleNamespace(step=lambda _phase, done, _of: steps.append(done))
    lab.machines["b"].capabilities -= {Capability.DIAL}
    lab.machines["a"].answer = b'HTTP/1.1 200 OK\r\n\r\n{"ID": "_a"}'
    lab.machines["c"].answer = None

    async def script() -> None:
        asked = asyncio.create_task(readiness.all_answered(lab.nodes, progress))
        async with asyncio.timeout(10):
            while lab.done.count(("c", "dial")) < 3:
                await asyncio.sleep(0.001)
        assert not asked.done()
        lab.machines["c"].answer = b'HTTP/1.1 200 OK\r\n\r\n{"ID": "_c"}'
        async with asyncio.timeout(10):
            await asked

    asyncio.run(script())
    assert steps == [1, 2]
    assert lab.done.count(("a", "hung_up")) == lab.done.count(("c", "hung_up")) == 1
    assert all(name != "b" for name, _ in lab.done)


class FakeShell:
    """A node's or a guest's shell, without sockets."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        self.claimant = next((one for one in arguments if hasattr(one, "remembered")), None)
        self.oracle: Any = SimpleNamespace(by_port={})

    def open(self, *_: Any) -> "FakeShell":
        return self

    def plug(self, *_: Any) -> None:
        pass

    unplug = shut_down = close = plug


def test_a_machine_that_claims_by_itself_has_what_its_node_has_bound(
    lab: FakeLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its node's word counts; of the lab's own claimants, both words do."""
    monkeypatch.setattr(claims, "NodeShell", FakeShell)
    monkeypatch.setattr(claims, "GuestShell", FakeShell)
    lab.machines["a"].claims_itself = True

    async def script() -> None:
        held = claims.Claims(Timing()).begin(lab.nodes)
        a, b = (one.guest for one in lab.nodes[0].guests)
        oracle: Any = held._nodes[a.mark].oracle
        assert (held.state(a), held.address(a)) == ("unbound", None)
        for guest in (a, b):
            oracle.by_port[guest.mark] = SimpleNamespace(address=0xA9FE0707)
        assert (held.state(a), held.address(a)) == ("bound", "169.254.7.7")
        assert (held.bound(b), held.address(b)) == (False, None)
        held.pause(a)
        held.resume(a)
        held.unplug(a)
        assert (held.state(a), held.address(a)) == ("down", None)
        held.boot(lab.nodes[0].guests[0], lab.nodes[0])
        assert held.state(a) == "bound"

    asyncio.run(script())
