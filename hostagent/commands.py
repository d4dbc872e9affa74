"""What each command does to the repository. No sockets, and time is an argument.

A command is applied once: its id is stored with its answer, in the same transaction as its effect.
When the command comes again (a controller lost the answer) it gets the same answer. A refusal
changes nothing and is not remembered.
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import Final, assert_never

import msgspec
from msgspec.structs import replace

from hostagent.channel import requests
from hostagent.channel.messages import (
    Answer,
    Clock,
    Delta,
    Done,
    Events,
    Failed,
    Guests,
    encode,
    parts,
)
from hostagent.faults import MAX_FAULTS, not_over
from hostagent.model import (
    FINAL,
    LEAST_NOTICE,
    MAX_CLOCK_OFFSET,
    MAX_GUESTS,
    Event,
    EventStatus,
    Guest,
    IllegalTransition,
    Request,
    consistent,
    sees,
)
from hostagent.properties import PropertyError, check
from hostagent.repository import Repository
from hostagent.written import TooMuch, after

MAX_ACTIVE_EVENTS: Final = 4096
"""Events not ended, on one node: four for each guest of a full one."""

MAX_COUNT: Final = 1 << 40
"""The highest incarnation that an adopted guest may have. No node counts that far, and the rest of
the range cannot be used up."""

_REQUESTS: Final[dict[type[requests.Transition], Request]] = {
    requests.Start: Request.START,
    requests.Approve: Request.APPROVE,
    requests.Complete: Request.COMPLETE,
    requests.Cancel: Request.CANCEL,
}

_answer = msgspec.msgpack.Decoder(Done)


class Refused(Exception):
    """The command cannot be carried out: `code` for programs, the reason for people."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def execute(
    repository: Repository, command: requests.Command, wall: float
) -> tuple[Done | Failed, list[Delta]]:
    """Carry out a command inside the caller's transaction; `wall` is real time, epoch seconds.

    Returns the answer and the deltas to publish, both only after the transaction is committed.
    """
    known = repeated(repository, command)
    if known is not None:
        return known, []
    try:
        with repository.transaction():
            # First what fell due before this command came: the command must not undo it.
            deltas = repository.settle(wall)
            done, changes = _apply(repository, command, wall + repository.clock_offset)
            deltas += changes
            if isinstance(command, (requests.Advance, requests.Adopt)):  # what has fallen due now
                deltas += repository.settle(wall)
            now = wall + repository.clock_offset
            answer = msgspec.structs.replace(done, now=now, sequence=repository.sequence)
            if deltas or not isinstance(command, requests.Approve | requests.Write):
                # A guest's that change nothing are not stored: it may send them without end.
                repository.commands.keep(
                    command.command_id, _fingerprint(command), msgspec.msgpack.encode(answer)
                )
    except Refused as refusal:
        return Failed(code=refusal.code, reason=str(refusal), command_id=command.command_id), []
    except IllegalTransition as error:
        return Failed(
            code="illegal-transition", reason=str(error), command_id=command.command_id
        ), []
    return answer, deltas


def repeated(repository: Repository, command: requests.Command) -> Done | Failed | None:
    """Return the answer to a command that was carried out before; None: it was not."""
    known = repository.commands.find(command.command_id)
    if known is None:
        return None
    if known[0] != _fingerprint(command):
        reason = f"command id {command.command_id} was used for another command"
        return Failed(code="command-id-reused", reason=reason, command_id=command.command_id)
    return _answer.decode(known[1])


def _fingerprint(command: requests.Command) -> bytes:
    return sha256(encode(command)).digest()


def answered(repository: Repository, command_id: str) -> Done | None:
    """Return the answer to a command that was carried out before, or None."""
    known = repository.commands.find(command_id)
    return None if known is None else _answer.decode(known[1])


def look_up(repository: Repository, query: requests.Query, wall: float) -> list[Answer]:
    """Answer a query, in as many parts as it takes; `wall` is real time, epoch seconds."""
    answers: list[Answer]
    if isinstance(query, requests.Now):
        offset = repository.clock_offset
        return [Clock(now=wall + offset, clock_offset=offset)]
    if isinstance(query, requests.ListGuests):
        answers = [Guests(guests=part, more=True) for part in parts(repository.guests())]
    else:
        assert isinstance(query, requests.ListEvents)
        events = repository.events(history=query.history)
        answers = [Events(events=part, more=True) for part in parts(events)]
    answers[-1] = msgspec.structs.replace(answers[-1], more=False)
    return answers


def _apply(
    repository: Repository, command: requests.Command, now: float
) -> tuple[Done, list[Delta]]:
    done = Done(command_id=command.command_id, now=now)
    match command:
        case requests.Place():
            _check_placement(repository, command.guests)
            return done, repository.place(command.guests)
        case requests.Withdraw():
            left, deltas = repository.withdraw(command.names)
            return msgspec.structs.replace(done, left=left), deltas
        case requests.Adopt():
            return done, _adopt(repository, command)
        case requests.Schedule():
            event = _planned(repository, command, now)
            return msgspec.structs.replace(done, event=event), repository.add(event)
        case requests.Start() | requests.Complete() | requests.Cancel() | requests.Approve():
            found = repository.event(command.event_id)
            if found is None or not _may(repository, command, found):
                # One reason for both: a guest must not learn of events that it cannot see.
                raise Refused("unknown-event", f"no event {command.event_id} on this node")
            by = command.guest if isinstance(command, requests.Approve) else None
            after, deltas = repository.change(found, _REQUESTS[type(command)], now, by)
            return msgspec.structs.replace(done, event=after), deltas
        case requests.Write():
            return done, _write(repository, command)
        case requests.Advance():
            to = command.to
            if to is None:
                to = repository.clock_offset + (command.seconds or 0.0)
            _check_clock(to)
            return done, repository.advance(to)
        case requests.AddFaults():
            return done, _add_faults(repository, command, now)
        case requests.ClearFaults():
            ids, names = set(command.ids), set(command.guests)
            kept = [
                replace(one, faults=tuple(f for f in one.faults if ids and f.id not in ids))
                for one in repository.guests()
                if one.faults and (not names or one.guest.name in names)
            ]
            return done, repository.change_faults(kept)
        case _:
            assert_never(command)


def _write(repository: Repository, command: requests.Write) -> list[Delta]:
    placed = repository.placed(command.guest)
    if placed is None:
        raise Refused("unknown-guest", f"not on this node: {command.guest}")
    if command.text is not None and "/" not in command.name:
        raise Refused("bad-name", "what is written has a namespace and a key")
    try:
        return repository.write(placed, after(placed.written, command.name, command.text))
    except TooMuch as error:
        raise Refused("too-much", f"guest {command.guest}: {error}") from error


def _add_faults(repository: Repository, command: requests.AddFaults, now: float) -> list[Delta]:
    new = tuple(
        replace(one, at=now + one.at, until=None if one.until is None else now + one.until)
        for one in command.faults
    )
    placed = repository.some_placed(command.guests)
    if unknown := [name for name in command.guests if name not in placed]:
        raise Refused("unknown-guest", f"not on this node: {', '.join(unknown)}")
    changed = []
    for one in placed.values():
        faults = (*not_over(one.faults, now), *new)
        if len(faults) > MAX_FAULTS:
            reason = f"a guest has {MAX_FAULTS} faults at most; {one.guest.name}: {len(faults)}"
            raise Refused("too-many", reason)
        if len({fault.id for fault in faults}) < len(faults):
            raise Refused("conflict", f"two faults of {one.guest.name} have one ID")
        changed.append(replace(one, faults=faults))
    return repository.change_faults(changed)


def _adopt(repository: Repository, command: requests.Adopt) -> list[Delta]:
    """Store the events before the guests, so that no guest is here without its events."""
    _check_placement(repository, [one.guest for one in command.guests])
    _check_clock(command.clock_offset)
    for one in command.guests:
        if max(one.incarnation, one.edits) > MAX_COUNT:
            raise Refused("count", f"guest {one.guest.name}: more than {MAX_COUNT} changes")
    here = {one.guest.name for one in (*repository.guests(), *command.guests)}
    deltas: list[Delta] = []
    for event in command.events:
        if not consistent(event):
            reason = f"event {event.id} is {event.status}, which contradicts its times"
            raise Refused("bad-event", reason)
        if event.status not in FINAL and repository.event(event.id) is None:
            _check_room(repository)
        deltas += repository.join(event, here)
    deltas += repository.adopt(command.guests, command.before)
    return deltas + repository.advance(command.clock_offset)


def _check_clock(offset: float) -> None:
    if offset > MAX_CLOCK_OFFSET:
        days = [f"{length / 86400:.0f}" for length in (MAX_CLOCK_OFFSET, offset)]
        raise Refused("clock", "the clock can be {} days ahead at most, not {}".format(*days))


def _check_room(repository: Repository) -> None:
    if repository.active_count() >= MAX_ACTIVE_EVENTS:
        raise Refused("too-many", f"a node holds {MAX_ACTIVE_EVENTS} active events")


def _may(repository: Repository, command: requests.Transition, event: Event) -> bool:
    """Whether the command may touch the event: a guest may approve only what it can see."""
    if not isinstance(command, requests.Approve) or command.guest is None:
        return True
    placed = repository.placed(command.guest)
    return placed is not None and sees(placed.guest, event)


def _check_placement(repository: Repository, guests: Iterable[Guest]) -> None:
    """Raise Refused unless, after the placement, ports and addresses are unique and all properties
    are valid.
    """
    placed = {item.guest.name: item.guest for item in repository.guests()}
    names: set[str] = set()
    for guest in guests:
        if guest.name in names:
            raise Refused("conflict", f"guest {guest.name} is named twice in one command")
        names.add(guest.name)
        try:
            check(guest.properties)
        except PropertyError as error:
            raise Refused("bad-property", f"guest {guest.name}: {error}") from error
        placed[guest.name] = guest
    if len(placed) > MAX_GUESTS:
        raise Refused("too-many", f"{len(placed)} guests; a node holds {MAX_GUESTS}")
    by_port: dict[int, str] = {}
    by_address: dict[str, str] = {}
    for guest in placed.values():
        if guest.port is not None and (other := by_port.setdefault(guest.port, guest.name)):
            _check_same(guest.name, other, f"port {guest.port}")
        if guest.address is not None:
            other = by_address.setdefault(guest.address, guest.name)
            _check_same(guest.name, other, f"address {guest.address}")


def _check_same(name: str, other: str, what: str) -> None:
    if name != other:
        raise Refused("conflict", f"{what} is guest {other}'s; it cannot be {name}'s as well")


def _planned(repository: Repository, command: requests.Schedule, now: float) -> Event:
    placed = repository.some_placed(command.guests)
    unknown = [name for name in dict.fromkeys(command.guests) if name not in placed]
    if unknown:
        raise Refused("unknown-guest", f"not on this node: {', '.join(unknown)}")
    names = tuple(dict.fromkeys((*command.guests, *command.elsewhere)))
    if not 1 <= len(names) <= MAX_GUESTS:
        raise Refused("guests", f"an event concerns 1 to {MAX_GUESTS} guests, not {len(names)}")
    if repository.event(command.event_id) is not None:
        raise Refused("conflict", f"event {command.event_id} exists already")
    _check_room(repository)
    sets = {known.guest.availability_set for known in placed.values()}
    sets.update(command.sets_elsewhere)
    notice = LEAST_NOTICE[command.type] if command.notice is None else command.notice
    at_once = notice == 0  # as when hardware fails: it starts without having been scheduled
    return Event(
        id=command.event_id,
        type=command.type,
        source=command.source,
        description=command.description,
        guests=names,
        availability_sets=tuple(sorted(name for name in sets if name is not None)),
        created=now,
        not_before=now + notice,
        duration=command.duration,
        status=EventStatus.STARTED if at_once else EventStatus.SCHEDULED,
        started=now if at_once else None,
        notice_only=command.notice_only,
    )
