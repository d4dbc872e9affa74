"""One test for each requirement of RFC 3927 on a host that its state machine can keep or break.

Not here, because a kernel keeps them: 1.9 and 2.6.2 (sources and routes), 2.7 (forwarding).
"""

import pytest

from netemu.linklocal import addresses, arp
from netemu.linklocal.claimant import Cease, Listen, Send, State, Use
from netemu.linklocal.oracle import Announce, Oracle
from netemu.linklocal.timing import Timing
from tests.netemu.linklocal.driven import (
    MAC,
    OTHER_MAC,
    THIRD_MAC,
    Driven,
    probe_by,
    reply_by,
    request_by,
    sent,
)

FIRST_DRAW = addresses.candidate(MAC, 0)
SECOND_DRAW = addresses.candidate(MAC, 1)
SOMEBODY = addresses.candidate(THIRD_MAC, 0)


def bound() -> Driven:
    """A claimant that claimed at 5.5 s and is BOUND since 7.5 s."""
    driven = Driven().up()
    driven.until(7.5)
    assert driven.claimant.state is State.BOUND
    return driven


def test_1_2_and_2_2_1_a_probe_is_a_broadcast_request_without_sender() -> None:
    driven = Driven().up()
    driven.until(0.5)
    ((_, probe),) = driven.sends
    assert probe == arp.Arp(
        operation=arp.REQUEST,
        sender_mac=MAC,
        sender_ip=0,
        target_mac=bytes(6),
        target_ip=FIRST_DRAW,
        ether_source=MAC,
        ether_destination=b"\xff" * 6,
    )


def test_1_5_a_conflict_after_minutes_still_gets_its_reaction() -> None:
    driven = bound()
    (defence,) = sent(driven.hear(reply_by(OTHER_MAC, FIRST_DRAW), 3600.0))
    assert (defence.sender_ip, defence.target_ip) == (FIRST_DRAW, FIRST_DRAW)


def test_2_1_the_first_candidate_is_drawn_from_the_mac() -> None:
    assert Driven().claimant.candidate == Driven(jitter=0.9).claimant.candidate == FIRST_DRAW
    assert Driven(OTHER_MAC).claimant.candidate != FIRST_DRAW


def test_2_1_an_address_used_before_is_the_first_candidate() -> None:
    driven = Driven(remembered=SOMEBODY).up()
    driven.until(10)
    assert driven.probes == [(0.5, SOMEBODY), (2.0, SOMEBODY), (3.5, SOMEBODY)]
    assert driven.claimant.address == SOMEBODY


def test_2_1_what_is_remembered_must_be_claimable() -> None:
    for address in (addresses.FIRST - 1, addresses.LAST + 1, 0x0A000001):
        with pytest.raises(ValueError, match=r"169\.254\.1\.0 to 169\.254\.254\.255"):
            Driven(remembered=address)


def test_2_2_no_sender_address_before_the_claim_and_silence_after() -> None:
    driven = Driven().up()
    driven.until(3600)
    kinds = [(at, frame.sender_ip) for at, frame in driven.sends]
    assert kinds == [(0.5, 0), (2.0, 0), (3.5, 0), (5.5, FIRST_DRAW), (7.5, FIRST_DRAW)]
    assert driven.claimant.deadline is None


def test_2_2_every_activation_of_the_link_probes_again() -> None:
    driven = bound()
    assert driven.down(100.0) == (Cease(FIRST_DRAW), Listen(None))
    assert driven.claimant.address is None
    assert driven.claimant.deadline is None
    driven.log.clear()
    driven.up(200.0).until(300.0)
    # The address it held is the first that it tries again.
    assert driven.probes == [(200.5, FIRST_DRAW), (202.0, FIRST_DRAW), (203.5, FIRST_DRAW)]
    assert driven.effects(Use) == [(205.5, Use(FIRST_DRAW))]


@pytest.mark.parametrize(
    ("jitter", "probes", "claimed"),
    [(0.0, [0, 1, 2], 4.0), (0.5, [0.5, 2, 3.5], 5.5), (1.0, [1, 3, 5], 7.0)],
)
def test_2_2_1_when_it_waits_probes_and_claims(
    jitter: float, probes: list[float], claimed: float
) -> None:
    driven = Driven(jitter=jitter).up(1000.0)
    driven.until(1100.0)
    assert [at - 1000 for at, _ in driven.probes] == probes
    assert driven.effects(Use) == [(1000 + claimed, Use(FIRST_DRAW))]


@pytest.mark.parametrize("at", [0.2, 1.0, 5.4], ids=["waiting", "probing", "announce-wait"])
@pytest.mark.parametrize(
    "conflict",
    [
        request_by(OTHER_MAC, FIRST_DRAW, FIRST_DRAW),
        request_by(OTHER_MAC, FIRST_DRAW, SOMEBODY),
        reply_by(OTHER_MAC, FIRST_DRAW),
        reply_by(OTHER_MAC, FIRST_DRAW, SOMEBODY),
    ],
    ids=["announcement", "request", "reply", "reply-to-another"],
)
def test_2_2_1_any_arp_from_the_candidate_is_a_conflict(conflict: arp.Arp, at: float) -> None:
    driven = Driven().up()
    assert driven.hear(conflict, at) == (Listen(SECOND_DRAW),)
    assert driven.claimant.state is State.WAITING
    assert driven.claimant.conflicts == 1
    driven.log.clear()
    driven.until(100)
    assert [address for _, address in driven.probes] == [SECOND_DRAW] * 3
    ((claimed, use),) = driven.effects(Use)
    assert claimed == pytest.approx(at + 5.5)
    assert use == Use(SECOND_DRAW)


@pytest.mark.parametrize("at", [0.2, 1.0, 5.4], ids=["waiting", "probing", "announce-wait"])
def test_2_2_1_a_probe_for_the_candidate_by_another_is_a_conflict(at: float) -> None:
    driven = Driven().up()
    assert driven.hear(probe_by(OTHER_MAC, FIRST_DRAW), at) == (Listen(SECOND_DRAW),)


@pytest.mark.parametrize("at", [0.2, 1.0, 5.4], ids=["waiting", "probing", "announce-wait"])
def test_2_2_1_an_ordinary_request_for_the_candidate_is_no_conflict(at: float) -> None:
    driven = Driven().up()
    assert driven.hear(request_by(OTHER_MAC, SOMEBODY, FIRST_DRAW), at) == ()
    driven.until(10)
    assert driven.claimant.address == FIRST_DRAW


def test_2_2_1_its_own_frames_are_no_conflict() -> None:
    driven = Driven().up()
    assert driven.hear(probe_by(MAC, FIRST_DRAW), 1.0) == ()
    assert driven.hear(reply_by(MAC, FIRST_DRAW), 1.0) == ()
    driven.until(8)
    assert driven.hear(request_by(MAC, FIRST_DRAW, FIRST_DRAW), 8.0) == ()
    assert driven.claimant.state is State.BOUND
    assert driven.claimant.conflicts == 0


def test_2_2_1_after_max_conflicts_one_new_address_in_a_rate_limit_interval() -> None:
    """Every probe is answered at once, as by a rogue host that has all addresses."""
    driven = Driven(jitter=0.0).up()
    claimant = driven.claimant
    for _ in range(200):
        assert claimant.deadline is not None
        now = claimant.deadline
        driven.until(now)
        if claimant.state is State.PROBING:
            driven.hear(reply_by(OTHER_MAC, claimant.candidate), now)
    assert claimant.conflicts > 50
    tried = [at for at, _ in driven.probes]
    assert tried[:10] == [0.0] * 10
    assert tried[10:] == [60.0 * (i + 1) for i in range(len(tried) - 10)]
    assert len({address for _, address in driven.probes}) == len(tried)


def test_2_2_1_while_limited_it_hears_nothing_and_a_flapping_link_is_no_way_around() -> None:
    driven = Driven(jitter=0.0).up()
    for _ in range(10):
        driven.hear(reply_by(OTHER_MAC, driven.claimant.candidate), 0.0)
    assert driven.claimant.state is State.RATE_LIMITED
    assert driven.log[-1] == (0.0, Listen(None))
    following = driven.claimant.candidate
    assert driven.hear(reply_by(OTHER_MAC, following), 1.0) == ()
    driven.down(20.0)
    driven.up(30.0)
    assert driven.claimant.state is State.RATE_LIMITED
    assert driven.claimant.deadline == 60.0
    driven.until(60.0)
    assert driven.probes[-1] == (60.0, following)


def test_2_2_1_an_interval_over_while_the_link_was_down_is_over() -> None:
    driven = Driven(jitter=0.0).up()
    for _ in range(10):
        driven.hear(reply_by(OTHER_MAC, driven.claimant.candidate), 0.0)
    driven.down(20.0)
    driven.up(61.0)
    assert driven.claimant.state is State.WAITING


def test_2_4_two_announcements_two_seconds_apart_once_in_use() -> None:
    driven = Driven().up()
    driven.until(100)
    announcements = [(at, frame) for at, frame in driven.sends if frame.sender_ip]
    assert [at for at, _ in announcements] == [5.5, 7.5]
    for _, frame in announcements:
        assert frame == arp.Arp(
            arp.REQUEST, MAC, FIRST_DRAW, bytes(6), FIRST_DRAW, MAC, arp.BROADCAST
        )
    at_claim = [effect for at, effect in driven.log if at == 5.5]
    assert at_claim == [Use(FIRST_DRAW), Send(arp.announcement(MAC, FIRST_DRAW))]


def test_2_5_b_defends_once() -> None:
    driven = bound()
    effects = driven.hear(reply_by(OTHER_MAC, FIRST_DRAW), 100.0)
    assert effects == (Send(arp.announcement(MAC, FIRST_DRAW)),)
    assert driven.claimant.address == FIRST_DRAW
    assert driven.claimant.deadline is None


def test_2_5_b_yields_to_a_second_conflict_within_the_defend_interval() -> None:
    driven = bound()
    driven.hear(reply_by(OTHER_MAC, FIRST_DRAW), 100.0)
    effects = driven.hear(reply_by(OTHER_MAC, FIRST_DRAW), 105.0)
    assert effects == (Cease(FIRST_DRAW), Listen(SECOND_DRAW))
    assert driven.claimant.address is None
    assert driven.claimant.remembered is None
    driven.log.clear()
    driven.until(200)
    assert driven.probes[0] == (105.5, SECOND_DRAW)
    assert driven.effects(Use) == [(110.5, Use(SECOND_DRAW))]
    assert driven.claimant.remembered == SECOND_DRAW


@pytest.mark.parametrize("gap", [10.0, 11.0])
def test_2_5_b_defends_again_after_the_defend_interval(gap: float) -> None:
    driven = bound()
    driven.hear(reply_by(OTHER_MAC, FIRST_DRAW), 100.0)
    effects = driven.hear(request_by(OTHER_MAC, FIRST_DRAW, SOMEBODY), 100.0 + gap)
    assert effects == (Send(arp.announcement(MAC, FIRST_DRAW)),)


def test_2_5_b_defends_while_it_still_announces() -> None:
    driven = Driven().up()
    effects = driven.hear(reply_by(OTHER_MAC, FIRST_DRAW), 6.0)
    assert effects == (Send(arp.announcement(MAC, FIRST_DRAW)),)
    driven.until(100)
    assert [at for at, frame in driven.sends if frame.sender_ip] == [5.5, 6.0, 7.5]
    assert driven.claimant.state is State.BOUND


def test_2_5_connections_are_reset_before_the_move() -> None:
    driven = bound()
    driven.hear(reply_by(OTHER_MAC, FIRST_DRAW), 100.0)
    first, *_ = driven.hear(reply_by(OTHER_MAC, FIRST_DRAW), 101.0)
    assert first == Cease(FIRST_DRAW)


def test_2_5_a_reply_to_a_request_is_a_broadcast() -> None:
    driven = bound()
    effects = driven.hear(request_by(OTHER_MAC, SOMEBODY, FIRST_DRAW), 100.0)
    assert sent(effects) == [
        arp.Arp(arp.REPLY, MAC, FIRST_DRAW, OTHER_MAC, SOMEBODY, MAC, arp.BROADCAST)
    ]


def test_2_5_a_probe_by_another_gets_the_same_reply_and_does_not_disturb() -> None:
    driven = bound()
    for i in range(20):
        effects = driven.hear(probe_by(OTHER_MAC, FIRST_DRAW), 100.0 + i)
        assert sent(effects) == [
            arp.Arp(arp.REPLY, MAC, FIRST_DRAW, OTHER_MAC, 0, MAC, arp.BROADCAST)
        ]
    assert driven.claimant.conflicts == 0
    assert driven.claimant.address == FIRST_DRAW


def test_2_5_nobody_is_answered_for_another_address_nor_before_the_claim() -> None:
    driven = Driven().up()
    assert driven.hear(request_by(OTHER_MAC, SOMEBODY, FIRST_DRAW), 5.4) == ()
    driven.until(100)
    for address in range(SOMEBODY, SOMEBODY + 50):
        assert driven.hear(request_by(OTHER_MAC, 0, address), 100.0) == ()
    assert driven.hear(reply_by(OTHER_MAC, SOMEBODY, FIRST_DRAW), 100.0) == ()


def test_2_7_a_node_does_not_answer_for_addresses_that_nobody_has() -> None:
    oracle = Oracle(own=addresses.METADATA, own_mac=THIRD_MAC, timing=Timing())
    for address in range(SOMEBODY, SOMEBODY + 50):
        assert oracle.heard(1, request_by(OTHER_MAC, FIRST_DRAW, address), 0.0) == ()
        assert oracle.heard(1, probe_by(OTHER_MAC, address), 0.0) == ()


def test_2_8_the_prefix_is_16() -> None:
    assert addresses.PREFIX_LENGTH == 16


def test_3_2_a_conflict_counts_only_on_the_interface_that_heard_it() -> None:
    one, two = Driven(remembered=SOMEBODY).up(), Driven(OTHER_MAC, remembered=SOMEBODY).up()
    two.hear(reply_by(THIRD_MAC, SOMEBODY), 1.0)
    one.until(100)
    two.until(100)
    assert one.claimant.address == SOMEBODY
    assert one.claimant.conflicts == 0
    assert two.claimant.address == addresses.candidate(OTHER_MAC, 0)


def test_4_no_gratuitous_arp_in_ten_minutes_of_silence() -> None:
    driven = bound()
    driven.log.clear()
    driven.until(607.5)
    assert driven.log == []
    assert driven.claimant.expire(607.5) == ()


def test_rfc5227_2_4_c_the_node_defends_for_ever_at_most_once_an_interval() -> None:
    oracle = Oracle(own=addresses.METADATA, own_mac=THIRD_MAC, timing=Timing())
    defended = [half / 2 for half in range(2 * 3600) if oracle.conflict_on_own(half / 2) != ()]
    assert defended == [10.0 * i for i in range(360)]
    (announced,) = oracle.conflict_on_own(1e6)
    assert announced == Announce(addresses.METADATA)
    assert isinstance(announced, Announce)
    assert oracle.frame(announced) == arp.announcement(THIRD_MAC, addresses.METADATA)
