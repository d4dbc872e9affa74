"""Makes the machines of a lab, each of its kind. Runs in the supervisor.

A new kind of machine is chosen here; nothing outside this folder names one.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final

from netemu.kernel.factory import BATCH, FIRST_HELD
from netemu.kernel.factory_client import Factory
from netemu.supervisor.guests.machine import Machine
from netemu.supervisor.guests.namespace_machine import NamespaceMachine
from netemu.topology import Guest
from netemu.wire.limits import MANY

# Machines whose namespaces are made while those before them are wired: some 50 ms of work.
_AHEAD: Final = 50


async def made_ahead(factory: Factory, guests: Sequence[Guest]) -> AsyncIterator[Machine]:
    """The machines of guests. The factory makes namespaces while those before are being wired."""
    rest, count = iter(guests), len(guests)
    ahead = asyncio.create_task(factory.guests(min(count, _AHEAD)))
    while count:
        made = await ahead
        count -= len(made)
        if count:
            ahead = asyncio.create_task(factory.guests(min(count, _AHEAD)))
            await asyncio.sleep(0)  # it is asked before the caller goes on
        for net in made:
            yield _made(next(rest), net, factory)


def _made(guest: Guest, net: int, factory: Factory) -> Machine:
    if guest.machine is not None:
        # A lab without machines does not import this.
        from netemu.supervisor.guests.qemu.qemu_machine import QemuMachine

        return QemuMachine(guest.name, guest.machine, net, factory)
    machine = NamespaceMachine(guest.name, net, factory)
    machine.call()
    return machine


async def leave_to_others(factory: Factory, machines: Sequence[Machine]) -> None:
    """Have other processes hold the namespaces of a large lab, for its descriptors are bounded."""
    if len(machines) <= MANY:
        return
    held = [one for one in machines if isinstance(one, NamespaceMachine)]
    for start in range(0, len(held), BATCH):
        batch = held[start : start + BATCH]
        process = await factory.hold([one.net for one in batch])
        for descriptor, one in enumerate(batch, start=FIRST_HELD):
            one.leave_to(process, descriptor)
