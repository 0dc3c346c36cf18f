"""Work on many things at once, and its end."""

import asyncio
from contextlib import suppress

import pytest

from gateway.tasks import each


class Away(Exception):
    """Stands for a store that can't be reached."""


async def test_each_does_it_for_every_one() -> None:
    done: list[int] = []

    async def act(item: int) -> None:
        await asyncio.sleep(0)
        done.append(item)

    await each(range(100), act, at_once=7)
    assert sorted(done) == list(range(100))


async def test_the_first_failure_of_one_is_raised_bare() -> None:
    async def act(item: int) -> None:
        if item == 3:
            raise Away("three")

    with pytest.raises(Away, match="three"):
        await each(range(10), act)


async def test_who_is_told_to_end_ends_although_its_work_fails_in_that_moment() -> None:
    """Else a loop that takes the failure for the whole story would go on for ever."""
    begun = asyncio.Event()

    async def act(item: int) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise Away("the connection was cut by the same cause")

    async def go_on() -> None:
        for _ in range(3):
            with suppress(Away):
                await each([1, 2], act)

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        task = group.create_task(go_on())
        await begun.wait()
        task.cancel()
    assert task.cancelled()
