"""Azure's rows that need no fault: notices, approvals, coming back, the agent's own end."""

from functools import partial
from typing import Final

from netemu.conformance.agent.judge import (
    LEFT_ALONE,
    approves_late,
    drains,
    one_serves,
    out_at,
    polls_on,
    returns,
    seldom,
    stays,
    stays_out,
)
from netemu.conformance.agent.row import Play, Row
from netemu.conformance.agent.spec import Kind
from netemu.conformance.agent.story import Story

_EVENTS = "learn.microsoft.com/azure/virtual-machines/linux/scheduled-events"
_LIMITS = "learn.microsoft.com/azure/virtual-machines/instance-metadata-service"
_MINUTE = 60.0

_row = partial(Row, cloud="azure", reference=_EVENTS)
_OVER = "the end of e"


def _event(kind: Kind, notice: float, *, back: bool) -> Play:
    async def play(story: Story) -> None:
        await story.notice("e", kind, "a", notice=notice)
        await story.drained("a")
        await story.effect()
        if back:
            await story.returned("a", _OVER)

    return play


async def _cancelled(story: Story) -> None:
    await story.notice("e", "reboot", "a", notice=15 * _MINUTE, impact=False)
    await story.drained("a")
    await story.take_back()
    await story.returned("a", _OVER)


async def _two_events(story: Story) -> None:
    await story.notice("e", "freeze", "a", notice=15 * _MINUTE, impact=False)
    await story.notice("f", "reboot", "a", notice=15 * _MINUTE, impact=False)
    await story.drained("a")
    await story.take_back("e")
    await story.pause(story.record.patience / 2)
    await story.take_back("f")
    await story.returned("a", "the end of f")


async def _one_after_another(story: Story) -> None:
    await story.notice("e", "freeze", "a", notice=15 * _MINUTE, impact=False)
    await story.drained("a")
    await story.take_back("e")
    await story.returned("a", _OVER)
    await story.notice("f", "reboot", "a", notice=15 * _MINUTE, impact=False)
    await story.drained("a", label="f")
    await story.take_back("f")
    await story.returned("a", "the end of f")


async def _neighbours(story: Story) -> None:
    await story.notice("e", "reboot", "b", notice=15 * _MINUTE, impact=False)
    await story.pause(story.record.patience)
    story.moment("told")
    await story.pause(2 * story.record.poll + 1.0)
    await story.take_back()


async def _both_in_one(story: Story) -> None:
    await story.notice("e", "reboot", "a", "b", notice=15 * _MINUTE, impact=False)
    await story.drained("a", "b")
    await story.pause(story.record.poll + 1.0)
    await story.take_back()


async def _both_at_once(story: Story) -> None:
    await story.notice("e", "reboot", "a", notice=15 * _MINUTE)
    await story.notice("f", "reboot", "b", notice=15 * _MINUTE)
    await story.drained("a")
    await story.effect("e")
    await story.drained("b", label="f", extra=story.record.patience)
    await story.effect("f")


async def _unapproved(story: Story) -> None:
    await story.notice("e", "freeze", "a", notice=15 * _MINUTE, impact=False)
    await story.start("e")
    await story.drained("a")
    await story.take_back()
    await story.returned("a", _OVER)


async def _at_once(story: Story) -> None:
    await story.notice("e", "freeze", "a", notice=0.0, impact=False)
    await story.drained("a")
    await story.take_back()
    await story.returned("a", _OVER)


async def _host_failed(story: Story) -> None:
    await story.fail_host("a")
    await story.pause(story.record.patience)  # what was out has come back
    story.moment("settled")
    await story.notice("e", "reboot", "a", notice=15 * _MINUTE, impact=False)
    await story.drained("a")
    await story.take_back()
    await story.returned("a", _OVER)


async def _killed_at_drained(story: Story) -> None:
    story.order("a", "kill-at-drained")
    await story.notice("e", "reboot", "a", notice=15 * _MINUTE)
    await story.drained("a")
    await story.pause(story.record.patience)
    story.moment("restarted")
    await story.effect()
    await story.returned("a", _OVER)


async def _killed_while_away(story: Story) -> None:
    await story.notice("e", "reboot", "a", notice=15 * _MINUTE)
    await story.drained("a")
    await story.kill("a", for_good=True)
    await story.effect()
    await story.returned("a", _OVER)


async def _killed_before(story: Story) -> None:
    await story.kill("a")
    await story.notice("e", "reboot", "a", notice=15 * _MINUTE, impact=False)
    await story.drained("a", extra=3.0)
    await story.take_back()
    await story.returned("a", _OVER)


async def _quiet(story: Story) -> None:
    await story.pause(_MINUTE - story.record.patience)
    story.moment("the last seconds")
    await story.pause(story.record.patience)


async def _rate(story: Story) -> None:
    await story.pause(15.0)
    await story.notice("e", "reboot", "a", notice=15 * _MINUTE, impact=False)
    await story.drained("a")
    await story.take_back()


def _told(row_id: str, title: str, kind: Kind, notice: float, after: str = "") -> Row:
    return _row(
        id=row_id, title=title, handles=(kind,), play=_event(kind, notice, back=bool(after)),
        demands=(drains("a", "e"), approves_late("e")), back_after=after,
        back=(returns("a", _OVER),) if after else (),
    )  # fmt: skip


ROWS: Final = (
    _told("A01", "A reboot, 15 minutes ahead", "reboot", 15 * _MINUTE, "reboot"),
    _told("A02", "A redeploy, 10 minutes ahead, to another node", "redeploy", 10 * _MINUTE,
          "redeploy"),
    _told("A03", "A preemption, 30 seconds ahead", "preempt", 30.0),
    _told("A04", "A freeze, 15 minutes ahead", "freeze", 15 * _MINUTE, "freeze"),
    _told("A05", "A termination, 5 minutes ahead", "terminate", 5 * _MINUTE),
    _row(
        id="A06", title="An event is cancelled", play=_cancelled, back_after="cancel",
        demands=(drains("a", "e"),), back=(returns("a", _OVER),), handles=("reboot",),
    ),
    _row(
        id="A07", title="Two events: out until the last has gone", play=_two_events,
        demands=(drains("a", "e"),), handles=("freeze", "reboot"), only_back=True,
        back=(stays_out("a", "the end of f"), returns("a", "the end of f")),
        back_after="cancel",
    ),
    _row(
        id="A08", title="Two events, one after the other", play=_one_after_another,
        demands=(drains("a", "e"), drains("a", "f")), handles=("freeze", "reboot"),
        back=(returns("a", "the end of f"),), back_after="cancel",
    ),
    _row(
        id="A09", title="A neighbour's event: it is left alone", play=_neighbours, members="ab",
        demands=(stays("a"), polls_on("a", "told")), expected=LEFT_ALONE, handles=("reboot",),
    ),
    _row(
        id="A10", title="A neighbour's event is not approved for a guest that serves",
        play=_neighbours, members="ab", agents="a", expected=LEFT_ALONE, handles=("reboot",),
        demands=(approves_late("e"), stays("a")),
    ),
    _row(
        id="A11", title="One event of two members: approved when both are drained",
        play=_both_in_one, members="ab", handles=("reboot",),
        demands=(drains("a", "e"), drains("b", "e"), approves_late("e")),
    ),
    _row(
        id="A12", title="Both members at once: one serves on", play=_both_at_once, members="ab",
        demands=(drains("a", "e"), one_serves("a", "b")), handles=("reboot",), keeps_one=True,
    ),
    _row(
        id="A13", title="An event starts before anybody approves it", play=_unapproved,
        demands=(drains("a", "e"),), back=(returns("a", _OVER),), back_after="freeze",
        handles=("freeze",),
    ),
    _row(
        id="A14", title="An event without notice: no NotBefore, no known duration", play=_at_once,
        demands=(drains("a", "e", after="e"),), back=(returns("a", _OVER),), back_after="freeze",
        handles=("freeze",),
    ),
    _row(
        id="A15", title="The host fails; later there is an event", play=_host_failed,
        demands=(polls_on("a", "settled"), drains("a", "e")), back=(returns("a", _OVER),),
        back_after="cancel", lab="host failure", own_node=True, handles=("reboot",),
    ),
    _row(
        id="A16", title="Killed between drain and approval", play=_killed_at_drained,
        demands=(drains("a", "e"), out_at("a", "e")), back=(returns("a", _OVER),),
        back_after="reboot", handles=("reboot",),
    ),
    _row(
        id="A17", title="Killed while it is out; the guest reboots", play=_killed_while_away,
        demands=(drains("a", "e"),), back=(returns("a", _OVER),), back_after="reboot",
        only_back=True, handles=("reboot",),
    ),
    _row(
        id="A18", title="Killed and started again, then an event", play=_killed_before,
        demands=(drains("a", "e"),), back=(returns("a", _OVER),), back_after="cancel",
        handles=("reboot",),
    ),
    _row(
        id="A19", title="A minute of quiet", play=_quiet, expected=LEFT_ALONE,
        demands=(polls_on("a", "the last seconds"), stays("a")),
    ),
    _row(
        id="A20", title="It asks at most 5 times a second", play=_rate, reference=_LIMITS,
        demands=(seldom("a"), drains("a", "e")), handles=("reboot",),
    ),
)  # fmt: skip
