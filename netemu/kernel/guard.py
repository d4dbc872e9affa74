"""The guard: one nft rule set a node, rendered from templates that a person can read.

Pure, except that it reads the templates. `netemu.kernel.nft` loads the rules. The bindings, which
change all the time, go to the kernel directly (`netemu.kernel.bindings`).
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any, Final

import msgspec

from netemu.interfaces import BRIDGE, Mark, octets
from netemu.linklocal import addresses, ipv6

# Probes a port may send: ten times the number of the quickest claim. The worst luck of RFC 3927 (a
# conflict at each probe) passes, a flood does not. The numbers are for time scale 1: a quicker lab
# probes more often.
PROBES_PER_SECOND = 10
PROBE_BURST = 30
# What one guest may send to all others of its node under same-node: broadcast, multicast and ARP
# requests.
BROADCASTS_PER_SECOND = 50
BROADCAST_BURST = 100
# ARP replies, which go by broadcast (RFC 3927 section 2.5): enough for ten others that ask as often
# as they may.
ANSWERS_PER_SECOND = 10 * BROADCASTS_PER_SECOND
ANSWER_BURST = 10 * BROADCAST_BURST
# Probes of others that a guest hears under same-node. Each may look like a conflict (RFC 3927
# section 2.2.1), and MAX_CONFLICTS (10) of them cost the guest a minute: so the burst is below
# that, and the rate is one in the time of many claims. A probe that is not heard does no harm: the
# node's oracle hears every one.
OVERHEARD_BURST = 6
OVERHEARD_PER_MINUTE = 2
# Connections that a port may open: more than the responder serves on a whole machine, so that no
# honest client meets the limit, and far fewer than a flood.
CONNECTIONS_PER_SECOND = 20_000
CONNECTION_BURST = 2_000
# What a port may ask its node's DHCP server: a client asks at most once in a second or so.
DHCP_PER_SECOND = 5
DHCP_BURST = 20
# Names that a port may ask for: two for each request of a client that keeps no answer.
NAMES_PER_SECOND = 20
NAMES_BURST = 100
# An ordinary user's nft sends at most net.core.wmem_default (208 KiB) in one transaction, which is
# the rules of some 150 ports.
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
    "wire_server": addresses.WIRE_SERVER_TEXT,
    "broadcast": addresses.BROADCAST_TEXT,
    "link_local": LINK_LOCAL,
    "claimable": CLAIMABLE,
    "dhcp_out": "",
    "ipv6_out": "",
    "metadata_ipv6": ", ".join(ipv6.METADATA),
}

# nft uses `@set` itself: a place to be filled in is written `@{name}`.
_PLACE = re.compile(r"@\{([a-z0-9_]+)\}")


class Rules(msgspec.Struct, frozen=True):
    """The text of a guard, for nft. Each `@{name}` is a place to be filled in."""

    node: str
    """The tables of a node."""
    port: str
    """The chains of one port, within `table netdev guard`."""
    added: str
    """What ports that come later add, with their chains."""
    removed: str
    """The commands that remove one port's rules."""
    ipv6: bool = False
    """Whether they are those of `with_ipv6`."""
    leasing: frozenset[str] = frozenset()
    """Ports whose guests may be leased an address: see `with_dhcp`."""

    def with_dhcp(self, ports: Iterable[str]) -> "Rules":
        """The same, for a lab of whose ports these speak DHCP."""
        node = self.node.replace("@{dhcp_out}", "\n        ether type ip jump dhcp_out")
        return msgspec.structs.replace(
            self,
            node=_DECLARED_FOR_DHCP + node + template("guard_dhcp.nft"),
            leasing=frozenset(ports),
        )

    def with_ipv6(self) -> "Rules":
        """The same, for a lab whose guests' links speak IPv6."""
        added, removed = (
            "".join(f"\n{verb} element netdev guard {one} {{ @{{{one}}} }}" for one in _IPV6_SETS)
            for verb in ("add", "delete")
        )
        node = self.node.replace("@{ipv6_out}", "\n        ether type ip6 jump ip6_out")
        return Rules(
            node=_DECLARED + node + template("guard_ipv6.nft"),
            port=self.port,
            added=self.added + added,
            removed=self.removed + removed,
            ipv6=True,
        )

    def pieces(self, ports: Sequence[Port], **manner: Any) -> Iterator[str]:
        """The text of `render` in several pieces, each small enough for an ordinary user's nft.
        Load them in order, while the ports are down.
        """
        yield self.render(ports=ports[:PORTS_AT_ONCE], **manner)
        for start in range(PORTS_AT_ONCE, len(ports), PORTS_AT_ONCE):
            yield self.more(ports[start : start + PORTS_AT_ONCE])

    def render(
        self,
        *,
        bridge_mac: str,
        ports: Sequence[Port],
        same_node: bool,
        time_scale: float = 1.0,
        leased: bool = False,
    ) -> str:
        """The rules of a node with these ports; `leased`: silent unless a lease is renewed."""
        overheard = _scaled(OVERHEARD_PER_MINUTE, time_scale)
        sets = {name: elements(found) for name, found in self._elements(ports).items()}
        values = {
            **sets,
            "leasing": elements(self._leasing(ports)),
            "dhcp_rate": DHCP_PER_SECOND,
            "dhcp_burst": DHCP_BURST,
            "dns_rate": NAMES_PER_SECOND,
            "dns_burst": NAMES_BURST,
            "solicitations": _solicitations(bridge_mac) if self.ipv6 else "",
            "bridge_mac": bridge_mac,
            "policy": "same_node" if same_node else "responder_only",
            "policy_arp_out": _SAME_NODE_ARP_OUT.format(overheard) if same_node else "",
            "policy_ip_out": fill_in(_SAME_NODE_IP_OUT, {}) if same_node else "",
            "probe_rate": _scaled(PROBES_PER_SECOND, time_scale),
            "probe_burst": _scaled(PROBE_BURST, time_scale),
            "broadcast_rate": BROADCASTS_PER_SECOND,
            "broadcast_burst": BROADCAST_BURST,
            "answer_rate": ANSWERS_PER_SECOND,
            "answer_burst": ANSWER_BURST,
            "connection_rate": CONNECTIONS_PER_SECOND,
            "connection_burst": CONNECTION_BURST,
            **(_LEASED if leased else dict.fromkeys(_LEASED, "")),
            "ports": self._chains(ports),
        }
        return fill_in(self.node, values)

    def more(self, ports: Sequence[Port]) -> str:
        """The rules that these ports add to a loaded guard. Their links exist, and are down."""
        rules = fill_in(self.added, {**self._elements(ports), "ports": self._chains(ports)})
        return rules + self._leases("add", ports)

    def one_less(self, port: Port) -> str:
        """The commands that remove a port's rules. Its link still exists, and is down."""
        rules = fill_in(self.removed, {**self._elements([port]), "port": port[0]})
        return rules + self._leases("delete", [port])

    def _leasing(self, ports: Sequence[Port]) -> str:
        return ", ".join(f'"{port}"' for port, _, _ in ports if port in self.leasing)

    def _leases(self, verb: str, ports: Sequence[Port]) -> str:
        found = self._leasing(ports)
        return f"\n{verb} element netdev guard leasing {{ {found} }}" if found else ""

    def _elements(self, ports: Sequence[Port]) -> dict[str, str]:
        return _elements(ports) | (_ipv6_elements(ports) if self.ipv6 else {})

    def _chains(self, ports: Sequence[Port]) -> str:
        return "\n".join(
            fill_in(self.port, {"port": port, "mark": mark}) for port, mark, _ in ports
        )


@cache
def standard() -> Rules:
    """The guard of every lab, from the files beside this one."""
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
    """The text with each `@{name}` filled in, from `values` or from the names that are the same in
    every lab.
    """
    known = {**_NAMES, **values}
    return _PLACE.sub(lambda place: str(known[place[1]]), template)


_SAME_NODE_ARP_OUT = f"""ether saddr @stations arp saddr ip != 0.0.0.0 accept
        # The oracle has heard it; who claims the same address is told by the oracle.
        ether saddr @stations update @overheard {{{{ oifname limit rate {{}}/minute burst {OVERHEARD_BURST} packets }}}} accept"""  # noqa: E501

_SAME_NODE_IP_OUT = """ether saddr @stations oifname . ether daddr . ip daddr @bound accept
        ether saddr @stations ether daddr ff:ff:ff:ff:ff:ff ip daddr { @{broadcast}, 255.255.255.255 } accept
        ether saddr @stations ether daddr & ff:ff:ff:80:00:00 == 01:00:5e:00:00:00 ip daddr 224.0.0.0/4 accept"""  # noqa: E501


# Only labs on several machines have one: see `netemu.kernel.lease`. Every port is Ethernet's, so
# the one element of the set holds for each frame.
_LEASED: Final = {
    "lease": """    # Until when guests may be heard at all.
    set lease { type iface_type; flags timeout; }
""",
    "leased_in": "iiftype != @lease counter name refused_in drop",
    "leased_out": "oiftype != @lease counter name refused_out drop",
}


def _scaled(rate: int, time_scale: float) -> int:
    return min(_MAX_RATE, max(rate, math.ceil(rate / time_scale)))


def elements(of_set: str) -> str:
    """A set's `elements = …`; nothing for an empty one."""
    return f"elements = {{ {of_set} }}" if of_set else ""


def _elements(ports: Sequence[Port]) -> dict[str, str]:
    """The elements that these ports have in the sets of wires, stations and own marks."""
    return {
        "wires": ", ".join(f'"{port}" . {mac}' for port, _, mac in ports),
        "stations": ", ".join(mac for _, _, mac in ports),
        "own": ", ".join(f"{mark} . {mark}, {mark} . 0" for _, mark, _ in ports),
    }


# nft wants a chain to be there before a rule that jumps to it.
_DECLARED: Final = "table netdev guard {\n    chain ip6_out { }\n}\n"
_DECLARED_FOR_DHCP: Final = "table netdev guard {\n    chain dhcp_out { }\n}\n"
_IPV6_SETS: Final = ("addressed", "soliciting", "answered")


def _ipv6_elements(ports: Sequence[Port]) -> dict[str, str]:
    """The elements that these ports have in the sets of _IPV6_SETS."""
    names = [(f'"{port}"', mark, mac, ipv6.of_mac(mac)) for port, mark, mac in ports]
    return {
        "addressed": ", ".join(f"{port} . {mac} . {own}" for port, _, mac, own in names),
        "soliciting": ", ".join(f"{port} . 0x{octets(mac).hex()}" for port, _, mac, _ in names),
        "answered": ", ".join(f"{port} . {mac} . {own} . {mark}" for port, mark, mac, own in names),
    }


def _solicitations(bridge_mac: str) -> str:
    """The rules that accept a solicitation of a metadata address, as a message carries it."""
    return "\n".join(
        f"        ether daddr . ip6 daddr {{ {ipv6.group_mac(one)} . {ipv6.group(one)}, "
        f"{bridge_mac} . {one} }} @th,64,128 0x{IPv6Address(one).packed.hex()} accept"
        for one in ipv6.METADATA
    )
