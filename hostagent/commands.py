"""What each command does to the repository. No sockets, and time is an argument.

A command is applied once: its id is stored with its answer, in the same transaction as its effect,
and when it comes again (a controller that lost the answer asks again) it gets the same answer. A
refusal changes nothing and is not remembered.
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import Final, assert_never

import msgspec

from hostagent.channel.messages import (
    Advance,
    Answer,
    Approve,
    Cancel,
    Command,
    Complete,
    Delta,
    Done,
    Events,
    Failed,
    Guests,
    ListEvents,
    ListGuests,
    Place,
    Query,
    Schedule,
    Start,
    Transition,
    Withdraw,
    encode,
    parts,
)
from hostagent.model import (
    LEAST_NOTICE,
    MAX_GUESTS,
    Event,
    Guest,
    IllegalTransition,
    Request,
    sees,
)
from hostagent.properties import PropertyError, check
from hostagent.repository import Repository

MAX_ACTIVE_EVENTS: Final = 4096
"""Events not ended, on one node: four for each guest of a full one."""

MAX_CLOCK_OFFSET: Final = 10 * 366 * 24 * 3600.0
"""The clock can be moved ten years ahead in all: dates must stay dates."""

_REQUESTS: Final[dict[type[Transition], Request]] = {
    Start: Request.START,
    Approve: Request.APPROVE,
    Complete: Request.COMPLETE,
    Cancel: Request.CANCEL,
}

_answer = msgspec.msgpack.Decoder(Done)


class Refused(Exception):
    """The command cannot be carried out. `code` is for programs, the reason for people."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def execute(
    repository: Repository, command: Command, wall: float
) -> tuple[Done | Failed, list[Delta]]:
    """Carry out a command inside the caller's transaction; `wall` is real time, epoch seconds.

    Gives the answer and the deltas to publish, both only after the transaction is committed.
    """
    fingerprint = sha256(encode(command)).digest()
    known = repository.remembered(command.command_id)
    if known is not None:
        if known[0] != fingerprint:
            reason = f"command id {command.command_id} was used for another command"
            return Failed(
                code="command-id-reused", reason=reason, command_id=command.command_id
            ), []
        return _answer.decode(known[1]), []
    try:
        with repository.transaction():
            # First the past: what fell due before this command came is not the command's to undo.
            deltas = repository.settle(wall + repository.clock_offset)
            event, changes = _apply(repository, command, wall + repository.clock_offset)
            deltas += changes
            now = wall + repository.clock_offset
            if isinstance(command, (Schedule, Advance)):  # a notice of 0; a clock moved past things
                deltas += repository.settle(now)
                event = event and repository.event(event.id)
            answer = Done(command_id=command.command_id, now=now, event=event)
            repository.remember(
                command.command_id, fingerprint, msgspec.msgpack.encode(answer), wall
            )
    except Refused as refusal:
        return Failed(code=refusal.code, reason=str(refusal), command_id=command.command_id), []
    except IllegalTransition as error:
        return Failed(
            code="illegal-transition", reason=str(error), command_id=command.command_id
        ), []
    return answer, deltas


def look_up(repository: Repository, query: Query) -> list[Answer]:
    """Answer a query, in as many parts as it takes."""
    answers: list[Answer]
    if isinstance(query, ListGuests):
        answers = [Guests(guests=part, more=True) for part in parts(repository.guests())]
    else:
        assert isinstance(query, ListEvents)
        events = repository.events(history=query.history)
        answers = [Events(events=part, more=True) for part in parts(events)]
    answers[-1] = msgspec.structs.replace(answers[-1], more=False)
    return answers


def _apply(
    repository: Repository, command: Command, now: float
) -> tuple[Event | None, list[Delta]]:
    match command:
        case Place():
            _check_placement(repository, command.guests)
            return None, repository.place(command.guests)
        case Withdraw():
            return None, repository.withdraw(command.names)
        case Schedule():
            event = _planned(repository, command, now)
            return event, repository.add(event)
        case Start() | Complete() | Cancel() | Approve():
            found = repository.event(command.event_id)
            if found is None or not _may(repository, command, found):
                # The same words for both: what a guest cannot see does not exist for it.
                raise Refused("unknown-event", f"no event {command.event_id} on this node")
            return repository.change(found, _REQUESTS[type(command)], now)
        case Advance():
            if repository.clock_offset + command.seconds > MAX_CLOCK_OFFSET:
                raise Refused("clock", f"the clock can be moved {MAX_CLOCK_OFFSET:.0f} s in all")
            return None, repository.advance(command.seconds)
        case _:
            assert_never(command)


def _may(repository: Repository, command: Transition, event: Event) -> bool:
    """Whether the command may touch the event: a guest may approve only what it can see."""
    if not isinstance(command, Approve) or command.guest is None:
        return True
    guest = repository.guest(command.guest)
    return guest is not None and sees(guest, event)


def _check_placement(repository: Repository, guests: Iterable[Guest]) -> None:
    """A port and an address name one guest, checked on the state that would be reached; properties
    are known ones.
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


def _planned(repository: Repository, command: Schedule, now: float) -> Event:
    placed = {item.guest.name: item.guest for item in repository.guests()}
    unknown = [name for name in command.guests if name not in placed]
    if unknown:
        raise Refused("unknown-guest", f"not on this node: {', '.join(unknown)}")
    names = tuple(dict.fromkeys((*command.guests, *command.elsewhere)))
    if not 1 <= len(names) <= MAX_GUESTS:
        raise Refused("guests", f"an event concerns 1 to {MAX_GUESTS} guests, not {len(names)}")
    if repository.event(command.event_id) is not None:
        raise Refused("conflict", f"event {command.event_id} exists already")
    if repository.active_count() >= MAX_ACTIVE_EVENTS:
        raise Refused("too-many", f"a node holds {MAX_ACTIVE_EVENTS} active events")
    sets = {placed[name].availability_set for name in command.guests}
    sets.update(command.sets_elsewhere)
    notice = LEAST_NOTICE[command.type] if command.notice is None else command.notice
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
    )
