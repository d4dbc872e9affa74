"""Messages that are filled in by hand say what pyroute2, which encoded their templates, reads."""

import struct
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg

from netemu.kernel import links
from netemu.kernel.bridging import PortOptions

octets = st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":"))
names = st.from_regex(r"[a-z][a-z0-9-]{0,14}", fullmatch=True)
numbers = st.integers(1, 2**31 - 1)


def decoded(kind, message):
    assert struct.unpack_from("=I", message.data)[0] == len(message.data)
    read = kind(message.data)
    read.decode()
    return read


@given(names, numbers, numbers, octets, names)
def test_a_wire_is_what_was_asked_for(port, index, net, mac, alias):
    read = decoded(ifinfmsg, links.wire(port, index, 2, net, mac, alias))
    assert read["index"] == index
    assert read.get_attr("IFLA_IFNAME") == port
    assert read.get_attr("IFLA_IFALIAS") == alias
    assert read.get_attr("IFLA_MASTER") == 2
    info = read.get_attr("IFLA_LINKINFO")
    assert info.get_attr("IFLA_INFO_KIND") == "veth"
    peer = info.get_attr("IFLA_INFO_DATA").get_attr("VETH_INFO_PEER")
    assert peer["index"] == links.GUEST_INDEX
    assert peer.get_attr("IFLA_IFNAME") == "eth0"
    assert peer.get_attr("IFLA_ADDRESS") == mac
    assert peer.get_attr("IFLA_NET_NS_FD") == net


@given(numbers, octets)
def test_a_station_is_behind_its_port(index, mac):
    read = decoded(ndmsg, links.station("p1", index, mac))
    assert (read["ifindex"], read.get_attr("NDA_LLADDR")) == (index, mac)


@given(numbers)
def test_links_go_up_and_down_by_their_index(index):
    for message, flags in ((links.up("p1", index), 1), (links.down("p1", index), 0)):
        read = decoded(ifinfmsg, message)
        assert (read["index"], read["flags"], read["change"]) == (index, flags, 1)


@given(st.builds(PortOptions, *[st.booleans()] * 4))
def test_a_port_is_treated_as_was_chosen(chosen):
    read = decoded(ifinfmsg, links.port_options("p1", 101, chosen))
    options = read.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_SLAVE_DATA")
    assert read["index"] == 101
    assert options.get_attr("IFLA_BRPORT_ISOLATED") == chosen.isolated
    assert options.get_attr("IFLA_BRPORT_LEARNING") == chosen.learning
    assert options.get_attr("IFLA_BRPORT_UNICAST_FLOOD") == chosen.unicast_flood
    assert options.get_attr("IFLA_BRPORT_MCAST_FLOOD") == chosen.multicast_flood
    assert options.get_attr("IFLA_BRPORT_BCAST_FLOOD") == 1


@pytest.mark.processes
@pytest.mark.parametrize("first", ["", "import pyroute2"])
def test_what_imports_pyroute2_later_or_before_gets_all_of_it(first: str) -> None:
    """The lab imports its messages alone: a user's program has the whole of it all the same."""
    script = f"""
import sys
{first}
from netemu.kernel import addressing, links
assert ("pyroute2.ndb.main" in sys.modules) == bool({first!r})
import pyroute2.netlink
assert pyroute2.IPRoute and pyroute2.NDB and pyroute2.netlink.nlmsg
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
