"""What happens again and again does not fill the disk with its lines."""

import logging

from netemu.supervisor.boot.log_limit import BURST, PER_SECOND, LogLimit


def test_a_flood_of_lines_is_bounded_and_told() -> None:
    now = 0.0
    limit = LogLimit(lambda: now)

    def passes() -> tuple[bool, str]:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "%s failed", ("it",), None)
        return limit.filter(record), record.getMessage()

    assert sum(passes()[0] for _ in range(BURST + 54_000)) == BURST
    now = 1.5 / PER_SECOND
    assert passes() == (True, "(54000 lines before this one were too many) it failed")
    assert not passes()[0]
    now = 1e9
    assert sum(passes()[0] for _ in range(2 * BURST)) == BURST
