"""Work spread over turns of the event loop."""

import asyncio
from collections.abc import Callable

from gateway.pace import Pace


class Desk:
    """Where pieces of work come in that take a second each, of three for a turn."""

    def __init__(self, seconds: float = 3.0) -> None:
        self.now = 0.0
        self.done: list[int] = []
        self.pace = Pace(seconds, clock=lambda: self.now)

    def bring(self, number: int, cost: float = 1.0) -> None:
        work = self._piece(number, cost)
        if self.pace.take():
            work()
        else:
            self.pace.later(work)

    def _piece(self, number: int, cost: float) -> Callable[[], None]:
        def work() -> None:
            self.now += cost
            self.done.append(number)

        return work

    async def turns(self) -> list[list[int]]:
        """What is done in each turn until nothing waits; the present one first."""
        found, seen = [list(self.done)], len(self.done)
        while len(self.pace):
            await asyncio.sleep(0)
            found.append(self.done[seen:])
            seen = len(self.done)
        return found


async def test_a_little_work_is_done_at_once() -> None:
    desk = Desk()
    for number in range(3):
        desk.bring(number)
    assert desk.done == [0, 1, 2]


async def test_more_work_is_done_in_its_order_for_a_time_in_each_turn() -> None:
    desk = Desk()
    for number in range(10):
        desk.bring(number)
    assert [turn for turn in await desk.turns() if turn] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]


async def test_one_piece_is_done_in_each_turn_however_long_it_takes() -> None:
    desk = Desk()
    for number in range(3):
        desk.bring(number, cost=50.0)
    assert [turn for turn in await desk.turns() if turn] == [[0], [1], [2]]


async def test_what_comes_while_others_wait_does_not_overtake_them() -> None:
    desk = Desk(seconds=1.0)
    for number in range(3):
        desk.bring(number)
    await asyncio.sleep(0)
    desk.bring(3)
    await desk.turns()
    assert desk.done == [0, 1, 2, 3]


async def test_a_lull_gives_all_of_the_time_back() -> None:
    desk = Desk(seconds=2.0)
    for _ in range(3):
        desk.bring(0)
        desk.bring(0)
        for _ in range(3):
            await asyncio.sleep(0)
    assert len(desk.done) == 6
    assert len(desk.pace) == 0
