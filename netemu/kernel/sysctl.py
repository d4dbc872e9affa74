"""The kernel settings of a node that differ from a new namespace's defaults, each with its reason.

They are written from inside the namespace (`namespaces.inside`). A guest's links get their settings
by netlink (`links.manners`).
"""

import os

from netemu.kernel.errors import KernelError

Settings = tuple[tuple[str, str], ...]
"""Names below net, and values."""

_ROOT = "/proc/sys/net/"

# Written before any link is made: links take the defaults at their creation.
NODE: Settings = (
    # Identity: an accepted socket takes the mark of the SYN, a reply without a socket too.
    ("ipv4/tcp_fwmark_accept", "1"),
    ("ipv4/fwmark_reflect", "1"),
    # The node speaks ARP for br0's own address there, and for nothing else.
    ("ipv4/conf/all/arp_ignore", "1"),
    ("ipv4/conf/all/arp_announce", "2"),
    # RFC 3927 section 2.7: nothing is forwarded, and no redirect or source route is accepted.
    ("ipv4/ip_forward", "0"),
    ("ipv4/conf/all/route_localnet", "0"),
    # What the kernel sends by itself (a RST) goes no further than the responder's answers.
    ("ipv4/ip_default_ttl", "1"),
    ("ipv4/conf/all/accept_redirects", "0"),
    ("ipv4/conf/default/accept_redirects", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv4/conf/all/accept_source_route", "0"),
    ("ipv4/conf/all/rp_filter", "1"),
    # No fe80:: address on br0 or on a port; nothing of the node's listens on IPv6.
    ("ipv6/conf/all/disable_ipv6", "1"),
    ("ipv6/conf/default/disable_ipv6", "1"),
    ("ipv6/conf/all/accept_ra", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
)

# What a node whose guests' links speak IPv6 is given besides, before any link is made.
NODE_IPV6: Settings = (
    ("ipv6/fwmark_reflect", "1"),
    ("ipv6/conf/all/forwarding", "0"),
    # What the kernel sends by itself goes no further than the responder's answers.
    ("ipv6/conf/default/hop_limit", "1"),
    ("ipv6/conf/default/accept_redirects", "0"),
    ("ipv6/conf/default/accept_source_route", "-1"),
)


def speaking_ipv6(link: str) -> Settings:
    """The setting of the one link of a node that speaks IPv6."""
    return ((f"ipv6/conf/{link}/disable_ipv6", "0"),)


# Bridged frames must not be seen a second time by the inet hooks. A kernel without br_netfilter
# has no such files.
NODE_BRIDGE: Settings = (
    ("bridge/bridge-nf-call-iptables", "0"),
    ("bridge/bridge-nf-call-ip6tables", "0"),
    ("bridge/bridge-nf-call-arptables", "0"),
)


def write(settings: Settings, *, optional: bool = False) -> None:
    """Write settings in the present network namespace; `optional` ones may be missing."""
    for name, value in settings:
        try:
            descriptor = os.open(_ROOT + name, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(descriptor, value.encode())
            finally:
                os.close(descriptor)
        except FileNotFoundError as error:
            # On a kernel without IPv6 these are missing, and off.
            if not optional and not name.startswith("ipv6/"):
                raise KernelError(
                    f"setting net.{name.replace('/', '.')}", error.errno or 0
                ) from None
        except OSError as error:
            raise _refused(name, error) from None


def _refused(name: str, error: OSError) -> KernelError:
    return KernelError(f"setting net.{name.replace('/', '.')}", error.errno or 0)
