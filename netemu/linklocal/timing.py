"""The constants of RFC 3927 section 9 (and RFC 5227 section 1.1), and one multiplier. Pure."""

from msgspec import Struct
from msgspec.structs import replace


# A claim without a conflict takes, from the link's activation:
#
#     wait                  U(0, PROBE_WAIT)                     0 .. 1 s
#     first to last probe   (PROBE_NUM - 1) x U(MIN, MAX)        2 .. 4 s
#     after the last probe  ANNOUNCE_WAIT                        2 s
#     -> first announcement, the address is in use               4 .. 7 s, 5.5 s on average
#     last announcement     (ANNOUNCE_NUM - 1) x INTERVAL        2 s more
#
# Others see a claim from its first probe on. The first announcement follows 4 .. 6 s later.
# The oracle's lifetimes depend on that.
class Timing(Struct, frozen=True):
    """Durations in seconds, and counts."""

    probe_wait: float = 1.0
    probe_num: int = 3
    probe_min: float = 1.0
    probe_max: float = 2.0
    announce_wait: float = 2.0
    announce_num: int = 2
    announce_interval: float = 2.0
    max_conflicts: int = 10
    rate_limit_interval: float = 60.0
    defend_interval: float = 10.0

    def scaled(self, x: float) -> "Timing":
        """Return the timing with every duration multiplied by `x`; counts stay.

        Raises ValueError unless `x` is above zero.
        """
        if not x > 0:
            raise ValueError(f"time scale {x} is not above zero: 1 is RFC 3927's own pace")
        return replace(
            self,
            probe_wait=self.probe_wait * x,
            probe_min=self.probe_min * x,
            probe_max=self.probe_max * x,
            announce_wait=self.announce_wait * x,
            announce_interval=self.announce_interval * x,
            rate_limit_interval=self.rate_limit_interval * x,
            defend_interval=self.defend_interval * x,
        )
