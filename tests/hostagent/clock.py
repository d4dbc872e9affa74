"""Event loops whose clock a test can move: what is due in an hour is due at once."""

import asyncio

import uvloop


class AsyncioLoop(asyncio.SelectorEventLoop):
    """asyncio's own; its timers follow the clock."""

    moved = 0.0

    def time(self) -> float:
        return super().time() + self.moved


class UvLoop(uvloop.Loop):
    """uvloop's; deadlines that are compared with the clock follow it, timers are libuv's."""

    moved = 0.0

    def time(self) -> float:
        return super().time() + self.moved


def move(seconds: float) -> None:
    """Move the running loop's clock forward."""
    asyncio.get_running_loop().moved += seconds


async def until(condition, seconds: float = 20.0) -> None:
    """Wait until the condition holds; fail after `seconds` of the real clock."""
    for _ in range(int(seconds / 0.002)):
        if condition():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("it did not come about in time")
