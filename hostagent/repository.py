"""The durable store of one node's guests and events: SQLite, embedded.

A committed change survives `kill -9` and a power loss (WAL, synchronous=FULL). Reads come from the
file, so there is no second copy in memory. The agent's process holds the file alone, and one thread
at a time uses it; see `database` for what the file guarantees.

`now` is the metadata plane's time, `wall` the machine's; see `node_state`.
"""

import json
import logging
import sqlite3
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import Final, Self

import msgspec
from msgspec.structs import replace

from hostagent.channel.messages import Delta, Left, Snapshot, parts, snapshot
from hostagent.channel.requests import Placed
from hostagent.command_record import CommandRecord
from hostagent.database import (
    Damaged,
    Database,
    RepositoryError,
    RepositoryInUse,
    UnknownSchema,
)
from hostagent.faults import not_over
from hostagent.guest_rows import BODY, merged, read_row, row_of
from hostagent.model import (
    Event,
    Guest,
    Request,
    apply,
    joined,
    next_change,
    unfold,
)
from hostagent.node_state import NodeState

__all__ = ["Damaged", "Repository", "RepositoryError", "RepositoryInUse", "UnknownSchema"]

log = logging.getLogger(__name__)

HISTORY_AGE: Final = 7 * 24 * 3600.0
"""Seconds for which an ended event is kept: a week."""

HISTORY_COUNT: Final = 256
"""Ended events kept at most: each is in the view of every guest that sees it."""

FLOORS: Final = 4096
"""Withdrawn guests whose numbers are kept singly: four times a full node. The highest of the older
numbers is kept for all guests."""

_event = msgspec.json.Decoder(Event)


class Repository:
    """One node's guests, events, applied commands, incarnations, clock offset and sequence.

    Every method that changes something must run inside `transaction()`, and returns the deltas to
    publish after the commit. Every method raises Damaged if the file does not hold what was stored.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self.path = db.path
        self.commands = CommandRecord(db)
        self._state = NodeState(db)
        self._next_end = -inf  # when the next fault is over, at the earliest; not known yet

    @classmethod
    def open(
        cls, path: Path | str, connect: Callable[..., sqlite3.Connection] = sqlite3.connect
    ) -> Self:
        """Open or create the file, as `Database.open`."""
        made = cls(Database.open(path, {"guests": BODY, "events": _event}, connect))
        with made._db.closed_on_error():
            made._state.load()
        return made

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing of what is done inside, as `Database.transaction`."""
        with self._state.restored_on_error(), self._db.transaction():
            yield

    # Reads

    @property
    def clock_offset(self) -> float:
        """Seconds that the metadata plane's clock is ahead of this machine's."""
        return self._state.clock_offset

    @property
    def sequence(self) -> int:
        """The number of the last delta."""
        return self._state.sequence

    def guests(self) -> list[Placed]:
        """Return the guests placed here, by name."""
        return [read_row(row) for row in self._db.rows("guests", "ORDER BY name")]

    def placed(self, name: str) -> Placed | None:
        """Return one guest, if it is here."""
        return self.some_placed([name]).get(name)

    def some_placed(self, names: Iterable[str]) -> dict[str, Placed]:
        """Return those of the guests that are here, by name."""
        rows = self._db.rows(
            "guests", "WHERE name IN (SELECT value FROM json_each(?))", json.dumps(list(names))
        )
        return {row[0]: read_row(row) for row in rows}

    def events(self, *, history: bool = True) -> list[Event]:
        """Return the events not ended, oldest first, then, with `history`, the ended ones."""
        where = "" if history else "WHERE ended IS NULL"
        rows = self._db.rows("events", f"{where} ORDER BY ended, number")
        return [_event.decode(row[4]) for row in rows]

    def event(self, event_id: str) -> Event | None:
        """Return one event, active or in the history."""
        row = self._db.row("events", "WHERE id = ?", event_id)
        return None if row is None else _event.decode(row[4])

    def active_count(self) -> int:
        """Return how many events have not ended."""
        return int(self._db.number("SELECT count(*) FROM events WHERE next_change IS NOT NULL"))

    def next_change(self) -> float | None:
        """Return when something next changes by itself, if anything will."""
        when = self._db.number("SELECT min(next_change) FROM events WHERE next_change IS NOT NULL")
        if self._next_end == -inf:
            self._next_end = self._first_end()
        next_change = min(inf if when is None else float(when), self._next_end)
        return None if next_change == inf else next_change

    def _first_end(self) -> float:
        """Return when the first fault is over, if that has a time; else infinity."""
        ends = (one.until for placed in self.guests() for one in placed.faults)
        return min((end for end in ends if end is not None), default=inf)

    def snapshot(self, node: str) -> Iterator[Snapshot]:
        """Return all that a subscriber to the node's feed is told first, in parts."""
        return snapshot(
            sequence=self.sequence,
            node=node,
            clock_offset=self.clock_offset,
            guests=self.guests(),
            events=self.events(),
        )

    # Changes

    def place(self, guests: Iterable[Guest]) -> list[Delta]:
        """Put guests on this node, or change those already here.

        A guest that comes back starts above its last numbers, so that it never sees one go back. A
        change of the guest counts in its `edits`. A change of its availability set, and so of what
        it can see, also counts in its incarnation.
        """
        changed: list[Placed] = []
        for guest in guests:
            known = self.placed(guest.name)
            if known is None:
                changed.append(Placed(guest=guest, incarnation=self._floor(guest.name) + 1))
            elif known.guest != guest:
                other = known.guest.availability_set != guest.availability_set
                changed.append(
                    replace(
                        known,
                        guest=guest,
                        incarnation=known.incarnation + other,
                        edits=known.edits + 1,
                    )
                )
        return self._tell_placed(changed)

    def adopt(
        self, moved: Iterable[Placed], before: Mapping[str, Collection[str]] | None = None
    ) -> list[Delta]:
        """Put guests from another node on this one. Their numbers continue above those that they
        had there and those that they ever had here.

        `before` is of guests that are adopted again: the IDs of the faults that they came with.
        """
        again = before or {}
        changed: list[Placed] = []
        for one in moved:
            known = self.placed(one.guest.name)
            incarnation = max(one.incarnation, self._floor(one.guest.name)) + 1
            edits = one.edits + 1
            if known is not None:
                other = known.guest != one.guest
                incarnation = max(incarnation, known.incarnation + other)
                edits = max(edits, known.edits + other)
            if known is not None and one.guest.name in again:
                # It has booted here: it writes here alone.
                faults = merged(known.faults, again[one.guest.name], one.faults)
                one = replace(one, faults=faults, written=known.written)
            changed.append(replace(one, incarnation=incarnation, edits=edits))
        return self._tell_placed(changed)

    def withdraw(self, names: Iterable[str]) -> tuple[dict[str, Left], list[Delta]]:
        """Take guests off this node; unknown names are ignored.

        Also returns what was known of each that was here. Their events stay.
        """
        gone: dict[str, Left] = {}
        for name in names:
            for placed in map(read_row, self._db.delete("guests", "name = ?", name)):
                gone[name] = Left(placed.incarnation, placed.edits, placed.faults)
        if not gone:
            return {}, []
        last = self._db.number("SELECT coalesce(max(number), 0) FROM floors")
        floors = enumerate(gone.items(), last + 1)
        self._db.put(
            "floors",
            [(number, name, left.incarnation + left.edits) for number, (name, left) in floors],
        )
        old = self._db.delete(
            "floors",
            "number IN (SELECT number FROM floors ORDER BY number DESC LIMIT -1 OFFSET ?)",
            FLOORS,
        )
        if old:
            self._state.raise_floor(max(floor for _, _, floor in old))
        return gone, [Delta(sequence=self._state.next_sequence(), withdrawn=tuple(gone))]

    def write(self, placed: Placed, written: dict[str, str]) -> list[Delta]:
        """A guest has written for itself."""
        if written == placed.written:
            return []
        return self._tell_placed([replace(placed, written=written, edits=placed.edits + 1)])

    def change_faults(self, changed: Sequence[Placed]) -> list[Delta]:
        """Give guests other faults; this does not change the guest."""
        return self._tell_placed(changed)

    def use(self, name: str, fault_id: str, used: int) -> list[Delta]:
        """A fault has met so many requests in all. One that has met all of its times is over."""
        placed = self.placed(name)
        if placed is None:
            return []
        faults = tuple(
            replace(one, used=max(one.used, used)) if one.id == fault_id else one
            for one in placed.faults
        )
        if faults == placed.faults:
            return []
        return self.change_faults([replace(placed, faults=not_over(faults, -inf))])

    def _end_faults(self, now: float) -> list[Delta]:
        """Forget the faults that are over."""
        if now < self._next_end:
            return []
        changed = [
            replace(one, faults=left)
            for one in self.guests()
            if (left := not_over(one.faults, now)) != one.faults
        ]
        deltas = self.change_faults(changed)
        self._next_end = self._first_end()
        return deltas

    def _floor(self, name: str) -> int:
        """Return the number above which a guest that is new here starts."""
        own = self._db.row("floors", "WHERE name = ?", name)
        return max(self._state.floor, 0 if own is None else int(own[2]))

    def _tell_placed(self, changed: Sequence[Placed]) -> list[Delta]:
        self._put_guests(changed)
        # Many guests placed at once go in several deltas, each far below a frame's bound.
        return [
            Delta(sequence=self._state.next_sequence(), placed=part)
            for part in parts(changed)
            if part
        ]

    def _put_guests(self, changed: Sequence[Placed]) -> None:
        ends = [fault.until for one in changed for fault in one.faults if fault.until is not None]
        self._next_end = min(self._next_end, *ends, inf)
        self._db.put("guests", [row_of(one) for one in changed])

    def add(self, event: Event) -> list[Delta]:
        """Store a new event."""
        number = self._db.number("SELECT coalesce(max(number), 0) + 1 FROM events")
        self._put_event(number, event)
        return self._tell([event])

    def join(self, carried: Event, here: Container[str]) -> list[Delta]:
        """Store an event from another node, merged with this node's version if there is one.

        `here` are the guests that are on this node or about to be; see `model.joined`.
        """
        known = self.event(carried.id)
        if known is None:
            return self.add(carried)
        after = joined(known, carried, here)
        return [] if after == known else self._update(after)

    def change(
        self, event: Event, request: Request, now: float, by: str | None = None
    ) -> tuple[Event, list[Delta]]:
        """Move an event on, `by` a guest; raises IllegalTransition, and nothing has changed."""
        after = apply(event, request, now, by)
        if after is event:
            return event, []
        return after, [*self._update(after), *self._prune(now)]

    def settle(self, wall: float) -> list[Delta]:
        """Apply the passing of time: correct the clock if the machine's was set back, change the
        events that have fallen due, and prune the history.
        """
        now, offset = self._state.now(wall)
        deltas = self.advance(offset)
        passed: list[Event] = []
        for row in self._db.rows("events", "WHERE next_change <= ? ORDER BY next_change", now):
            states = list(unfold(_event.decode(row[4]), now))
            passed += states
            self._put_event(row[0], states[-1])
        return deltas + self._tell(passed) + self._prune(now) + self._end_faults(now)

    def advance(self, to: float) -> list[Delta]:
        """Set the clock `to` seconds ahead of this machine's, unless it is already."""
        if to <= self.clock_offset:
            return []
        self._state.move_clock(to)
        return [Delta(sequence=self._state.next_sequence(), clock_offset=to)]

    def _update(self, event: Event) -> list[Delta]:
        row = self._db.row("events", "WHERE id = ?", event.id)
        assert row is not None
        self._put_event(row[0], event)
        return self._tell([event])

    def _put_event(self, number: int, event: Event) -> None:
        body = msgspec.json.encode(event)
        self._db.put("events", [(number, event.id, next_change(event), event.ended, body)])

    def _tell(self, events: Sequence[Event]) -> list[Delta]:
        """Raise the incarnation of every guest that can see each event (`model.sees`). Each guest
        is read and stored once, however many events there are.
        """
        if not events:
            return []
        rows = self._db.rows(
            "guests",
            "WHERE name IN (SELECT value FROM json_each(?))"
            " OR availability_set IN (SELECT value FROM json_each(?)) ORDER BY name",
            json.dumps(sorted({name for event in events for name in event.guests})),
            json.dumps(sorted({name for event in events for name in event.availability_sets})),
        )
        counts = {row[0]: int(row[2]) for row in rows}
        members: dict[str, list[str]] = {}
        for name, availability_set, *_ in rows:
            members.setdefault(availability_set, []).append(name)
        deltas = []
        for event in events:
            seers = dict.fromkeys(name for name in event.guests if name in counts)
            for name_of_set in event.availability_sets:
                seers.update(dict.fromkeys(members.get(name_of_set, ())))
            for name in seers:
                counts[name] += 1
            deltas.append(
                Delta(
                    sequence=self._state.next_sequence(),
                    events=(event,),
                    incarnations={name: counts[name] for name in seers},
                )
            )
        told = [(*row[:2], counts[row[0]], *row[3:]) for row in rows]
        self._db.change("guests", "incarnation", told)
        return deltas

    def _prune(self, now: float) -> list[Delta]:
        gone = self._db.delete(
            "events",
            "ended < ? OR number IN (SELECT number FROM events WHERE ended IS NOT NULL"
            " ORDER BY ended DESC LIMIT -1 OFFSET ?)",
            now - HISTORY_AGE,
            HISTORY_COUNT,
        )
        ids = tuple(row[1] for row in gone)
        return [Delta(sequence=self._state.next_sequence(), forgotten=ids)] if ids else []

    def rest(self) -> None:
        """Move the write-ahead log into the file; call it outside of a transaction."""
        self._db.rest()

    def tidy(self) -> bool:
        """Forget some of the surplus commands, and shrink the file a little, in a transaction.

        Returns whether there is more to do.
        """
        more = self.commands.forget_surplus()
        return self._db.shrink() or more
