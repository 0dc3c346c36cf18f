"""Work spread over turns of the event loop: a few pieces in each, in the order in which they came."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TypeVar

Part = TypeVar("Part")


class Pace:
    """So many pieces of work in one turn of the loop; what comes beyond waits for the turns that follow.

    Everything else that is due has its chance between two turns, however many come at once. To be used from one event
    loop. The pieces must not raise.
    """

    def __init__(self, per_turn: int) -> None:
        self._per_turn = per_turn
        self._left = per_turn
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_counting = False

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self) -> bool:
        """Whether one more piece may be done in this turn; it counts as done then."""
        if self._waiting or not self._left:
            return False
        self._left -= 1
        self._count()
        return True

    def later(self, work: Callable[[], None]) -> None:
        """Do it when its turn has come."""
        self._waiting.append(work)
        self._count()

    def _count(self) -> None:
        if not self._is_counting:
            self._is_counting = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._is_counting = False
        self._left = self._per_turn
        while self._waiting and self._left:
            self._left -= 1
            self._waiting.popleft()()
        if self._left < self._per_turn:
            self._count()


def sliced(items: Iterable[Part], size: int) -> Iterable[list[Part]]:
    """The items in lists of at most `size`."""
    left = iter(items)
    while part := list(islice(left, size)):
        yield part
