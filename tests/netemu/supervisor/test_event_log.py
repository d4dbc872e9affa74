"""What has happened: in order, told once to each who follows."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

from netemu.supervisor.control import event_log
from netemu.supervisor.control.event_log import Entry, EventLog


async def take(follower: AsyncIterator[Entry], count: int) -> list[int]:
    async with asyncio.timeout(5):
        return [(await anext(follower))["number"] for _ in range(count)]


def write(story: EventLog, numbers: range) -> None:
    for number in numbers:
        story.write("test", number=number)


def test_an_entry_says_when_what_and_nothing_that_is_unknown() -> None:
    async def run() -> None:
        story = EventLog()
        story.write("node", node="n1", state="failed", reason=None)
        (entry,) = story.entries()
        when = datetime.fromisoformat(entry.pop("time"))
        assert when.utcoffset() == timedelta(0)
        assert entry == {"what": "node", "node": "n1", "state": "failed"}

    asyncio.run(run())


def test_only_so_many_are_kept_the_newest() -> None:
    async def run() -> None:
        story = EventLog()
        write(story, range(event_log.KEPT + 7))
        numbers = [entry["number"] for entry in story.entries()]
        assert numbers == list(range(7, event_log.KEPT + 7))

    asyncio.run(run())


def test_a_follower_is_told_what_was_and_what_comes() -> None:
    async def run() -> None:
        story = EventLog()
        write(story, range(3))
        follower = story.follow()
        assert await take(follower, 3) == [0, 1, 2]
        waiting = asyncio.create_task(take(follower, 2))
        for _ in range(3):  # it waits by now
            await asyncio.sleep(0)
        assert not waiting.done()
        write(story, range(3, 5))
        assert await waiting == [3, 4]

    asyncio.run(run())


def test_nothing_is_lost_that_is_written_while_it_is_told() -> None:
    async def run() -> None:
        story = EventLog()
        write(story, range(2))
        follower = story.follow()
        assert await take(follower, 1) == [0]
        write(story, range(2, 4))  # between two entries of one batch
        assert await take(follower, 3) == [1, 2, 3]
        write(story, range(4, 5))  # at the end of a batch
        assert await take(follower, 1) == [4]

    asyncio.run(run())


def test_two_who_follow_are_told_the_same() -> None:
    async def run() -> None:
        story = EventLog()
        one, other = story.follow(), story.follow()
        tasks = [asyncio.create_task(take(follower, 50)) for follower in (one, other)]
        for number in range(50):
            write(story, range(number, number + 1))
            if number % 7 == 0:
                await asyncio.sleep(0)
        assert await asyncio.gather(*tasks) == [list(range(50))] * 2

    asyncio.run(run())


def test_a_slow_follower_misses_the_oldest_and_hears_nothing_twice() -> None:
    async def run() -> None:
        story = EventLog()
        write(story, range(2))
        follower = story.follow()
        assert await take(follower, 1) == [0]
        write(story, range(2, event_log.KEPT + 10))
        # The batch at hand first; of the rest what is still kept.
        numbers = await take(follower, event_log.KEPT + 1)
        assert numbers == [1, *range(10, event_log.KEPT + 10)]

    asyncio.run(run())
