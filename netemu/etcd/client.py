"""Asks etcd's servers in turn, and follows what changes without a gap."""

import asyncio
import random
import ssl
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Any, Final, Self, TypeVar

from netemu.errors import NotSo
from netemu.etcd import messages
from netemu.etcd.http import Answered, Connection, Dial, Endpoint, dial
from netemu.etcd.messages import Change, Comparison, Entry, Message, Operation, Put, Version

# What one server may take for an answer. A commit takes milliseconds; a new leader, two seconds.
ATTEMPT: Final = 2.0
# All servers together: three that are stopped, and one more round after an election.
WITHIN: Final = 8.0
# A server that a watch comes from has to answer a read, which takes a majority, so often: one that
# is stopped or cut off would else never answer.
BEAT: Final = 2.0
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
# gRPC's codes for what another server, or a later moment, may change.
_PASSING: Final = (4, 14)  # deadline exceeded, unavailable


T = TypeVar("T")


class Unreachable(NotSo):
    """No server answers in time. What was asked may have been done."""


class Refused(NotSo):
    """A server has refused, and nothing has changed. `code` is gRPC's."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"the store refuses: {reason}")
        self.code = code


class Compacted(NotSo):
    """What is asked for is so old that the store has dropped it: take a snapshot."""


class Client:
    """The servers at some endpoints, which keep the same. All methods raise Unreachable, Refused.

    `within` bounds each question, in seconds. `dial` connects to a server, where this process has
    no way there itself.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        *,
        tls: ssl.SSLContext | None = None,
        dial: Dial = dial,
        within: float = WITHIN,
    ) -> None:
        self._endpoints = tuple(endpoints)
        self._tls = tls
        self._dial = dial
        self._within = within
        # Clients that begin with the same server would all load that one.
        self._turn = random.randrange(len(self._endpoints))
        self._idle: dict[Endpoint, list[Connection]] = {one: [] for one in self._endpoints}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        await asyncio.sleep(0)  # until sockets are closed

    def close(self) -> None:
        """Let all connections go."""
        for connections in self._idle.values():
            while connections:
                connections.pop().close()

    # Keys.

    async def get(self, key: str) -> Entry | None:
        """The key as it is now; None: there is none."""
        found = await self._ask("/v3/kv/range", messages.one_key(key), messages.entries)
        return found[0] if found else None

    async def under(self, prefix: str) -> tuple[list[Entry], int]:
        """All keys that begin so, by name, and the revision as of which they are all."""
        return await self._ask(
            "/v3/kv/range",
            messages.under(prefix),
            lambda answer: (messages.entries(answer), messages.revision(answer)),
        )

    async def put(self, key: str, value: bytes, lease: int = 0) -> int:
        """Set a key. Returns the revision."""
        wanted = messages.put(Put(key, value, lease))
        return await self._ask("/v3/kv/put", wanted, messages.revision)

    async def delete(self, key: str) -> None:
        """Delete a key, if there is one."""
        await self._ask("/v3/kv/deleterange", messages.one_key(key), messages.revision)

    async def delete_under(self, prefix: str) -> None:
        """Delete all keys that begin so."""
        await self._ask("/v3/kv/deleterange", messages.under(prefix), messages.revision)

    async def when(
        self, comparisons: Iterable[Comparison], operations: Iterable[Operation]
    ) -> bool:
        """Carry out all operations, at one revision, if all comparisons hold. Returns whether so.

        When an answer was lost, the second attempt finds what the first one has done: False then
        says no more than that the comparisons do not hold now.
        """
        wanted = messages.transaction(comparisons, operations)
        return await self._ask("/v3/kv/txn", wanted, messages.succeeded)

    async def create(self, key: str, value: bytes, lease: int = 0) -> tuple[Entry, bool]:
        """Make a key unless it exists. Returns its value then, and whether it is new."""
        while True:
            revision = await self.create_all([Put(key, value, lease)])
            if revision is not None:
                return Entry(key, value, revision, revision, lease), True
            if (entry := await self.get(key)) is not None:
                return entry, False

    async def create_all(self, puts: Sequence[Put]) -> int | None:
        """Make keys at one revision, which it gives; None: some were there, and none is made.

        When an answer was lost, the second attempt finds them there.
        """
        return await self._ask(
            "/v3/kv/txn",
            messages.transaction([Version(one.key, 0) for one in puts], puts),
            lambda answer: messages.revision(answer) if messages.succeeded(answer) else None,
        )

    # Leases.

    async def grant(self, ttl: int) -> int:
        """A lease that ends `ttl` seconds after it was last kept alive."""
        wanted = {"TTL": str(ttl)}
        return await self._ask("/v3/lease/grant", wanted, lambda answer: int(answer["ID"]))

    async def keep_alive(self, lease: int) -> int:
        """Renew a lease. Returns its seconds; 0 if it has ended, and its keys are gone."""
        return await self._ask(
            "/v3/lease/keepalive",
            {"ID": str(lease)},
            lambda answer: int(answer["result"].get("TTL", 0)),
        )

    async def revoke(self, lease: int) -> None:
        """End a lease and delete its keys."""
        await self._ask("/v3/kv/lease/revoke", {"ID": str(lease)}, messages.revision)

    # What changes.

    async def compact(self, revision: int) -> None:
        """Have the store drop what was so before the revision."""
        await self._ask("/v3/kv/compaction", {"revision": str(revision)}, messages.revision)

    async def watch(self, prefix: str, since: int) -> AsyncGenerator[list[Change], None]:
        """Every change of keys that begin so, from the revision `since` on, in order, once.

        What has changed at one revision comes together. It goes on at another server when one is
        lost, for as long as it takes. Raises Compacted if the store no longer has the revision.
        """
        pause = _FIRST_PAUSE
        while True:
            endpoint = self._endpoint()
            try:
                async with aclosing(self._stream(endpoint, prefix, since)) as stream:
                    async for changes in stream:
                        pause = _FIRST_PAUSE
                        if changes:
                            yield changes
                            since = changes[-1].revision + 1
            except (OSError, _Passing):
                self._turn += 1
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _stream(
        self, endpoint: Endpoint, prefix: str, since: int
    ) -> AsyncGenerator[list[Change], None]:
        """One server's changes until it is lost; the first are none: it has begun."""
        async with asyncio.timeout(ATTEMPT):
            connection = await self._open(endpoint)
        lines = connection.listen("/v3/watch", messages.watch(prefix, since))
        try:
            async with aclosing(lines):
                line = asyncio.ensure_future(anext(lines, None))
                try:
                    while True:
                        await asyncio.wait([line], timeout=BEAT)
                        if not line.done():
                            await self._once(endpoint, "/v3/kv/range", messages.one_key(prefix))
                            continue
                        if (answered := line.result()) is None:
                            raise ConnectionResetError("the watch has ended")
                        yield _told(answered)
                        line = asyncio.ensure_future(anext(lines, None))
                finally:
                    line.cancel()
                    await asyncio.wait([line])
        finally:
            connection.close()

    # Servers.

    def _endpoint(self) -> Endpoint:
        return self._endpoints[self._turn % len(self._endpoints)]

    async def _open(self, endpoint: Endpoint) -> Connection:
        return await Connection.open(endpoint, self._tls, self._dial)

    async def _ask(self, path: str, message: Message, read: Callable[[Message], T]) -> T:
        """Ask the servers in turn until one answers. Returns what `read` makes of the answer."""
        now = asyncio.get_running_loop().time
        end, pause = now() + self._within, _FIRST_PAUSE
        while True:
            for _ in self._endpoints:
                endpoint = self._endpoint()
                try:
                    return _understood(await self._once(endpoint, path, message), read)
                except (OSError, _Passing) as error:
                    problem = f"{endpoint}: {str(error) or 'no answer in time'}"
                    self._turn += 1
                if now() > end:
                    raise Unreachable(f"the store does not answer: {problem}")
            await asyncio.sleep(min(pause, max(0.0, end - now())))
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _once(self, endpoint: Endpoint, path: str, message: Message) -> Message:
        async with asyncio.timeout(ATTEMPT):
            idle = self._idle[endpoint]
            connection = idle.pop() if idle else await self._open(endpoint)
            try:
                answered = await connection.ask(path, message)
            except BaseException:
                connection.close()
                raise
        idle.append(connection)
        return _checked(answered)


def _understood(message: Message, read: Callable[[Message], T]) -> T:
    try:
        return read(message)
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise ConnectionAbortedError(f"not understood: {error!r}") from None


class _Passing(Exception):
    """The server cannot answer now: it knows no leader, or its commit takes too long."""


def _checked(answered: Answered) -> Message:
    """The answer's message. Raises _Passing and Refused."""
    body = answered.body
    if not isinstance(body, dict):
        raise ConnectionAbortedError("not understood: no JSON object")
    error = body.get("error")
    if isinstance(error, dict):  # as streams have it
        code, reason = error.get("grpc_code"), error.get("message")
    else:
        code, reason = body.get("code"), error or body.get("message")
    if error is None and answered.status == 200:
        return body
    if code in _PASSING or answered.status >= 500:
        raise _Passing(str(reason or f"status {answered.status}"))
    raise Refused(int(code or 0), str(reason or f"status {answered.status}"))


def _told(answered: Answered) -> list[Change]:
    """The changes that a line of a watch tells. Raises Compacted, too."""
    result: Any = _checked(answered).get("result", {})
    if "compact_revision" in result:
        raise Compacted(f"the store has dropped what was before {result['compact_revision']}")
    if result.get("canceled"):
        raise _Passing(str(result.get("cancel_reason", "the watch was ended")))
    return _understood(result, messages.changes)
