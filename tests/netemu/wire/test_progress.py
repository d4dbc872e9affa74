"""What a supervisor tells of its coming up: it never waits for who listens."""

import os

import pytest

from netemu.errors import BadInput, NotSo
from netemu.wire.progress import Progress, steps


def test_steps_come_in_order_until_the_lab_is_ready() -> None:
    hear, tell = os.pipe()
    progress = Progress(tell)
    progress.step("wiring", 1, 2)
    progress.step("wiring", 2, 2)
    progress.ready()
    assert [step.done for step in steps(hear)] == [1, 2]
    os.close(hear)


def test_a_listener_that_stands_still_hears_the_end() -> None:
    for end in ("ready", "failed"):
        hear, tell = os.pipe()
        progress = Progress(tell)
        for number in range(100_000):
            progress.step("wiring", number, 100_000)
        if end == "ready":
            progress.ready()
            assert len(list(steps(hear))) > 100
        else:
            progress.failed(BadInput("wrong " * 10_000))
            with pytest.raises(BadInput, match="wrong"):
                list(steps(hear))
        os.close(hear)


def test_nobody_who_listens_is_no_error() -> None:
    hear, tell = os.pipe()
    os.close(hear)
    progress = Progress(tell)
    progress.step("wiring", 1, 2)
    progress.ready()


def test_a_supervisor_that_ends_before_is_said() -> None:
    hear, tell = os.pipe()
    os.close(tell)
    with pytest.raises(NotSo, match="ended before it was up"):
        list(steps(hear))
    os.close(hear)


def test_a_reason_that_is_no_text_is_told_all_the_same():
    hear, tell = os.pipe()
    Progress(tell).failed(NotSo("/tmp/\udcff: it is not a directory"))
    with pytest.raises(NotSo, match=r"/tmp/\?: it is not a directory"):
        list(steps(hear))
    os.close(hear)
