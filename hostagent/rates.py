"""Token buckets by name. Pure: time is an argument."""

from collections.abc import Hashable


class Rate:
    """`rate` a second for each name, and up to `burst` at once; rate 0 means no limit.

    Keeps at most `names` buckets: beyond that, all start again with a full bucket.
    """

    def __init__(self, rate: float, burst: float, names: int) -> None:
        """All buckets are full."""
        self.rate = rate
        self.burst = burst
        self._names = names
        self._left: dict[Hashable, tuple[float, float]] = {}  # tokens, and as of when

    def allows(self, name: Hashable, now: float) -> bool:
        """Take a token if there is one, and return whether; `now` in seconds, on any clock."""
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
