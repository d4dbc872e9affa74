import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from netemu.linklocal import addresses, arp
from netemu.linklocal.oracle import (
    BATCH_WINDOW,
    TENTATIVE_LIFETIME,
    Announce,
    Bind,
    Binding,
    Effects,
    Oracle,
    Refuse,
    Unbind,
)
from netemu.linklocal.timing import Timing
from tests.netemu.linklocal.driven import (
    MAC,
    OTHER_MAC,
    THIRD_MAC,
    Driven,
    probe_by,
    reply_by,
    request_by,
)
from tests.thorough import cases

NODE_MAC = bytes.fromhex("02004e0000ff")
X, Y = addresses.candidate(MAC, 0), addresses.candidate(MAC, 1)


def make_oracle(timing: Timing | None = None) -> Oracle:
    return Oracle(own=addresses.METADATA, own_mac=NODE_MAC, timing=timing or Timing())


def bound_oracle() -> Oracle:
    """Port 1 has X since 2 s."""
    oracle = make_oracle()
    assert oracle.heard(1, probe_by(MAC, X), 0.0) == ()
    assert oracle.expire(2.0) == (Bind(1, MAC, X),)
    return oracle


def test_a_free_address_is_bound_two_probe_min_after_its_first_probe() -> None:
    oracle = make_oracle()
    assert oracle.deadline is None
    assert oracle.heard(1, probe_by(MAC, X), 100.0) == ()
    assert oracle.deadline == 102.0
    assert oracle.heard(1, probe_by(MAC, X), 101.5) == ()  # does not start again
    assert oracle.deadline == 102.0
    assert oracle.expire(101.9) == ()
    assert oracle.by_port == {}
    assert oracle.expire(102.0) == (Bind(1, MAC, X),)
    assert oracle.by_port == {1: Binding(1, MAC, X)}
    assert oracle.by_address == {X: Binding(1, MAC, X)}
    assert oracle.deadline is None


@pytest.mark.parametrize("jitter", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_a_binding_is_made_between_the_second_probe_and_the_announcement(
    jitter: float, scale: float
) -> None:
    timing = Timing().scaled(scale)
    claim = Driven(jitter=jitter, timing=timing).up()
    claim.until(10)
    probes = [at for at, _ in claim.probes]
    announced = next(at for at, frame in claim.sends if frame.sender_ip)
    oracle = make_oracle(timing)
    oracle.heard(1, probe_by(MAC, X), probes[0])
    assert oracle.deadline is not None
    assert oracle.deadline >= probes[1] * (1 - 1e-9)
    assert announced - oracle.deadline >= timing.announce_wait * (1 - 1e-9)


def test_a_tentative_address_is_refused_to_another_port() -> None:
    oracle = make_oracle()
    oracle.heard(1, probe_by(MAC, X), 0.0)
    assert oracle.heard(2, probe_by(OTHER_MAC, X), 0.0) == (Refuse(2, OTHER_MAC, X),)
    assert oracle.heard(2, probe_by(OTHER_MAC, X), 1.9) == (Refuse(2, OTHER_MAC, X),)
    assert oracle.expire(2.0) == (Bind(1, MAC, X),)


def test_a_bound_address_is_refused_to_another_port_for_as_long_as_it_is() -> None:
    oracle = bound_oracle()
    assert oracle.heard(2, probe_by(OTHER_MAC, X), 1e6) == (Refuse(2, OTHER_MAC, X),)
    assert oracle.by_port == {1: Binding(1, MAC, X)}


def test_a_refusal_says_nothing_of_the_holder() -> None:
    oracle = bound_oracle()
    (refuse,) = oracle.heard(2, probe_by(OTHER_MAC, X), 3.0)
    assert isinstance(refuse, Refuse)
    frame = oracle.frame(refuse)
    assert arp.parse(frame) == arp.Arp(
        arp.REPLY, NODE_MAC, X, OTHER_MAC, 0, ether_source=NODE_MAC, ether_destination=OTHER_MAC
    )
    assert MAC not in frame


def test_a_refusal_makes_a_claimant_choose_anew() -> None:
    oracle = bound_oracle()
    claim = Driven(OTHER_MAC, remembered=X).up()
    claim.until(0.5)
    (refuse,) = oracle.heard(2, claim.sends[0][1], 3.0)
    assert isinstance(refuse, Refuse)
    heard = arp.parse(oracle.frame(refuse))
    assert heard is not None
    claim.hear(heard, 0.6)
    assert claim.claimant.candidate != X


def test_a_probe_by_the_owner_keeps_the_binding() -> None:
    oracle = bound_oracle()
    assert oracle.heard(1, probe_by(MAC, X), 50.0) == ()
    assert oracle.deadline is None
    assert oracle.by_port == {1: Binding(1, MAC, X)}


def test_another_candidate_frees_the_tentative_one() -> None:
    oracle = make_oracle()
    oracle.heard(1, probe_by(MAC, X), 0.0)
    assert oracle.heard(1, probe_by(MAC, Y), 1.0) == ()
    assert oracle.deadline == 3.0
    assert oracle.heard(2, probe_by(OTHER_MAC, X), 1.0) == ()  # free for another
    assert oracle.expire(3.0) == (Bind(1, MAC, Y), Bind(2, OTHER_MAC, X))


def test_another_candidate_unbinds_the_bound_one_at_once() -> None:
    oracle = bound_oracle()
    assert oracle.heard(1, probe_by(MAC, Y), 10.0) == (Unbind(1, MAC, X),)
    assert oracle.by_port == {}
    assert oracle.by_address == {}
    assert oracle.heard(2, probe_by(OTHER_MAC, X), 10.0) == ()
    assert oracle.expire(12.0) == (Bind(1, MAC, Y), Bind(2, OTHER_MAC, X))


def test_a_refused_probe_costs_nothing() -> None:
    """`arping -D` for a neighbour's address is a question, not a move."""
    oracle = bound_oracle()
    oracle.heard(2, probe_by(OTHER_MAC, Y), 3.0)
    assert oracle.heard(1, probe_by(MAC, Y), 4.0) == (Refuse(1, MAC, Y),)
    assert oracle.heard(2, probe_by(OTHER_MAC, X), 4.0) == (Refuse(2, OTHER_MAC, X),)
    assert oracle.expire(5.0) == (Bind(2, OTHER_MAC, Y),)
    assert oracle.by_port == {1: Binding(1, MAC, X), 2: Binding(2, OTHER_MAC, Y)}


def test_the_nodes_own_address_is_never_given_and_left_to_the_kernel_to_answer() -> None:
    oracle = bound_oracle()
    assert oracle.heard(1, probe_by(MAC, addresses.METADATA), 3.0) == ()
    assert oracle.heard(2, probe_by(OTHER_MAC, addresses.METADATA), 3.0) == ()
    assert oracle.deadline is None
    assert oracle.by_port == {1: Binding(1, MAC, X)}


@pytest.mark.parametrize("address", [0, 0x0A000001, addresses.FIRST - 1, addresses.LAST + 1])
def test_what_nobody_may_claim_is_not_bound(address: int) -> None:
    oracle = make_oracle()
    assert oracle.heard(1, probe_by(MAC, address), 0.0) == ()
    assert oracle.deadline is None


def test_only_a_probe_asks_for_an_address() -> None:
    oracle = make_oracle()
    for packet in (
        request_by(MAC, X, X),
        request_by(MAC, X, Y),
        reply_by(MAC, X),
        reply_by(MAC, 0, X),
    ):
        assert oracle.heard(1, packet, 0.0) == ()
        assert oracle.deadline is None


def test_another_mac_behind_the_same_port_is_another_claim() -> None:
    oracle = bound_oracle()
    assert oracle.heard(1, probe_by(OTHER_MAC, X), 10.0) == (Unbind(1, MAC, X),)
    assert oracle.expire(12.0) == (Bind(1, OTHER_MAC, X),)


def test_what_falls_due_within_the_window_is_given_together() -> None:
    oracle = make_oracle()
    for port in range(1, 12):
        oracle.heard(port, probe_by(MAC, X + port), 0.02 * port)
    first = oracle.deadline
    assert first is not None
    assert first == pytest.approx(2.02)
    batch = oracle.expire(first)
    # Due at 2.02 … 2.24, the window is 0.1 s: those up to 2.12.
    assert [bind.port for bind in batch if isinstance(bind, Bind)] == [1, 2, 3, 4, 5, 6]
    assert oracle.deadline == pytest.approx(2.14)
    assert len(oracle.expire(10.0)) == 5


def test_the_window_scales_with_time() -> None:
    oracle = make_oracle(Timing().scaled(0.1))
    oracle.heard(1, probe_by(MAC, X), 0.0)
    oracle.heard(2, probe_by(OTHER_MAC, Y), 0.05)
    assert oracle.deadline == pytest.approx(0.2)
    assert oracle.expire(0.2) == (Bind(1, MAC, X),)


def test_a_port_that_goes_down_loses_what_it_had() -> None:
    oracle = bound_oracle()
    oracle.heard(2, probe_by(OTHER_MAC, Y), 3.0)
    assert oracle.port_down(1, 4.0) == (Unbind(1, MAC, X),)
    assert oracle.port_down(2, 4.0) == ()
    assert oracle.port_down(3, 4.0) == ()
    assert oracle.deadline is None
    assert oracle.heard(3, probe_by(THIRD_MAC, X), 5.0) == ()
    assert oracle.heard(4, probe_by(OTHER_MAC, Y), 5.0) == ()
    assert oracle.expire(7.0) == (Bind(3, THIRD_MAC, X), Bind(4, OTHER_MAC, Y))


def test_bindings_are_to_be_read_only() -> None:
    oracle = bound_oracle()
    with pytest.raises(TypeError):
        oracle.by_port[1] = Binding(1, MAC, Y)  # type: ignore[index]


def test_a_storm_of_probes_leaves_one_entry_a_port() -> None:
    oracle = make_oracle()
    for i in range(5000):
        oracle.heard(1, probe_by(MAC, addresses.FIRST + i), 0.0)
    assert oracle.expire(2.0) == (Bind(1, MAC, addresses.FIRST + 4999),)


def test_bind_and_unbind_are_not_mistaken_for_each_other() -> None:
    assert len({Bind(1, MAC, X), Unbind(1, MAC, X), Binding(1, MAC, X)}) == 3


def test_a_claim_whose_probes_were_all_lost_is_bound_by_what_it_says() -> None:
    """A host of RFC 3927 never probes again, and the guard drops all that an unbound one says."""
    for said in (request_by(MAC, X, X), request_by(MAC, X, addresses.METADATA), reply_by(MAC, X)):
        oracle = make_oracle()
        assert oracle.spoke(1, said, 5.0) == ()
        assert oracle.expire(7.0) == (Bind(1, MAC, X),)
        assert oracle.spoke(1, said, 9.0) == ()
        assert oracle.deadline is None


def test_what_another_port_has_is_refused_to_one_that_speaks_as_it_without_a_probe() -> None:
    oracle = bound_oracle()
    assert oracle.spoke(2, request_by(OTHER_MAC, X, X), 3.0) == (Refuse(2, OTHER_MAC, X),)
    assert oracle.spoke(2, request_by(OTHER_MAC, X, X), 3.9) == ()  # once in PROBE_MIN
    assert oracle.spoke(2, request_by(OTHER_MAC, X, X), 4.0) == (Refuse(2, OTHER_MAC, X),)
    assert oracle.by_port == {1: Binding(1, MAC, X)}


def test_a_port_that_has_an_address_changes_it_by_an_announcement_and_by_no_other_word() -> None:
    oracle = bound_oracle()
    assert oracle.spoke(1, request_by(MAC, Y, addresses.METADATA), 3.0) == ()
    assert oracle.spoke(1, reply_by(MAC, Y), 3.0) == ()
    assert oracle.spoke(1, request_by(MAC, Y, Y), 3.0) == (Unbind(1, MAC, X),)
    assert oracle.spoke(1, request_by(MAC, X, X), 3.5) == ()  # once in PROBE_MIN
    assert oracle.expire(5.0) == (Bind(1, MAC, Y),)


@pytest.mark.parametrize(
    "address", [0, 0x0A000001, addresses.FIRST - 1, addresses.LAST + 1, addresses.METADATA]
)
def test_what_nobody_may_claim_is_not_bound_by_speaking_as_it(address: int) -> None:
    oracle = make_oracle()
    assert oracle.spoke(1, request_by(MAC, address, address), 0.0) == ()
    assert oracle.deadline is None


class FirstComeFirstServed(RuleBasedStateMachine):
    """Against a model: a list of who asked when."""

    @initialize(scale=st.sampled_from([1.0, 0.25]))
    def begin(self, scale: float) -> None:
        self.timing = Timing().scaled(scale)
        self.scale = scale
        self.oracle = make_oracle(self.timing)
        self.now = 0.0
        self.has: dict[int, tuple[int, float]] = {}  # port: (address, since)
        self.bound: dict[int, int] = {}  # port: address, by effects alone
        self.defended: list[float] = []
        self.spoken: dict[int, float] = {}

    def did(self, effects: Effects) -> None:
        for effect in effects:
            if isinstance(effect, Bind):
                assert effect.port not in self.bound
                assert effect.address not in self.bound.values()
                assert effect.mac == bytes([2, 0, 0, 0, 0, effect.port])
                self.bound[effect.port] = effect.address
            elif isinstance(effect, Unbind):
                assert self.bound.pop(effect.port) == effect.address

    @rule(port=st.integers(1, 5), address=st.integers(0, 4))
    def probe(self, port: int, address: int) -> None:
        wanted = addresses.METADATA if address == 4 else addresses.FIRST + address
        heard = probe_by(bytes([2, 0, 0, 0, 0, port]), wanted)
        effects = self.oracle.heard(port, heard, self.now)
        self.did(effects)
        refused = any(isinstance(effect, Refuse) for effect in effects)
        holders = [p for p, (a, _) in self.has.items() if a == wanted]
        assert refused == (holders not in ([], [port]))
        if wanted != addresses.METADATA and holders == []:
            self.has[port] = (wanted, self.now)

    @rule(port=st.integers(1, 5), address=st.integers(0, 4), announced=st.booleans())
    def speak(self, port: int, address: int, announced: bool) -> None:
        wanted = addresses.METADATA if address == 4 else addresses.FIRST + address
        mac = bytes([2, 0, 0, 0, 0, port])
        said = request_by(mac, wanted, wanted if announced else addresses.METADATA)
        effects = self.oracle.spoke(port, said, self.now)
        self.did(effects)
        had = self.has.get(port)
        counts = (
            wanted != addresses.METADATA
            and (had is None or (announced and had[0] != wanted))
            and self.now - self.spoken.get(port, -9.0) >= self.timing.probe_min
        )
        holders = [p for p, (a, _) in self.has.items() if a == wanted]
        assert any(isinstance(one, Refuse) for one in effects) == (counts and holders != [])
        if counts:
            self.spoken[port] = self.now
            if holders == []:
                self.has[port] = (wanted, self.now)

    @rule(seconds=st.floats(0, 3), punctual=st.booleans())
    def time_passes(self, seconds: float, punctual: bool) -> None:
        until = self.now + seconds * self.scale
        while punctual and (deadline := self.oracle.deadline) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            effects = self.oracle.expire(self.now)
            assert effects != ()
            self.did(effects)
        self.now = until

    @rule(port=st.integers(1, 5))
    def port_down(self, port: int) -> None:
        self.did(self.oracle.port_down(port, self.now))
        self.has.pop(port, None)
        self.spoken.pop(port, None)

    @rule()
    def conflict_on_own(self) -> None:
        effects = self.oracle.conflict_on_own(self.now)
        recent = self.defended and self.now - self.defended[-1] < self.timing.defend_interval
        assert effects == (() if recent else (Announce(addresses.METADATA),))
        if effects:
            self.defended.append(self.now)

    @invariant()
    def nobody_has_what_another_has(self) -> None:
        assert len(set(self.bound.values())) == len(self.bound)
        assert {p: b.address for p, b in self.oracle.by_port.items()} == self.bound
        assert {a: b.port for a, b in self.oracle.by_address.items()} == {
            address: port for port, address in self.bound.items()
        }
        assert addresses.METADATA not in self.oracle.by_address
        lifetime = TENTATIVE_LIFETIME * self.timing.probe_min
        window = BATCH_WINDOW * self.timing.probe_min
        for port, address in self.bound.items():
            held, since = self.has[port]
            assert held == address
            assert self.now - since >= lifetime - window - 1e-9
        waiting = [since for port, (_, since) in self.has.items() if port not in self.bound]
        assert self.oracle.deadline == (min(waiting) + lifetime if waiting else None)


TestFirstComeFirstServed = FirstComeFirstServed.TestCase
TestFirstComeFirstServed.settings = settings(
    max_examples=cases(40, 150), stateful_step_count=50, deadline=None
)
