"""DHCP's messages and answers, read by scapy; and what the oracle leases."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from netemu.interfaces import Mark
from netemu.linklocal import addresses, arp, dhcp
from netemu.linklocal.dhcp import Answer, Kind, Message
from netemu.linklocal.oracle import Bind, Oracle, Refuse
from netemu.linklocal.timing import Timing

MAC, OTHER = b"\2\0\0\0\0\1", b"\2\0\0\0\0\2"
NODE = b"\2\0\0\0\0\xfe"
OWN = addresses.METADATA
ONE, TWO = Mark(1), Mark(2)
HELD = addresses.from_text("169.254.7.7")


def asked(*options, mac: bytes = MAC, held: str = "0.0.0.0", **bootp) -> bytes:
    frame = (
        Ether(dst="ff:ff:ff:ff:ff:ff", src="02:00:00:00:00:01")
        / IP(src=held, dst="255.255.255.255")
        / UDP(sport=68, dport=67)
        / BOOTP(chaddr=mac, xid=7, ciaddr=held, **bootp)
        / DHCP(options=[*options, "end"])
    )
    return bytes(frame)


DISCOVER = asked(("message-type", "discover"))


def test_a_clients_message_is_read() -> None:
    assert dhcp.parse(DISCOVER) == Message(Kind.DISCOVER, b"\0\0\0\7", MAC)
    wanted = asked(
        ("message-type", "request"),
        ("requested_addr", "169.254.7.7"),
        ("server_id", "169.254.169.254"),
    )
    assert dhcp.parse(wanted) == Message(Kind.REQUEST, b"\0\0\0\7", MAC, 0, HELD, OWN)


@pytest.mark.parametrize(
    "frame",
    [
        asked(("message-type", "discover"), giaddr="10.0.0.1"),  # by way of a relay
        asked(("message-type", "discover"), op=2),
        asked(("message-type", "discover"), htype=6),
        asked(("message-type", "discover"), hlen=16),
        asked(("message-type", 99)),
        asked(),
        DISCOVER.replace(b"\x63\x82\x53\x63", b"\x63\x82\x53\x64"),
        DISCOVER[:-1] + b"\x0c",  # an option that is cut off
        DISCOVER[: dhcp.SHORTEST - 1],
        DISCOVER[:20] + b"\x20\0" + DISCOVER[22:],  # a fragment
    ],
)
def test_what_is_no_clients_message_is_none(frame: bytes) -> None:
    assert dhcp.parse(frame) is None


@given(st.binary(max_size=100), st.integers(0, 400))
def test_whatever_comes_is_a_message_or_none(noise: bytes, at: int) -> None:
    dhcp.parse(DISCOVER[:at] + noise + DISCOVER[at + len(noise) :])
    dhcp.parse(DISCOVER[: dhcp.SHORTEST] + noise)


@given(
    st.builds(
        Message,
        st.sampled_from(Kind),
        st.just(b"1234"),
        st.just(MAC),
        st.sampled_from([0, HELD, HELD + 1]),
        st.sampled_from([0, HELD, HELD + 1]),
        st.sampled_from([0, OWN, HELD]),
    ),
    st.sampled_from([None, HELD]),
)
def test_no_other_address_than_the_ports_is_ever_given(message: Message, held: int | None) -> None:
    said = dhcp.answer(message, held, OWN)
    if held is None:
        assert said is None
    elif said is not None:
        assert said.address in (0, held)
        if said.kind is Kind.ACK and message.kind is Kind.REQUEST:
            assert held in (message.requested, message.address)


def test_a_request_for_another_address_or_server_is_refused_or_not_ours() -> None:
    request = Message(Kind.REQUEST, b"1234", MAC)
    assert dhcp.answer(request._replace(requested=HELD), HELD, OWN) == Answer(Kind.ACK, HELD)
    assert dhcp.answer(request._replace(requested=HELD + 1), HELD, OWN) == Answer(Kind.NAK, 0)
    assert dhcp.answer(request._replace(address=HELD), HELD, OWN) == Answer(Kind.ACK, HELD)
    assert dhcp.answer(request._replace(requested=HELD, server=HELD), HELD, OWN) is None
    assert dhcp.answer(Message(Kind.RELEASE, b"1234", MAC), HELD, OWN) is None


def test_an_answer_is_what_clients_expect() -> None:
    message = Message(Kind.DISCOVER, b"\0\0\0\7", MAC)
    frame = Ether(dhcp.frame(message, Answer(Kind.OFFER, HELD), OWN, NODE, "web1"))
    assert (frame.dst, frame.src) == ("02:00:00:00:00:01", "02:00:00:00:00:fe")
    assert (frame[IP].src, frame[UDP].sport, frame[UDP].dport) == ("169.254.169.254", 67, 68)
    told = frame[IP].chksum
    del frame[IP].chksum
    assert IP(bytes(frame[IP])).chksum == told
    assert (frame[BOOTP].xid, frame[BOOTP].yiaddr) == (7, "169.254.7.7")
    options = dict(one for one in frame[DHCP].options if isinstance(one, tuple) and len(one) == 2)
    assert options["message-type"] == 2
    assert options["server_id"] == "169.254.169.254"
    assert options["subnet_mask"] == "255.255.0.0"
    assert options["lease_time"] == 3600
    assert options["hostname"] == b"web1"
    assert options["router"] == "169.254.169.254"
    assert not {121, 245, "classless_static_routes"} & {*options}
    assert len(bytes(frame[BOOTP])) >= 300


def test_azures_wire_server_is_told_with_the_route_to_it() -> None:
    message = Message(Kind.DISCOVER, b"\0\0\0\7", MAC)
    answer = Answer(Kind.OFFER, HELD)
    whole = dhcp.frame(message, answer, OWN, NODE, "web1", wire_server=addresses.WIRE_SERVER)
    assert b"\xf5\x04\xa8\x3f\x81\x10" in whole
    # RFC 3442: a width, as much of the destination as it covers, and the router.
    router, destination = b"\xa9\xfe\xa9\xfe", b"\xa8\x3f\x81\x10"
    assert b"\x79\x0e" + b"\0" + router + b"\x20" + destination + router in whole


def oracle() -> Oracle:
    return Oracle(own=OWN, own_mac=NODE, timing=Timing())


def probe(mac: bytes, address: int) -> arp.Arp:
    heard = arp.parse(arp.probe(mac, address))
    assert heard is not None
    return heard


def test_a_lease_and_a_claim_are_one_table() -> None:
    node = oracle()
    address, effects = node.lease(ONE, MAC, grant=True)
    assert address is not None
    assert effects == (Bind(ONE, MAC, address),)
    # The same again, with nothing to do.
    assert node.lease(ONE, MAC, grant=True) == (address, ())
    # Its own probe before it uses the address is no second claim; another's is refused.
    assert node.heard(ONE, probe(MAC, address), 0.0) == ()
    assert node.heard(TWO, probe(OTHER, address), 0.0) == (Refuse(TWO, OTHER, address),)


def test_what_is_claimed_or_about_to_be_is_leased_and_to_nobody_else() -> None:
    node = oracle()
    first = addresses.candidate(MAC, 0)
    assert node.heard(TWO, probe(OTHER, first), 0.0) == ()
    assert node.lease(TWO, OTHER, grant=False) == (first, ())
    address, _ = node.lease(ONE, MAC, grant=True)
    assert address == addresses.candidate(MAC, 1)


def test_nothing_is_leased_to_a_guest_for_which_the_lab_claims_before_it_has() -> None:
    assert oracle().lease(ONE, MAC, grant=False) == (None, ())


def test_a_lease_ends_with_its_wire() -> None:
    node = oracle()
    address, _ = node.lease(ONE, MAC, grant=True)
    assert len(node.port_down(ONE, 0.0)) == 1
    assert node.by_address == {}
    assert node.lease(ONE, MAC, grant=True)[0] == address
