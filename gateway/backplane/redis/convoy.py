"""What many callers want of one key, said together: while one convoy is on its way, the next one gathers.

Theory of operation
-------------------
Thousands of tool servers that redial within a second want the same few keys told of each of them: the list of agents,
what this worker owns, the event log. Whoever comes while nothing is under way sets out at once; who comes later goes
with the next convoy, which leaves when the one before has been answered. So the busier, the fewer commands, and a
caller knows as surely as with a command of its own that what it wanted has been done, or that this is not certain.
Convoys keep the order of what they carry.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

from gateway.backplane.base import BackplaneUnavailable
from gateway.backplane.redis.commands import Command

Item = TypeVar("Item")
End: TypeAlias = BackplaneUnavailable | None

_CALLERS_MAX = 128
"""So many go on in one turn of the loop; calls of others must not wait for more."""


class Convoy(Generic[Item]):
    """`make` turns what has been gathered into commands, at the moment when they are sent."""

    def __init__(self, enqueue: Callable[[Command], None], make: Callable[[list[Item]], list[Command]]) -> None:
        self._enqueue = enqueue
        self._make = make
        self._waiting: deque[tuple[Collection[Item], asyncio.Future[End]]] = deque()
        self._under_way = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __repr__(self) -> str:
        return f"<Convoy [{self._under_way} under way, {len(self._waiting)} callers wait]>"

    async def send(self, *items: Item) -> None:
        """Return when that has been done. Raises BackplaneUnavailable."""
        failure = await self.begin(*items)
        if failure is not None:
            raise type(failure)(*failure.args)  # its own for each caller: tracebacks grow with every one who raises it

    def begin(self, *items: Item) -> asyncio.Future[End]:
        """As `send`, for who need not wait for it now: the result is the failure, or None."""
        ended: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self._waiting.append((items, ended))
        if not self._under_way:
            self._set_out()
        return ended

    def hurry(self) -> None:
        """What has been gathered sets out now, whatever is under way."""
        while self._waiting:
            self._set_out()

    def _set_out(self) -> None:
        callers = [self._waiting.popleft() for _ in range(min(len(self._waiting), _CALLERS_MAX))]
        commands = self._make([item for items, _ in callers for item in items])
        arrival = _Arrival(len(commands), partial(self._arrive, callers))
        self._under_way += 1
        for command in commands:
            command.on_reply = arrival.on_reply
            self._enqueue(command)

    def _arrive(self, callers: list[tuple[Collection[Item], asyncio.Future[End]]], failure: End) -> None:
        self._under_way -= 1
        for _, ended in callers:
            if not ended.done():
                ended.set_result(failure)
        if self._waiting and not self._under_way:
            self._set_out()


class _Arrival:
    """Waits for the replies to all commands of a convoy; the first failure is that of all."""

    def __init__(self, left: int, then: Callable[[End], None]) -> None:
        self._left = left
        self._then = then
        self._failure: End = None

    def on_reply(self, reply: Any) -> None:
        if isinstance(reply, BackplaneUnavailable):
            self._failure = self._failure or reply
        self._left -= 1
        if not self._left:
            self._then(self._failure)
