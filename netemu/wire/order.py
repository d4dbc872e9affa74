"""The order for a lab: what the client hands to the sandbox on standard input, in one frame."""

from collections.abc import Container

import msgspec

from netemu.topology import Lab, Node
from netemu.wire.profile import Profile
from netemu.wire.store_address import StoreAddress


class Begun(msgspec.Struct, frozen=True):
    """What a machine that joins a lab is told of it: all of the lab, and its pace."""

    lab: Lab
    time_scale: float


class Order(msgspec.Struct, frozen=True):
    """What to build: the lab, its pace, and the runtime directory, which is hidden inside.

    An `owned` lab goes down with the process that ordered it; any other stays once it is up.

    Guests may write to `shared` directories, in root's lab too. `readable` are the lab's own,
    which they see wherever those are: each path leads to a directory. `store` is where the lab's
    commands are kept, if not on this machine. `profile` is how guests are kept apart. `signing_key`
    is the private key that its responders sign documents with, and its certificate, in PEM.
    """

    lab: Lab
    time_scale: float
    hidden: str
    access_log: bool = False
    owned: bool = False
    shared: tuple[str, ...] = ()
    readable: dict[str, str] = {}
    store: StoreAddress | None = None
    profile: Profile = msgspec.field(default_factory=Profile)
    signing_key: str = ""

    @property
    def here(self) -> Lab:
        """The lab with what is to be on this machine alone."""
        lab = msgspec.structs.replace(self.lab, nodes=nodes_here(self.lab, self.store))
        return part_of(lab, {guest.name for guest in lab.guests})

    @property
    def elsewhere(self) -> list[Node]:
        """The nodes that other machines have."""
        here = {one.name for one in nodes_here(self.lab, self.store)}
        return [one for one in self.lab.nodes if one.name not in here]

    @property
    def crosses(self) -> bool:
        """Whether the lab's tenant network has guests of several machines."""
        return bool(self.elsewhere) and any(guest.tenant for guest in self.lab.guests)


def part_of(lab: Lab, names: Container[str]) -> Lab:
    """A lab without guests that are not among `names`."""
    nodes = tuple(
        msgspec.structs.replace(
            node, guests=tuple(guest for guest in node.guests if guest.name in names)
        )
        for node in lab.nodes
    )
    faults = []
    for fault in lab.faults:
        guests = [one for one in fault["guests"] if one in names]
        if guests or not fault["guests"]:  # none named: all
            faults.append({**fault, "guests": guests})
    return msgspec.structs.replace(lab, nodes=nodes, faults=tuple(faults))


def nodes_here(lab: Lab, store: StoreAddress | None) -> tuple[Node, ...]:
    """The nodes of a lab that are to be on this machine."""
    if store is None:
        return lab.nodes
    unnamed = store.machine if store.activity is None else None
    return tuple(one for one in lab.nodes if (one.machine or unnamed) == store.machine)
