"""What is said when a lab does not come up in time."""

import asyncio

import pytest

from netemu.errors import NotSo
from netemu.supervisor.boot.readiness import within


def test_what_was_missing_is_told_with_the_time_that_was_given_to_it() -> None:
    async def main() -> None:
        async with within(10, lambda: "the second"):
            pass
        async with within(0.25, lambda: "not every host agent took its guests"):
            await asyncio.Event().wait()

    with pytest.raises(NotSo, match=r"^not every host agent took its guests within 0\.25 s$"):
        asyncio.run(main())


def test_a_time_out_of_something_else_stays_what_it_is() -> None:
    async def main() -> None:
        async with within(10, lambda: "never"):
            raise TimeoutError("of a socket")

    with pytest.raises(TimeoutError, match="of a socket"):
        asyncio.run(main())
