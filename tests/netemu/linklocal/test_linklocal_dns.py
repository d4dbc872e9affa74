"""A node's name server: its answers, read by scapy."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dns import DNS, DNSQR

from netemu.linklocal import dns

ADDRESS = socket.inet_aton("169.254.169.254")
NAMES = {"metadata.google.internal": ADDRESS}


def query(name: str, kind: str = "A", **flags: int) -> bytes:
    return bytes(DNS(id=7, rd=1, qd=DNSQR(qname=name, qtype=kind), **flags))


def said(asked: bytes) -> DNS:
    parsed = dns.parse(asked)
    assert parsed is not None
    return DNS(dns.answer(parsed, NAMES))


@pytest.mark.parametrize("name", ["metadata.google.internal", "METADATA.Google.internal."])
def test_a_name_of_the_service_has_its_address_with_the_last_dot_or_without(name: str) -> None:
    told = said(query(name))
    assert (told.id, told.qr, told.aa, told.rd, told.rcode) == (7, 1, 1, 1, 0)
    assert (told.an[0].rdata, told.an[0].type) == ("169.254.169.254", 1)
    assert told.an[0].rrname.lower() == b"metadata.google.internal."


def test_another_kind_of_a_known_name_is_empty_and_another_name_is_refused() -> None:
    empty = said(query("metadata.google.internal", "AAAA"))
    assert (empty.rcode, empty.ancount, empty.qdcount) == (0, 0, 1)
    assert said(query("debian.org")).rcode == 5


@pytest.mark.parametrize(
    "data",
    [
        b"",
        query("a.b", qr=1),  # an answer
        query("a.b", opcode=5),  # an update
        bytes(DNS(id=7, qd=[DNSQR(qname="a"), DNSQR(qname="b")])),
        query("a.b")[:-1],
        query("a.b")[:12] + b"\xc0\x0c\0\1\0\1",  # a name that is a pointer
        query("a.b") + b"x" * 512,
    ],
)
def test_what_is_no_query_is_none(data: bytes) -> None:
    assert dns.parse(data) is None


@given(st.binary(max_size=80))
def test_whatever_comes_the_answer_is_short(data: bytes) -> None:
    found = dns.parse(query("metadata.google.internal")[:12] + data)
    if found is not None:
        assert len(dns.answer(found, NAMES)) <= len(data) + 12 + 16
