"""Other rule sets instead of ours, written for the same lab.

Each is written from its documentation or source, for nft where the original uses ebtables or
iptables: the same hooks, the same order, the same matches. Everything else (kernel settings,
listener, responder, marks as identity) is the lab's own, and rows that no such rule set decides are
left out.

Two things are added to rule sets that know each guest's address. A probe (sender 0.0.0.0) for a
port's own address may pass, because guests here claim their addresses by RFC 3927. And addresses
are filled in after the claim; the originals get them from the service that assigns them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from netemu.conformance import weakened
from netemu.conformance.labstage import Ground, LabStage, Port, running
from netemu.conformance.row import Result, Row
from netemu.conformance.suite import Rows, play
from netemu.kernel import guard
from netemu.linklocal.addresses import METADATA_TEXT
from netemu.linklocal.ipv6 import of_mac
from netemu.topology import Lab, Policy

_LIBVIRT: Final = "https://gitlab.com/libvirt/libvirt/-/blob/v9.0.0/src/nwfilter/xml"
_NEUTRON: Final = "https://opendev.org/openstack/neutron/src/tag/22.0.0/neutron"

WITHOUT_OURS: Final = Ground(weakened.without(*weakened.GUARD, weakened.bridge))
"""Labs without our guard, and with the ports of a new bridge."""


@dataclass(frozen=True, kw_only=True)
class Rival:
    """A rule set: what it aims at, under which policy it is judged, and its sources.

    `rules` returns nft's text for the ports of a node with this MAC; with `isolated`, every port is
    isolated.
    """

    name: str
    title: str
    aim: str
    policy: Policy
    sources: tuple[str, ...]
    rules: Callable[[str, list[Port]], str] | None = None
    isolated: bool = False


def put_in_place(rival: Rival, stage: LabStage) -> None:
    """Load the rule set on the stage's node, which has no guard."""
    if rival.isolated:
        for port in stage.ports():
            stage.on_node("bridge", "link", "set", "dev", port.name, "isolated", "on")
    if rival.rules is not None:
        write = rival.rules

        def text() -> str:
            return _ANEW + write(stage.bridge, stage.ports())

        stage.rules = text
        stage.on_node("nft", "-f", "-", text=text())


def decided_by_rules(family: str, row: Row) -> bool:
    """Whether a rule set for guests' traffic can decide the row at all."""
    return row.id not in _NOT_BY_RULES and (family != "HTTP" or row.id == "01")


# These hold by the responder, by namespaces, or by the assignment of addresses.
_NOT_BY_RULES: Final = frozenset({"52", "65", "66", "75", "76", "79", "80"})

# One transaction, which leaves nothing of what was there before.
_ANEW: Final = "add table bridge rival\ndelete table bridge rival\n"


def _table(*chains: str) -> str:
    return "table bridge rival {\n" + "\n".join(chains) + "\n}\n"


def _clean_traffic(_bridge_mac: str, ports: list[Port]) -> str:
    """The rules that libvirt makes of the filter, in its chains' order, at ebtables' nat hooks."""
    chains = [
        f"""
    chain out_{port.name} {{
        # no-mac-spoofing
        ether saddr != {port.mac} drop
        # no-ip-spoofing
        ether type ip ip saddr 0.0.0.0 ip protocol udp accept
        ether type ip ip saddr != {port.address} drop
        ether type ip accept
        # no-arp-mac-spoofing, no-arp-ip-spoofing; the probe is ours
        ether type arp arp saddr ether != {port.mac} drop
        ether type arp arp operation request arp saddr ip 0.0.0.0 arp daddr ip {port.address} accept
        ether type arp arp saddr ip != {port.address} drop
        ether type arp accept
        # qemu-announce-self, qemu-announce-self-rarp
        ether type 0x0835 accept
        ether daddr ff:ff:ff:ff:ff:ff ether type 0x8035 accept
        # no-other-l2-traffic
        drop
    }}
    chain in_{port.name} {{
        ether type ip accept
        ether type arp accept
        ether daddr ff:ff:ff:ff:ff:ff ether type 0x8035 accept
        drop
    }}"""
        for port in ports
    ]
    outward = "".join(f'\n        iifname "{one.name}" jump out_{one.name}' for one in ports)
    inward = "".join(f'\n        oifname "{one.name}" jump in_{one.name}' for one in ports)
    return _table(
        *chains,
        f"""
    chain prerouting {{
        type filter hook prerouting priority dstnat; policy accept;{outward}
    }}
    chain postrouting {{
        type filter hook postrouting priority srcnat; policy accept;{inward}
    }}""",
    )


def _port_security(_bridge_mac: str, ports: list[Port]) -> str:
    """Neutron's MAC and ARP chains (ebtables nat PREROUTING), and its IP rules, FORWARD and INPUT.

    The IP rules are the fixed ones of a port whose security group lets everything out and members
    of the same group in. They are written without connection tracking, which bridges lack here.
    """
    chains = [
        f"""
    chain mac_{port.name} {{
        ether saddr {port.mac} return
        drop
    }}
    chain arp_{port.name} {{
        arp plen 4 arp ptype ip arp saddr ip {port.address} accept
        # the probe is ours
        arp operation request arp saddr ip 0.0.0.0 arp daddr ip {port.address} accept
        drop
    }}
    chain ip_{port.name} {{
        ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 return
        ip saddr != {port.address} drop
        udp sport 68 udp dport 67 return
        udp sport 67 udp dport 68 drop
    }}
    chain ip6_{port.name} {{
        ip6 saddr :: ip6 daddr ff02::/16 icmpv6 type {{ 130, 131, 132, 135, 143 }} return
        ip6 saddr != {of_mac(port.mac)} drop
        icmpv6 type nd-router-advert drop
    }}"""
        for port in ports
    ]
    layer2 = "".join(
        f'\n        iifname "{one.name}" jump mac_{one.name}'
        f'\n        iifname "{one.name}" ether type arp jump arp_{one.name}'
        for one in ports
    )
    layer3 = "".join(
        f'\n        iifname "{one.name}" ether type ip jump ip_{one.name}'
        f'\n        iifname "{one.name}" ether type ip6 jump ip6_{one.name}'
        for one in ports
    )
    return _table(
        *chains,
        f"""
    chain prerouting {{
        type filter hook prerouting priority dstnat; policy accept;{layer2}
    }}
    chain forward {{
        type filter hook forward priority filter; policy accept;{layer3}
    }}
    chain input {{
        type filter hook input priority filter; policy accept;{layer3}
    }}""",
    )


def _bridge_allow_list(bridge_mac: str, ports: list[Port]) -> str:
    """Our own two lists for responder-only, unchanged, at the bridge's hooks."""
    chains = [
        f"""
    chain from_{port.name} {{
        ether saddr != {port.mac} drop
        ether type arp arp htype 1 arp ptype ip arp hlen 6 arp plen 4 arp saddr ether {port.mac} jump arp_from_{port.name}
        ether type ip ip version 4 ip hdrlength 5 ip frag-off & 0xbfff == 0 ip saddr {port.address} ether daddr {bridge_mac} ip daddr {METADATA_TEXT} tcp dport 80 accept
        drop
    }}
    chain arp_from_{port.name} {{
        ether daddr ff:ff:ff:ff:ff:ff arp operation request arp saddr ip 0.0.0.0 arp daddr ip {guard.CLAIMABLE} accept
        ether daddr {{ ff:ff:ff:ff:ff:ff, {bridge_mac} }} arp operation request arp saddr ip {port.address} arp daddr ip {{ {port.address}, {METADATA_TEXT} }} accept
    }}
    chain to_{port.name} {{
        ether saddr {bridge_mac} ether type arp arp saddr ip {guard.LINK_LOCAL} accept
        ether saddr {bridge_mac} ether type ip ip saddr {METADATA_TEXT} tcp sport 80 ether daddr {port.mac} ip daddr {port.address} accept
        drop
    }}"""  # noqa: E501
        for port in ports
    ]
    from_guests = "".join(f'\n        iifname "{one.name}" jump from_{one.name}' for one in ports)
    to_guests = "".join(f'\n        oifname "{one.name}" jump to_{one.name}' for one in ports)
    return _table(
        *chains,
        f"""
    chain prerouting {{
        type filter hook prerouting priority filter; policy accept;{from_guests}
    }}
    chain postrouting {{
        type filter hook postrouting priority filter; policy accept;{to_guests}
    }}""",
    )


RIVALS: Final[tuple[Rival, ...]] = (
    Rival(
        name="plain-bridge",
        title="a plain bridge",
        aim="forwards; it keeps nobody apart, and does not say so",
        policy=Policy.SAME_NODE,
        sources=("https://docs.kernel.org/networking/bridge.html",),
    ),
    Rival(
        name="isolated-ports",
        title="isolated ports only",
        aim="no frame goes from one isolated port to another",
        policy=Policy.RESPONDER_ONLY,
        sources=("https://man7.org/linux/man-pages/man8/bridge.8.html",),
        isolated=True,
    ),
    Rival(
        name="clean-traffic",
        title="libvirt's clean-traffic",
        aim="no guest spoofs another's MAC, IP or ARP, or sends anything but IPv4 and ARP",
        policy=Policy.SAME_NODE,
        sources=(
            f"{_LIBVIRT}/clean-traffic.xml",
            f"{_LIBVIRT}/no-mac-spoofing.xml",
            f"{_LIBVIRT}/no-ip-spoofing.xml",
            f"{_LIBVIRT}/no-arp-mac-spoofing.xml",
            f"{_LIBVIRT}/no-arp-ip-spoofing.xml",
            f"{_LIBVIRT}/no-other-l2-traffic.xml",
            f"{_LIBVIRT}/qemu-announce-self.xml",
            "https://libvirt.org/formatnwfilter.html",
        ),
        rules=_clean_traffic,
    ),
    Rival(
        name="port-security",
        title="OpenStack's Linux-bridge port security",
        aim="no guest spoofs another's MAC, IP or ARP, serves DHCP or advertises routes",
        policy=Policy.SAME_NODE,
        sources=(
            f"{_NEUTRON}/plugins/ml2/drivers/linuxbridge/agent/arp_protect.py",
            f"{_NEUTRON}/agent/linux/iptables_firewall.py",
        ),
        rules=_port_security,
    ),
    Rival(
        name="bridge-allow-list",
        title="an allow-list in nft's bridge family",
        aim="what our guard does, at the bridge's hooks instead of the ports' own",
        policy=Policy.RESPONDER_ONLY,
        sources=("https://wiki.nftables.org/wiki-nftables/index.php/Bridge_filtering",),
        rules=_bridge_allow_list,
    ),
)


def compare(
    lab: Lab, rival: Rival, rows: Rows, *, time_scale: float, on_result: Callable[[Result], None]
) -> dict[str, Result]:
    """Play the rows on a lab with the rival's rules. Returns the results by the rows' numbers.

    A lab that an attack has spoilt is built again, so that no row fails because of another.
    """
    told: dict[str, Result] = {}
    rest = list(rows)
    while rest:
        with running(lab, time_scale, WITHOUT_OURS) as stage:
            put_in_place(rival, stage)
            results = play(stage, rest, on_result, until_spoiled=True)
        told.update((result.row.id, result) for result in results)
        rest = rest[len(results) :]
    return told
