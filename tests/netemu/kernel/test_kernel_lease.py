"""How long guests may be heard, counted from a deadline, however slow this process is."""

import struct
from typing import Any

from netemu.kernel import bindings
from netemu.kernel.lease import LATE, Lease


class Slow:
    """A lease whose kernel is told late: each time this process is stopped for so long before."""

    def __init__(self, *stopped: float) -> None:
        self.time, self.ends = 100.0, 0.0
        self._stopped = list(stopped)
        self.lease: Any = Lease.__new__(Lease)
        self.lease._set = self._set

    def now(self) -> float:
        return self.time

    def _set(self, seconds: float) -> None:
        self.time += self._stopped.pop(0) if self._stopped else 0.0
        self.ends = self.time + seconds


def test_a_lease_ends_when_it_is_to_end() -> None:
    slow = Slow()
    slow.lease.last_until(103.0, slow.now)
    assert slow.ends == 103.0


def test_a_process_that_was_stopped_meanwhile_lengthens_no_lease() -> None:
    for stopped in ((1.0,), (30.0,), (1.0, 1.0, 30.0)):
        slow = Slow(*stopped)
        slow.lease.last_until(103.0, slow.now)
        assert slow.ends <= max(slow.time, 103.0 + LATE)


def test_a_deadline_that_has_passed_ends_it_at_once() -> None:
    slow = Slow()
    slow.lease.last_until(99.0, slow.now)
    assert slow.ends == slow.time


def test_a_renewal_empties_the_set_first() -> None:
    """To add an element that is there would leave its timeout as it is."""
    told = bindings.renewal("guard", "lease", b"\1\0", 2500)
    kinds, offset = [], 0
    while offset < len(told):
        length, kind = struct.unpack_from("=IH", told, offset)
        kinds.append(kind & 0xFF)
        offset += length
    assert kinds[1:3] == [bindings.DELSETELEM, bindings.NEWSETELEM]
    assert struct.pack(">Q", 2500) in told
    ended = bindings.renewal("guard", "lease", b"\1\0", 0)
    assert len(ended) < len(told)
