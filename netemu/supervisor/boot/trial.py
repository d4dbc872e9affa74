"""Tries each step of building a lab, and prints a finding for each as a line of JSON.

Run as `python -m netemu.supervisor.boot.trial` by `netemu check`. It enters a sandbox of its own,
which ends with it.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Final

from netemu.errors import MachineCannot, NetemuError
from netemu.interfaces import BRIDGE, Mark, port_name
from netemu.kernel import addressing, bridging, guard, links, netlink, nft, packet, sockets, sysctl
from netemu.kernel import namespaces as ns
from netemu.kernel.bindings import Binding, Bindings
from netemu.kernel.factory_client import Factory
from netemu.linklocal import bpf
from netemu.linklocal.addresses import BROADCAST_TEXT, METADATA_TEXT, PREFIX_LENGTH
from netemu.supervisor.boot import sandbox
from netemu.supervisor.boot.remedies import look, remedy
from netemu.wire.limits import Finding

_MAC, _MARK = "02:00:00:00:00:01", Mark(1)
_PORT: Final = port_name(_MARK)
_NODE_MAC = "02:00:00:00:00:fe"
_INDEX, _BRIDGE_INDEX = 101, 2


class _Trial:
    """The steps, each based on those before it."""

    def __init__(self) -> None:
        self.factory = Factory()
        self.loop = asyncio.Runner()
        self.node = self.guest = -1

    def mounts(self) -> str:
        ns.mount("none", "/", flags=ns.MS_REC | ns.MS_PRIVATE)
        ns.mount("proc", "/proc", "proc")
        ns.mount("sysfs", "/sys", "sysfs", ns.MS_RDONLY)
        ns.mount("tmpfs", "/run", "tmpfs")
        return "/proc, /sys and /run of its own"

    def namespaces(self) -> str:
        (self.node,) = self.loop.run(self.factory.nodes(1))
        (self.guest,) = self.loop.run(self.factory.guests(1))
        return "a node's, and a guest's with a user of its own"

    def settings(self) -> str:
        with ns.inside(self.node):
            sysctl.write(sysctl.NODE)
            sysctl.write(sysctl.NODE_BRIDGE, optional=True)
        return "identity by mark, no forwarding, no redirects"

    def wires(self) -> str:
        with ns.inside(self.node), netlink.Netlink.open() as kernel:
            kernel.run(
                (
                    links.bridge(BRIDGE, _BRIDGE_INDEX, _NODE_MAC),
                    links.wire(_PORT, _INDEX, _BRIDGE_INDEX, self.guest, _MAC, "guest"),
                    links.port_options(_PORT, _INDEX, bridging.ISOLATED),
                    links.station(_PORT, _INDEX, _MAC),
                    links.up(BRIDGE, _BRIDGE_INDEX),
                    addressing.address(_BRIDGE_INDEX, METADATA_TEXT, PREFIX_LENGTH, BROADCAST_TEXT),
                )
            )
        return "a bridge with an isolated veth port"

    def nft(self) -> str:
        done = subprocess.run(
            [nft.find(), "--version"], capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    def rules(self) -> str:
        rules = guard.standard().render(
            bridge_mac=_NODE_MAC, ports=[(_PORT, _MARK, _MAC)], same_node=False, time_scale=1
        )
        nft.load(rules, self.node)
        return "allow-lists at netdev ingress and egress"

    def bindings(self) -> str:
        with ns.inside(self.node):
            table = Bindings.open(_BRIDGE_INDEX)
        binding = Binding(_PORT, _MAC, "169.254.1.1")
        table.add([binding])
        table.remove([binding])
        table.close()
        return "set elements and permanent neighbours"

    def frames(self) -> str:
        with ns.inside(self.node):
            packet.on_bridge(bpf.probes()).close()
        return "raw ARP, with the mark of the port"

    def listener(self) -> str:
        with ns.inside(self.node):
            sockets.listen(sockets.Listener(METADATA_TEXT, BRIDGE)).close()
        return f"{METADATA_TEXT}:{sockets.HTTP}"

    def boot(self) -> str:
        self.loop.run(self.factory.boot(self.guest, "guest"))
        return "a guest's first process, with its own mounts and processes"


# In the order in which a lab takes them, each based on those before it.
_STEPS: tuple[tuple[str, Callable[[_Trial], str]], ...] = (
    ("mounts", _Trial.mounts),
    ("namespaces", _Trial.namespaces),
    ("settings", _Trial.settings),
    ("bridge and veth", _Trial.wires),
    ("nft", _Trial.nft),
    ("guard", _Trial.rules),
    ("bindings", _Trial.bindings),
    ("raw frames", _Trial.frames),
    ("port 80", _Trial.listener),
    ("guest's processes", _Trial.boot),
)


def _say(what: str, seen: str, *, ok: bool, remedy: str = "") -> None:
    line = json.dumps(Finding(what, ok, seen, remedy))
    print(line, flush=True)  # noqa: T201  to `examine`, over a pipe


def _refused(what: str, error: NetemuError | OSError) -> None:
    told = remedy(error, look()) if isinstance(error, MachineCannot) else ""
    _say(what, str(error), ok=False, remedy=told)


def main() -> int:
    """Try every step, and print each finding as a line of JSON."""
    try:
        sandbox.enter()
    except NetemuError as error:
        _refused("sandbox", error)
        return error.exit_code
    if (child := os.fork()) != 0:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    _say("sandbox", "namespaces for a whole lab", ok=True)
    trial = _Trial()
    refused = False
    for what, step in _STEPS:
        try:
            _say(what, step(trial), ok=True)
        except (NetemuError, OSError) as error:
            _refused(what, error)
            refused = True
            if what != "nft":  # without nft the rest can still be tried
                break
    return MachineCannot.exit_code if refused else 0


if __name__ == "__main__":
    sys.exit(main())
