"""Tells the state of the lab, its nodes and guests, as far as it has come up.

Runs in the supervisor. It asks only the kernel, and otherwise says what is known already.
"""

import socket
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import UNSET

from netemu.kernel.counters import Counters, LinkCounters
from netemu.kernel.factory_client import Factory
from netemu.kernel.namespaces import inside
from netemu.linklocal import ipv6
from netemu.supervisor.boot.parts import Parts
from netemu.supervisor.nodes.claims import Claims
from netemu.supervisor.nodes.node_services import NodeServices
from netemu.topology import Guest
from netemu.wire.order import Order
from netemu.wire.status import (
    GuestStatus,
    LabStatus,
    MachineSeen,
    NodeElsewhere,
    NodeStatus,
    ServiceStatus,
    StoreStatus,
)

if TYPE_CHECKING:
    from netemu.supervisor.boot.shared_lab import SharedLab


def lab_status(
    order: Order,
    *,
    is_up: bool,
    hosts: Sequence[NodeServices],
    claims: Claims | None,
    parts: Parts | None,
    shared: "SharedLab | None",
    services: list[ServiceStatus],
) -> LabStatus:
    """Return the state of the lab; `claims` and `parts` are None until they are made."""
    lab = order.here
    status = LabStatus(
        name=lab.name,
        policy=str(lab.policy),
        state="up" if is_up else "coming up",
        time_scale=order.time_scale,
        fingerprint=order.lab.fingerprint(),
        access_log=order.access_log,
        services=services,
        nodes=[_node(host, claims, parts) for host in hosts]
        or [
            NodeStatus(node.name, guests=[_guest(one, claims, parts) for one in node.guests])
            for node in lab.nodes
        ],
    )
    if lab.ipv6:
        status.ipv6 = True
        for guest in (one for node in status.nodes for one in node.guests):
            guest.ipv6_address = ipv6.of_mac(guest.mac)
    if order.store is not None:
        trouble = "not asked yet" if shared is None else shared.trouble
        status.store = StoreStatus(
            str(order.store), "away" if trouble else "there", trouble or UNSET
        )
        status.machine = order.store.machine
        if order.elsewhere and parts is not None:
            assert shared is not None
            assert shared.store is not None
            status.elsewhere = [
                NodeElsewhere(
                    name=node.name,
                    machine=shared.places.machine_of_node(node.name) or node.machine,
                    state="away" if shared.store.away(node.name) else "there",
                    guests=list(parts.maintenance.guests_on(node.name)),
                    addresses={
                        one.guest.name: one.guest.properties.get("address")
                        for one in parts.watching.known(node.name).guests
                    },
                    ports={
                        one.guest.name: one.guest.port
                        for one in parts.watching.known(node.name).guests
                    },
                )
                for node in order.elsewhere
            ]
    return status


def machine_seen(
    machine: str, hosts: Sequence[NodeServices], claims: Claims | None, parts: Parts | None
) -> MachineSeen:
    """Return what other machines show of this one's guests, with their ports' counters."""
    counters: dict[str, Counters] = {}
    for host in hosts:
        with inside(host.wired.net):
            made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        with made:
            links = LinkCounters(made).read()
        for one in host.wired.guests:
            if one.guest.port in links:
                counters[one.guest.name] = links[one.guest.port]
    nodes = [_node(host, claims, parts) for host in hosts]
    return MachineSeen(machine, time.monotonic(), nodes, counters)


def _node(host: NodeServices, claims: Claims | None, parts: Parts | None) -> NodeStatus:
    # Why guests of a failed node are still on it, if they should not be.
    problem = parts.relocation.problems.get(host.name) if parts else None
    guests = [_guest(one.guest, claims, parts) for one in host.wired.guests]
    return NodeStatus(host.name, host.state, problem or UNSET, guests)


def _guest(guest: Guest, claims: Claims | None, parts: Parts | None) -> GuestStatus:
    impaired = parts.hardware.wires.impaired(guest.name) if parts else ()
    problem = parts.impact.problems.get(guest.name) if parts else None
    return GuestStatus(
        name=guest.name,
        mac=guest.mac,
        address=claims.address(guest) if claims else None,
        state=claims.state(guest) if claims else "down",
        port_mark=guest.mark,
        runs=bool(guest.run or guest.machine),
        power=parts.hardware.told_power(guest.name) if parts else "running",
        dhcp=guest.dhcp or UNSET,
        machine=guest.machine is not None or UNSET,
        tenant=list(guest.tenant) if guest.tenant else UNSET,
        impaired=[str(one) for one in impaired] or UNSET,
        problem=problem or UNSET,
    )


def of_factory(factory: Factory) -> ServiceStatus:
    """Return the state of the factory, which is started as no other service is."""
    state = "running" if factory.runs else "restarting"
    return ServiceStatus("factory", state, factory.pid, factory.restarts, factory.last_end, None)
