"""Connecting again and again: what is tried lasts until it fails, or is dropped from outside; then a pause."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

from gateway.backplane.redis.connector import TROUBLE

logger = logging.getLogger(__name__)


class Backoff:
    """How long to wait before the next try: doubling up to 1 s, half of it by chance, so that workers spread out."""

    def __init__(self) -> None:
        self._failures = 0

    def reset(self) -> None:
        self._failures = 0

    def next_seconds(self) -> float:
        self._failures += 1
        return min(0.05 * 2.0 ** min(self._failures, 10), 1.0) * random.uniform(0.5, 1.0)


class Attempts:
    """One thing that is tried for ever."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._backoff = Backoff()
        self._scope: asyncio.Timeout | None = None
        self._reason = ""
        self._hurry = asyncio.Event()

    async def run(
        self,
        attempt: Callable[[], Awaitable[None]],
        describe: Callable[[BaseException], str],
        on_lost: Callable[[str], None],
    ) -> None:
        """Try until cancelled. `on_lost` hears why an attempt has ended. Raises for nothing that an attempt does."""
        while True:
            self._hurry.clear()
            # In a task of its own: before Python 3.13 a failure inside a TaskGroup takes the place of a cancellation
            # that comes in the same moment (python/cpython#116720), and this would go on trying for ever.
            async with asyncio.TaskGroup() as group:
                group.create_task(self._try(attempt, describe, on_lost))
            await self._pause()

    async def _try(
        self,
        attempt: Callable[[], Awaitable[None]],
        describe: Callable[[BaseException], str],
        on_lost: Callable[[str], None],
    ) -> None:
        self._reason = ""
        try:
            async with asyncio.timeout(None) as self._scope:
                await attempt()
        except TROUBLE as error:
            on_lost(self._reason or describe(error))
        except ExceptionGroup as group:
            on_lost(self._reason or describe(group.exceptions[0]))
            if group.split(TROUBLE)[1] is not None:
                logger.exception("unexpected failure on %s", self._what, extra={"event": "redis_task_failed"})
        except Exception as error:
            logger.exception("unexpected failure on %s", self._what, extra={"event": "redis_task_failed"})
            on_lost(describe(error))
        finally:
            self._scope = None

    def succeeded(self) -> None:
        """The next pause is a short one again."""
        self._backoff.reset()

    def drop(self, reason: str) -> None:
        """End the attempt that is going on, and begin the next at once."""
        self._backoff.reset()
        self._hurry.set()
        if self._scope is not None and not self._reason:
            self._reason = reason
            self._scope.reschedule(asyncio.get_running_loop().time())

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._backoff.next_seconds()):
                await self._hurry.wait()
