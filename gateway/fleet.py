"""All workers of one supervisor, as one instance to probes and scrapers.

Theory of operation
-------------------
Whoever asks, all workers are asked at once, with little time. Their numbers are merged as the table of metrics says.
Counters of the whole never go backwards: what a process counted is kept when it ends, and of one that does not answer
the last known numbers are told. Its gauges are left out, and `workers{state="silent"}` says that it is there.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gateway import intercom, meters
from gateway.intercom import Line
from gateway.meters import METRICS, Reading
from gateway.probes import Said

if TYPE_CHECKING:
    from gateway.exposition import Exposition

ANSWER_SECONDS = 0.8
"""Less than the second that orchestrators usually give a probe."""
LAST_WORDS_SECONDS = 1.0
OWN_SLOT = "0"
_ENDED = "ended"


class Seat:
    """One worker's place at this supervisor: a process that comes and goes, and what its predecessors counted."""

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.line: Line | None = None
        self._last: Reading = {}
        self._gone: Reading = {}

    def take(self) -> Line:
        """A new process is about to be started: its line."""
        self.line = Line()
        return self.line

    async def listen(self) -> None:
        """Hear the process until it has ended."""
        if self.line is not None:
            await self.line.listen()

    async def leave(self, listening: asyncio.Task[None]) -> None:
        """The process has ended: hear its last words, and keep what it counted."""
        try:
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                await listening
        except TimeoutError:
            pass  # a child of its own holds the other end; what it has said is enough
        if self.line is not None and self.line.goodbye is not None:
            self._last = self.line.goodbye
        self._gone = meters.merge([self._gone, _counted(self._last)])
        self._last, self.line = {}, None

    @property
    def is_started(self) -> bool:
        """Whether there is a process that has said hello, and not goodbye yet."""
        return self.line is not None and bool(self.line.worker_id) and self.line.goodbye is None

    async def ask(self, question: str) -> Any:
        """What the worker answers; None if there is none, or it does not in time."""
        return await self.line.ask(question, ANSWER_SECONDS) if self.line is not None and self.is_started else None

    async def measured(self) -> tuple[Reading, Any]:
        """All that was ever counted here, with what is now, and what the process itself says; None if nothing."""
        line = self.line
        said = await self.ask(intercom.METRICS)
        if said is None or self.line is not line:  # it may have ended meanwhile, and be in `_gone`
            return meters.merge([self._gone, _counted(self._last)]), None
        self._last = meters.load(said["reading"])
        return meters.merge([self._gone, self._last]), said


class Fleet:
    """See `gateway.probes.Instance`. `on_drain` makes all workers, and then the supervisor, leave."""

    def __init__(self, workers: int, *, on_drain: Callable[[], None]) -> None:
        self.seats = [Seat(slot) for slot in range(1, workers + 1)]
        self.is_draining = False
        self._on_drain = on_drain
        self._exposition: Exposition | None = None

    async def livez(self) -> Said:
        """Every worker that has started answers. One that is being started again is not asked."""
        states = await self._ask_all(intercom.STATE)
        silent = [seat.slot for seat, said in zip(self.seats, states, strict=True) if seat.is_started and said is None]
        return Said(not silent, f"no answer from worker {_listed(silent)}" if silent else "alive")

    async def readyz(self) -> Said:
        """At least one worker takes connections."""
        states = await self._ask_all(intercom.STATE)
        ready = sum(said is not None and said["is_ready"] for said in states)
        lines = [
            f"worker {seat.slot}: {said['text'] if said else self._missing(seat)}"
            for seat, said in zip(self.seats, states, strict=True)
        ]
        head = f"{'ready' if ready else 'not ready'}: {ready} of {len(self.seats)} workers"
        return Said(ready > 0, "\n".join([head, *lines]))

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(seat.measured()) for seat in self.seats]
        answers = [task.result() for task in asked]
        reading = meters.merge([measured for measured, _ in answers])
        reading["workers"] = {**self._states([said for _, said in answers])}
        processes = {
            str(seat.slot): said["process"] for seat, (_, said) in zip(self.seats, answers, strict=True) if said
        }
        from gateway.exposition import Exposition  # only who is scraped needs prometheus-client

        exposition = self._exposition = self._exposition or Exposition()
        return exposition.text(reading, {OWN_SLOT: exposition.process(), **processes}, accept)

    async def drain(self, *, begins: bool) -> dict[str, Any]:
        """All workers leave together, then the supervisor ends: the same as SIGTERM to it."""
        if begins and not self.is_draining:
            self.is_draining = True
            self._on_drain()
        reports = await self._ask_all(intercom.DRAIN)
        workers = [
            {"slot": seat.slot, **(said or {"state": self._missing(seat)})}
            for seat, said in zip(self.seats, reports, strict=True)
        ]
        return {"state": "draining" if self.is_draining else "up", "workers": workers}

    def _states(self, answers: list[Any]) -> dict[tuple[str, ...], float]:
        states = dict.fromkeys(METRICS["workers"].labels["state"], 0.0)
        for seat, said in zip(self.seats, answers, strict=True):
            state = ("ready" if said["is_ready"] else "unready") if said else self._missing(seat)
            if state != _ENDED:
                states[state] += 1
        return {(name,): count for name, count in states.items()}

    def _missing(self, seat: Seat) -> str:
        """The word for a worker that says nothing."""
        return "silent" if seat.is_started else _ENDED if self.is_draining else "starting"

    async def _ask_all(self, question: str) -> list[Any]:
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(seat.ask(question)) for seat in self.seats]
        return [task.result() for task in asked]


def _counted(reading: Reading) -> Reading:
    return {name: series for name, series in reading.items() if METRICS[name].kind != "gauge"}


def _listed(slots: list[int]) -> str:
    return ", ".join(str(slot) for slot in slots)
