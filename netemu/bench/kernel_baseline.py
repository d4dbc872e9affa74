"""Measures the kernel's own part of building a lab: a loop of unshare, veth, enslave and up.

Run as `python -m netemu.bench.kernel_baseline NODES GUESTS`, it enters a sandbox of its own,
builds, prints how long it took, and waits for its standard input to end. There is no guard, no
identity and no claim, and each message is encoded once and then patched: only the kernel's work is
left.
"""

import json
import os
import resource
import struct
import sys
import time
from collections.abc import Iterator

from netemu.errors import NetemuError
from netemu.interfaces import BRIDGE, GUEST_WIRE
from netemu.kernel import links, netlink
from netemu.kernel import namespaces as ns
from netemu.supervisor.boot import sandbox

_PORT, _INDEX, _NET = "p0000000", 0x7A7A7A7A, 0x5B5B5B5B
_BRIDGE_INDEX, _FIRST_INDEX = 2, 100


def build(nodes: int, guests: int) -> list[int]:
    """Build `guests` guests on `nodes` bridges; returns the descriptors to keep open."""
    wire = links.wire(_PORT, _INDEX, _BRIDGE_INDEX, _NET, "02:00:00:00:00:01", "guest")
    raise_port = links.up(_PORT, _INDEX)
    raise_guest = links.up(GUEST_WIRE, links.GUEST_INDEX)
    kept = []
    for node in range(nodes):
        ns.unshare(ns.NEWNET)
        net = ns.open_own("net")
        kept.append(net)
        with netlink.Netlink.open() as kernel:
            bridge = links.bridge(BRIDGE, _BRIDGE_INDEX, "02:00:00:00:00:fe")
            kernel.run((bridge, links.up(BRIDGE, _BRIDGE_INDEX)))
            for number in range(_share(guests, nodes, node)):
                ns.unshare(ns.NEWNET)
                guest = ns.open_own("net")
                kept.append(guest)
                with netlink.Netlink.open() as inner:
                    ns.setns(net, ns.NEWNET)
                    kernel.run(_patched((wire, raise_port), number, guest))
                    inner.run((raise_guest,))
    return kept


def _share(guests: int, nodes: int, node: int) -> int:
    return guests // nodes + (node < guests % nodes)


def _patched(
    messages: tuple[netlink.Message, ...], number: int, net: int
) -> Iterator[netlink.Message]:
    name = f"p{number:07}".encode()
    index = struct.pack("=i", _FIRST_INDEX + number)
    for message in messages:
        data = message.data.replace(_PORT.encode(), name)
        data = data.replace(struct.pack("=i", _INDEX), index)
        yield message._replace(data=data.replace(struct.pack("=i", _NET), struct.pack("=i", net)))


def main() -> int:
    """Build in a sandbox, print how long it took, and stay until standard input ends."""
    nodes, guests = int(sys.argv[1]), int(sys.argv[2])
    try:
        sandbox.enter()
        if (child := os.fork()) != 0:
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        start, cpu = time.monotonic(), time.process_time()
        kept = build(nodes, guests)
        took = {"wall": time.monotonic() - start, "cpu": time.process_time() - cpu}
    except (NetemuError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    assert len(kept) == nodes + guests
    os.write(1, json.dumps(took).encode() + b"\n")
    os.read(0, 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
