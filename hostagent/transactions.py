"""The repository's side of the agent: takes requests, returns answers and deltas.

Runs in the agent's second thread, one call at a time. It opens no socket and knows no peers.
"""

import logging
import sqlite3
from collections.abc import Callable, Sequence
from math import inf
from typing import NamedTuple, TypeAlias

from hostagent.channel.messages import Answer, Delta, Done, Failed, Used, encode
from hostagent.channel.requests import (
    Command,
    ListEvents,
    ListGuests,
    ListPolls,
    ListResponders,
    Now,
    Query,
)
from hostagent.commands import execute, look_up, repeated
from hostagent.database import RepositoryError, told
from hostagent.repository import Repository

log = logging.getLogger(__name__)

Request: TypeAlias = Command | Query | Used | Failed
"""What waits for the repository, in the order received. Failed: send it and close."""


class Outcome(NamedTuple):
    """What to send after one transaction: the answers of each request, and a snapshot's frames if a
    subscriber waits for one. `change_in`: seconds until something falls due.
    """

    deltas: Sequence[Delta]
    answers: Sequence[Sequence[Answer]]
    sequence: int
    snapshot: Sequence[bytes] = ()
    change_in: float = inf


class Transactions:
    """Runs requests on the repository, each batch in one transaction."""

    def __init__(self, repository: Repository, node: str, wall: Callable[[], float]) -> None:
        """`wall` returns the machine's time in epoch seconds."""
        self._repository = repository
        self._node = node
        self._wall = wall
        self._sequence = 0
        self._trouble = ""

    def run(self, requests: Sequence[Request], joining: bool) -> Outcome:
        """Do what has fallen due, then the requests, in one transaction.

        `joining`: a subscriber waits for a snapshot.
        """
        wall = self._wall()
        try:
            with self._repository.transaction():
                deltas = self._repository.settle(wall)
                outcome = self._carry_out(requests, deltas, wall, joining)
                more = self._repository.tidy()
            if not requests and not outcome.deltas and not more:
                self._repository.rest()
        except Exception as error:
            # Nothing is stored, so nothing is published or acknowledged. The next beat tries again.
            self._note(error)
            reason = f"the repository has failed: {told(error)}"
            try:  # reads may still work
                readable = [self._without_writing(request, reason) for request in requests]
                return self._carry_out(readable, [], wall, joining)._replace(change_in=inf)
            except Exception as error:
                self._note(error)
                answers = [[_refusal(request, reason)] for request in requests]
                return Outcome((), answers, self._sequence)
        self._note(None)
        self._sequence = outcome.sequence
        return outcome._replace(change_in=0.0) if more else outcome

    def _without_writing(self, request: Request, reason: str) -> Query | Failed | Done:
        """A query, or the answer to a command: what was carried out before has succeeded."""
        if isinstance(request, Query | Failed):
            return request
        known = None if isinstance(request, Used) else repeated(self._repository, request)
        return known or _refusal(request, reason)

    def _carry_out(
        self, requests: Sequence[Request | Done], deltas: list[Delta], wall: float, joining: bool
    ) -> Outcome:
        repository = self._repository
        answers: list[Sequence[Answer]] = []
        for request in requests:
            if isinstance(request, Failed | Done):
                answers.append([request])
            elif isinstance(request, ListResponders | ListPolls):
                answers.append([])  # the agent answers it
            elif isinstance(request, Used):
                deltas += repository.use(request.guest, request.fault_id, request.used)
                answers.append([])
            elif isinstance(request, (Now, ListEvents, ListGuests)):
                answers.append(look_up(repository, request, wall))
            else:
                done, changes = execute(repository, request, wall)
                deltas += changes
                answers.append([done])
        change = repository.next_change()
        return Outcome(
            deltas,
            answers,
            repository.sequence,
            [encode(part) for part in repository.snapshot(self._node)] if joining else (),
            inf if change is None else change - wall - repository.clock_offset,
        )

    def _note(self, error: Exception | None) -> None:
        """Log once that the repository has failed, or that it works again."""
        trouble = "" if error is None else told(error) or type(error).__name__
        if trouble == self._trouble:
            return
        self._trouble = trouble
        if error is None:
            log.info("repository: it works again")
        else:
            known = isinstance(error, (sqlite3.Error, RepositoryError, MemoryError))
            log.error("repository: %s", trouble, exc_info=None if known else error)


def _refusal(request: Request, reason: str) -> Failed:
    if isinstance(request, Failed):
        return request
    return Failed(code="repository", reason=reason, command_id=getattr(request, "command_id", None))
