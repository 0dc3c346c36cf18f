"""Work spread over turns of the event loop: a little in each, in the order in which it came."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TypeVar

Part = TypeVar("Part")


class Pace:
    """So much time for pieces of work in one turn of the loop; what comes beyond waits for the turns that follow.

    Everything else that is due has its chance between two turns, however many come at once and whatever one costs: a
    call crosses the loop four times and more, and waits for all pieces of a turn each time. One piece is done in every
    turn, be it as long as it may. To be used from one event loop. The pieces must not raise.
    """

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._seconds = seconds
        self._clock = clock
        self._until = 0.0
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_counting = False

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self) -> bool:
        """Whether one more piece may be done in this turn; it is to be done at once then."""
        if self._waiting:
            return False
        if self._is_counting:
            return self._clock() < self._until
        self._count()
        return True

    def later(self, work: Callable[[], None]) -> None:
        """Do it when its turn has come."""
        self._waiting.append(work)
        if not self._is_counting:
            self._count()

    def _count(self) -> None:
        self._is_counting = True
        self._until = self._clock() + self._seconds
        asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._is_counting = False
        if self._waiting:
            self._count()
            self._waiting.popleft()()
        while self._waiting and self._clock() < self._until:
            self._waiting.popleft()()


def sliced(items: Iterable[Part], size: int) -> Iterable[list[Part]]:
    """The items in lists of at most `size`."""
    left = iter(items)
    while part := list(islice(left, size)):
        yield part
