"""The lab's hardware without a kernel: real power and places, machines that are told what fails."""

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from netemu.supervisor.guests.endings import Ending
from netemu.supervisor.guests.machine import Capability, Port
from netemu.supervisor.nodes.hardware import Hardware
from netemu.supervisor.nodes.wiring import WiredGuest, WiredNode
from netemu.topology import Guest, Lab

Verb = tuple[str, str]


class FakeMachine:
    """Notes each verb; one that is in `failing` is refused for as long as it is there."""

    def __init__(self, name: str, done: list[Verb], failing: dict[Verb, Exception]) -> None:
        self.name, self._done, self._failing = name, done, failing
        self.capabilities = frozenset({Capability.ENTER, Capability.DIAL})
        self.claims_itself = False
        self.answer: bytes | None = b""  # to who dials, or nobody is there
        self.graces: list[float] = []
        self.stubborn = False  # its programs end only when its power is cut
        self.ending: Ending | None = None
        self._cut = asyncio.Event()

    def _do(self, verb: str) -> None:
        self._done.append((self.name, verb))
        if (self.name, verb) in self._failing:
            raise self._failing[self.name, verb]

    async def renew(self) -> None:
        await asyncio.sleep(0)
        self._do("renew")

    def attach(self, _node: int, _port: Port) -> None:
        self._do("attach")

    def claim(self, start: Callable[[int], Any]) -> Any:
        return None if self.claims_itself else start(-1)

    async def boot(self, _program: object, _names: object) -> None:
        await asyncio.sleep(0)
        self._do("boot")

    async def freeze(self) -> None:
        self._do("freeze")

    def thaw(self) -> None:
        self._do("thaw")

    async def shut_down(self, grace: float) -> Ending | None:
        self.graces.append(grace)
        self._cut.clear()
        if self.stubborn:
            async with asyncio.timeout(10):
                await self._cut.wait()
        self._do("shut_down")
        return self.ending

    def cut(self) -> None:
        self._cut.set()
        self._do("cut")

    def remove(self) -> None:
        self._do("remove")

    async def enter(self) -> Mapping[str, int]:
        self._do("enter")
        return {"net": -1}

    async def dial(self, _host: str, _port: int) -> socket.socket:
        self._do("dial")
        if self.answer is None:
            raise ConnectionRefusedError
        ours, self._peer = socket.socketpair()
        self._peer.sendall(self.answer)
        self._peer.shutdown(socket.SHUT_WR)
        ours.setblocking(False)
        return ours

    def hung_up(self, _host: str) -> None:
        self._peer.close()
        self._do("hung_up")


class FakePorts:
    """Attaches the machine, and notes which ports were dark or silent last."""

    guarded_ahead = True

    def __init__(self) -> None:
        self.dark: dict[str, bool] = {}
        self.silent: dict[str, bool] = {}

    async def renew(self, node: WiredNode, wired: WiredGuest) -> None:
        wired.machine.attach(node.net, wired.port)
        self.dark[wired.guest.name] = False

    async def remove(self, _node: WiredNode, wired: WiredGuest) -> None:
        self.dark[wired.guest.name] = True

    async def withdraw(self, _node: WiredNode, guests: Sequence[WiredGuest]) -> None:
        for one in guests:
            one.plugged = False

    async def expect(self, _node: WiredNode, _guests: Sequence[WiredGuest]) -> None:
        pass

    def go_dark(self, _node: WiredNode, wired: WiredGuest) -> None:
        self.dark[wired.guest.name] = True

    def silence(self, _node: WiredNode, wired: WiredGuest, *, silent: bool) -> None:
        self.silent[wired.guest.name] = silent

    def set(self, node: WiredNode, up: Callable[[str], bool]) -> None:
        for one in node.guests:
            self.dark[one.guest.name] = not up(one.guest.name)


class FakeClaims:
    """A guest has an address from its boot until it is off."""

    def __init__(self) -> None:
        self.change = asyncio.Event()
        self.off: set[str] = set()
        self.paused: set[str] = set()

    def address(self, guest: Guest) -> str | None:
        return f"169.254.7.{guest.mark}" if self.bound(guest) else None

    def bound(self, guest: Guest) -> bool:
        return guest.name not in self.off

    def pause(self, guest: Guest) -> None:
        self.paused.add(guest.name)

    def resume(self, guest: Guest) -> None:
        self.paused.discard(guest.name)

    def unplug(self, guest: Guest) -> None:
        self.off.add(guest.name)

    def boot(self, wired: WiredGuest, _node: WiredNode) -> None:
        self.off.discard(wired.guest.name)


class FakeLab:
    """The nodes of a lab, wired to fakes. `failing` holds what is refused, by guest and verb."""

    def __init__(self, lab: Lab) -> None:
        self.failing: dict[Verb, Exception] = {}
        self.done: list[Verb] = []
        self.machines = {
            guest.name: FakeMachine(guest.name, self.done, self.failing) for guest in lab.guests
        }
        self.nodes = [
            WiredNode(node, -1, [WiredGuest(one, self.machines[one.name]) for one in node.guests])
            for node in lab.nodes
        ]
        self.ports, self.claims = FakePorts(), FakeClaims()
        fakes: Any = (self.claims, self.ports, None)
        self.hardware = Hardware(lab, self.nodes, *fakes)
