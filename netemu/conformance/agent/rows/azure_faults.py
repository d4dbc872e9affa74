"""Azure's rows in which the service or the wire misbehaves, before or while there is an event."""

import sys
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from netemu.conformance.agent.judge import (
    LEFT_ALONE,
    approves_late,
    drains,
    polls_on,
    returns,
    stays,
)
from netemu.conformance.agent.row import Play, Row
from netemu.conformance.agent.story import Story

_EVENTS = "learn.microsoft.com/azure/virtual-machines/linux/scheduled-events"
_LIMITS = "learn.microsoft.com/azure/virtual-machines/instance-metadata-service"
_QUARTER = 15 * 60.0
_PATH = "/metadata/*"
_OVER = "the end of e"
_BUSY: Final = """
import time, urllib.request
end = time.monotonic() + 8
while time.monotonic() < end:
    try:
        urllib.request.urlopen("http://169.254.169.254/metadata/v1/InstanceInfo", timeout=1).read()
    except OSError:
        pass
    time.sleep(0.02)
"""

_row = partial(
    Row, cloud="azure", reference=_LIMITS, back=(returns("a", _OVER),), back_after="cancel",
    handles=("reboot",), demands=(polls_on("a", "well"), drains("a", "e", after="well")),
)  # fmt: skip


async def _event_after(story: Story) -> None:
    """An event that is told when all is well again."""
    await story.notice("e", "reboot", "a", notice=_QUARTER, impact=False)
    await story.drained("a", extra=20.0)
    await story.take_back()
    await story.returned("a", _OVER)


async def _end_of_known(story: Story) -> None:
    """The event that is known already: wait until the agent acts, and end it."""
    await story.drained("a", extra=20.0)
    await story.take_back()
    await story.returned("a", _OVER)


def _silence_first(seconds: float) -> Play:
    async def play(story: Story) -> None:
        await story.silence("a", seconds)
        await story.pause(1.0)
        await _event_after(story)

    return play


async def _silence_over_notice(story: Story) -> None:
    await story.notice("e", "reboot", "a", notice=_QUARTER, impact=False)
    await story.silence("a", 10.0)
    await _end_of_known(story)


async def _silence_while_out(story: Story) -> None:
    await story.notice("e", "reboot", "a", notice=_QUARTER, impact=False)
    await story.drained("a")
    await story.silence("a", 20.0)
    await story.take_back()
    await story.pause(15.0)
    await story.returned("a", _OVER)


async def _silent_at_start(story: Story) -> None:
    await story.kill("a")
    await story.silence("a", 10.0)
    await story.pause(1.0)
    await _event_after(story)


def _spell(seconds: float, *faults: Mapping[str, Any]) -> Play:
    """Faults meet the agent for so long; the notice is given in the middle of it."""

    async def play(story: Story) -> None:
        for one in faults:
            await story.fault("a", path=_PATH, **one)
        await story.pause(seconds / 2)
        await story.notice("e", "reboot", "a", notice=_QUARTER, impact=False)
        await story.pause(seconds / 2)
        await story.well("a")
        await _end_of_known(story)

    return play


async def _too_many(story: Story) -> None:
    await story.run(story.guest("a"), sys.executable, "-c", _BUSY)
    story.moment("well")
    await _event_after(story)


async def _approval_fails(story: Story, **what: Any) -> None:
    await story.fault("a", path=_PATH, method="POST", times=1, **what)
    await story.notice("e", "reboot", "a", notice=_QUARTER)
    await story.drained("a")
    await story.effect()
    await story.returned("a", _OVER)


async def _new_incarnation(story: Story) -> None:
    await story.notice("e", "redeploy", "a", notice=600.0)
    await story.drained("a")
    await story.effect()
    await story.returned("a", _OVER)
    await story.notice("f", "reboot", "a", notice=_QUARTER, impact=False)
    await story.drained("a", label="f")
    await story.take_back("f")
    await story.returned("a", "the end of f")


async def _errors_without_event(story: Story) -> None:
    for status in (400, 404, 429, 500, 503):
        await story.fault("a", path=_PATH, status=status, times=1)
    await story.pause(6 * story.record.poll + 2.0)
    await story.well("a")
    await story.pause(story.record.patience)


def _silent(row_id: str, title: str, play: Play) -> Row:
    return _row(
        id=row_id, title=title, play=play,
        demands=(polls_on("a", "well"), drains("a", "e", after="TCP is well")),
    )  # fmt: skip


ROWS: Final = (
    _silent("A21", "Silence for 20 s, then an event", _silence_first(20.0)),
    _silent("A22", "Silence for 40 s, then an event", _silence_first(40.0)),
    _silent("A23", "Silence for 10 s, from the notice on", _silence_over_notice),
    _row(
        id="A24", title="Silence for 20 s while it is out", play=_silence_while_out,
        demands=(drains("a", "e"),),
    ),
    _silent("A25", "Silence for 10 s when it starts", _silent_at_start),
    _row(
        id="A26", title="Connections are reset for 10 s, a notice meanwhile",
        play=_spell(10.0, {"reset": True}),
    ),
    _row(
        id="A27", title="Another process asks too often: 429, then an event", play=_too_many,
    ),
    _row(
        id="A28", title="410 for 20 s, a notice meanwhile", play=_spell(20.0, {"status": 410}),
    ),
    _row(
        id="A29", title="500 twice and 503 twice, then a notice",
        play=_spell(6.0, {"status": 500, "times": 2}, {"status": 503, "times": 2}),
    ),
    _row(
        id="A30", title="Truncated bodies for 6 s, a notice meanwhile",
        play=_spell(6.0, {"truncate": 20}),
    ),
    _row(
        id="A31", title="Garbage for 6 s, a notice meanwhile", play=_spell(6.0, {"garble": True}),
    ),
    _row(
        id="A32", title="Hangs of 10 s, twice, a notice meanwhile",
        play=_spell(22.0, {"hang": True, "delay": 10.0, "times": 2}),
    ),
    _row(
        id="A33", title="The first answer takes 25 s", reference=_EVENTS,
        play=_spell(26.0, {"delay": 25.0, "times": 1}),
    ),
    _row(
        id="A34", title="Stale answers for 6 s, a notice meanwhile",
        play=_spell(6.0, {"stale": True}),
    ),
    _row(
        id="A35", title="400, 404, 429, 500 and 503 without an event", expected=LEFT_ALONE,
        play=_errors_without_event, demands=(stays("a"), polls_on("a", "well")), back=(),
    ),
    _row(
        id="A36", title="An approval is refused once with 500", reference=_EVENTS,
        play=partial(_approval_fails, status=500), back_after="reboot",
        demands=(drains("a", "e"), approves_late("e")),
    ),
    _row(
        id="A37", title="The answer to an approval is lost", reference=_EVENTS,
        play=partial(_approval_fails, reset=True), back_after="reboot",
        demands=(drains("a", "e"), approves_late("e")),
    ),
    _row(
        id="A38", title="DocumentIncarnation starts again at the new node", reference=_EVENTS,
        play=_new_incarnation, handles=("redeploy", "reboot"), lab="incarnation",
        demands=(drains("a", "e"), drains("a", "f")),
        back=(returns("a", "the end of f"),),
    ),
)  # fmt: skip
