"""Work spread over turns of the event loop."""

import asyncio
from collections.abc import Callable
from functools import partial

from gateway.pace import Pace


def _one(pace: Pace, done: list[int], number: int) -> None:
    work: Callable[[], None] = partial(done.append, number)
    if pace.take():
        work()
    else:
        pace.later(work)


async def test_a_little_work_is_done_at_once() -> None:
    pace, done = Pace(3), list[int]()
    for number in range(3):
        _one(pace, done, number)
    assert done == [0, 1, 2]


async def test_more_work_is_done_in_its_order_a_few_pieces_in_a_turn() -> None:
    pace, done = Pace(3), list[int]()
    for number in range(10):
        _one(pace, done, number)
    sizes = [len(done)]
    while len(pace):
        await asyncio.sleep(0)
        sizes.append(len(done))
    assert done == list(range(10))
    assert max(after - before for before, after in zip([0, *sizes], sizes, strict=False)) <= 3


async def test_what_comes_while_others_wait_does_not_overtake_them() -> None:
    pace, done = Pace(1), list[int]()
    for number in range(3):
        _one(pace, done, number)
    await asyncio.sleep(0)
    _one(pace, done, 3)
    while len(pace):
        await asyncio.sleep(0)
    assert done == [0, 1, 2, 3]


async def test_a_lull_gives_all_of_the_room_back() -> None:
    pace, done = Pace(2), list[int]()
    for _ in range(3):
        _one(pace, done, 0)
        _one(pace, done, 0)
        for _ in range(3):
            await asyncio.sleep(0)
    assert len(done) == 6
    assert len(pace) == 0
