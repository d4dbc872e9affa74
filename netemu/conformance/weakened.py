"""Profiles that are weak on purpose: each lacks something that keeps guests apart.

The suite plays its rows in such labs, to see each row fail. Nothing outside this package makes such
a profile.
"""

from collections.abc import Callable
from functools import reduce
from typing import Final

import msgspec

from netemu.conformance import insecure_responder
from netemu.kernel.bridging import PortOptions
from netemu.kernel.sockets import Listener
from netemu.topology import Policy
from netemu.wire.profile import Identity, Profile

Weakening = Callable[[Profile], Profile]

# The defaults of a new network namespace on a machine that forwards, as container hosts do.
# Identity stays: without it there would be no lab to attack.
_AS_BORN: Final = (
    ("ipv4/tcp_fwmark_accept", "1"),
    ("ipv4/fwmark_reflect", "0"),
    ("ipv4/ip_forward", "1"),
    ("ipv4/conf/all/send_redirects", "1"),
    ("ipv4/conf/default/send_redirects", "1"),
    ("ipv4/conf/all/accept_redirects", "1"),
    ("ipv4/conf/default/accept_redirects", "1"),
    ("ipv4/conf/all/route_localnet", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv6/conf/all/disable_ipv6", "0"),
    ("ipv6/conf/default/disable_ipv6", "0"),
    ("ipv6/conf/default/accept_ra", "1"),
)
_IPV6_AS_BORN: Final = (
    ("ipv6/fwmark_reflect", "0"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv6/conf/default/hop_limit", "64"),
    ("ipv6/conf/default/accept_redirects", "1"),
)
_LINUX_TTL: Final = 64
_NEW_PORT: Final = PortOptions(
    isolated=False, multicast_flood=True, unicast_flood=True, learning=True
)


def without(*weakenings: Weakening) -> Profile:
    """The profile of a lab to which all of these were done."""
    return reduce(lambda profile, weaken: weaken(profile), weakenings, Profile())


def ingress(profile: Profile) -> Profile:
    """No list of what a guest may send."""
    return _with_rules(profile, port=_changed(profile.rules.port, "goto from_guest", "accept"))


def egress(profile: Profile) -> Profile:
    """No list of what may reach a guest."""
    port, cut, _ = profile.rules.port.partition("    chain out_")
    assert cut
    removed = _changed(profile.rules.removed, "delete chain netdev guard out_@{port}\n")
    return _with_rules(profile, port=port, removed=removed)


def host(profile: Profile) -> Profile:
    """No list of what the node's own stack takes in, forwards and sends."""
    rules = profile.rules
    node, cut, _ = rules.node.partition("table inet guard")
    assert cut
    return _with_rules(
        profile,
        node=node,
        added=_changed(rules.added, "add element inet guard own { @{own} }\n"),
        removed=_changed(rules.removed, "delete element inet guard own { @{own} }"),
    )


def marks(profile: Profile) -> Profile:
    """A guest is known by its address; only ARP still carries the port's mark.

    Without that mark, claims could not be told apart.
    """
    rules = profile.rules
    port = _changed(rules.port, "meta mark set", "ether type arp meta mark set")
    own_answers = "meta mark != @{mark} counter name refused_out drop"
    own_segments = 'iifname "@{bridge}" meta mark . socket mark != @own drop'
    weak = _with_rules(
        profile,
        node=rules.node.replace(own_segments, ""),  # `host` may have removed it
        port="".join(line for line in port.splitlines(keepends=True) if own_answers not in line),
    )
    return msgspec.structs.replace(weak, identity=Identity.ADDRESS)


def settings(profile: Profile) -> Profile:
    """A new namespace's kernel settings."""
    return msgspec.structs.replace(profile, sysctls=_AS_BORN, ipv6_sysctls=_IPV6_AS_BORN)


def bridge(profile: Profile) -> Profile:
    """A new bridge's ports: they learn, are flooded, and reach each other."""
    return msgspec.structs.replace(profile, ports=dict.fromkeys(Policy, _NEW_PORT))


def listener(profile: Profile) -> Profile:
    """A responder that listens everywhere, with answers that outlive the link."""
    return msgspec.structs.replace(
        profile,
        listener=Listener("0.0.0.0", "", ttl=_LINUX_TTL),
        ipv6_listeners=(Listener("::", "", ttl=_LINUX_TTL),),
    )


def resets(profile: Profile) -> Profile:
    """An address that is handed over keeps its connections."""
    return msgspec.structs.replace(profile, resets=False)


def responder(profile: Profile) -> Profile:
    """A responder that makes mistakes."""
    return msgspec.structs.replace(profile, responder=(insecure_responder.__name__,))


GUARD: Final = (ingress, egress, host)
"""The three that remove the whole guard."""


def _with_rules(profile: Profile, **texts: str) -> Profile:
    rules = msgspec.structs.replace(profile.rules, **texts)
    return msgspec.structs.replace(profile, rules=rules)


def _changed(text: str, old: str, new: str = "") -> str:
    """The text with its one `old` replaced. Fails if the rule has been reworded, so that no
    protection stays by mistake.
    """
    assert text.count(old) == 1, old
    return text.replace(old, new)
