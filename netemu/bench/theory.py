"""What RFC 3927 and those who analysed it expect of a link with many hosts. Pure.

`q` is the probability that an address drawn is held already; `unheard` the probability that a host
which probes for a held address hears of it through none of its probes.
"""

from math import exp, inf, log1p
from typing import Final

from netemu.linklocal import addresses

ADDRESSES: Final = addresses.LAST - addresses.FIRST + 1


def occupied(hosts: int) -> float:
    """q, on a link on which `hosts` hosts each hold an address."""
    return hosts / ADDRESSES


def unheard(loss: float, probes: int) -> float:
    """Each probe fails if it is lost or its answer is: each frame is, with probability `loss`."""
    return float((1 - (1 - loss) ** 2) ** probes)


def unclaimed_after(tries: int, q: float, unheard: float = 0.0) -> float:
    """RFC 3927 section 1.3: the probability that a host has no address yet after so many tries."""
    return float((q * (1 - unheard)) ** tries)


def undetected(q: float, unheard: float, tries: float = inf) -> float:
    """Bohnenkamp et al. (DSN 2003): the probability of ending with an address that is held.

    For hosts that give up after `tries`, the geometric series ends there.
    """
    again = q * (1 - unheard)
    whole = q * unheard / (1 - again)
    return float(whole if tries == inf else whole * (1 - again**tries))


def no_collision(hosts: int) -> float:
    """The probability that hosts which start at once draw addresses that are all different."""
    return exp(sum(log1p(-drawn / ADDRESSES) for drawn in range(hosts)))
