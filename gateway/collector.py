"""Keeps Python's garbage collector from walking every connection while calls wait.

Theory of operation
-------------------
A full collection looks at every object that is alive: with ten thousand connections it stops the loop for most of a
second. So what has survived a middle collection is frozen, that is, never looked at again; what dies by reference
count, nearly everything, goes as ever. A closed connection leaves cycles behind, some 20 KiB, which nobody would find
any more: once more connections have closed than are open, everything is looked through once.
"""

import asyncio
import gc
from collections.abc import Callable

CLOSED_MIN = 1000
"""So many connections must have closed before it is worth a look: 20 MiB."""


class Collector:
    """The garbage collector of one process, which holds connections: how many are open, how many have closed."""

    def __init__(self, *, count_open: Callable[[], int], count_closed: Callable[[], int]) -> None:
        self._open = count_open
        self._closed = count_closed
        self._closed_before = 0
        self._is_due = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def install(self) -> None:
        """From now on. Belongs into the running loop of a process of its own: the collector is everybody's."""
        self._loop = asyncio.get_running_loop()
        gc.collect()
        gc.freeze()
        gc.callbacks.append(self._on_collection)

    def remove(self) -> None:
        """Leave the collector as it was."""
        if self._on_collection in gc.callbacks:
            gc.callbacks.remove(self._on_collection)
        gc.unfreeze()

    def _on_collection(self, phase: str, info: dict[str, int]) -> None:
        if phase != "stop" or info["generation"] < 1:
            return
        gc.freeze()
        if not self._is_due and self._closed() - self._closed_before > max(CLOSED_MIN, self._open()):
            self._is_due = True
            if self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._look_through)

    def _look_through(self) -> None:
        self._closed_before, self._is_due = self._closed(), False
        gc.unfreeze()
        gc.collect()
        gc.freeze()
