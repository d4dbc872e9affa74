"""What guests' programs say is kept, and not without a limit."""

import asyncio
import os
from pathlib import Path

from netemu.supervisor.guests.logs import MOST, Logs
from netemu.wire.runtime_dir import guest_log


async def settled(*descriptors: int) -> None:
    """Close the programs' ends, and wait until all that they said was taken."""
    before = len(os.listdir("/proc/self/fd"))
    for descriptor in descriptors:
        os.close(descriptor)
    async with asyncio.timeout(10):
        while len(os.listdir("/proc/self/fd")) > before - 2 * len(descriptors):
            await asyncio.sleep(0.001)


def test_each_guest_has_its_own_file(tmp_path: Path) -> None:
    async def run() -> None:
        logs = Logs(tmp_path / "logs")
        one, other = logs.open("a"), logs.open("b")
        os.write(one, b"hello\n")
        os.write(other, b"good day\n")
        await settled(one, other)

    asyncio.run(run())
    assert (tmp_path / "logs" / "a.log").read_text() == "hello\n"
    assert (tmp_path / "logs" / guest_log("b")).read_text() == "good day\n"
    assert (tmp_path / "logs").stat().st_mode & 0o077 == 0


def test_a_second_boot_goes_on_in_the_same_file(tmp_path: Path) -> None:
    async def run() -> None:
        logs = Logs(tmp_path)
        first, second = logs.open("a"), logs.open("a")
        os.write(first, b"first boot\n")
        await settled(first)
        os.write(second, b"second boot\n")
        await settled(second)

    asyncio.run(run())
    assert (tmp_path / "a.log").read_text() == "first boot\nsecond boot\n"


def test_a_file_is_bounded_and_keeps_the_newest_lines(tmp_path: Path) -> None:
    lines = [f"line {number} {'.' * 40}\n".encode() for number in range(3 * MOST // 50)]
    largest = 0

    async def run() -> None:
        nonlocal largest
        logs = Logs(tmp_path)
        tell = logs.open("a")
        os.set_blocking(tell, False)
        rest = b"".join(lines)
        async with asyncio.timeout(30):
            while rest:  # as fast as it may: at the pace at which it is listened to
                try:
                    rest = rest[os.write(tell, rest[:65536]) :]
                except BlockingIOError:
                    await asyncio.sleep(0)
                if (tmp_path / "a.log").exists():
                    largest = max(largest, (tmp_path / "a.log").stat().st_size)
        await settled(tell)

    asyncio.run(run())
    kept = (tmp_path / "a.log").read_bytes().splitlines(keepends=True)
    assert kept == lines[-len(kept) :]  # whole lines, none missing, up to the last
    assert MOST // 2 - 100 <= sum(map(len, kept)) <= MOST
    assert largest <= MOST
    assert os.listdir(tmp_path) == ["a.log"]


def test_one_endless_line_is_bounded_as_well(tmp_path: Path) -> None:
    async def run() -> None:
        logs = Logs(tmp_path)
        tell = logs.open("a")
        os.set_blocking(tell, False)
        left = 2 * MOST
        async with asyncio.timeout(30):
            while left:
                try:
                    left -= os.write(tell, b"x" * min(left, 65536))
                except BlockingIOError:
                    await asyncio.sleep(0)
        await settled(tell)

    asyncio.run(run())
    said = (tmp_path / "a.log").read_bytes()
    assert MOST // 2 <= len(said) <= MOST
    assert set(said) == {ord("x")}


def test_a_guest_that_never_stops_is_heard_at_a_pace(tmp_path: Path) -> None:
    """A program says all that it can: between its chunks the lab has time for others."""

    async def run() -> int:
        logs = Logs(tmp_path)
        tell = logs.open("a")
        os.set_blocking(tell, False)
        written = 0
        end = asyncio.get_running_loop().time() + 0.5
        while asyncio.get_running_loop().time() < end:
            try:
                written += os.write(tell, b"x" * 65536)
            except BlockingIOError:
                await asyncio.sleep(0)
        await settled(tell)
        return written

    assert asyncio.run(run()) <= 65536 * (0.5 / 0.05 + 3)


def test_pipes_that_a_guest_keeps_open_are_bounded(tmp_path: Path) -> None:
    """A guest hands its output to another, boot after boot: the lab's descriptors do not grow."""

    async def run() -> None:
        logs = Logs(tmp_path)
        before = len(os.listdir("/proc/self/fd"))
        kept = [logs.open("a") for _ in range(50)]
        assert len(os.listdir("/proc/self/fd")) <= before + 50 + 2
        os.write(kept[-1], b"the newest is heard\n")
        for one in kept:
            os.close(one)
        async with asyncio.timeout(10):
            while len(os.listdir("/proc/self/fd")) > before:
                await asyncio.sleep(0.001)

    asyncio.run(run())
    assert (tmp_path / "a.log").read_text() == "the newest is heard\n"


def test_a_full_disk_loses_words_and_no_more(tmp_path: Path) -> None:
    async def run() -> None:
        logs = Logs(tmp_path / "logs")
        (tmp_path / "logs").mkdir()
        (tmp_path / "logs" / "a.log").symlink_to("/dev/full")
        tell = logs.open("a")
        os.write(tell, b"lost\n")
        await settled(tell)

    asyncio.run(run())
