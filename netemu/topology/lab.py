"""A lab as values: nodes, their guests, and the numbers by which the kernel will know them."""

import hashlib
import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec

from netemu.errors import BadInput
from netemu.impairment.plan import Plan
from netemu.interfaces import Mark, port_name
from netemu.topology.machine import VirtualMachine

# The kernel numbers a bridge's ports in 10 bits and keeps 0 for itself (BR_MAX_PORTS).
MAX_GUESTS_PER_NODE: Final = 1023


class Policy(StrEnum):
    """What a guest may reach: see the isolation catalogue for the verdict on each kind of frame."""

    RESPONDER_ONLY = "responder-only"
    SAME_NODE = "same-node"


# RFC 791's TTL has eight bits; EC2 lets a token travel at most 64 hops.
MAX_HOP_LIMIT = 64


MACHINE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,62}")
"""A machine's name among those that share a lab: usually its host name."""
MACHINE_RULE: Final = "letters, digits, '.' and '-', at most 63"

SOFT = 90.0
"""Seconds that programs have to end when an operating system shuts down: systemd's default."""


class Guest(msgspec.Struct, frozen=True, kw_only=True):
    """An emulated VM.

    ``mark`` is the number of its port, unique in the lab: frames that enter by port ``pN`` carry
    the mark N. ``last_address`` is tried first (RFC 3927 section 2.1), as text, or None. Guests of
    one ``availability_set`` see each other's events. ``properties`` are what the metadata service
    tells of the guest, by dotted key, where that is not the default. ``tenant`` are its addresses
    on the lab's tenant network; without any it has no second interface. ``run`` is a command that
    its first process starts at each boot. ``shutdown`` is how many seconds
    its programs have to end when it is shut down, 0 is a power cut; None is what its cloud gives.
    ``link`` and ``tenant_link`` are what is wrong with its wires once the lab is up.
    ``machine`` is the machine that it is, if it has a kernel of its own. ``dhcp`` is whether its
    node leases it an address.
    """

    name: str
    mark: Mark
    mac: str
    update_domain: int
    fault_domain: int
    availability_set: str | None = None
    last_address: str | None = None
    properties: dict[str, str] = {}
    tenant: tuple[str, ...] = ()
    run: tuple[str, ...] = ()
    link: Plan | None = None
    tenant_link: Plan | None = None
    shutdown: float | None = None
    machine: VirtualMachine | None = None
    dhcp: bool = False

    @property
    def port(self) -> str:
        """The name of the node's end of this guest's wire."""
        return port_name(self.mark)


class Dialects(msgspec.Struct, frozen=True, kw_only=True):
    """The clouds whose service a node's responder speaks; an option None is its own default.

    ``azure_rate`` is in requests a second of one guest, 0 is without bound; ``azure_events_delay``
    is in seconds; ``ec2_hop_limit`` is the IP TTL of a token.
    """

    azure_v1: bool = True
    azure: bool = True
    ec2: bool = True
    gce: bool = True
    openstack: bool = False
    azure_rate: float | None = None
    azure_events_delay: float | None = None
    azure_incarnation_restarts: bool | None = None
    ec2_imdsv1: bool | None = None
    ec2_hop_limit: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Those that are on, as the responder calls them."""
        on = {
            "azure-v1": self.azure_v1,
            "azure": self.azure,
            "ec2": self.ec2,
            "gce": self.gce,
            "openstack": self.openstack,
        }
        return tuple(name for name, spoken in on.items() if spoken)


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """An emulated physical host: one bridge, one responder, one host agent.

    ``machine`` is where it is, in a lab on several machines; None: where the lab begins.
    """

    name: str
    mac: str
    guests: tuple[Guest, ...]
    fault_domain: int = 0
    processes: int = 1
    dialects: Dialects = Dialects()
    machine: str | None = None


class Lab(msgspec.Struct, frozen=True, kw_only=True):
    """A whole lab, as it will be built. Guests' programs start in ``directory``, the file's own.

    ``shared`` are directories, as absolute paths, in which guests may write. ``faults`` are of the
    metadata service: the members that the file gives, and ``guests``, names (none: all).
    ``traces`` are those that its wires play, packed, by their names. ``ipv6`` is whether a guest's
    link speaks IPv6 with its responder.
    """

    name: str
    policy: Policy
    nodes: tuple[Node, ...]
    ipv6: bool = False
    directory: str = "/"
    shared: tuple[str, ...] = ()
    faults: tuple[dict[str, Any], ...] = ()
    traces: dict[str, bytes] = {}

    @property
    def guests(self) -> list[Guest]:
        """Every guest, in the order of the file."""
        return [guest for node in self.nodes for guest in node.guests]

    @property
    def leasing(self) -> frozenset[str]:
        """The names of the ports whose guests may be leased an address."""
        return frozenset(guest.port for guest in self.guests if guest.dhcp)

    def fingerprint(self) -> str:
        """A text that two labs share only if they would be built alike."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()


def mac_address(lab: str, name: str) -> str:
    """The MAC of what is called `name` in `lab`: the same at each run, locally administered."""
    digest = hashlib.blake2b(f"{lab}\0{name}".encode(), digest_size=5).digest()
    return ":".join(f"{byte:02x}" for byte in b"\x02" + digest)


def spread(lab: Lab, machines: Sequence[str]) -> Lab:
    """Put each node that names no machine on the one of `machines` with the fewest guests.

    Raises BadInput for a name that no machine can have, and for one that is there twice.
    """
    for name in machines:
        if not MACHINE.fullmatch(name):
            raise BadInput(f"--machines: {name!r}: a name is {MACHINE_RULE}")
    if len(set(machines)) < len(machines):
        raise BadInput(f"--machines {','.join(machines)}: a name is there twice")
    guests = dict.fromkeys(machines, 0)
    for node in lab.nodes:
        if node.machine in guests:
            guests[node.machine] += len(node.guests)
    nodes = []
    for node in lab.nodes:
        if node.machine is None:
            machine = min(guests, key=lambda one: guests[one])
            guests[machine] += len(node.guests)
            node = msgspec.structs.replace(node, machine=machine)
        nodes.append(node)
    return msgspec.structs.replace(lab, nodes=tuple(nodes))
