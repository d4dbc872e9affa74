"""Ports whose removal the kernel refuses: what is left of them is known, and removed later."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from netemu.errors import MachineCannot
from netemu.kernel import netlink, nft
from netemu.supervisor.nodes import ports
from netemu.supervisor.nodes.ports import Ports
from netemu.supervisor.nodes.wiring import Manner, WiredGuest, WiredNode
from netemu.topology import Policy, parse
from tests.netemu.supervisor.machines import FakeMachine

LAB = parse("nodes: {n1: {guests: [a, b]}}", source="lab.yaml")


class Kernel:
    """Notes what is done to links and to the guard; fails in one of them while told to."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.failing = ""

    def run(self, messages: Sequence[netlink.Message]) -> None:
        self.do("links", [one.what for one in messages])

    def do(self, what: str, details: Sequence[str] = ()) -> None:
        if self.failing == what:
            raise MachineCannot(f"no room for {what}")
        self.done.append(" ".join((what, *details)))


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()

    @contextmanager
    def opened(*_: object) -> Iterator[Kernel]:
        yield made

    monkeypatch.setattr(ports, "inside", opened)
    monkeypatch.setattr(netlink, "inside", opened)
    monkeypatch.setattr(netlink.Netlink, "open", opened)
    for verb in ("load", "unload", "unload_all"):
        monkeypatch.setattr(nft, verb, lambda *_, verb=verb: made.do(verb))
    monkeypatch.setattr(nft, "follows_names", lambda: True)
    return made


@pytest.fixture
def node() -> WiredNode:
    (one,) = LAB.nodes
    guests = [WiredGuest(guest, _machine(guest.name)) for guest in one.guests]
    return WiredNode(one, -1, guests)


def _machine(name: str) -> Any:
    return FakeMachine(name, [], {})


@pytest.mark.parametrize("failing", ["links", "unload_all"])
def test_wires_that_could_not_be_withdrawn_are_there_until_they_are(
    kernel: Kernel, node: WiredNode, failing: str
) -> None:
    """A guest that moves on would else leave its port and its rules on the old node for good."""
    made, kernel.failing = Ports(Manner(Policy.RESPONDER_ONLY), None), failing
    with pytest.raises(MachineCannot, match=failing):
        asyncio.run(made.withdraw(node, node.guests))
    assert all(one.plugged for one in node.guests)
    kernel.failing = ""
    asyncio.run(made.withdraw(node, node.guests))
    assert not any(one.plugged for one in node.guests)
    assert kernel.done[-1] == "unload_all"


@pytest.mark.parametrize("failing", ["links", "unload_all"])
def test_a_guest_whose_wires_were_half_withdrawn_boots_behind_a_guard_that_is_loaded_anew(
    kernel: Kernel, node: WiredNode, failing: str
) -> None:
    """Its node has come back before the guest could leave it; its rules may be gone."""
    made, kernel.failing = Ports(Manner(Policy.RESPONDER_ONLY), None), failing
    with pytest.raises(MachineCannot):
        asyncio.run(made.withdraw(node, node.guests))
    kernel.failing, kernel.done = "", []
    asyncio.run(made.renew(node, node.guests[0]))
    said = [one.split(" ")[0] for one in kernel.done]
    assert said.index("unload") < said.index("load")
    assert said[-1] == "links", "it comes up behind it"


def test_a_port_that_could_not_be_removed_is_removed_before_the_next_boot(
    kernel: Kernel, node: WiredNode
) -> None:
    made, kernel.failing = Ports(Manner(Policy.RESPONDER_ONLY), None), "unload"
    one = node.guests[0]
    with pytest.raises(MachineCannot):
        asyncio.run(made.remove(node, one))
    assert one.plugged
    kernel.failing, kernel.done = "", []
    asyncio.run(made.renew(node, one))
    assert [line.split(" ")[0] for line in kernel.done if "load" in line] == ["unload", "load"]
