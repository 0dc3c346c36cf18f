"""A worker as a process of a run: `gateway.app.run` with given settings, and what only tests may do to it.

Theory of operation
-------------------
Nothing of this is in the gateway: `hooks` and `switches` are functions that change it from outside before it starts.
A thread takes orders from the run, so that a worker whose loop stands still can be asked as well.
"""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from gateway import app, logs
from gateway.backplane import redis as _preloaded  # noqa: F401  # imported once, before the workers are forked
from gateway.listening import listen
from gateway.settings import Settings
from tests.chaos import hooks, switches
from tests.chaos.processes import Pipe

RUN_IS_GONE = 77


class Orders:
    """What the run wants of this worker."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._loop: asyncio.AbstractEventLoop | None = None

    def listen(self) -> None:
        """Take orders until the run is gone, and end with it."""
        while True:
            try:
                order = self._pipe.recv()
            except (EOFError, OSError):
                os._exit(RUN_IS_GONE)
            self._carry_out(**order)

    def _carry_out(self, ticket: int, do: str, **fields: Any) -> None:
        self._pipe.send((ticket, getattr(self, do)(**fields)))

    def burn(self, seconds: float) -> None:
        """Keep the event loop from turning for so long."""
        loop = hooks.loop_of_the_worker()
        assert loop is not None, "the worker is not up yet"
        loop.call_soon_threadsafe(_burn, seconds)

    def jump(self, seconds: float) -> None:
        """The clock on the wall is set forward or back."""
        hooks.CLOCK.offset_seconds += seconds

    def deaf(self, is_deaf: bool) -> None:
        """What comes in the mailbox is lost until it hears again."""
        hooks.EAR.is_deaf = is_deaf

    def stats(self) -> dict[str, float]:
        """What it holds: memory, tasks, file descriptors; nothing while it starts."""
        loop = hooks.loop_of_the_worker()
        if loop is None:
            return {}
        with open(f"/proc/{os.getpid()}/statm", encoding="ascii") as file:
            pages = int(file.read().split()[1])
        return {
            "rss_bytes": pages * os.sysconf("SC_PAGE_SIZE"),
            "tasks": len(asyncio.all_tasks(loop)),
            "descriptors": len(os.listdir(f"/proc/{os.getpid()}/fd")),
        }


def _burn(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(1000))


def main(pipe: Pipe, settings: Settings, without: Sequence[str] = (), speaks: str = "") -> None:
    """Serve until SIGTERM. `without` names protections that are switched off, `speaks` another version's envelopes."""
    logs.set_up(settings.log_level, settings.log_format)
    hooks.install()
    for name in without:
        switch_off: Callable[[], None] = switches.SWITCHES[name]
        switch_off()
    if speaks:
        hooks.VERSIONS[speaks]()
    listening = listen(settings.host, settings.port, is_shared=True)
    threading.Thread(target=Orders(pipe).listen, name="orders", daemon=True).start()
    os._exit(app.run(settings, [listening], banner=False))
