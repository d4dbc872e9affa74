"""Takes each step that a lab takes, one by one, and prints a finding for each as a line of JSON.

Run as `python -m netemu.supervisor.boot.trial` by `netemu check`; it enters a sandbox of its own,
which ends with it.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable

from netemu.errors import NetemuError
from netemu.kernel import addressing, guard, links, netlink, packet, sockets, sysctl
from netemu.kernel import namespaces as ns
from netemu.kernel.bindings import Binding, Bindings
from netemu.kernel.factory import Factory
from netemu.linklocal import bpf
from netemu.supervisor.boot import sandbox
from netemu.wire.limits import Finding

_MAC, _PORT, _MARK = "02:00:00:00:00:01", "p1", 1
_NODE_MAC = "02:00:00:00:00:fe"
_INDEX, _BRIDGE_INDEX = 101, 2


class _Trial:
    """The steps, each resting on those before it."""

    def __init__(self) -> None:
        self.factory = Factory()
        self.node = self.guest = -1

    def mounts(self) -> str:
        ns.mount("none", "/", flags=ns.MS_REC | ns.MS_PRIVATE)
        ns.mount("proc", "/proc", "proc")
        ns.mount("sysfs", "/sys", "sysfs")
        ns.mount("tmpfs", "/run", "tmpfs")
        return "/proc, /sys and /run of its own"

    def namespaces(self) -> str:
        (self.node,) = self.factory.nodes(1)
        (self.guest,) = self.factory.guests(1)
        return "a node's, and a guest's with a user of its own"

    def settings(self) -> str:
        with ns.inside(self.node):
            sysctl.write(sysctl.NODE)
            sysctl.write(sysctl.NODE_BRIDGE, optional=True)
        return "identity by mark, no forwarding, no redirects"

    def wires(self) -> str:
        with ns.inside(self.node), netlink.Netlink() as kernel:
            kernel.run(
                (
                    links.bridge("br0", _BRIDGE_INDEX, _NODE_MAC),
                    links.wire(_PORT, _INDEX, _BRIDGE_INDEX, self.guest, _MAC, "guest"),
                    links.port_options(_PORT, _INDEX, isolated=True),
                    links.station(_PORT, _INDEX, _MAC),
                    links.up("br0", _BRIDGE_INDEX),
                    addressing.address(_BRIDGE_INDEX, "169.254.169.254", 16, "169.254.255.255"),
                )
            )
        return "a bridge with an isolated veth port"

    def nft(self) -> str:
        done = subprocess.run(
            [guard.find_nft(), "--version"], capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    def rules(self) -> str:
        rules = guard.render(
            bridge_mac=_NODE_MAC, ports=[(_PORT, _MARK, _MAC)], same_node=False, time_scale=1
        )
        guard.load(rules, self.node)
        return "allow-lists at netdev ingress and egress"

    def bindings(self) -> str:
        with ns.inside(self.node):
            table = Bindings(_BRIDGE_INDEX)
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
            sockets.listener("169.254.169.254", 80, "br0").close()
        return "169.254.169.254:80"

    def boot(self) -> str:
        self.factory.boot(self.guest, "guest")
        return "a guest's first process, with its own mounts and processes"


_KERNEL = "this kernel lacks it: Linux 5.19 or later with {} is needed"
_STEPS: list[tuple[str, Callable[[_Trial], str], str]] = [
    ("mounts", _Trial.mounts, "a container hides parts of /proc or /sys: run outside of it"),
    (
        "namespaces",
        _Trial.namespaces,
        "leave the chroot, or raise user.max_user_namespaces and user.max_net_namespaces",
    ),
    ("settings", _Trial.settings, "mount /proc/sys writable: a container may have it read-only"),
    ("bridge and veth", _Trial.wires, _KERNEL.format("CONFIG_BRIDGE and CONFIG_VETH")),
    ("nft", _Trial.nft, "sudo apt-get install nftables"),
    ("guard", _Trial.rules, _KERNEL.format("NF_TABLES_NETDEV, NETFILTER_EGRESS, NFT_SOCKET")),
    ("bindings", _Trial.bindings, _KERNEL.format("CONFIG_NF_TABLES_NETDEV")),
    ("raw frames", _Trial.frames, _KERNEL.format("CONFIG_PACKET")),
    ("port 80", _Trial.listener, "see the steps before"),
    ("guest's processes", _Trial.boot, "a container hides parts of /proc: run outside of it"),
]


def _say(finding: Finding) -> None:
    print(json.dumps(finding), flush=True)  # noqa: T201  to `examine`, over a pipe


def main() -> int:
    """Try every step, and print each finding as a line of JSON."""
    remedy = (
        "let ordinary users make user namespaces: sysctl -w kernel.unprivileged_userns_clone=1, "
        "on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0; or run as root"
    )
    try:
        sandbox.enter()
    except NetemuError as error:
        _say(Finding("sandbox", False, str(error), remedy))
        return error.exit_code
    if (child := os.fork()) != 0:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    _say(Finding("sandbox", True, "namespaces for a whole lab", remedy))
    trial = _Trial()
    for what, step, hint in _STEPS:
        try:
            _say(Finding(what, True, step(trial), hint))
        except (NetemuError, OSError) as error:
            _say(Finding(what, False, str(error), hint))
            if what != "nft":  # without nft itself the rest can still be looked at
                return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
