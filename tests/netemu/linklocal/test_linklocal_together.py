"""Many claimants on one simulated link, hearing each other or only their node."""

from math import prod, sqrt
from random import Random

import pytest

from netemu.linklocal import addresses, arp
from netemu.linklocal.claimant import Claimant, State
from netemu.linklocal.oracle import Oracle
from netemu.linklocal.timing import Timing
from tests.netemu.linklocal.simulated_link import Link

NODE_MAC = bytes.fromhex("02004e0000ff")
WANTED = 0xA9FE0506
TIMING = Timing()
# n-acd repeats each of its three cases eight times; simulated time is cheaper.
SEEDS = range(25)


def mac_of(i: int) -> bytes:
    return b"\x02\x00" + i.to_bytes(4, "big")


def claimant(i: int, jitter: Random, remembered: int | None = None) -> Claimant:
    return Claimant(mac_of(i), timing=TIMING, jitter=jitter, remembered=remembered)


def oracle() -> Oracle:
    return Oracle(own=addresses.METADATA, own_mac=NODE_MAC, timing=TIMING)


@pytest.fixture(params=["heard by all", "responder-only"])
def make_link(request: pytest.FixtureRequest) -> type[Link]:
    class Made(Link):
        def __init__(self, seed: int = 0) -> None:
            alone = request.param == "heard by all"
            super().__init__(oracle=None if alone else oracle(), seed=seed)

    return Made


@pytest.mark.parametrize("seed", SEEDS)
def test_free_must_win(make_link: type[Link], seed: int) -> None:
    link, jitter = make_link(), Random(seed)
    for i in range(2):
        link.up(link.add(claimant(i, jitter, remembered=WANTED + i)))
    link.run(9.0)
    assert link.using == {0: WANTED, 1: WANTED + 1}
    assert link.dropped_by_guard == []


@pytest.mark.parametrize("seed", SEEDS)
def test_taken_must_lose(make_link: type[Link], seed: int) -> None:
    link, jitter = make_link(), Random(seed)
    link.up(link.add(claimant(0, jitter, remembered=WANTED)))
    link.run(20.0)
    link.up(link.add(claimant(1, jitter, remembered=WANTED)))
    link.run(40.0)
    assert link.using == {0: WANTED, 1: addresses.candidate(mac_of(1), 0)}
    assert link.claimants[0].conflicts == 0
    assert link.claimants[1].conflicts == 1
    assert link.dropped_by_guard == []


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("later", [0.0, 0.5, 3.0, 6.5])
def test_both_probe_at_most_one_wins(make_link: type[Link], seed: int, later: float) -> None:
    link, jitter = make_link(), Random(seed)
    for i in range(2):
        port = link.add(claimant(i, jitter, remembered=WANTED))
        link.at(i * later, lambda port=port: link.up(port))  # type: ignore[misc]
    link.run(40.0)
    winners = [port for port, address in link.using.items() if address == WANTED]
    assert len(winners) <= 1
    if link.oracle is not None:
        assert len(winners) == 1  # the node serves whom it heard first
    assert all(c.state is State.BOUND for c in link.claimants)
    assert link.duplicates == []


@pytest.mark.parametrize("seed", range(3))
def test_many_that_want_one_end_unique(make_link: type[Link], seed: int) -> None:
    link, jitter = make_link(), Random(seed)
    for i in range(60):
        link.up(link.add(claimant(i, jitter, remembered=WANTED)))
    link.run(60.0)
    assert len(set(link.using.values())) == 60
    assert link.duplicates == []
    assert link.dropped_by_guard == []


@pytest.mark.parametrize("seed", range(3))
def test_many_claimants_with_few_addresses_end_unique(
    make_link: type[Link], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "FIRST", addresses.METADATA - 30)
    monkeypatch.setattr(addresses, "LAST", addresses.METADATA + 1)
    link, jitter = make_link(), Random(seed)
    for i in range(31):  # of 32, one of which is the node's
        link.up(link.add(claimant(i, jitter)))
    link.run(4 * 3600.0)
    assert len(set(link.using.values())) == 31
    assert link.duplicates == []
    assert link.dropped_by_guard == []
    assert sum(c.conflicts for c in link.claimants) > 31  # the range was tight
    if link.oracle is not None:
        assert addresses.METADATA not in link.using.values()
        assert {b.port: b.address for b in link.oracle.by_port.values()} == link.using


def test_a_whole_node_is_bound_in_time_and_in_few_batches() -> None:
    """1,023 ports is what a bridge takes."""
    link, jitter = Link(oracle=oracle()), Random(1)
    for i in range(1023):
        link.up(link.add(claimant(i, jitter)))
    link.run(15.0)
    assert len(set(link.using.values())) == 1023
    assert link.dropped_by_guard == []  # every binding came before its announcement
    assert len(link.batches) < 40
    assert sum(link.batches) == 1023


def test_a_guest_that_comes_back_keeps_its_binding() -> None:
    link, jitter = Link(oracle=oracle()), Random(1)
    assert link.oracle is not None
    port = link.add(claimant(0, jitter))
    link.up(port)
    link.run(10.0)
    before = dict(link.oracle.by_port)
    link._did(port, link.claimants[port].link_down(link.now))
    assert link.using == {}
    link.up(port)
    link.run(20.0)
    assert link.oracle.by_port == before
    assert link.using == {port: before[port].address}


def test_a_prober_on_another_port_cannot_keep_a_guest_from_its_address() -> None:
    """Whatever is probed for after the guest's first probe is refused, and the guest binds."""
    link, jitter = Link(oracle=oracle()), Random(1)
    port = link.add(claimant(0, jitter))
    rogue = link.add(claimant(1, jitter))  # its claimant stays down
    link.up(port)
    for i in range(1, 100):
        wanted = link.claimants[port].candidate
        link.run(1.0 + i * 0.05)
        link.say(rogue, arp.probe(mac_of(1), wanted))
        link.say(rogue, arp.announcement(mac_of(1), wanted))
    link.run(10.0)
    assert link.using == {port: addresses.candidate(mac_of(0), 0)}
    assert link.claimants[port].conflicts == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_two_links_joined_leave_exactly_one_holder(seed: int) -> None:
    """RFC 3927 2.5: the one whose defence is heard last keeps the address."""
    jitter = Random(seed)
    apart = [Link(), Link()]
    for i, link in enumerate(apart):
        link.up(link.add(claimant(i, jitter, remembered=WANTED)))
        link.run(10.0)
        assert link.using == {0: WANTED}
    joined = Link()
    joined.now = 10.0
    for link in apart:
        port = joined.add(link.claimants[0])
        joined.listening[port] = joined.using[port] = WANTED
    asker = Random(seed).randrange(2)
    joined.say(asker, arp.reply(mac_of(asker), WANTED, NODE_MAC, addresses.METADATA))
    joined.run(30.0)
    assert sorted(address == WANTED for address in joined.using.values()) == [False, True]
    assert joined.using[asker] == WANTED


def test_all_at_once_collide_as_seldom_as_they_should() -> None:
    """P(no collision) = Π(1 − i/65024), here for 200 hosts: 0.736."""
    hosts, rounds = 200, 400
    free_of_collision = 0
    for r in range(rounds):
        drawn = {addresses.candidate(mac_of(r * hosts + i), 0) for i in range(hosts)}
        free_of_collision += len(drawn) == hosts
    expected = prod(1 - i / 65_024 for i in range(hosts))
    assert free_of_collision / rounds == pytest.approx(expected, abs=0.07)


@pytest.mark.parametrize("loss", [0.3, 0.6])
def test_a_lossy_link_lets_a_conflict_by_as_often_as_it_should(loss: float) -> None:
    """A claim goes wrong if each of three probes or its reply is lost: (1 − (1 − p)²)³."""
    jitter, trials, undetected = Random(3), 2000, 0
    for i in range(trials):
        link = Link(seed=i)
        link.up(link.add(claimant(0, jitter, remembered=WANTED)))
        link.run(10.0)
        link.loss = loss
        link.up(link.add(claimant(1, jitter, remembered=WANTED)))
        link.run(17.0)
        undetected += len(link.duplicates)
    expected = (1 - (1 - loss) ** 2) ** 3
    deviation = sqrt(expected * (1 - expected) / trials)
    assert abs(undetected / trials - expected) < 4 * deviation


@pytest.mark.parametrize("seed", range(5))
def test_at_30_percent_loss_every_guest_is_bound_once_it_asks(seed: int) -> None:
    """Of 200 some five lose all three probes, and every other one of these both announcements."""
    link, jitter = Link(oracle=oracle(), loss=0.3, seed=seed), Random(seed)
    for i in range(200):
        link.up(link.add(claimant(i, jitter)))
    link.run(30.0)
    assert link.dropped_by_guard != []
    metadata = addresses.METADATA.to_bytes(4, "big")
    for _ in range(8):  # as a kernel asks for the responder's MAC: 0.3 ** 8 is one in 15,000
        for port, address in link.using.items():
            asked = arp.announcement(mac_of(port), address)[:-4] + metadata
            link.say(port, asked)
        link.run(link.now + 3.0)
    assert len(set(link.using.values())) == 200
    assert link.oracle is not None
    assert {b.port: b.address for b in link.oracle.by_port.values()} == link.using
    assert link.duplicates == []
