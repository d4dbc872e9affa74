from hypothesis import given
from hypothesis import strategies as st

from netemu.linklocal import arp

MAC = bytes.fromhex("02004e000001")
ASKER = bytes.fromhex("02004e000002")
ADDRESS = 0xA9FE0203
HEADER = "0806 0001 0800 06 04"

macs = st.binary(min_size=6, max_size=6)
ips = st.integers(0, 2**32 - 1)


def test_a_probe_byte_by_byte() -> None:
    assert arp.probe(MAC, ADDRESS) == bytes.fromhex(
        f"ffffffffffff 02004e000001 {HEADER} 000102004e000001 00000000 000000000000 a9fe0203"
    )


def test_an_announcement_byte_by_byte() -> None:
    assert arp.announcement(MAC, ADDRESS) == bytes.fromhex(
        f"ffffffffffff 02004e000001 {HEADER} 000102004e000001 a9fe0203 000000000000 a9fe0203"
    )


def test_a_reply_byte_by_byte_is_a_broadcast() -> None:
    assert arp.reply(MAC, ADDRESS, ASKER, 0xA9FE0405) == bytes.fromhex(
        f"ffffffffffff 02004e000001 {HEADER} 000202004e000001 a9fe0203 02004e000002 a9fe0405"
    )


def test_a_reply_may_be_addressed() -> None:
    frame = arp.reply(MAC, ADDRESS, ASKER, 0, destination=ASKER)
    assert frame[:6] == ASKER
    assert frame[6:] == arp.reply(MAC, ADDRESS, ASKER, 0)[6:]


@given(macs, ips, macs, ips, st.binary(max_size=20))
def test_what_is_written_is_read_and_padding_means_nothing(
    mac: bytes, address: int, to_mac: bytes, to_ip: int, padding: bytes
) -> None:
    assert arp.parse(arp.reply(mac, address, to_mac, to_ip) + padding) == arp.Arp(
        operation=arp.REPLY,
        sender_mac=mac,
        sender_ip=address,
        target_mac=to_mac,
        target_ip=to_ip,
        ether_source=mac,
        ether_destination=arp.BROADCAST,
    )


def test_ethernet_source_and_sender_mac_are_told_apart() -> None:
    frame = bytearray(arp.announcement(MAC, ADDRESS))
    frame[6:12] = ASKER
    packet = arp.parse(bytes(frame))
    assert packet is not None
    assert (packet.ether_source, packet.sender_mac) == (ASKER, MAC)


def test_only_a_request_without_sender_is_a_probe() -> None:
    probe = arp.parse(arp.probe(MAC, ADDRESS))
    assert probe is not None
    assert probe.is_probe
    assert not probe._replace(operation=arp.REPLY).is_probe
    assert not probe._replace(sender_ip=ADDRESS).is_probe


def test_every_octet_of_the_fixed_header_matters() -> None:
    good = arp.announcement(MAC, ADDRESS)
    for at in range(12, 22):
        for flip in range(1, 256):
            broken = bytearray(good)
            broken[at] ^= flip
            packet = arp.parse(bytes(broken))
            if at == 21 and broken[at] == arp.REPLY:
                assert packet is not None
                assert packet.operation == arp.REPLY
            else:
                assert packet is None, f"octet {at} is {broken[at]:#x}"


def test_a_short_frame_is_none() -> None:
    good = arp.announcement(MAC, ADDRESS)
    assert len(good) == arp.FRAME_LENGTH
    for length in range(len(good)):
        assert arp.parse(good[:length]) is None


def test_a_tagged_frame_is_not_arp() -> None:
    good = arp.announcement(MAC, ADDRESS)
    for tag in ("81000000", "81000005", "88a80005"):
        assert arp.parse(good[:12] + bytes.fromhex(tag) + good[12:]) is None


@given(st.binary(max_size=80))
def test_garbage_is_no_error(frame: bytes) -> None:
    packet = arp.parse(frame)
    assert packet is None or packet.operation in (arp.REQUEST, arp.REPLY)
