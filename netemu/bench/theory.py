"""Formulas for claims on a link with many hosts, from RFC 3927 and its analyses. Pure.

`q` is the probability that a drawn address is in use. `unheard` is the probability that none of a
host's probes for such an address gets an answer.
"""

from math import exp, inf, log1p
from typing import Final

from netemu.linklocal import addresses

ADDRESSES: Final = addresses.LAST - addresses.FIRST + 1


def occupied(hosts: int) -> float:
    """Return q on a link on which `hosts` hosts each hold an address."""
    return hosts / ADDRESSES


def unheard(loss: float, probes: int) -> float:
    """Return `unheard`: a probe fails if it or its answer is lost, each with probability `loss`."""
    return float((1 - (1 - loss) ** 2) ** probes)


def unclaimed_after(tries: int, q: float, unheard: float = 0.0) -> float:
    """Return the probability that a host has no address after `tries` (RFC 3927 section 1.3)."""
    return float((q * (1 - unheard)) ** tries)


def undetected(q: float, unheard: float, tries: float = inf) -> float:
    """Return the probability of ending with an address in use (Bohnenkamp et al., DSN 2003).

    For hosts that give up after `tries` the geometric series ends there.
    """
    again = q * (1 - unheard)
    whole = q * unheard / (1 - again)
    return float(whole if tries == inf else whole * (1 - again**tries))


def no_collision(hosts: int) -> float:
    """Return the probability that hosts that start at once draw different addresses."""
    return exp(sum(log1p(-drawn / ADDRESSES) for drawn in range(hosts)))
