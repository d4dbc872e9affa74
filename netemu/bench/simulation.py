"""Simulates claims in virtual time and compares them with the formulas. Pure; seeded randomness.

Three experiments with the state machine that runs in a lab:

- a fleet: all hosts are switched on at once, on a link that loses frames;
- newcomers: hosts that join, one after another, a link on which all the others are settled;
- small fleets, some of which have two hosts that draw the same address: the birthday problem.
"""

from collections.abc import Callable
from math import sqrt
from random import Random
from typing import Final

from msgspec import Struct

from netemu.bench import theory
from netemu.bench.link import Link
from netemu.linklocal.claimant import Claimant
from netemu.linklocal.timing import Timing

LATENCY: Final = 0.001
"""Seconds from host to host, as over a switch or two."""

MOST_HOSTS: Final = 65_000
"""More hosts would leave fewer than 24 free addresses; the last ones would search for weeks."""

MOST_TRIES: Final = 10
"""A newcomer leaves after this many tries: the RFC speaks of "more than 10"."""

BIRTHDAY: Final = 300
"""Hosts of a small fleet: with 300, about half of all fleets draw some address twice."""

FLEETS: Final = 200
DOUBT: Final = 4.0
"""Standard errors by which a share may differ from its formula: more is a chance of 1 in 16,000."""


class Comparison(Struct, frozen=True):
    """A measured share, the number of trials, and the formula's value."""

    what: str
    measured: float
    expected: float
    trials: int

    @property
    def error(self) -> float:
        """Return the standard error of the share, if the formula is right."""
        return sqrt(max(self.expected * (1 - self.expected), 0.0) / self.trials)

    @property
    def holds(self) -> bool:
        """Whether the difference may be chance; a difference of one trial always may."""
        return abs(self.measured - self.expected) <= DOUBT * self.error + 1 / self.trials


class Fleet(Struct, frozen=True):
    """The outcome for hosts that were switched on at once; times in virtual seconds."""

    hosts: int
    bound: int
    claim_times: tuple[float, ...]
    conflicts: int
    most_tries: int
    frames: int
    held_twice: int


class Simulation(Struct, frozen=True):
    """The result of `simulate`."""

    hosts: int
    loss: float
    seed: int
    fleet: Fleet
    comparisons: tuple[Comparison, ...]
    without: tuple[float, ...]
    """Return the share of newcomers without an address after 1, 2, … tries."""

    @property
    def holds(self) -> bool:
        """Whether everything measured agrees with the formulas."""
        return all(one.holds for one in self.comparisons)


def simulate(
    hosts: int,
    *,
    loss: float = 0.0,
    seed: int = 0,
    newcomers: int = 20_000,
    fleets: int = FLEETS,
    on_phase: Callable[[str], None] = lambda _: None,
) -> Simulation:
    """Run the three experiments; `hosts` at most MOST_HOSTS, `loss` at least 0 and below 1."""
    if not 1 <= hosts <= MOST_HOSTS:
        raise ValueError(
            f"{hosts} hosts: 1 to {MOST_HOSTS:,} can share the range's 65,024 addresses"
        )
    if not 0 <= loss < 1:
        raise ValueError(f"a loss of {loss}: 0 (none) or more, and below 1 (everything)")
    chance = Random(seed)
    on_phase(f"{hosts:,} hosts are switched on")
    link = Link(latency=LATENCY, loss=loss, chance=chance)
    numbers = [link.attach(_host(chance)) for _ in range(hosts)]
    for number in numbers:
        link.up(number)
    link.run()
    fleet = _fleet(link)
    on_phase(f"{newcomers:,} newcomers join, one after another")
    ends = [_join(link, chance) for _ in range(newcomers)]
    on_phase(f"{fleets:,} small fleets are switched on")
    few = min(hosts, BIRTHDAY)
    lucky = sum(_draws_differ(few, loss, chance) for _ in range(fleets))
    q, deaf = theory.occupied(hosts), theory.unheard(loss, Timing().probe_num)
    without = [
        _share(ends, lambda end, tries=tries: not end.claimed or end.tries > tries)  # type: ignore[misc]
        for tries in range(1, MOST_TRIES + 1)
    ]
    comparisons = [
        Comparison(
            what, 1 - without[tries - 1], 1 - theory.unclaimed_after(tries, q, deaf), newcomers
        )
        for what, tries in (("an address at the first try", 1), ("an address within two tries", 2))
    ]
    comparisons += [
        Comparison(
            "no address after ten tries",
            without[MOST_TRIES - 1],
            theory.unclaimed_after(MOST_TRIES, q, deaf),
            newcomers,
        ),
        Comparison(
            "an address in use, unnoticed",
            _share(ends, lambda end: end.shared),
            theory.undetected(q, deaf, MOST_TRIES),
            newcomers,
        ),
    ]
    if fleets:
        comparisons.append(
            Comparison(
                f"{few} at once draw {few} different addresses",
                lucky / fleets,
                theory.no_collision(few),
                fleets,
            )
        )
    return Simulation(hosts, loss, seed, fleet, tuple(comparisons), tuple(without))


class _End(Struct, frozen=True):
    """A newcomer's outcome: whether it claimed an address, and whether that was in use."""

    tries: int
    claimed: bool
    shared: bool


def _share(ends: list[_End], which: Callable[[_End], bool]) -> float:
    return sum(map(which, ends)) / len(ends)


def _host(chance: Random) -> Claimant:
    # Locally administered, all other bits random: two are equal with probability 2**-46.
    mac = ((0x02 << 40) | chance.getrandbits(40)).to_bytes(6, "big")
    return Claimant(mac, timing=Timing(), jitter=chance)


def _fleet(link: Link) -> Fleet:
    times = tuple(at for at in link.bound_at if at is not None)
    return Fleet(
        hosts=len(link.hosts),
        bound=sum(host.address is not None for host in link.hosts),
        claim_times=times,
        conflicts=sum(host.conflicts for host in link.hosts),
        most_tries=max(link.tries),
        frames=link.frames,
        held_twice=link.held_twice(),
    )


def _join(link: Link, chance: Random) -> _End:
    """Let one more host join until it has an address or gives up; then it leaves."""
    host = _host(chance)
    number = link.attach(host)
    link.up(number)
    while host.address is None and link.tries[number] <= MOST_TRIES and link.step():
        pass
    end = _End(
        tries=link.tries[number],
        claimed=host.address is not None,
        shared=host.address is not None and link.holders(host.address) > 1,
    )
    link.down(number)
    # By the next newcomer a contested host has forgotten the conflict, so settled hosts stay.
    link.run(until=link.now + 2 * host.timing.defend_interval)
    return end


def _draws_differ(hosts: int, loss: float, chance: Random) -> bool:
    link = Link(latency=LATENCY, loss=loss, chance=chance)
    numbers = [link.attach(_host(chance)) for _ in range(hosts)]
    for number in numbers:
        link.up(number)
    timing = Timing()
    link.run(until=timing.probe_wait + timing.probe_num * timing.probe_max)
    contested = any(link.tries[number] > 1 for number in numbers)
    return not contested and not link.held_twice()
