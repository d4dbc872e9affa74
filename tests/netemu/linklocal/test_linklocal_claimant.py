"""The claimant's state machine under any interleaving of its inputs, and its own decisions."""

from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from netemu.linklocal import addresses, arp
from netemu.linklocal.claimant import (
    _ENTER,
    TRANSITIONS,
    Cease,
    Claimant,
    Effects,
    Event,
    Listen,
    Send,
    State,
    Use,
)
from netemu.linklocal.timing import Timing
from tests.netemu.linklocal.driven import (
    MAC,
    OTHER_MAC,
    Driven,
    packet,
    probe_by,
    reply_by,
    request_by,
    sent,
)
from tests.thorough import cases

ROUNDING = 1e-9  # of sums of seconds
DEAF = (State.DOWN, State.RATE_LIMITED)


class AnyInterleaving(RuleBasedStateMachine):
    """What must hold is told from the effects alone."""

    @initialize(
        seed=st.integers(0, 1000),
        probe_num=st.integers(1, 4),
        announce_num=st.integers(1, 3),
        max_conflicts=st.sampled_from([1, 2, 3, 10]),
        scale=st.sampled_from([1.0, 0.1]),
        remembered=st.none()
        | st.just(addresses.METADATA)
        | st.integers(addresses.FIRST, addresses.LAST),
    )
    def begin(
        self,
        seed: int,
        probe_num: int,
        announce_num: int,
        max_conflicts: int,
        scale: float,
        remembered: int | None,
    ) -> None:
        self.timing = Timing(
            probe_num=probe_num, announce_num=announce_num, max_conflicts=max_conflicts
        ).scaled(scale)
        self.scale = scale
        self.claimant = Claimant(
            MAC, timing=self.timing, jitter=Random(seed), remembered=remembered
        )
        if remembered is not None:
            assert self.claimant.candidate == remembered
        self.now = 1000.0
        self.up = False
        self.using: int | None = None
        self.listening: int | None = None
        self.probes: list[float] = []  # of this trial
        self.first_probes: list[tuple[float, int]] = []  # of each address in turn
        self.candidate = self.claimant.candidate
        self.limited_since: float | None = None

    def did(self, effects: Effects) -> Effects:
        for effect in effects:
            if isinstance(effect, Use):
                assert self.using is None
                assert effect.address == self.listening
                assert len(self.probes) >= self.timing.probe_num
                assert self.now - self.probes[-1] >= self.timing.announce_wait - ROUNDING
                self.using = effect.address
            elif isinstance(effect, Cease):
                assert self.using == effect.address
                self.using = None
            elif isinstance(effect, Listen):
                self.listening = effect.address
                self.probes = []
            else:
                self.sent(effect)
        self.follow_candidate()
        return effects

    def sent(self, effect: Send) -> None:
        (frame,) = sent((effect,))
        assert self.up
        assert len(effect.frame) == 42
        assert frame.ether_destination == arp.BROADCAST
        assert frame.ether_source == frame.sender_mac == MAC
        if not frame.is_probe:
            assert self.using is not None
            assert frame.sender_ip == self.using
            return
        assert self.using is None
        assert frame.target_ip == self.listening
        if self.probes:
            assert self.now - self.probes[-1] >= self.timing.probe_min - ROUNDING
        self.probes.append(self.now)
        assert len(self.probes) <= self.timing.probe_num
        if not self.first_probes or self.first_probes[-1][1] != frame.target_ip:
            self.first_probes.append((self.now, frame.target_ip))

    def follow_candidate(self) -> None:
        """RFC 3927 2.2.1: at most one new address in RATE_LIMIT_INTERVAL."""
        if self.claimant.candidate == self.candidate:
            return
        self.candidate = self.claimant.candidate
        if self.claimant.conflicts < self.timing.max_conflicts:
            self.limited_since = None
            return
        if self.limited_since is not None:
            interval = self.timing.rate_limit_interval - ROUNDING
            assert self.now - self.limited_since >= interval
        self.limited_since = self.now

    @rule()
    def link_up(self) -> None:
        was_up, self.up = self.up, True
        effects = self.did(self.claimant.link_up(self.now))
        assert (effects == ()) == was_up

    @rule()
    def link_down(self) -> None:
        using = self.using
        effects = self.did(self.claimant.link_down(self.now))
        self.up = False
        assert self.using is None
        if using is not None:
            assert effects == (Cease(using), Listen(None))
            assert self.claimant.remembered == self.claimant.candidate == using

    @rule(seconds=st.floats(0, 8))
    def time_passes(self, seconds: float) -> None:
        until = self.now + seconds * self.scale
        while (deadline := self.claimant.deadline) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            self.did(self.claimant.expire(self.now))
        self.now = until

    @rule(seconds=st.floats(0, 100))
    def time_passes_unattended(self, seconds: float) -> None:
        self.now += seconds * self.scale

    @rule()
    def next_deadline(self) -> None:
        if self.claimant.deadline is not None:
            self.now = max(self.now, self.claimant.deadline)
            assert self.did(self.claimant.expire(self.now)) != ()

    @rule()
    def woken_early(self) -> None:
        if self.claimant.deadline is not None and self.now < self.claimant.deadline:
            assert self.claimant.expire(self.now) == ()

    @rule(
        operation=st.sampled_from([arp.REQUEST, arp.REPLY]),
        asked=st.sampled_from([0, 1, addresses.METADATA]),
    )
    def somebody_claims(self, operation: int, asked: int) -> None:
        wanted, using, state = self.claimant.candidate, self.using, self.claimant.state
        heard = packet(operation, OTHER_MAC, wanted, asked or wanted)
        effects = self.did(self.claimant.receive(heard, self.now))
        if state in DEAF:
            assert effects == ()
        elif using is None:
            assert self.claimant.candidate != wanted
            assert self.listening in (self.claimant.candidate, None)
        else:
            defended = effects == (Send(arp.announcement(MAC, using)),)
            yielded = effects[0] == Cease(using)
            assert defended != yielded

    @rule()
    def somebody_probes(self) -> None:
        wanted, using, state = self.claimant.candidate, self.using, self.claimant.state
        effects = self.did(self.claimant.receive(probe_by(OTHER_MAC, wanted), self.now))
        if using is not None:
            assert effects == (Send(arp.reply(MAC, using, OTHER_MAC, 0)),)
        elif state not in DEAF:
            assert self.claimant.candidate != wanted

    @rule()
    def somebody_asks(self) -> None:
        wanted, state = self.claimant.candidate, self.claimant.state
        # By the responder; by somebody else where that would be a claim to the same address.
        asker = addresses.METADATA if wanted != addresses.METADATA else addresses.FIRST
        asked = request_by(OTHER_MAC, asker, wanted)
        effects = self.did(self.claimant.receive(asked, self.now))
        assert self.claimant.state is state
        assert len(effects) == (self.using is not None)

    @rule(operation=st.sampled_from([arp.REQUEST, arp.REPLY]), probe=st.booleans())
    def echo(self, operation: int, probe: bool) -> None:
        wanted = self.claimant.candidate
        heard = packet(operation, MAC, 0 if probe else wanted, wanted)
        assert self.claimant.receive(heard, self.now) == ()

    @rule(operation=st.sampled_from([arp.REQUEST, arp.REPLY]), sender=st.sampled_from([0, 1]))
    def noise(self, operation: int, sender: int) -> None:
        elsewhere = self.claimant.candidate ^ 1
        heard = packet(operation, OTHER_MAC, sender and elsewhere, elsewhere)
        assert self.claimant.receive(heard, self.now) == ()

    @invariant()
    def is_consistent(self) -> None:
        claimant = self.claimant
        assert claimant.address == self.using
        assert addresses.claimable(claimant.candidate)
        assert (claimant.state is State.DOWN) == (not self.up)
        assert (claimant.deadline is None) == (claimant.state in (State.DOWN, State.BOUND))
        assert self.listening == (None if claimant.state in DEAF else claimant.candidate)
        holding = claimant.state in (State.ANNOUNCING, State.BOUND)
        assert (claimant.address is not None) == holding
        if holding:
            assert claimant.address == claimant.candidate == claimant.remembered


TestAnyInterleaving = AnyInterleaving.TestCase
TestAnyInterleaving.settings = settings(
    max_examples=cases(40, 150), stateful_step_count=60, deadline=None
)


def test_the_table_and_the_states_agree() -> None:
    assert set(TRANSITIONS) == set(_ENTER) == set(State)
    # From every state the link can go down, and from every state BOUND can be reached.
    for state in State:
        if state is not State.DOWN:
            assert TRANSITIONS[state][Event.LINK_DOWN] is State.DOWN
        reached, frontier = {state}, [state]
        while frontier:
            for following in TRANSITIONS[frontier.pop()].values():
                if following not in reached:
                    reached.add(following)
                    frontier.append(following)
        assert State.BOUND in reached


def test_an_address_kept_for_the_rate_limit_interval_makes_earlier_conflicts_forgotten() -> None:
    def conflicts_after_losing_at(lost_at: float) -> int:
        driven = Driven().up()
        for _ in range(4):
            driven.hear(reply_by(OTHER_MAC, driven.claimant.candidate), 0.0)
        driven.until(lost_at - 1)  # claimed at 5.5
        held = driven.claimant.address
        assert held is not None
        driven.hear(reply_by(OTHER_MAC, held), lost_at - 1)
        driven.hear(reply_by(OTHER_MAC, held), lost_at)
        assert driven.claimant.address is None
        return driven.claimant.conflicts

    assert conflicts_after_losing_at(65.4) == 5
    assert conflicts_after_losing_at(65.5) == 1


def test_a_rogue_that_waits_for_the_claim_is_limited_too() -> None:
    driven = Driven(jitter=0.0).up()
    lost: list[float] = []
    while len(lost) < 14:
        assert driven.claimant.deadline is not None
        now = driven.claimant.deadline
        driven.until(now)
        if driven.claimant.address is not None:
            driven.hear(reply_by(OTHER_MAC, driven.claimant.address), now)
            driven.hear(reply_by(OTHER_MAC, driven.claimant.address), now)
            lost.append(now)
    assert lost == [4.0 * i for i in range(1, 11)] + [40.0 + 64.0 * i for i in range(1, 5)]


def test_a_conflict_over_an_earlier_address_does_not_weaken_the_next() -> None:
    """Claims take at least 4 s, so a conflict may lie within DEFEND_INTERVAL of the last."""
    driven = Driven(jitter=0.0).up()
    for _ in range(2):
        driven.hear(reply_by(OTHER_MAC, driven.claimant.candidate), 10.0)
    driven.until(14.0)
    held = driven.claimant.address
    assert held is not None
    assert driven.hear(reply_by(OTHER_MAC, held), 15.0) == (Send(arp.announcement(MAC, held)),)


def test_a_remembered_address_that_is_taken_is_no_longer_remembered() -> None:
    remembered = addresses.FIRST
    driven = Driven(remembered=remembered).up()
    driven.hear(reply_by(OTHER_MAC, remembered), 1.0)
    assert driven.claimant.remembered is None
    driven.until(100)
    assert driven.claimant.remembered == driven.claimant.address == addresses.candidate(MAC, 0)


def test_a_link_that_goes_down_while_probing_tries_the_same_candidate_again() -> None:
    driven = Driven().up()
    candidate = driven.claimant.candidate
    assert driven.down(3.0) == (Listen(None),)
    driven.log.clear()
    driven.up(10.0).until(100)
    assert driven.probes == [(10.5, candidate), (12.0, candidate), (13.5, candidate)]


def test_lateness_delays_and_never_crowds_the_frames() -> None:
    driven = Driven().up()
    claimant = driven.claimant
    assert len(sent(claimant.expire(100.0))) == 1
    assert claimant.expire(100.0) == ()
    assert claimant.deadline == 101.5


def test_a_draw_that_repeats_the_lost_address_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = [addresses.FIRST, addresses.FIRST, addresses.FIRST, addresses.FIRST + 1]
    monkeypatch.setattr(addresses, "candidate", lambda _, n: drawn[n])
    driven = Driven().up()
    driven.hear(reply_by(OTHER_MAC, addresses.FIRST), 1.0)
    assert driven.claimant.candidate == addresses.FIRST + 1


def test_scaled_time_scales_a_claim() -> None:
    driven = Driven(timing=Timing().scaled(0.01)).up()
    driven.until(1)
    assert [at for at, _ in driven.sends] == pytest.approx([0.005, 0.02, 0.035, 0.055, 0.075])


def test_a_claimant_has_no_dictionary() -> None:
    assert not hasattr(Driven().claimant, "__dict__")
