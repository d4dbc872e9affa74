"""What the client promises, with three real servers: one is stopped, and nothing is lost."""

import asyncio
import signal
from contextlib import aclosing
from itertools import count

import pytest

from netemu.etcd import (
    Change,
    Client,
    Compacted,
    Entry,
    Held,
    Put,
    Refused,
    Removal,
    Together,
    Unreachable,
    Version,
)
from tests.netemu.etcd.conftest import Servers

pytestmark = pytest.mark.processes
_names = count()


@pytest.fixture
def prefix() -> str:
    """Keys of the test's own."""
    return f"/test/{next(_names)}/"


async def seen(client: Client, prefix: str, since: int, last: str) -> list[Change]:
    """Every change from a revision until one of the key `last`."""
    found: list[Change] = []
    async with aclosing(client.watch(prefix, since)) as watching:
        async for changes in watching:
            found += changes
            if changes[-1].key == last:
                break
    return found


def test_a_key_is_made_once_and_changed_by_who_knows_it(servers: Servers, prefix: str) -> None:
    async def script() -> None:
        async with servers.client() as client:
            key = prefix + "é"
            assert await client.get(key) is None
            made, new = await client.create(key, b"\0first")
            assert new
            assert await client.create(key, b"second") == (made, False)
            assert made == Entry(key, b"\0first", made.created, made.created)
            assert await client.when([Version(key, made.modified)], [Put(key, b"third")])
            assert not await client.when([Version(key, made.modified)], [Put(key, b"fourth")])
            assert not await client.when([Held(key, b"\0first")], [Removal(key)])
            await client.put(prefix + "other", b"")
            entries, revision = await client.under(prefix)
            assert [(one.key, one.value) for one in entries] == [
                (prefix + "other", b""),
                (key, b"third"),
            ]
            assert revision >= max(one.modified for one in entries)
            assert await client.when([Held(key, b"third")], [Removal(key)])
            await client.delete_under(prefix + "o")
            assert (await client.under(prefix))[0] == []

    asyncio.run(script())


def test_keys_that_are_made_at_once_share_a_transaction(servers: Servers, prefix: str) -> None:
    async def script() -> None:
        async with servers.client() as client:
            together = Together(client)
            await client.put(prefix + "7", b"other")
            many = [together.create(f"{prefix}{number}", b"") for number in range(250)]
            found = await asyncio.gather(*many)
            assert [number for number, (_, new) in enumerate(found) if not new] == [7]
            assert found[7][0].value == b"other"
            # Those with the one that was there were made one by one, the others together.
            assert len({entry.created for entry, _ in found[32:64]}) == 1

    asyncio.run(script())


def test_keys_go_with_their_lease(servers: Servers, prefix: str) -> None:
    async def script() -> None:
        async with servers.client() as client:
            lease = await client.grant(60)
            await client.create(prefix + "a", b"", lease)
            assert (await client.under(prefix))[0][0].lease == lease
            assert await client.keep_alive(lease) == 60
            await client.revoke(lease)
            assert await client.get(prefix + "a") is None
            assert await client.keep_alive(lease) == 0
            with pytest.raises(Refused, match=r"the store refuses: .*lease not found"):
                await client.put(prefix + "b", b"", lease)

    asyncio.run(script())


def test_what_is_dropped_is_told_as_such(servers: Servers, prefix: str) -> None:
    async def script() -> None:
        async with servers.client() as client:
            first = await client.put(prefix + "a", b"1")
            await client.compact(await client.put(prefix + "a", b"2"))
            with pytest.raises(Compacted, match="the store has dropped what was before"):
                await seen(client, prefix, first, prefix + "a")
            await client.put(prefix + "a", b"3")
            (entry,), revision = await client.under(prefix)
            await client.delete(prefix + "a")
            (gone,) = await seen(client, prefix, revision + 1, prefix + "a")
            assert (entry.value, gone.entry) == (b"3", None)

    asyncio.run(script())


def test_who_shows_no_certificate_is_told_nothing(servers: Servers) -> None:
    async def script() -> None:
        async with Client(servers.endpoints, within=0.5) as client:
            with pytest.raises(Unreachable):
                await client.get("a")

    asyncio.run(script())


def test_a_watch_misses_nothing_while_each_server_is_stopped_in_turn(
    servers: Servers, prefix: str
) -> None:
    """One of them is the leader, and one of them is that which the watch comes from."""

    async def script() -> None:
        async with servers.client() as client, servers.client() as other:
            since = await client.put(prefix + "begin", b"") + 1
            watching = asyncio.create_task(seen(other, prefix, since, prefix + "end"))
            writing, done = asyncio.Event(), 0

            async def write() -> None:
                nonlocal done
                while not writing.is_set():
                    await client.create(f"{prefix}{done}", b"")
                    done += 1

            writer = asyncio.create_task(write())
            for number in range(3):
                before = done
                servers.signal(number, signal.SIGSTOP)
                try:
                    async with asyncio.timeout(60):
                        while done < before + 5 and not writer.done():
                            await asyncio.sleep(0.01)
                finally:
                    servers.signal(number, signal.SIGCONT)
            writing.set()
            await writer
            await client.put(prefix + "end", b"")
            async with asyncio.timeout(60):
                found = await watching
        assert [one.key for one in found[:-1]] == [f"{prefix}{number}" for number in range(done)]

    asyncio.run(script())
