"""EC2's rows: spot notices. There is no approval, no neighbour, and a notice is not taken back."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from netemu.conformance.agent.judge import LEFT_ALONE, drains, polls_on, stays
from netemu.conformance.agent.row import Play, Row
from netemu.conformance.agent.story import Story

_SPOT = "docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html"
_TOKENS = "docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html"
_NOTICE = 120.0

_row = partial(Row, cloud="ec2", reference=_SPOT, handles=("preempt",),
               demands=(drains("a", "e"),))  # fmt: skip
_QUIET = (stays("a"), polls_on("a", "well"))


async def _spot(story: Story) -> None:
    await story.notice("e", "preempt", "a", notice=_NOTICE)
    await story.drained("a", extra=20.0)


async def _restarted(story: Story) -> None:
    await story.restart_responder("a")
    await _spot(story)


async def _rebalance(story: Story) -> None:
    await story.notice("e", "preempt", "a", notice=900.0, impact=False)
    await story.pause(story.record.patience)
    story.moment("well")
    await story.pause(story.record.patience)
    await story.take_back()


async def _silence(story: Story) -> None:
    await story.notice("e", "preempt", "a", notice=_NOTICE)
    await story.silence("a", 10.0)
    await story.drained("a", extra=20.0)


def _spell(seconds: float, *faults: Mapping[str, Any]) -> Play:
    async def play(story: Story) -> None:
        for one in faults:
            await story.fault("a", **one)
        await story.notice("e", "preempt", "a", notice=_NOTICE)
        await story.pause(seconds)
        await story.well("a")
        await story.drained("a", extra=20.0)

    return play


def _without_event(*faults: Mapping[str, Any]) -> Play:
    async def play(story: Story) -> None:
        for one in faults:
            await story.fault("a", **one)
        await story.pause(8 * story.record.poll + 2.0)
        await story.well("a")
        await story.pause(story.record.patience)

    return play


async def _quiet(story: Story) -> None:
    await story.pause(30.0)
    story.moment("well")
    await story.pause(story.record.patience)


ROWS: Final = (
    _row(id="E01", title="A spot notice, 2 minutes ahead", play=_spot),
    _row(id="E02", title="Tokens are required", play=_spot, lab="tokens", reference=_TOKENS),
    _row(
        id="E03", title="The token is refused: the service knows it no more", play=_restarted,
        lab="tokens", own_node=True, reference=_TOKENS,
    ),
    _row(
        id="E04", title="Half a minute of 404", play=_quiet, demands=_QUIET, expected=LEFT_ALONE,
    ),
    _row(
        id="E05", title="A body that is not a time, for 6 s",
        play=_spell(6.0, {"path": "*/spot/*", "garble": True}),
        demands=(drains("a", "e"),),
    ),
    _row(
        id="E06", title="401, 429 and 503 without a notice", expected=LEFT_ALONE, demands=_QUIET,
        play=_without_event(*({"path": "*/spot/*", "status": status, "times": 2}
                              for status in (401, 429, 503))),
    ),
    _row(
        id="E07", title="A rebalance recommendation alone", play=_rebalance, demands=_QUIET,
        expected=LEFT_ALONE,
    ),
    _row(id="E08", title="Silence for 10 s, from the notice on", play=_silence),
    _row(
        id="E09", title="Connections are reset for 10 s, from the notice on",
        play=_spell(10.0, {"reset": True}),
    ),
    _row(
        id="E10", title="Answers take 4 s, from the notice on", play=_spell(16.0, {"delay": 4.0}),
    ),
    _row(
        id="E11", title="500 for all requests, for tokens too, for 10 s",
        play=_spell(10.0, {"status": 500}), reference=_TOKENS,
    ),
)  # fmt: skip
