"""The catalogue as values: rows, each of which says what is sent and what comes of it."""

from itertools import islice

import pytest
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from netemu.conformance.probe import Place
from netemu.conformance.roles import Cast, Guest
from netemu.conformance.row import Row, watch
from netemu.conformance.rows import CATALOGUE, FAMILIES
from netemu.conformance.signing import is_signed
from netemu.conformance.stage import Stage
from netemu.topology import Policy
from tests.thorough import cases


class NoPlace(Place):
    """A place that nobody is in."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.interface = "eth0"


@pytest.fixture
def stage() -> Stage:
    one, two, three, far = (
        Guest(f"g{n}", f"02:00:00:00:00:0{n}", f"169.254.{n}.{n}", f"p{n}", NoPlace(f"g{n}"))
        for n in (1, 2, 3, 4)
    )
    made = Stage(
        Cast(
            policy=Policy.RESPONDER_ONLY,
            attacker=one,
            victim=two,
            bystander=three,
            far=far,
            node=NoPlace("n1"),
            far_node=NoPlace("n2"),
        )
    )
    made.bridge = "02:00:00:00:00:fe"
    made.port_macs = ["02:00:00:00:00:f1"]
    made.token = b"\xc0\xfe12345678"
    return made


def test_there_are_as_many_rows_as_told_numbered_in_order() -> None:
    numbers = [*range(1, 118), *range(201, 228), *range(301, 307)]
    assert [row.id for _, row in CATALOGUE] == [f"{number:02}" for number in numbers]
    assert sum(map(len, FAMILIES.values())) == len(numbers)


@pytest.mark.parametrize(("family", "row"), CATALOGUE, ids=lambda one: getattr(one, "id", ""))
def test_a_row_says_what_it_is(family: str, row: Row) -> None:
    assert family in FAMILIES
    assert row.title
    assert row.reference
    assert row.strict
    assert row.expected(Policy.RESPONDER_ONLY) == row.strict
    assert row.expected(Policy.SAME_NODE) == (row.same_node or row.strict)
    # A row that only looks has something to send; one that does more sends by itself.
    assert (row.recipe is not None) or row.play is not watch or row.in_lab is not None


# Of a flood or a sweep, its beginning.
FRAMES = cases(200, 100_000)
WITH_RECIPES = [row for _, row in CATALOGUE if row.recipe is not None]


@pytest.mark.parametrize("row", WITH_RECIPES, ids=lambda row: row.id)
def test_a_recipe_gives_frames_of_the_attackers(row: Row, stage: Stage) -> None:
    assert row.recipe is not None
    frames = [bytes(packet) for packet in islice(row.recipe(stage), FRAMES)]
    assert frames
    sources = {Ether(frame).src for frame in frames}
    allowed = {stage.m1}
    if row.id in ("18", "19", "213", "301", "305", "306"):  # they are about the source
        allowed |= sources
    assert sources <= allowed
    assert all(14 <= len(frame) <= 1514 for frame in frames)


@pytest.mark.parametrize("row", WITH_RECIPES, ids=lambda row: row.id)
def test_a_signed_frame_is_known_again_even_if_cut_to_its_ip_length(row: Row, stage: Stage) -> None:
    assert row.recipe is not None
    for packet in islice(row.recipe(stage), FRAMES):
        whole = bytes(packet)
        signed = stage.signed(packet)
        assert is_signed(signed, stage.token)
        assert stage.token in whole or not is_signed(whole, stage.token)
        is_ip = (whole[12:14], whole[14] >> 4) in ((b"\x08\x00", 4), (b"\x86\xdd", 6))
        assert not is_ip or len(whole) < 54 or is_signed(signed[: len(whole)], stage.token)


def test_signing_keeps_the_headers_checksum_right(stage: Stage) -> None:
    from scapy.layers.inet import IP, TCP
    from scapy.utils import checksum

    for identifier in range(0, 65536, 257):
        stage.token = b"\xc0\xfe" + identifier.to_bytes(2, "big") + b"123456"
        packet: Packet = (
            Ether(dst=stage.bridge, src=stage.m1)
            / IP(src=stage.i1, dst=stage.md, id=identifier ^ 0xA5A5, ttl=identifier % 255 + 1)
            / TCP()
        )
        header = stage.signed(packet)[14:34]
        assert checksum(header) == 0
        assert header[4:6] == identifier.to_bytes(2, "big")


def test_policies_differ_where_peers_may_be_reached() -> None:
    differing = {row.id for _, row in CATALOGUE if row.same_node}
    assert differing == {"09", "20", "24", "25", "26", "62"}
