"""Requests that wait for a change, for a time, or for the agent. Runs in the responder's loop.

A parked request costs its connection, some three kilobytes, and no CPU time. A change wakes only
the requests of the guests that it concerns.
"""

import asyncio
from collections.abc import Collection
from heapq import heapify, heappop, heappush
from math import inf
from typing import Final, Protocol

from hostagent.dialects.outcomes import Park, Writing
from hostagent.faults import Fault
from hostagent.http import Response
from hostagent.responder.answers import Answers, Late, Pending, Reply
from hostagent.responder.approvals import Approvals, Result
from hostagent.responder.faults import as_of
from hostagent.responder.reply_cache import Caller

LONGEST_TIMER: Final = 60.0
"""Seconds after which a timer checks again: this machine's clock may be set."""

SHORTEST_TIMER: Final = 0.001
"""Seconds: keeps a timer that fired slightly early from spinning."""


class Parked(Protocol):
    """A connection whose request waits."""

    caller: Caller
    pending: Pending | None

    def deliver(self, reply: Reply) -> None:
        """Send the answer to the pending request."""

    def abort(self) -> None:
        """Close at once."""


class Server(Protocol):
    """The responder that the requests arrived at."""

    answers: Answers

    @property
    def held(self) -> int:
        """How many connections are held."""


class Waiting:
    """The waiting requests of one responder. Each holds a connection, whose number is limited."""

    def __init__(self, responder: Server, approvals: Approvals | None) -> None:
        """Without `approvals` every approval fails."""
        self._responder = responder
        self._answers = responder.answers
        self._approvals = approvals
        self._parked: dict[str, dict[Parked, None]] = {}  # by the guest's name
        self._alarms: list[tuple[float, int, Parked, Pending]] = []  # a heap, by `until`
        self._alarm_number = 0
        self._timer: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def enter(self, connection: Parked, pending: Pending) -> None:
        """Answer the connection's request once what it waits for has happened."""
        outcome = pending.outcome
        if isinstance(outcome, Park | Late):
            self._parked.setdefault(pending.guest, {})[connection] = None
            self._set_alarm(connection, pending, outcome.until - pending.shift)
            return
        if self._approvals is None:
            self._answer(connection, pending, outcome.failed)
            return
        responses = {"done": outcome.done, "refused": outcome.refused, "failed": outcome.failed}

        def answer(result: Result) -> None:
            self._answer(connection, pending, responses[result])

        if isinstance(outcome, Writing):
            self._approvals.write(pending.guest, outcome.name, outcome.text, answer)
        else:
            self._approvals.submit(pending.guest, outcome.event_ids, answer)

    def leave(self, connection: Parked) -> None:
        """The connection is gone, or its request is answered."""
        pending, connection.pending = connection.pending, None
        if pending is not None and (group := self._parked.get(pending.guest)) is not None:
            group.pop(connection, None)
            if not group:
                del self._parked[pending.guest]

    def changed(self, names: Collection[str] | None) -> None:
        """The views of these guests have changed; None: all views, or the clock has moved."""
        now = self._answers.now()
        for name in list(self._parked) if names is None else names:
            for connection in list(self._parked.get(name, ())):
                self._resume(connection, now)
        if names is None and self._alarms:
            self._arm()

    def _resume(self, connection: Parked, now: float) -> None:
        """Answer a parked request if possible now."""
        pending = connection.pending
        assert pending is not None
        park = pending.outcome
        answers = self._answers
        if isinstance(park, Late):
            if park.until <= now or self._is_cleared(pending.guest, park.fault, now):
                self._deliver(connection, park.reply)
            return
        assert isinstance(park, Park)
        view = answers.look_up(connection.caller)
        if view is None or view.guest.name != pending.guest:
            connection.abort()  # the port belongs to another guest now
            return
        response: Response | Park
        if not answers.knowledge.fresh(answers.clock()):
            response = answers.dialects.unavailable(pending.request)
        elif (failed := answers.fails(view, pending.request, now)) is not None:
            response = failed
        else:
            # To a request that has met a stale service time goes on, and nothing changes.
            fault = pending.fault
            seen = view if fault is None or not fault.stale else as_of(view, fault.at)
            response = park.resume(seen, now + pending.shift)
        if isinstance(response, Response):
            self._answer(connection, pending, response)
            return
        pending.outcome = response
        if response.until != park.until or park.until <= now + pending.shift:
            self._set_alarm(connection, pending, response.until - pending.shift)

    def _answer(self, connection: Parked, pending: Pending, response: Response) -> None:
        if connection.pending is not pending:  # the guest has gone
            return
        caller = connection.caller
        view = self._answers.look_up(caller)
        reply = self._answers.rendered(
            caller, view, pending.request, response, pending.keep, pending.fault
        )
        if isinstance(reply, Reply):
            self._deliver(connection, reply)
            return
        self.leave(connection)
        connection.pending = reply
        self.enter(connection, reply)

    def _deliver(self, connection: Parked, reply: Reply) -> None:
        self.leave(connection)
        connection.deliver(reply)

    def _is_cleared(self, guest: str, fault: Fault, now: float) -> bool:
        """Whether somebody has cleared the fault: not one that has met all of its requests."""
        placed = self._answers.knowledge.guests.get(guest)
        known = () if placed is None else placed.faults
        return fault.times is None and all(one.id != fault.id for one in known)

    # Times

    def _set_alarm(self, connection: Parked, pending: Pending, until: float) -> None:
        if until == inf:
            return
        if len(self._alarms) > 2 * self._responder.held + 64:  # most belong to answered requests
            self._alarms = [one for one in self._alarms if one[2].pending is one[3]]
            heapify(self._alarms)
        self._alarm_number += 1
        heappush(self._alarms, (until, self._alarm_number, connection, pending))
        if self._alarms[0][3] is pending:
            self._arm()

    def _arm(self) -> None:
        """Set the one timer for the earliest alarm."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._alarms:
            delay = self._alarms[0][0] - self._answers.now()
            self._timer = asyncio.get_running_loop().call_later(
                min(max(delay, SHORTEST_TIMER), LONGEST_TIMER), self._ring
            )

    def _ring(self) -> None:
        """Look at the requests whose time has come."""
        now = self._answers.now()
        while self._alarms and self._alarms[0][0] <= now:
            _, _, connection, pending = heappop(self._alarms)
            if connection.pending is pending:
                self._resume(connection, now)
        self._arm()
