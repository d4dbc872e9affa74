"""The simulated link, and the formulas that its claims are held against."""

from random import Random

import pytest

from netemu.bench import simulation, theory
from netemu.bench.link import Link
from netemu.bench.simulation import Comparison, simulate
from netemu.linklocal import addresses
from netemu.linklocal.claimant import Claimant, State
from netemu.linklocal.timing import Timing
from tests.thorough import cases

TAKEN = addresses.FIRST + 4711


def host(number, remembered=None):
    mac = bytes((2, 0, 0, 0, 0, number))
    return Claimant(mac, timing=Timing(), jitter=Random(number), remembered=remembered)


def link(loss=0.0):
    return Link(latency=0.001, loss=loss, chance=Random(1))


# RFC 3927 section 1.3 states these for 1,300 hosts.


def test_the_rfc_s_own_numbers():
    q = theory.occupied(1300)
    assert 1 - theory.unclaimed_after(1, q) == pytest.approx(0.98, abs=5e-5)
    assert 1 - theory.unclaimed_after(2, q) == pytest.approx(0.9996, abs=5e-6)
    assert theory.unclaimed_after(10, q) == pytest.approx(1e-17, rel=0.1)


def test_the_birthday_product():
    assert theory.no_collision(1) == 1
    assert theory.no_collision(2) == pytest.approx(1 - 1 / 65024)
    assert theory.no_collision(300) == pytest.approx(0.5012, abs=1e-4)


def test_what_goes_unnoticed_is_a_geometric_series():
    q, unheard = 0.3, theory.unheard(0.5, 3)
    assert unheard == pytest.approx(0.75**3)
    series = sum((q * (1 - unheard)) ** n * q * unheard for n in range(1000))
    assert theory.undetected(q, unheard) == pytest.approx(series)
    first_two = sum((q * (1 - unheard)) ** n * q * unheard for n in range(2))
    assert theory.undetected(q, unheard, 2) == pytest.approx(first_two)
    assert theory.undetected(q, theory.unheard(0.0, 3)) == 0


# The link.


def test_a_lone_host_is_bound_and_falls_silent():
    wire = link()
    number = wire.attach(host(1))
    wire.up(number)
    wire.run()
    assert wire.hosts[number].state is State.BOUND
    assert (wire.frames, wire.tries[number]) == (3 + 2, 1)
    assert 4 <= wire.bound_at[number] <= 7
    assert wire.holders(wire.hosts[number].address) == 1


def test_the_second_of_two_that_want_one_address_takes_another():
    wire = link()
    first, second = wire.attach(host(1, TAKEN)), wire.attach(host(2, TAKEN))
    wire.up(first)
    wire.run()
    wire.up(second)
    wire.run()
    assert wire.hosts[first].address == TAKEN
    assert wire.hosts[second].address not in (None, TAKEN)
    assert (wire.tries[first], wire.tries[second]) == (1, 2)
    assert wire.listeners(TAKEN) == 1  # who gave it up is not asked any more
    assert wire.held_twice() == 0


def test_on_a_link_that_loses_everything_both_take_it():
    wire = link(loss=1.0)
    for number in (wire.attach(host(1, TAKEN)), wire.attach(host(2, TAKEN))):
        wire.up(number)
    wire.run()
    assert wire.holders(TAKEN) == 2
    assert wire.held_twice() == 1


def test_who_leaves_holds_nothing_and_hears_nothing():
    wire = link()
    first, second = wire.attach(host(1, TAKEN)), wire.attach(host(2, TAKEN))
    wire.up(first)
    wire.run()
    wire.down(first)
    wire.up(second)
    wire.run()
    assert wire.hosts[second].address == TAKEN
    assert wire.holders(TAKEN) == 1


def test_time_stands_where_it_was_told_to():
    wire = link()
    wire.up(wire.attach(host(1)))
    wire.run(until=0.5)
    assert wire.now == 0.5
    assert wire.hosts[0].address is None
    wire.run(until=20)
    assert wire.now == 20
    assert wire.hosts[0].address is not None


# The experiments.


@pytest.mark.parametrize(("hosts", "loss"), [(1300, 0.0), (1300, 0.3), (cases(5_000, 20_000), 0.5)])
def test_what_is_measured_agrees_with_the_formulas(hosts, loss):
    found = simulate(hosts, loss=loss, seed=5, newcomers=2000, fleets=20)
    assert found.fleet.bound == hosts
    assert found.holds, found.comparisons
    assert found.comparisons[0].expected < 1
    assert list(found.without) == sorted(found.without, reverse=True)


def test_a_seed_gives_the_same_again_and_another_something_else():
    runs = [simulate(400, loss=0.2, seed=seed, newcomers=200, fleets=5) for seed in (1, 1, 2)]
    assert runs[0] == runs[1]
    assert runs[0].fleet.claim_times != runs[2].fleet.claim_times


def test_a_difference_that_chance_does_not_make_is_one():
    assert Comparison("x", 0.5, 0.51, 1000).holds
    assert not Comparison("x", 0.4, 0.5, 1000).holds
    assert Comparison("one in a thousand", 0.001, 0.0, 1000).holds
    assert not Comparison("two in a thousand", 0.002, 0.0, 1000).holds


@pytest.mark.parametrize(("hosts", "loss"), [(0, 0.0), (simulation.MOST_HOSTS + 1, 0.0), (1, 1.0)])
def test_what_cannot_be_simulated_is_refused(hosts, loss):
    with pytest.raises(ValueError, match=r"hosts|loss"):
        simulate(hosts, loss=loss)
