"""The programs against predicates on `arp.parse`: in a machine of our own, then in the kernel's."""

import ctypes
import socket
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent import classic_bpf
from netemu.linklocal import addresses, arp, bpf
from netemu.linklocal.arp import Arp
from tests.netemu.linklocal.bpf_machine import run

MAC = bytes.fromhex("02004e000001")
NEAR_MACS = [MAC, bytes.fromhex("02004e000002"), bytes.fromhex("03004e000001"), bytes(6)]
ADDRESS = 0xA9FE0203
NEAR_IPS = [ADDRESS, ADDRESS + 1, 0, 0xA9FE0000]
SO_ATTACH_FILTER = 26

macs = st.sampled_from(NEAR_MACS)
ips = st.sampled_from(NEAR_IPS)
well_formed = st.builds(
    lambda op, sha, spa, tha, tpa, src, padding: (
        arp.BROADCAST
        + src
        + bytes.fromhex("08060001080006040000")[:-2]
        + struct.pack("!H6sI6sI", op, sha, spa, tha, tpa)
        + padding
    ),
    st.sampled_from([1, 2, 3, 0, 0x0101]),
    macs,
    ips,
    macs,
    ips,
    macs,
    st.sampled_from([b"", bytes(18)]),
)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """Near misses: well-formed, cut short, one octet off, tagged, or anything at all."""
    frame: bytes = draw(well_formed)
    kind = draw(st.sampled_from(["whole", "whole", "cut", "flipped", "tagged", "anything"]))
    if kind == "cut":
        return frame[: draw(st.integers(0, len(frame)))]
    if kind == "flipped":
        at, bit = draw(st.integers(0, 41)), draw(st.integers(0, 7))
        return frame[:at] + bytes([frame[at] ^ 1 << bit]) + frame[at + 1 :]
    if kind == "tagged":
        return frame[:12] + bytes.fromhex("81000000") + frame[12:]
    if kind == "anything":
        anything: bytes = draw(st.binary(max_size=70))
        return anything
    return frame


def concerned(packet: Arp) -> bool:
    return packet.sender_mac != MAC and ADDRESS in (packet.sender_ip, packet.target_ip)


PROGRAMS: dict[str, tuple[bytes, Callable[[Arp], bool]]] = {
    "concerns": (bpf.concerns(MAC, ADDRESS), concerned),
    "nothing": (bpf.nothing(), lambda _: False),
    "probes": (bpf.probes(), lambda packet: packet.is_probe),
    "claims_of": (bpf.claims_of(ADDRESS), lambda packet: packet.sender_ip == ADDRESS),
    "speaks": (
        bpf.speaks(ADDRESS),
        lambda packet: packet.sender_ip != ADDRESS and addresses.claimable(packet.sender_ip),
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
@given(frame=frames())
def test_a_program_passes_what_its_predicate_says(name: str, frame: bytes) -> None:
    program, predicate = PROGRAMS[name]
    packet = arp.parse(frame)
    passed = run(program, frame)
    assert (passed > 0) == (packet is not None and predicate(packet))
    assert passed == 0 or passed >= len(frame)


@given(frame=frames())
def test_what_goes_out_is_nobodys_claim(frame: bytes) -> None:
    assert run(bpf.claims_of(ADDRESS), frame, packet_type=bpf.PACKET_OUTGOING) == 0
    for packet_type in (0, 1, 2, 3):  # to this host, broadcast, multicast, to another host
        claim = arp.announcement(MAC, ADDRESS)
        assert run(bpf.claims_of(ADDRESS), claim, packet_type=packet_type) > 0


def test_a_tap_before_the_guard_leaves_out_what_it_is_told_to() -> None:
    program, frame = bpf.speaks(ADDRESS, without=(7, 9)), arp.announcement(MAC, ADDRESS + 1)
    assert run(program, frame) > 0
    assert run(program, frame, tagged=True) == 0
    assert run(program, frame, packet_type=bpf.PACKET_OUTGOING) == 0
    assert [link for link in range(12) if run(program, frame, link=link) == 0] == [7, 9]


@pytest.mark.parametrize("name", ["concerns", "probes"])
def test_a_frame_of_another_vlan_is_not_of_this_link(name: str) -> None:
    program, frame = PROGRAMS[name][0], arp.probe(NEAR_MACS[1], ADDRESS)
    assert run(program, frame, packet_type=bpf.PACKET_OTHERHOST) == 0
    for packet_type in (0, 1, 2):
        assert run(program, frame, packet_type=packet_type) > 0


def test_every_frame_of_the_protocol_reaches_whom_it_concerns_and_nobody_else() -> None:
    mine, other = MAC, NEAR_MACS[1]
    program, of_another = bpf.concerns(mine, ADDRESS), bpf.concerns(mine, ADDRESS + 7)
    heard = [
        arp.probe(other, ADDRESS),
        arp.announcement(other, ADDRESS),
        arp.reply(other, ADDRESS, NEAR_MACS[2], 0),
        arp.reply(other, 0x01020304, mine, ADDRESS),
    ]
    assert all(run(program, frame) for frame in heard)
    assert not any(run(of_another, frame) for frame in heard)
    assert not any(
        run(program, frame) for frame in (arp.probe(mine, ADDRESS), arp.announcement(mine, ADDRESS))
    )


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_form_is_the_kernels(name: str) -> None:
    program, _ = PROGRAMS[name]
    assert classic_bpf.SOCK_FILTER.size == 8
    assert len(program) % 8 == 0
    assert len(program) // 8 <= 4096  # BPF_MAXINSNS
    instructions = list(classic_bpf.SOCK_FILTER.iter_unpack(program))
    for at, (code, if_true, if_false, _k) in enumerate(instructions):
        if code in (classic_bpf.JUMP_EQUAL, classic_bpf.JUMP_AT_LEAST):
            assert at + 1 + max(if_true, if_false) < len(instructions)
    assert instructions[-1][0] == classic_bpf.RETURN


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_kernel_runs_a_program_as_we_do(name: str) -> None:
    """A pair of Unix datagram sockets takes filters, too, and needs no privilege."""
    program, _ = PROGRAMS[name]
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender, receiver:
        instructions = ctypes.create_string_buffer(program, len(program))
        sock_fprog = struct.pack("HP", len(program) // 8, ctypes.addressof(instructions))
        receiver.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, sock_fprog)
        receiver.setblocking(False)

        @given(frame=frames())
        def agree(frame: bytes) -> None:
            sender.send(frame)
            try:
                received: bytes | None = receiver.recv(200)
            except BlockingIOError:
                received = None
            assert received == (frame if run(program, frame) else None)

        agree()
