"""The state of a lab, its nodes and guests: the answer to `Status`, and `netemu status --json`."""

from typing import Any

from msgspec import UNSET, Struct, UnsetType, field

from netemu.kernel.counters import Counters


class ServiceStatus(Struct):
    """A process of the lab's own. `pid` is its ID in the sandbox."""

    name: str
    state: str
    pid: int | None
    restarts: int
    last_end: str | None
    last_line: str | None


class GuestStatus(Struct):
    """A guest. `problem` is there only while it has one, `impaired` only if wires of it are, `dhcp`
    only if it may be leased its address, `machine` only if it has a kernel of its own.
    """

    name: str
    mac: str
    address: str | None
    state: str
    port_mark: int
    runs: bool
    power: str
    ipv6_address: str | UnsetType = UNSET
    dhcp: bool | UnsetType = UNSET
    machine: bool | UnsetType = UNSET
    tenant: list[Any] | UnsetType = UNSET
    impaired: list[str] | UnsetType = UNSET
    problem: str | UnsetType = UNSET


class NodeStatus(Struct):
    """A node; a lab that is coming up does not know its state yet."""

    name: str
    state: str | UnsetType = UNSET
    problem: str | UnsetType = UNSET
    guests: list[GuestStatus] = field(default_factory=list)


class StoreStatus(Struct):
    """The servers that keep the lab's commands."""

    servers: str
    state: str
    problem: str | UnsetType = UNSET


class NodeElsewhere(Struct):
    """A node on another machine, and whether that machine is there.

    `addresses` and `ports`, which are marks, are those of its guests, by name.
    """

    name: str
    machine: str | None
    state: str
    guests: list[str]
    addresses: dict[str, str | None]
    ports: dict[str, int | None]


class MachineSeen(Struct):
    """A machine's nodes, and the counters of its guests' ports at a moment of its own clock."""

    machine: str
    moment: float
    nodes: list[NodeStatus]
    counters: dict[str, Counters]


class LabStatus(Struct, kw_only=True):
    """A lab. `store`, `machine` and `elsewhere` are those of a lab on several machines."""

    name: str
    policy: str
    state: str
    time_scale: float
    fingerprint: str
    access_log: bool
    ipv6: bool | UnsetType = UNSET
    store: StoreStatus | UnsetType = UNSET
    machine: str | UnsetType | None = UNSET
    elsewhere: list[NodeElsewhere] | UnsetType = UNSET
    services: list[ServiceStatus]
    nodes: list[NodeStatus]
