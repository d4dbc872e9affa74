"""The kernel settings of a node, where a new namespace's defaults are wrong; a guest's links get
theirs by netlink (`links.manners`).

Each is written from inside the namespace (`namespaces.inside`); the reason stands beside it.
"""

import os

from netemu.kernel.errors import KernelError

Settings = tuple[tuple[str, str], ...]
"""Names below net, and values."""

_ROOT = "/proc/sys/net/"

# Before any link is made: links take the defaults of their birth.
NODE: Settings = (
    # Identity: an accepted socket takes the mark of the SYN, a reply without a socket too.
    ("ipv4/tcp_fwmark_accept", "1"),
    ("ipv4/fwmark_reflect", "1"),
    # The node speaks ARP for br0's own address there, and for nothing else.
    ("ipv4/conf/all/arp_ignore", "1"),
    ("ipv4/conf/all/arp_announce", "2"),
    # RFC 3927 section 2.7: nothing is forwarded, and nobody may talk the node into a detour.
    ("ipv4/ip_forward", "0"),
    ("ipv4/conf/all/route_localnet", "0"),
    # What the kernel says by itself (a RST) goes no further than the responder's own answers.
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
            # A kernel without IPv6 needs no telling to leave it off.
            if not optional and not name.startswith("ipv6/"):
                raise KernelError(
                    f"setting net.{name.replace('/', '.')}", error.errno or 0
                ) from None
        except OSError as error:
            raise _refused(name, error) from None


def _refused(name: str, error: OSError) -> KernelError:
    return KernelError(f"setting net.{name.replace('/', '.')}", error.errno or 0)
