"""The table of maintenance events, for people."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from hostagent.terminal.table import Column, print_table

if TYPE_CHECKING:
    from hostagent.model import Event


def print_events(events: "Iterable[Event]", known: "Iterable[Event]") -> None:
    """Print events; their IDs are cut so that no event that is `known` begins the same."""
    print_table(
        [
            Column("ID", ids=[event.id for event in known]),
            Column("TYPE", rank=1),
            Column("STATUS", rank=2),
            Column("NOT BEFORE (UTC)", rank=3),
            Column("DURATION", rank=4),
            Column("GUESTS", folds=True),
        ],
        [
            [
                event.id,
                str(event.type),
                str(event.status),
                datetime.fromtimestamp(event.not_before, UTC).strftime("%Y-%m-%d %H:%M:%S"),
                "unknown" if event.duration is None else f"{event.duration:g} s",
                ", ".join(event.guests),
            ]
            for event in events
        ],
    )
