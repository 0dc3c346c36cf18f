"""An event loop in virtual time whose callbacks belong to processes, which can be frozen and killed.

Theory of operation
-------------------
Nothing here waits: when no callback is ready, the clock jumps to the next timer. Every callback carries the process
that it belongs to in its context (asyncio hands contexts on by itself). Callbacks of a frozen process are put aside
and run, in their order, when it is thawed: that is SIGSTOP and SIGCONT. Those of a killed one never run, not even
their `finally`: that is SIGKILL. Tasks have hashes in the order of their birth, so that a set of them is walked the
same way in every run.
"""

import asyncio
import heapq
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from itertools import count
from typing import Any, TypeVarTuple

Ts = TypeVarTuple("Ts")

EPOCH_SECONDS = 1_700_000_000.0
"""What the clocks on the wall showed when the virtual time began."""


class SimTask(asyncio.Task[Any]):
    """A task whose place in a set does not depend on its address."""

    number: int

    def __new__(cls, *_: Any, loop: "SimLoop", **__: Any) -> "SimTask":
        task = super().__new__(cls)
        task.number = next(loop.numbers)
        return task

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


class Process:
    """Something that runs by itself, and can be stopped by itself."""

    def __init__(self, loop: "SimLoop", name: str) -> None:
        self.loop = loop
        self.name = name
        self.is_frozen = False
        self.is_dead = False
        self.is_halted = False
        """One of the two."""
        self.frozen: list[tuple[float, float]] = []
        """When it was frozen, from and until."""
        self._held: list[asyncio.Handle] = []
        self._context = copy_context()
        self._context.run(_process.set, self)

    def __repr__(self) -> str:
        return f"<Process {self.name} [{'dead' if self.is_dead else 'frozen' if self.is_frozen else 'runs'}]>"

    @property
    def context(self) -> Context:
        """A context of this process, to give to the loop with a callback."""
        return self._context.copy()

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run the coroutine in this process."""
        return self.loop.create_task(work, name=name, context=self.context)

    def soon(self, act: Callable[..., object], *args: Any) -> None:
        self.loop.call_soon(act, *args, context=self.context)

    def at(self, when: float, act: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        return self.loop.call_at(when, act, *args, context=self.context)

    def freeze(self) -> None:
        if not self.is_frozen and not self.is_dead:
            self.is_frozen = self.is_halted = True
            self.frozen.append((self.loop.time(), float("inf")))

    def thaw(self) -> None:
        if self.is_frozen:
            self.is_frozen = self.is_halted = False
            self.frozen[-1] = (self.frozen[-1][0], self.loop.time())
            held, self._held = self._held, []
            self.loop.resume(held)

    def kill(self) -> None:
        self.thaw()
        self.is_dead = self.is_halted = True

    def hold(self, handle: asyncio.Handle) -> None:
        """Its turn comes when the process is thawed; never, where it is dead."""
        if not self.is_dead:
            self._held.append(handle)

    def frozen_seconds(self, start: float, end: float) -> float:
        """How long it stood still between two points in time."""
        return sum(max(0.0, min(end, until) - max(start, since)) for since, until in self.frozen)


_process: ContextVar[Process | None] = ContextVar("process", default=None)


def current_process() -> Process:
    """The process that runs now."""
    process = _process.get()
    if process is None:
        raise RuntimeError("no process runs")
    return process


class Stuck(Exception):
    """Nothing is ready and no timer is set, although somebody waits."""


class SimLoop(asyncio.BaseEventLoop):
    """See the module's text."""

    _ready: Any  # asyncio's own deque of handles

    def __init__(self) -> None:
        super().__init__()
        self.net: Any = None
        """Where connections are made: a `tests.simulation.net.Net`."""
        self.problems: list[str] = []
        self.steps = 0
        self.tasks: list[asyncio.Task[Any]] = []
        """All that were born and may not be done; also those of dead processes, which must never be collected."""
        self._now = 1000.0
        self.numbers = count(1)
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._tasks_max = 1000
        self.set_task_factory(self._make_task)
        self.set_exception_handler(self._on_problem)

    def time(self) -> float:
        return self._now

    @property
    def wall_seconds(self) -> float:
        """The time as clocks on the wall show it."""
        return EPOCH_SECONDS + self._now

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self.numbers), timer))
        return timer

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def resume(self, handles: list[asyncio.Handle]) -> None:
        """Run the callbacks, before any that came later."""
        self._ready.extendleft(reversed(handles))

    def run_for(self, work: Coroutine[Any, Any, Any], process: Process) -> Any:
        """Run the coroutine in the process to its end."""
        return self.run_until_complete(process.start(work, "main"))

    def wind_up(self, processes: list[Process], steps: int = 200_000) -> None:
        """Let every task come to its end, the dead ones' too, so that nothing complains when it is collected."""
        for process in processes:
            process.thaw()
            process.is_dead = process.is_halted = False
        for _ in range(20):
            left = [task for task in self.tasks if not task.done()]
            if not left:
                return
            for task in left:
                task.cancel()
            self._run_some(steps, left)

    def _run_some(self, steps: int, tasks: list[asyncio.Task[Any]]) -> None:
        asyncio._set_running_loop(self)
        try:
            limit = self.steps + steps
            while self.steps < limit and not all(task.done() for task in tasks):
                self._run_once()
        except Stuck:
            return
        finally:
            asyncio._set_running_loop(None)

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:
        return await self.net.connect(protocol_factory, host, port)

    # What asyncio.BaseEventLoop wants

    def _run_once(self) -> None:
        ready = self._ready
        self._wake_timers()
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            process = handle._context.get(_process)
            if process is not None and process.is_halted:
                process.hold(handle)
                continue
            self.steps += 1
            handle._run()

    def _wake_timers(self) -> None:
        """What is due becomes ready; where nothing is, it is later now."""
        ready, timers = self._ready, self._timers
        while timers and (timers[0][0] <= self._now or not ready):
            when, _, timer = heapq.heappop(timers)
            if not timer._cancelled:
                self._now = max(self._now, when)
                ready.append(timer)
        if not ready:
            raise Stuck

    def _make_task(self, _: Any, work: Any, context: Context | None = None) -> asyncio.Task[Any]:
        task = SimTask(work, loop=self, context=context)
        self.tasks.append(task)
        if len(self.tasks) > self._tasks_max:
            self.tasks = [task for task in self.tasks if not task.done()]
            self._tasks_max = 2 * len(self.tasks) + 1000
        return task

    def _on_problem(self, _: Any, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.problems.append(f"{context.get('message')}: {type(error).__name__}: {error}")

    def _timer_handle_cancelled(self, _: asyncio.TimerHandle) -> None:
        return None

    def _process_events(self, _: Any) -> None:
        return None

    def _write_to_self(self) -> None:
        return None
