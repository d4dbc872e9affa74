from itertools import pairwise
from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netemu.linklocal import addresses

macs = st.binary(min_size=6, max_size=6)


def mac_of(i: int) -> bytes:
    return b"\x02\x00" + i.to_bytes(4, "big")


def z_of_chi_squared(counts: list[int]) -> float:
    """How many standard deviations χ² is off its mean, the cells being equally likely."""
    expected = sum(counts) / len(counts)
    chi_squared = sum((count - expected) ** 2 for count in counts) / expected
    freedom = len(counts) - 1
    return (chi_squared - freedom) / sqrt(2 * freedom)


def test_the_range_is_rfc3927s() -> None:
    assert addresses.to_text(addresses.FIRST) == "169.254.1.0"
    assert addresses.to_text(addresses.LAST) == "169.254.254.255"
    assert addresses.to_text(addresses.METADATA) == "169.254.169.254"
    assert addresses.LAST - addresses.FIRST + 1 == 65_024
    assert addresses.PREFIX_LENGTH == 16
    assert addresses.claimable(addresses.METADATA)
    assert not addresses.claimable(addresses.FIRST - 1)
    assert not addresses.claimable(addresses.LAST + 1)


@given(macs, st.integers(0, 2**32))
def test_a_candidate_is_in_the_range_and_always_the_same(mac: bytes, n: int) -> None:
    drawn = addresses.candidate(mac, n)
    assert addresses.claimable(drawn)
    assert drawn == addresses.candidate(bytes(mac), n)


def test_first_draws_of_many_macs_are_uniform_over_every_address() -> None:
    size = addresses.LAST - addresses.FIRST + 1
    counts = [0] * size
    for i in range(5 * size):
        counts[addresses.candidate(mac_of(i), 0) - addresses.FIRST] += 1
    assert abs(z_of_chi_squared(counts)) < 4
    octets = [sum(counts[low : low + 256]) for low in range(0, size, 256)]
    assert len(octets) == 254
    assert abs(z_of_chi_squared(octets)) < 4


def test_the_draws_of_one_mac_are_uniform_too() -> None:
    counts = [0] * 254
    for n in range(50_800):
        counts[(addresses.candidate(mac_of(7), n) - addresses.FIRST) >> 8] += 1
    assert abs(z_of_chi_squared(counts)) < 4


def test_chi_squared_sees_a_modest_skew() -> None:
    assert z_of_chi_squared([230, 170] * 127) > 4


def test_macs_that_differ_draw_differently() -> None:
    sequences = {tuple(addresses.candidate(mac_of(i), n) for n in range(4)) for i in range(5000)}
    assert len(sequences) == 5000
    # Neighbouring MACs are no neighbours in the range.
    firsts = [addresses.candidate(mac_of(i), 0) for i in range(5000)]
    gaps = [abs(a - b) for a, b in pairwise(firsts)]
    assert 0.9 < sum(gaps) / len(gaps) / (65_024 / 3) < 1.1


def test_the_draws_of_a_mac_differ_from_one_another() -> None:
    assert len({addresses.candidate(mac_of(1), n) for n in range(20)}) == 20


def test_1300_hosts_leave_a_newcomer_98_percent_at_the_first_try() -> None:
    """RFC 3927 1.3: 98 % at the first try, 99.96 % within two."""
    taken: set[int] = set()
    i = 0
    while len(taken) < 1300:
        taken.add(addresses.candidate(mac_of(i), 0))
        i += 1
    newcomers = [mac_of(1_000_000 + i) for i in range(50_000)]
    lost_one = [mac for mac in newcomers if addresses.candidate(mac, 0) in taken]
    lost_two = [mac for mac in lost_one if addresses.candidate(mac, 1) in taken]
    assert len(lost_one) / 50_000 == pytest.approx(0.02, abs=0.002)
    assert len(lost_two) / 50_000 == pytest.approx(0.0004, abs=0.0003)


@given(st.integers(0, 2**32 - 1))
def test_text_and_number_are_two_ways_to_say_one_address(address: int) -> None:
    assert addresses.from_text(addresses.to_text(address)) == address


@pytest.mark.parametrize("text", ["", "169.254.1", "169.254.1.256", "1.2.3.4/16", "169.254.01.1"])
def test_what_is_no_address_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=text.split("/")[0] or "empty"):
        addresses.from_text(text)
