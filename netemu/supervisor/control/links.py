"""What is asked of wires: to be impaired or not, by guests or by nodes. Runs in the supervisor."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from netemu.errors import BadInput
from netemu.impairment import trace
from netemu.impairment.plan import Plan
from netemu.supervisor.nodes.hardware import Hardware
from netemu.supervisor.nodes.wires import Key, Wire
from netemu.topology import Lab
from netemu.wire.link_questions import ClearLinks, ImpairedWire, Link, Which

_WIRES: Final[Mapping[Which, Sequence[Wire]]] = {
    "link-local": (Wire.LINK_LOCAL,),
    "tenant": (Wire.TENANT,),
    "all": (Wire.LINK_LOCAL, Wire.TENANT),
}


class Links:
    """The wires of a lab that is up."""

    def __init__(self, lab: Lab, hardware: Hardware) -> None:
        self._lab = lab
        self._hardware = hardware

    async def as_the_file_says(self) -> None:
        """Impair what the lab file says; its times are from now on."""
        plans = {
            (guest.name, wire): plan
            for guest in self._lab.guests
            for wire, plan in ((Wire.LINK_LOCAL, guest.link), (Wire.TENANT, guest.tenant_link))
            if plan is not None and not plan.is_clean
        }
        if plans:
            async with self._hardware.hold(name for name, _ in plans):
                await self._hardware.wires.give(plans, self._lab.traces)

    async def link(self, wanted: Link) -> None:
        """Give wires a plan, or one direction of it, or one more change. Raises NetemuError."""
        try:
            for packed in wanted.traces.values():
                trace.unpack(packed)
        except ValueError as error:
            raise BadInput(str(error)) from None
        wires, plan = self._hardware.wires, wanted.plan or Plan()
        async with self._hardware.hold(self._guests(wanted.targets)):
            keys = self._keys(wanted.targets, wanted.wire)
            if wanted.timed is not None:
                await wires.add(keys, wanted.timed, wanted.traces)
            elif wanted.direction is not None:
                await wires.give_direction(keys, wanted.direction, plan, wanted.traces)
            else:
                await wires.give(dict.fromkeys(keys, plan), wanted.traces)

    async def clear(self, wanted: ClearLinks) -> None:
        """Have wires be as they were; None is all that are here."""
        names = list(self._hardware) if wanted.targets is None else wanted.targets
        async with self._hardware.hold(self._guests(names)):
            # Of a guest that has no tenant wire there is nothing to clear.
            keys = [(name, wire) for name in self._guests(names) for wire in _WIRES[wanted.wire]]
            await self._hardware.wires.clear(keys)

    async def list(self) -> Sequence[ImpairedWire]:
        """All that is impaired."""
        return await self._hardware.wires.list()

    def _keys(self, targets: Iterable[str], which: Which) -> Sequence[Key]:
        """The wires that are meant. Raises BadInput if a guest has none such."""
        keys: list[Key] = []
        for name in self._guests(targets):
            found = [(name, wire) for wire in _WIRES[which] if self._hardware.has(name, wire)]
            if not found:
                raise BadInput(f"{name}: has no tenant interface: 'tenant: true' in the lab file")
            keys += found
        return keys

    def _guests(self, targets: Iterable[str]) -> Sequence[str]:
        """The guests that are meant: of a node those that are on it now. Raises BadInput."""
        nodes: dict[str, list[str]] = {node.name: [] for node in self._lab.nodes}
        for name in self._hardware:
            nodes.setdefault(self._hardware.node_of(name).node.name, []).append(name)
        found: dict[str, None] = {}
        for target in targets:
            if target in self._hardware:
                found[target] = None
            elif target in nodes:
                found.update(dict.fromkeys(nodes[target]))
            else:
                raise BadInput(f"{target}: lab {self._lab.name} has no such guest or node")
        return list(found)
