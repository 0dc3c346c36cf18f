"""This worker's proof of life: the beat, and what comes with each.

Theory of operation
-------------------
Every two seconds the worker renews its lease and learns what it can't be told reliably by messages: which agents
have changed, which workers are gone. A renewal counts from the moment *before* it was sent. A worker that could not
renew for a whole lease fences itself: others may already have given its tool servers away, so it runs no call for
them until it has renewed again.

`fresh` in the answer means that the lease had not been there: the store may have forgotten this worker, or another
has begun to bury it. Then everything it has is put back.

The reaper: the list of workers only proposes, the lease decides. One worker comes first for each dead one, the others
follow if that is not done a lease later; several at once do no harm, since each step only changes what still names
the dead worker.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Collection, Mapping, Set
from contextlib import suppress
from zlib import crc32

from gateway.agents import Agents
from gateway.backplane.base import Backplane, BackplaneUnavailable, Beat, WorkerRow, nothing
from gateway.desk import Desk
from gateway.executor import Executor
from gateway.hub import Hub
from gateway.pace import sliced
from gateway.reception import Reception
from gateway.registrar import Registrar
from gateway.rounds import Rounds
from gateway.settings import Settings
from gateway.tasks import Tasks, each
from gateway.toollink import ToolLink

logger = logging.getLogger(__name__)

CHANGED_OVERLAP_MS = 10_000
RECONCILE_SECONDS = 60.0
RECONNECT_SECONDS = 3.0
"""Within so long every worker has found a store that is back: its longest pause between two tries, and a little."""
BURIALS_AT_ONCE = 4
BURIALS_IN_SIGHT = 32
"""So many agents are looked at together, right before those with something to bury have it buried."""
BURIAL_SECONDS = 0.0025
"""For each of them: half a minute for ten thousand."""


class Lease:
    """The worker's membership of the cluster."""

    def __init__(
        self,
        settings: Settings,
        backplane: Backplane,
        tasks: Tasks,
        hub: Hub,
        rooms: tuple[Agents, Registrar, Desk, Executor, Reception],
        describe: Callable[[], WorkerRow],
    ) -> None:
        self.on_beat = nothing
        """Called at each beat that was taken."""
        self.workers = 1
        """How many hold a lease, as of the last beat."""
        self.beats = 0
        """How many were taken."""
        self._settings = settings
        self._backplane = backplane
        self._tasks = tasks
        self._hub = hub
        self._agents, self._registrar, self._desk, self._executor, self._reception = rooms
        self._tool_servers = Rounds(hub.tool_servers, self._beats_in(RECONCILE_SECONDS))
        self._robots = Rounds(hub.robots, self._beats_in(settings.renew_seconds))
        self._known = Rounds(self._agents.by_id, self._beats_in(settings.renew_seconds))
        self._describe = describe
        self._renewed_at = -math.inf
        self._judge_from = -math.inf
        self._changed_since_ms = 0
        self._changes: Mapping[str, int] = {}
        """As the last beat has read them."""
        self._has_failed = False
        self._was_away = False
        self._is_stopped = False
        self._sooner = asyncio.Event()
        self._reaping: set[str] = set()
        self._is_recovering = False
        self._recover_again = False
        self._look_again = False
        """At the next beat once more: whoever was burying this worker may have taken one more step meanwhile."""

    @property
    def age_seconds(self) -> float:
        """How long ago the lease was last renewed."""
        return self._tasks.now() - self._renewed_at

    @property
    def is_fenced(self) -> bool:
        """Whether others may take this worker for dead by now."""
        return self._backplane.is_shared and self.age_seconds > self._settings.lease_seconds

    async def keep(self, on_open: Callable[[], None]) -> None:
        """Beat until stopped; `on_open` is told after the first. Raises BackplaneUnavailable if that fails."""
        await self._beat()
        on_open()
        while True:
            await self._pause()
            if self._is_stopped:
                continue  # a beat after the farewell would announce this worker again
            try:
                await self._beat()
            except BackplaneUnavailable as error:
                self._has_failed = True
                fields = {"event": "beat_failed", "cause": str(error), "lease_age": round(self.age_seconds, 1)}
                logger.warning("beat failed", extra=fields)

    def beat_soon(self) -> None:
        """Beat at once: what this worker says of itself has changed."""
        self._sooner.set()

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.beat_seconds):
                await self._sooner.wait()
        self._sooner.clear()

    def stop(self) -> None:
        """No beat from now on: the lease is about to be given up."""
        self._is_stopped = True

    async def _beat(self) -> None:
        started = self._tasks.now()
        beat = await self._backplane.beat(self._describe(), self._settings.lease_seconds)
        is_first = math.isinf(self._renewed_at)
        was_away = self._has_failed or self._tasks.now() - started > self._settings.beat_seconds
        self._renewed_at, self._has_failed = started, False
        self.beats += 1
        is_back, self._was_away = was_away and not self._was_away, was_away  # slow for good is no outage
        if not is_first and (is_back or beat.fresh):
            # The store was away, or has forgotten everybody: the others need time to say that they live.
            self._judge_from = started + max(self._settings.lease_seconds, RECONNECT_SECONDS)
        if beat.fresh and not is_first:
            logger.warning("the lease had gone; putting everything back", extra={"event": "lease_lost"})
            self._look_again = True
            self.recover()
        elif self._look_again or (self._recover_again and not self._is_recovering):
            self._look_again = False
            self.recover()
        self.workers = sum(until > beat.now_ms for until in beat.workers.values())
        self.on_beat()
        try:
            await self._read_changes()
        except BackplaneUnavailable as error:  # in a Cluster that list may be away alone; the next beat reads on
            logger.warning("changes not read", extra={"event": "changes_unread", "cause": str(error)})
        self._agents.revive({worker for worker, until in beat.workers.items() if until > beat.now_ms})
        if started >= self._judge_from:
            await self._look_after_others(beat)
        await self._upkeep(started)

    async def _read_changes(self) -> None:
        since_ms, now_ms = self._changed_since_ms, self._backplane.now_ms
        before, self._changes = self._changes, await self._backplane.changed(since_ms)
        for agent, revision in self._changes.items():
            if before.get(agent) != revision:  # of a crowd that redials each beat reads most a second time
                self._agents.note_revision(agent, revision)
                self._registrar.note_change(agent, revision)
        self._changed_since_ms = now_ms - CHANGED_OVERLAP_MS

    async def _look_after_others(self, beat: Beat) -> None:
        """End what waits for lost workers, and clean up after them."""
        expired = {worker for worker, until in beat.workers.items() if until <= beat.now_ms}
        self._agents.forget_dead(beat.workers.keys())
        known = self._desk.owners | self._executor.origins | self._agents.dead_workers
        suspects = expired | (known - beat.workers.keys())
        suspects -= {self._backplane.worker_id}
        if not suspects:
            return
        dead = suspects - await self._backplane.alive(suspects)
        self._agents.dead_workers |= dead
        for worker in dead:
            self.worker_lost(worker)
            late_ms = beat.now_ms - beat.workers.get(worker, 0)
            if self._is_reaper(worker, beat.workers.keys() - dead) or late_ms > 2 * 1000 * self._settings.lease_seconds:
                self._begin_reaping(worker)

    def _is_reaper(self, dead: str, living: Set[str]) -> bool:
        """Whether this worker comes first for that dead one: all agree on it, and the next takes over if it fails."""
        own = self._backplane.worker_id
        return min({own, *living}, key=lambda worker: crc32(f"{dead} {worker}".encode())) == own

    def worker_lost(self, worker: str) -> None:
        """The worker has no lease any more: what waits for it, and what it waits for, ends."""
        self._executor.caller_lost(worker)
        self._tasks.spawn(self._end_calls_to(worker), f"owner lost {worker}")

    def _begin_reaping(self, worker: str) -> None:
        if worker not in self._reaping:
            self._reaping.add(worker)
            self._tasks.spawn(self._reap(worker), f"reap {worker}")

    async def _end_calls_to(self, worker: str) -> None:
        try:
            await self._desk.owner_lost(worker)
        except BackplaneUnavailable as error:  # the next beat finds the worker dead again
            fields = {"event": "records_unread", "lost": worker, "cause": str(error)}
            logger.warning("a lost worker's records not read yet", extra=fields)

    async def _reap(self, worker: str) -> None:
        try:
            owned = await self._backplane.owned(worker)
            agents = {agent for kind, agent, _ in owned if kind == "server"}
            # Where all workers were dead for long, rows have outlived the list of what their worker owned.
            agents |= self._agents.naming(worker)
            # In no hurry: the dead worker's rows count as offline already, and its tool servers are redialling now.
            for some in sliced(agents, BURIALS_IN_SIGHT):
                await self._bury(some, worker)
                await self._tasks.pause(len(some) * BURIAL_SECONDS)
            if await self._backplane.alive({worker}):
                return
            await self._backplane.put_robots({(agent, conn): None for kind, agent, conn in owned if kind == "robot"})
            await self._backplane.bury(worker, owned)
            if not owned:
                return  # it left in order
            self._backplane.meters.workers_reaped_total.add()
            await self._backplane.event("reap", {"lost": worker, "owned": len(owned)})
            fields = {"event": "worker_reaped", "lost": worker, "owned": len(owned)}
            logger.warning("lost worker cleaned up", extra=fields)
        except BackplaneUnavailable as error:
            fields = {"event": "reap_interrupted", "lost": worker, "cause": str(error)}
            logger.warning("lost worker not cleaned up yet", extra=fields)
        finally:
            self._reaping.discard(worker)

    async def _bury(self, agents: Collection[str], worker: str) -> None:
        """Take the worker's rows offline in these agents. Most of its tool servers have redialled: theirs are gone."""
        await each(
            await self._backplane.naming(worker, agents), lambda agent: self._bury_in(agent, worker), BURIALS_AT_ONCE
        )

    async def _bury_in(self, agent: str, worker: str) -> None:
        if await self._backplane.alive({worker}):
            return  # it was only frozen, and puts back what it has; what is taken from it now would stay away
        await self._registrar.bury(agent, worker)

    # Putting back what this worker has

    def recover(self) -> None:
        """After a gap or a fresh lease: put everything back, read what was missed."""
        self._recover_again = True
        if not self._is_recovering:
            self._is_recovering = True
            self._tasks.spawn(self._recover(), "recover")

    async def _recover(self) -> None:
        try:
            while self._recover_again:
                self._recover_again = False
                await self._put_back(list(self._hub.tool_servers.values()))
                await self._registrar.put_back_pins()
                for robot in self._hub.robots.values():
                    self._reception.note_row(robot)
                self._agents.refresh_all()
                await self._executor.recover()
                await self._desk.recover()
        except BackplaneUnavailable as error:
            fields = {"event": "recovery_interrupted", "cause": str(error)}
            logger.warning("recovery interrupted; the next beat goes on with it", extra=fields)
            self._recover_again = True
        finally:
            self._is_recovering = False

    async def _put_back(self, links: Collection[ToolLink]) -> None:
        """RESTORE the connections' rows, and the tool sets that they point to."""
        registered = [link for link in links if link.row is not None]
        toolsets = {link.row.toolset: link.toolset for link in registered if link.row is not None}
        if toolsets:
            await self._backplane.put_toolsets(toolsets)
        await each(registered, self._registrar.put_back)

    async def _upkeep(self, now: float) -> None:
        """What is due now and then, in slices, so that no beat carries everything."""
        self._executor.note_local(self._desk.jobs_here, now)
        self._agents.refresh_stale()
        self._reception.write_rows()
        await self._agents.sweep(now)
        await self._put_back([self._hub.tool_servers[conn] for conn in self._tool_servers.share()])
        await self._backplane.renew(self._known.share())
        for conn in self._robots.share():
            robot = self._hub.robots.get(conn)
            if robot is not None:
                self._reception.note_row(robot)

    def _beats_in(self, seconds: float) -> int:
        return round(seconds / self._settings.beat_seconds)
