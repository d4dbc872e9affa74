"""GCE's rows: maintenance events and preemption. There is no approval; a freeze has to return."""

from functools import partial
from typing import Any, Final

from netemu.conformance.agent.judge import drains, out_at, returns
from netemu.conformance.agent.row import Row
from netemu.conformance.agent.story import Story

_EVENTS = "cloud.google.com/compute/docs/metadata/getting-live-migration-notice"
_SPOT = "cloud.google.com/compute/docs/instances/create-use-preemptible"
_QUERIES = "cloud.google.com/compute/docs/metadata/querying-metadata"
_NOTICE = 60.0
_OVER = "the end of e"

_row = partial(
    Row, cloud="gce", reference=_EVENTS, handles=("freeze",), demands=(drains("a", "e"),),
    back=(returns("a", _OVER),), back_after="freeze",
)  # fmt: skip


async def _migrated(story: Story) -> None:
    await story.notice("e", "freeze", "a", notice=_NOTICE)
    await story.drained("a", extra=20.0)
    await story.effect()
    await story.returned("a", _OVER)


async def _preempted(story: Story) -> None:
    await story.notice("e", "preempt", "a", notice=30.0)
    await story.drained("a")


async def _after_fault(story: Story, *, seconds: float, **what: Any) -> None:
    await story.fault("a", path="/computeMetadata/*", **what)
    await story.pause(seconds)
    await story.well("a")
    await _migrated(story)


async def _in_fault(story: Story, *, seconds: float, **what: Any) -> None:
    await story.fault("a", path="/computeMetadata/*", **what)
    await story.notice("e", "freeze", "a", notice=_NOTICE)
    await story.pause(seconds)
    await story.well("a")
    await story.drained("a", extra=20.0)
    await story.effect()
    await story.returned("a", _OVER)


async def _silence(story: Story) -> None:
    await story.silence("a", 10.0)
    await _migrated(story)


async def _no_name(story: Story) -> None:
    name = story.guest("a")
    hide = "cp /etc/hosts /run/hosts.all && grep -v google.internal /run/hosts.all >/etc/hosts"
    await story.run(name, "sh", "-c", hide)
    await story.notice("e", "freeze", "a", notice=_NOTICE)
    await story.pause(20.0)
    await story.run(name, "sh", "-c", "cat /run/hosts.all >/etc/hosts")
    await story.drained("a", extra=20.0)
    await story.effect()
    await story.returned("a", _OVER)


async def _reboot_in_the_middle(story: Story) -> None:
    await story.notice("e", "freeze", "a", notice=_NOTICE)
    await story.drained("a", extra=20.0)
    await story.reboot("a")
    await story.pause(story.record.patience)
    await story.effect()
    await story.returned("a", _OVER)


ROWS: Final = (
    _row(id="G01", title="Maintenance, a minute ahead", play=_migrated),
    _row(
        id="G02", title="A preemption, 30 seconds ahead", play=_preempted, back=(),
        handles=("preempt",), reference=_SPOT,
    ),
    _row(
        id="G03", title="503 to its next two requests, then maintenance", reference=_QUERIES,
        play=partial(_after_fault, seconds=6.0, status=503, times=2),
    ),
    _row(
        id="G04", title="Connections are reset for 10 s, from the notice on", reference=_QUERIES,
        play=partial(_in_fault, seconds=10.0, reset=True),
    ),
    _row(
        id="G05", title="metadata.google.internal has no address for 20 s, from the notice on",
        play=_no_name, reference=_QUERIES,
    ),
    _row(
        id="G06", title="The guest reboots in the middle", play=_reboot_in_the_middle,
        demands=(drains("a", "e"), out_at("a", "e")),
    ),
    _row(id="G07", title="Silence for 10 s, then maintenance", play=_silence),
    _row(
        id="G08", title="Garbage for 6 s, then maintenance", reference=_QUERIES,
        play=partial(_after_fault, seconds=6.0, garble=True),
    ),
)  # fmt: skip
