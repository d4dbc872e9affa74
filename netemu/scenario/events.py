"""What clouds do to machines, by name: with the notice and the duration that the vendors publish.

Runs in the user's process. `STORIES` is the table; `play` schedules one in a running lab, and tells
each status that the event goes through.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal, Protocol

from msgspec import Struct

from hostagent.model import FINAL, Event, EventStatus
from netemu.client.maintenance import Kind, Source

Cloud = Literal["azure", "ec2", "gce"]

# Where the numbers are from.
_EVENTS: Final = "learn.microsoft.com/azure/virtual-machines/linux/scheduled-events"
_TERMINATE: Final = (
    "learn.microsoft.com/azure/virtual-machine-scale-sets/"
    "virtual-machine-scale-sets-terminate-notification"
)
_SPOT: Final = "docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html"
_PREEMPT: Final = "cloud.google.com/compute/docs/instances/preemptible"
_RETIRED: Final = "a notice of AWS's, of 2016-08-25 for 2016-09-08 (AWS publishes no length)"

_LOOK: Final = 0.2
MINUTE: Final = 60.0
DAY: Final = 86400.0


class Story(Struct, frozen=True, kw_only=True):
    """One thing that befalls guests: times in seconds, `duration` None where none is published.

    `notice` is that of each cloud that differs; of the others Azure's. `source` says where the
    numbers are from. `cancelled`: the event is taken back after half of its notice.
    """

    about: str
    kind: Kind
    notice: Mapping[Cloud, float]
    duration: float | None = None
    by: Source = "platform"
    description: str
    source: str
    cancelled: bool = False


STORIES: Final[Mapping[str, Story]] = {
    "live-migration": Story(
        about="The guest is moved to another host, and stands still for some seconds.",
        kind="freeze",
        notice={"azure": 15 * MINUTE},
        duration=5.0,
        description="Virtual machine is being paused because of a memory-preserving Live Migration"
        " operation.",
        source=f"{_EVENTS}: the table of notices, and the sample of a live migration",
    ),
    "host-agent-maintenance": Story(
        about="The host's own software is renewed, and the guest stands still for some seconds.",
        kind="freeze",
        notice={"azure": 15 * MINUTE},
        duration=9.0,
        description="Host server is undergoing maintenance.",
        source=f"{_EVENTS}: the table of notices; 9 is its example of DurationInSeconds",
    ),
    "redeploy": Story(
        about="The guest's user has it moved to another host, where it boots.",
        kind="redeploy",
        notice={"azure": 10 * MINUTE},
        by="user",
        description="Virtual machine is going to be restarted as requested by authorized user.",
        source=f"{_EVENTS}: the table of notices; the description is one of its examples",
    ),
    "hardware-failure": Story(
        about="The host fails, without a notice, and the guest boots again.",
        kind="reboot",
        notice={"azure": 0.0},
        description="Host server is undergoing an emergency repair.",
        source=f"{_EVENTS}: recovery begins at once; the description is one of its examples",
    ),
    "preemption": Story(
        about="The cloud takes a spot guest back.",
        kind="preempt",
        notice={"azure": 30.0, "ec2": 2 * MINUTE, "gce": 30.0},
        description="",
        source=f"{_EVENTS} (30 s); {_SPOT} (2 min); {_PREEMPT} (30 s)",
    ),
    "retirement": Story(
        about="The host's hardware degrades: the guest has to leave it in days.",
        kind="redeploy",
        notice={"azure": 7 * DAY, "ec2": 14 * DAY},
        description="",
        source=f"{_EVENTS}: 7 days where possible; {_RETIRED}",
    ),
    "scale-in": Story(
        about="The guest's scale set gets smaller, and the guest is deleted.",
        kind="terminate",
        notice={"azure": 5 * MINUTE},
        by="user",
        description="",
        source=f"{_TERMINATE}: PT5M, the least delay of a termination",
    ),
    "cancelled": Story(
        about="A reboot is announced, and taken back before it comes.",
        kind="reboot",
        notice={"azure": 15 * MINUTE},
        description="Host server is undergoing maintenance.",
        source=f"{_EVENTS}: in rare cases an event is cancelled before it starts",
        cancelled=True,
    ),
}


class Plan(Protocol):
    """What `play` needs of a lab: `netemu.client.maintenance.Maintenance` is one."""

    def schedule(
        self,
        guests: str | Iterable[str],
        kind: Kind,
        *,
        notice: float | str | None = None,
        duration: float | str | None = None,
        impact: bool = True,
        source: Source = "platform",
        description: str = "",
    ) -> Event:
        """Plan an event."""

    def events(self, *, history: bool = False) -> list[Event]:
        """The events that have not ended, with `history` also the others."""

    def cancel(self, event_id: str) -> Event:
        """Take back a scheduled event."""


def play(
    story: Story,
    guests: Iterable[str],
    plan: Plan,
    *,
    cloud: Cloud,
    speed: float,
    tell: Callable[[Event], None],
    sleep: Callable[[float], None],
    clock: Callable[[], float],
) -> Event:
    """Have the story befall guests, and wait until it is over; its times are divided by `speed`.

    `tell` is called with the event at each of its statuses. `clock` gives seconds.
    """
    notice = story.notice.get(cloud, story.notice["azure"]) / speed
    event = plan.schedule(
        list(guests),
        story.kind,
        notice=notice,
        duration=None if story.duration is None else story.duration / speed,
        source=story.by,
        description=story.description,
    )
    told: EventStatus | None = None
    cancel_at = clock() + notice / 2
    while True:
        if event.status is not told:
            told = event.status
            tell(event)
        if event.status in FINAL:
            return event
        if story.cancelled and event.status is EventStatus.SCHEDULED and clock() >= cancel_at:
            event = plan.cancel(event.id)
            continue
        sleep(_LOOK)
        event = next((one for one in plan.events(history=True) if one.id == event.id), event)
