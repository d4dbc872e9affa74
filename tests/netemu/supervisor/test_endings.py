"""How long a guest's programs have to end: by type, source and dialect, and by the lab file."""

import msgspec
import pytest

from hostagent.dialects import NAMES
from hostagent.model import Event, EventSource, EventType
from netemu.errors import BadInput
from netemu.supervisor.guests.endings import PREEMPTION, Ending, grace_of, grace_of_reboot
from netemu.topology import SOFT, Guest, parse

PLATFORM, USER = EventSource.PLATFORM, EventSource.USER


def guest(shutdown: str = "") -> Guest:
    """One of a lab file that says so of its shutdown."""
    text = f"nodes: {{n: {{guests: [{{name: a{shutdown}}}]}}}}"
    return parse(text, source="lab.yaml").guests[0]


def event(kind: EventType, source: EventSource = PLATFORM, notice: float = 60.0) -> Event:
    return Event(
        id="00000000-0000-4000-8000-000000000001",
        type=kind,
        source=source,
        description="",
        guests=("a",),
        created=100.0,
        not_before=100.0 + notice,
    )


@pytest.mark.parametrize(
    ("kind", "source", "notice", "dialect", "grace"),
    [
        (EventType.PREEMPT, PLATFORM, 30.0, "gce", 30.0),
        (EventType.PREEMPT, PLATFORM, 120.0, "ec2", SOFT),
        (EventType.PREEMPT, PLATFORM, 30.0, "azure", 0.0),
        (EventType.REBOOT, PLATFORM, 60.0, "azure", SOFT),
        (EventType.REBOOT, USER, 0.0, "azure", SOFT),
        (EventType.REDEPLOY, PLATFORM, 60.0, "azure", SOFT),
        (EventType.TERMINATE, USER, 60.0, "ec2", SOFT),
        # A failure of hardware gives no notice.
        (EventType.REBOOT, PLATFORM, 0.0, "azure", 0.0),
        (EventType.PREEMPT, PLATFORM, 0.0, "gce", 0.0),
    ],
)
def test_a_guest_ends_as_in_its_cloud(
    kind: EventType, source: EventSource, notice: float, dialect: str, grace: float
) -> None:
    assert grace_of(event(kind, source, notice), guest(), dialect) == grace
    # What the lab file says goes before.
    hard, brief = guest(", shutdown: hard"), guest(", shutdown: 2.5")
    assert grace_of(event(kind, source, notice), hard, dialect) == 0.0
    assert grace_of(event(kind, source, notice), brief, dialect) == 2.5


def test_every_dialect_has_its_way_to_preempt() -> None:
    assert set(PREEMPTION) == set(NAMES)


def test_a_reboot_that_somebody_asks_for_shuts_down() -> None:
    soft, hard = guest(", shutdown: soft"), guest(", shutdown: hard")
    assert [grace_of_reboot(one) for one in (guest(), soft, hard)] == [SOFT, SOFT, 0.0]


def test_a_guest_shuts_down_as_its_node_unless_it_says_otherwise() -> None:
    text = "nodes: {n: {shutdown: hard, guests: [a, {name: b, shutdown: 3}]}}"
    assert [one.shutdown for one in parse(text, source="lab.yaml").guests] == [0.0, 3.0]


@pytest.mark.parametrize("wrong", ["softly", "-1", "3601", "[]"])
def test_what_is_no_way_to_shut_down_is_refused(wrong: str) -> None:
    with pytest.raises(BadInput, match=r"nodes\.n\.guests\[0\]\.shutdown"):
        guest(f", shutdown: {wrong}")


def test_an_ending_is_told_in_words() -> None:
    ended = Ending([("sh", 0.1), ("web", 2.0)], [], 2.0)
    assert str(ended) == "ended by itself: sh (0.1 s), web (2 s)"
    killed = msgspec.structs.replace(ended, ended=[], killed=["db"])
    assert str(killed) == "killed after 2 s: db"
