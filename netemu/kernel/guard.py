"""The guard: one nft rule set a node, rendered from templates that a person can read.

Loading goes through the `nft` program (one transaction, checked by the kernel as a whole); the
bindings, which change all the time, go to the kernel directly (`netemu.kernel.bindings`).
"""

import math
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec

from netemu.errors import MachineCannot
from netemu.interfaces import BRIDGE, Mark
from netemu.kernel import exhaustion
from netemu.kernel.namespaces import inside
from netemu.linklocal import addresses

# Where Debian puts nft is not in an ordinary user's PATH.
_PATHS = ("/usr/sbin", "/sbin", "/usr/local/sbin")

# Probes a port may send: ten times what a claim at its quickest takes, so that the worst luck of
# RFC 3927 (a conflict at each probe) passes and a flood does not. At time scale 1; a quicker lab
# probes more in the same time.
PROBES_PER_SECOND = 10
PROBE_BURST = 30
# Broadcast and multicast of one guest to the others of its node, under same-node; and its questions
# by ARP.
SHOUTS_PER_SECOND = 50
SHOUT_BURST = 100
# What it answers by ARP, by broadcast (RFC 3927 section 2.5): to ten others that ask all they may.
ANSWERS_PER_SECOND = 10 * SHOUTS_PER_SECOND
ANSWER_BURST = 10 * SHOUT_BURST
# Probes of others that a guest hears under same-node. Each may be a conflict to it (RFC 3927
# section 2.2.1), and MAX_CONFLICTS (10) of them cost it a minute: so fewer at once, and then one
# in many claims' time. What is not heard is no danger: the node's oracle hears every probe.
OVERHEARD_BURST = 6
OVERHEARD_PER_MINUTE = 2
# Connections that a port may ask for: more than the responder answers on a whole machine, so that
# no client that waits for its answers meets the bound, and far less than a flood.
CONNECTIONS_PER_SECOND = 20_000
CONNECTION_BURST = 2_000
# An ordinary user's nft sends at most net.core.wmem_default (208 KiB) in one transaction: the rules
# of some 150 ports.
PORTS_AT_ONCE = 100
# nft writes a rate as a 32-bit number of packets in its unit of time.
_MAX_RATE = 1_000_000


Port = tuple[str, Mark, str]
"""Its name, its mark, and the MAC of the guest behind it."""

LINK_LOCAL: Final = f"{addresses.NETWORK_TEXT}/{addresses.PREFIX_LENGTH}"
CLAIMABLE: Final = f"{addresses.to_text(addresses.FIRST)}-{addresses.to_text(addresses.LAST)}"
_NAMES: Final = {
    "bridge": BRIDGE,
    "metadata": addresses.METADATA_TEXT,
    "broadcast": addresses.BROADCAST_TEXT,
    "link_local": LINK_LOCAL,
    "claimable": CLAIMABLE,
}

# nft has an `@set` of its own: what is to be filled in is `@{name}`.
_PLACE = re.compile(r"@\{([a-z_]+)\}")


def find_nft() -> str:
    """The path of nft. Raises MachineCannot that says how to get it."""
    found = shutil.which("nft") or shutil.which("nft", path=":".join(_PATHS))
    if found is None:
        raise MachineCannot("nft is not installed: run 'sudo apt-get install nftables'")
    return found


class Rules(msgspec.Struct, frozen=True):
    """The text of a guard, for nft. Each `@{name}` in it is a place to be filled in."""

    node: str
    """The tables of a node."""
    port: str
    """The chains of one port, within `table netdev guard`."""
    added: str
    """What further ports add, their chains among it."""
    removed: str
    """What takes one port's rules away."""

    def pieces(self, ports: Sequence[Port], **manner: Any) -> Iterator[str]:
        """What `render` returns, in pieces that anybody's nft can load, one after another.

        The ports are down until the last one is loaded.
        """
        yield self.render(ports=ports[:PORTS_AT_ONCE], **manner)
        for start in range(PORTS_AT_ONCE, len(ports), PORTS_AT_ONCE):
            yield self.more(ports[start : start + PORTS_AT_ONCE])

    def render(
        self, *, bridge_mac: str, ports: Sequence[Port], same_node: bool, time_scale: float = 1.0
    ) -> str:
        """The rules of a node with these ports."""
        overheard = _scaled(OVERHEARD_PER_MINUTE, time_scale)
        sets = {name: elements(found) for name, found in _elements(ports).items()}
        values = {
            **sets,
            "bridge_mac": bridge_mac,
            "policy": "same_node" if same_node else "responder_only",
            "policy_arp_out": _SAME_NODE_ARP_OUT.format(overheard) if same_node else "",
            "policy_ip_out": fill_in(_SAME_NODE_IP_OUT, {}) if same_node else "",
            "probe_rate": _scaled(PROBES_PER_SECOND, time_scale),
            "probe_burst": _scaled(PROBE_BURST, time_scale),
            "shout_rate": SHOUTS_PER_SECOND,
            "shout_burst": SHOUT_BURST,
            "answer_rate": ANSWERS_PER_SECOND,
            "answer_burst": ANSWER_BURST,
            "connection_rate": CONNECTIONS_PER_SECOND,
            "connection_burst": CONNECTION_BURST,
            "ports": self._chains(ports),
        }
        return fill_in(self.node, values)

    def more(self, ports: Sequence[Port]) -> str:
        """The rules that ports add to a guard which is loaded; their links are there, and down."""
        return fill_in(self.added, {**_elements(ports), "ports": self._chains(ports)})

    def one_less(self, port: Port) -> str:
        """What takes a port's rules away again; its link is still there, and down."""
        return fill_in(self.removed, {**_elements([port]), "port": port[0]})

    def _chains(self, ports: Sequence[Port]) -> str:
        return "\n".join(
            fill_in(self.port, {"port": port, "mark": mark}) for port, mark, _ in ports
        )


@cache
def standard() -> Rules:
    """The guard of every lab, as it stands in the files beside this one."""
    return Rules(
        node=template("guard.nft"),
        port=template("guard_port.nft"),
        added=template("guard_added.nft"),
        removed=template("guard_removed.nft"),
    )


def template(name: str) -> str:
    """The rules in a file beside this one."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def fill_in(template: str, values: Mapping[str, object]) -> str:
    """The rules with each `@{name}` in them filled in: by `values`, or as of every lab."""
    known = {**_NAMES, **values}
    return _PLACE.sub(lambda place: str(known[place[1]]), template)


_SAME_NODE_ARP_OUT = f"""ether saddr @stations arp saddr ip != 0.0.0.0 accept
        # The oracle has heard it; who claims the same address is told by the oracle.
        ether saddr @stations update @overheard {{{{ oifname limit rate {{}}/minute burst {OVERHEARD_BURST} packets }}}} accept"""  # noqa: E501

_SAME_NODE_IP_OUT = """ether saddr @stations oifname . ether daddr . ip daddr @bound accept
        ether saddr @stations ether daddr ff:ff:ff:ff:ff:ff ip daddr { @{broadcast}, 255.255.255.255 } accept
        ether saddr @stations ether daddr & ff:ff:ff:80:00:00 == 01:00:5e:00:00:00 ip daddr 224.0.0.0/4 accept"""  # noqa: E501


def _scaled(rate: int, time_scale: float) -> int:
    return min(_MAX_RATE, max(rate, math.ceil(rate / time_scale)))


def elements(of_set: str) -> str:
    """A set's `elements = …`; nothing for an empty one."""
    return f"elements = {{ {of_set} }}" if of_set else ""


def _elements(ports: Sequence[Port]) -> dict[str, str]:
    """What the sets of wires, of stations and of sockets' own marks have for these ports."""
    return {
        "wires": ", ".join(f'"{port}" . {mac}' for port, _, mac in ports),
        "stations": ", ".join(mac for _, _, mac in ports),
        "own": ", ".join(f"{mark} . {mark}, {mark} . 0" for _, mark, _ in ports),
    }


# nft takes milliseconds, and for the thousands of a large lab a few seconds.
_PATIENCE: Final = 60.0

# From this release on, a chain on a port holds for every link of the port's name, one made later
# too; before, it ends with the link for which it was loaded.
_FOLLOWING: Final = (6, 16)


@cache
def follows_names() -> bool:
    """Whether a new link is guarded by the rules loaded for an earlier one of its name."""
    numbers = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) >= _FOLLOWING


def load(rules: str, net: int) -> None:
    """Load `rules` in the network namespace of `net`, as one transaction."""
    words = _nft(rules, net)
    if words:
        raise MachineCannot(f"the guard was refused by this kernel or nft: {words}")


def unload(rules: str, net: int) -> None:
    """Take away what `one_less` says.

    A link that its guest has destroyed takes its chains along on some kernels: then what is left
    goes line by line.
    """
    if _nft(rules, net):
        for line in rules.splitlines():
            _nft(line, net)


def unload_all(pieces: Sequence[str], net: int) -> None:
    """Take away what `one_less` says of each of many ports, at once where that is possible."""
    if pieces and _nft("\n".join(pieces), net):
        for rules in pieces:
            unload(rules, net)


def _nft(rules: str, net: int) -> str:
    """What nft has against `rules`; nothing, if it took them."""
    nft = find_nft()
    try:
        with inside(net):
            done = subprocess.run(
                [nft, "-f", "-"], input=rules, capture_output=True, text=True, timeout=_PATIENCE
            )
    except subprocess.TimeoutExpired:  # it has been killed
        return f"nft did not end within {_PATIENCE:g} s"
    except OSError as error:
        raise MachineCannot(f"{nft}: cannot be run: {exhaustion.words(error)}") from None
    return " ".join(done.stderr.split())[:500] or "no word" if done.returncode != 0 else ""
