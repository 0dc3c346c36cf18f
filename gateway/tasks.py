"""Work that a synchronous caller starts and nobody waits for, inside one task group."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar

logger = logging.getLogger(__name__)


class Tasks:
    """A task group that a failing task does not bring down: what escapes is logged, the rest goes on.

    This is the outermost handler of everything that is spawned here.
    """

    def __init__(self) -> None:
        self._group: asyncio.TaskGroup | None = None
        self._time: Callable[[], float] = _loop_time
        self._running: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._running)

    async def __aenter__(self) -> Self:
        self._group = await asyncio.TaskGroup().__aenter__()
        self._time = asyncio.get_running_loop().time  # every call asks for it, more than once
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cancel what still runs, and wait for it."""
        group, self._group = self._group, None
        for task in self._running:
            task.cancel()
        if group is not None:
            await group.__aexit__(kind, error, trace)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Start the work; it is dropped, unstarted, when the group is not open."""
        if self._group is None:
            work.close()
            return
        task = self._group.create_task(self._guard(work, name), name=name)
        self._running.add(task)
        task.add_done_callback(lambda task: self._forget(task, work))

    def _forget(self, task: asyncio.Task[None], work: Coroutine[Any, Any, None]) -> None:
        self._running.discard(task)
        work.close()  # cancelled before it began, it would complain of never having been awaited

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Call `act` after so many seconds, if the group is still open then."""
        asyncio.get_running_loop().call_later(seconds, self._act, act)

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def now(self) -> float:
        """The event loop's time, in seconds."""
        return self._time()

    def _act(self, act: Callable[[], None]) -> None:
        if self._group is not None:
            act()

    async def _guard(self, work: Coroutine[Any, Any, None], name: str) -> None:
        try:
            await work
        except Exception:
            logger.exception("a background task failed: %s", name, extra={"event": "task_failed"})


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


T = TypeVar("T")


async def each(items: Iterable[T], act: Callable[[T], Awaitable[None]], at_once: int = 32) -> None:
    """Do it for every item, so many at a time. After a failure nothing new is begun; the first one is raised, bare."""
    listed = list(items)
    waiting = iter(listed)
    failures: list[Exception] = []

    async def work() -> None:
        for item in waiting:
            if failures:
                return
            try:
                await act(item)
            except Exception as error:  # noqa: BLE001 - raised below
                # Out of the group it would, before Python 3.13, take the place of a cancellation that comes in the same
                # moment (python/cpython#116720), and who was told to end would go on.
                failures.append(error)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(at_once, len(listed))):
            group.create_task(work())
    if failures:
        raise failures[0]
