"""How often somebody may do something: token buckets, by name. Pure: time is an argument."""

from collections.abc import Hashable


class Rate:
    """`rate` a second for each name, and up to `burst` at once; 0 is without bound.

    Knows of at most `names` names: beyond that, all start again with a full bucket.
    """

    def __init__(self, rate: float, burst: float, names: int) -> None:
        """Nobody has done anything yet."""
        self.rate = rate
        self.burst = burst
        self._names = names
        self._left: dict[Hashable, tuple[float, float]] = {}  # tokens, and as of when

    def allows(self, name: Hashable, now: float) -> bool:
        """Whether it may, and then it has; `now` in seconds, on any clock."""
        if not self.rate:
            return True
        left, then = self._left.get(name, (self.burst, now))
        left = min(self.burst, left + max(now - then, 0.0) * self.rate)
        if left < 1:
            self._left[name] = left, now
            return False
        if len(self._left) >= self._names and name not in self._left:
            self._left.clear()
        self._left[name] = left - 1, now
        return True
