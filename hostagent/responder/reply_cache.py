"""Keeps answers for repeated questions. Runs in the responder's loop; makes and sends nothing.

The invariant: a kept answer has the bytes that the responder would make for this question now. An
answer follows from the caller, the bytes received, what is known, and the time. Therefore

- the key is the caller with all bytes received, which must begin a request;
- `forget` drops every answer, and is called at each change of what is known;
- an answer is kept for the period, on the metadata plane's clock, in which time does not change it;
  one without such a period (a new token, an answer that counts against a rate) is not kept at all;
- within that period it is dated again each second, and may be sent without asking again until
  `dated_until`, which `forget` ends;
- nothing is returned that may be older than the agent's silence allows.

If the machine's clock is set, an answer may bear the old date for up to a second.
"""

from collections.abc import Callable, Sequence
from email.utils import formatdate
from itertools import pairwise
from math import inf
from typing import Final, NamedTuple, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from hostagent.channel.messages import Poll
from hostagent.responder.knowledge import Knowledge
from hostagent.responder.poll_log import PollLog

Caller: TypeAlias = int | str
"""The caller: the mark of the connection, or in plain mode its source address."""

MAX_KEPT: Final = 2048
MAX_ASKED: Final = 2048
MAX_ANSWER: Final = 8192
"""Answers kept, and the most bytes of a question and of an answer: two for each guest of a node, or
a pipeline of sixteen; 20 MB at worst. When there would be more, all are dropped."""


class Access(NamedTuple):
    """One answered request. `guest` is None for an unknown caller."""

    caller: Caller
    guest: str | None
    poll: Poll


class Made(NamedTuple):
    """An answer that holds for a while: the bytes around its date, its period, and its records."""

    before: bytes
    after: bytes
    since: float
    until: float
    access: Access


class Kept(Struct):
    """The answers to one question: `frame` is to be sent, and `count` requests are answered."""

    around: tuple[bytes, ...]
    """The bytes before, between and after the dates."""
    accesses: tuple[Access, ...]
    keep: bool
    """Whether the connection stays open."""
    since: float
    until: float
    count: int
    frame: bytes = b""
    dated_until: float = -inf
    """Until when `frame` may be sent, on the loop's clock."""
    rows: tuple[tuple[Poll, int], ...] = ()
    """Those of this second's record, and how many of the answers each stands for."""
    hits: int = 0
    """How often `frame` was sent again. The rows count these when somebody asks for them."""

    def count_hits(self) -> None:
        """Have the rows count the hits."""
        hits, self.hits = self.hits, 0
        for row, times in self.rows:
            row.count += hits * times


def http_date(epoch: float) -> bytes:
    """Return an IMF-fixdate (RFC 9110 section 5.6.7)."""
    return formatdate(int(epoch), usegmt=True).encode()


class ReplyCache:
    """Answers by caller and question."""

    def __init__(
        self,
        knowledge: Knowledge,
        wall: Callable[[], float],
        clock: Callable[[], float],
        record: Callable[[Access], None] | None,
        polls: PollLog,
    ) -> None:
        """`wall` returns the machine's time in epoch seconds, `clock` the loop's; `record` is
        called for each answer returned, and `polls` counts them.
        """
        self._knowledge = knowledge
        self._wall = wall
        self._clock = clock
        self._record = record
        self._polls = polls
        self._kept: dict[tuple[Caller, bytes], Kept] = {}
        self._second = -1
        self._date = b""

    def get(self, caller: Caller, asked: bytes) -> Kept | None:
        """Return the answers to exactly these bytes; None if they must be made.

        Valid only if no part of another request was received before these bytes.
        """
        kept = self._kept.get((caller, asked))
        if kept is None or (self._clock() >= kept.dated_until and not self._is_dated_again(kept)):
            return None
        return kept

    def used(self, kept: Kept) -> None:
        """Count and record the answers that `get` has returned: they are sent."""
        kept.hits += 1
        if self._record is not None:
            kept.dated_until = -inf  # the next ones have to be recorded here, too
            for access in kept.accesses:
                self._record(access)

    def keep(self, caller: Caller, asked: bytes, made: Sequence[Made | None], keep: bool) -> None:
        """Keep the answers to these bytes for as long as each of them holds, if all do."""
        holding = [one for one in made if one is not None]
        if not holding or len(holding) < len(made) or len(asked) > MAX_ASKED:
            return
        between = (one.after + other.before for one, other in pairwise(holding))
        around = (holding[0].before, *between, holding[-1].after)
        if sum(map(len, around)) > MAX_ANSWER:
            return
        if len(self._kept) >= MAX_KEPT:
            self.forget()
        if (old := self._kept.get((caller, asked))) is not None:
            old.count_hits()
        self._kept[caller, asked] = Kept(
            around,
            tuple(one.access for one in holding),
            keep,
            since=max(one.since for one in holding),
            until=min(one.until for one in holding),
            count=len(holding),
        )

    def forget(self) -> None:
        """Drop all answers: the knowledge has changed."""
        for kept in self._kept.values():
            kept.dated_until = -inf
            kept.count_hits()
        self._kept.clear()

    def polls_of(self, guest: str) -> tuple[Poll, ...]:
        """Return what the guest has asked, oldest first."""
        for kept in self._kept.values():
            kept.count_hits()
        return tuple(row for row in self._polls.of(guest) if row.count)

    def date(self) -> bytes:
        """Return the time as an HTTP date."""
        second = int(self._wall())
        if second != self._second:
            self._second = second
            self._date = http_date(second)
        return self._date

    def _is_dated_again(self, kept: Kept) -> bool:
        """Give the answers today's date; False if they no longer hold."""
        wall, clock = self._wall(), self._clock()
        now = wall + self._knowledge.clock_offset
        fresh = self._knowledge.fresh_until - clock
        if not kept.since <= now < kept.until or fresh <= 0:
            return False
        kept.count_hits()
        kept.frame = self.date().join(kept.around)
        rows: list[tuple[Poll, int]] = []
        for _, guest, poll in kept.accesses:
            row = self._polls.note(guest or "", replace(poll, at=now, count=0))
            if rows and rows[-1][0] is row:
                rows[-1] = row, rows[-1][1] + 1
            else:
                rows.append((row, 1))
        kept.rows = tuple(rows)
        kept.dated_until = clock + min(int(wall) + 1.0 - wall, kept.until - now, fresh)
        return True
