"""The backplane of one process: plain dictionaries, the same promises as Redis, nothing to install.

Theory of operation
-------------------
A `MemoryStore` stands for the server, a `MemoryBackplane` for one worker's connection to it. Normally there is one
of each; tests attach several workers to one store and have a cluster in one process. Nothing runs in the background:
what has expired is treated as gone when somebody looks, and swept out at beats.

Envelopes are encoded and decoded as if they travelled, and whatever is called back is called from the event loop,
never from inside the caller: a worker can't come to rely on what the Redis backplane could not give it.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.backplane.base import (
    Beat,
    Change,
    Dispatch,
    Listener,
    Overview,
    Record,
    RobotRow,
    Snapshot,
    Tell,
    Verdict,
    WorkerRow,
    nothing,
)
from gateway.backplane.envelope import Envelope, decode, encode
from gateway.backplane.keys import Lifetimes
from gateway.directory import Claim, Row, Seen
from gateway.meters import Meters

_EVENTS = 10_000
_SWEEP_MS = 60_000
_FORGET_WORKER_MS = 3_600_000
Member = tuple[str, str, str]


@dataclass(slots=True)
class _Agent:
    """What is kept of one agent; a part whose time is over counts as empty."""

    revision: int = 0
    changed_ms: int = 0
    rows: dict[str, Row] = field(default_factory=dict)
    claims: dict[str, Claim] = field(default_factory=dict)
    seen: dict[str, Seen] = field(default_factory=dict)
    robots: dict[str, RobotRow] = field(default_factory=dict)
    expires_ms: int = 0
    robots_expire_ms: int = 0
    seen_expire_ms: int = 0

    @property
    def is_peopled(self) -> bool:
        return bool(self.rows or self.robots)

    def expire(self, now_ms: int) -> bool:
        """Empty what is over; True when nothing is left."""
        if self.expires_ms <= now_ms:
            self.revision = 0
            self.rows.clear()
            self.claims.clear()
        if self.robots_expire_ms <= now_ms:
            self.robots.clear()
        if self.seen_expire_ms <= now_ms:
            self.seen.clear()
        return not (self.revision or self.robots or self.seen)


@dataclass(slots=True)
class _Call:
    record: Record
    expires_ms: int


@dataclass(slots=True)
class _Worker:
    """What is kept of one worker."""

    row: WorkerRow | None = None
    lease_ms: int = 0
    listed_ms: int | None = None
    """The lease's deadline in the list of announced workers; None: not on the list."""
    owned: set[Member] = field(default_factory=set)
    calls: dict[str, _Call] = field(default_factory=dict)

    def is_over(self, now_ms: int) -> bool:
        """True when nobody needs to know of it any more."""
        return not self.owned and not self.calls and (self.listed_ms or self.lease_ms) < now_ms - _FORGET_WORKER_MS


class MemoryStore:
    """What the workers of one process share. `clock` returns seconds; tests pass one that they can turn."""

    def __init__(self, clock: Callable[[], float] = time.time, lifetimes: Lifetimes | None = None) -> None:
        self.clock = clock
        self.lifetimes = lifetimes or Lifetimes()
        self.agents: dict[str, _Agent] = {}
        self.workers: dict[str, _Worker] = {}
        self.toolsets: dict[str, tuple[bytes, int]] = {}
        self.events: deque[dict[str, Any]] = deque(maxlen=_EVENTS)
        self.mailboxes: dict[str, Callable[[bytes], None]] = {}
        self.watchers: dict[str, dict[str, Callable[[str, int], None]]] = {}
        self._swept_ms = 0

    @property
    def now_ms(self) -> int:
        return int(self.clock() * 1000)

    def agent(self, agent: str) -> _Agent:
        found = self.agents.setdefault(agent, _Agent())
        found.expire(self.now_ms)
        return found

    def worker(self, worker: str) -> _Worker:
        return self.workers.setdefault(worker, _Worker())

    def has_lease(self, worker: str) -> bool:
        return worker in self.workers and self.workers[worker].lease_ms > self.now_ms

    def call(self, worker: str, call_id: str) -> _Call | None:
        call = self.workers[worker].calls.get(call_id) if worker in self.workers else None
        return call if call is not None and call.expires_ms > self.now_ms else None

    def publish(self, worker: str, message: bytes) -> int:
        """Deliver to the worker's mailbox; how many were listening."""
        deliver = self.mailboxes.get(worker)
        if deliver is None:
            return 0
        deliver(message)
        return 1

    def sweep(self) -> None:
        """Give back the memory of what has expired; at most once a minute."""
        now_ms = self.now_ms
        if now_ms - self._swept_ms < _SWEEP_MS:
            return
        self._swept_ms = now_ms
        self.agents = {name: agent for name, agent in self.agents.items() if not agent.expire(now_ms)}
        self.toolsets = {digest: kept for digest, kept in self.toolsets.items() if kept[1] > now_ms}
        for worker in self.workers.values():
            worker.calls = {id: call for id, call in worker.calls.items() if call.expires_ms > now_ms}
        self.workers = {name: worker for name, worker in self.workers.items() if not worker.is_over(now_ms)}

    def clear(self) -> None:
        """Forget everything but the subscriptions, as a server that lost its data."""
        for part in (self.agents, self.workers, self.toolsets, self.events):
            part.clear()


class MemoryBackplane:
    """One worker's access to a `MemoryStore`. Never unavailable."""

    def __init__(self, store: MemoryStore, worker_id: str, *, is_shared: bool = False, seen_limit: int = 128) -> None:
        self.worker_id, self.is_shared = worker_id, is_shared
        self.meters = Meters()
        self._store = store
        self._seen_limit = seen_limit
        self._listener: Listener | None = None

    @property
    def now_ms(self) -> int:
        return self._store.now_ms

    is_connected, trouble, pending_commands = True, "", 0

    @asynccontextmanager
    async def session(self, listener: Listener) -> AsyncGenerator[None, None]:
        self._listener = listener
        self._store.mailboxes[self.worker_id] = self._deliver
        try:
            yield
        finally:
            self._deafen()
            self._listener = None

    def _deafen(self) -> None:
        self._store.mailboxes.pop(self.worker_id, None)
        for watchers in self._store.watchers.values():
            watchers.pop(self.worker_id, None)

    def _deliver(self, message: bytes) -> None:
        asyncio.get_running_loop().call_soon(self._hear, message)

    def _hear(self, message: bytes) -> None:
        for envelope in decode(message):
            if self._listener is not None:
                self._listener.on_envelope(envelope)

    def _hear_catalog(self, agent: str, revision: int) -> None:
        if self._listener is not None:
            self._listener.on_catalog(agent, revision)

    # -- Directory

    async def snapshot(self, agent: str) -> Snapshot:
        state = self._store.agent(agent)
        return Snapshot(state.revision, self.now_ms, dict(state.rows), dict(state.claims), dict(state.seen))

    async def commit(self, agent: str, expected: int, change: Change) -> int | None:
        state = self._store.agent(agent)
        if state.revision != expected:
            return None
        await self.put_toolsets(change.toolsets)
        now_ms, lifetimes = self.now_ms, self._store.lifetimes
        state.revision = state.changed_ms = max(expected + 1, now_ms)
        state.expires_ms = now_ms + lifetimes.agent_ms
        self._own(agent, change.rows)
        _apply(state.rows, change.rows)
        _apply(state.claims, change.claims)
        if change.seen:
            _apply(state.seen, change.seen)
            _keep_newest(state.seen, self._seen_limit)
            state.seen_expire_ms = now_ms + lifetimes.seen_ms
        loop = asyncio.get_running_loop()
        for hear in self._store.watchers.get(agent, {}).values():
            loop.call_soon(hear, agent, state.revision)
        return state.revision

    def _own(self, agent: str, rows: Mapping[str, Row | None]) -> None:
        owned = self._store.worker(self.worker_id).owned
        for server_id, row in rows.items():
            if row is not None and row.worker == self.worker_id and row.state != "offline":
                owned.add(("server", agent, server_id))
            else:
                owned.discard(("server", agent, server_id))

    async def toolsets(self, digests: Collection[str]) -> dict[str, bytes]:
        kept = self._store.toolsets
        return {digest: kept[digest][0] for digest in digests if digest in kept and kept[digest][1] > self.now_ms}

    async def put_toolsets(self, toolsets: Mapping[str, bytes]) -> None:
        expires_ms = self.now_ms + self._store.lifetimes.toolset_ms
        for digest, tools in toolsets.items():
            self._store.toolsets[digest] = (tools, expires_ms)

    async def watch(self, agent: str) -> None:
        self._store.watchers.setdefault(agent, {})[self.worker_id] = self._hear_catalog

    async def unwatch(self, agent: str) -> None:
        watchers = self._store.watchers.get(agent, {})
        watchers.pop(self.worker_id, None)
        if not watchers:
            self._store.watchers.pop(agent, None)

    async def changed(self, since_ms: int) -> dict[str, int]:
        since_ms = max(since_ms, 1)
        return {name: state.changed_ms for name, state in self._store.agents.items() if state.changed_ms >= since_ms}

    async def put_robots(self, robots: Mapping[tuple[str, str], RobotRow | None]) -> None:
        owned = self._store.worker(self.worker_id).owned
        for (agent, conn), row in robots.items():
            state = self._store.agent(agent)
            if row is None:
                state.robots.pop(conn, None)
                owned.discard(("robot", agent, conn))
                continue
            owned.add(("robot", agent, conn))
            state.robots[conn] = row
            state.changed_ms = state.changed_ms or self.now_ms
            state.robots_expire_ms = self.now_ms + self._store.lifetimes.robots_ms

    async def renew(self, agents: Collection[str]) -> None:
        now_ms, lifetimes = self.now_ms, self._store.lifetimes
        for agent in agents:
            state = self._store.agent(agent)
            state.expires_ms = now_ms + lifetimes.agent_ms
            state.robots_expire_ms = now_ms + lifetimes.robots_ms

    async def overview(self, *, limit: int, agent: str | None = None) -> Overview:
        store = self._store
        known = [name for name in store.agents if agent in (None, name) and store.agent(name).is_peopled]
        known.sort(key=lambda name: -store.agents[name].changed_ms)
        shown = known[:limit]
        return Overview(
            workers={name: kept.row for name, kept in store.workers.items() if kept.row and store.has_lease(name)},
            agents={name: dict(store.agents[name].rows) for name in shown},
            robots={name: len(store.agents[name].robots) for name in shown},
            truncated=len(known) > limit,
        )

    # -- Ledger

    def dispatch(self, dispatch: Dispatch, on_verdict: Callable[[Verdict], None]) -> None:
        asyncio.get_running_loop().call_soon(on_verdict, self._dispatch(dispatch))

    def _dispatch(self, dispatch: Dispatch) -> Verdict:
        store, envelope, worker = self._store, dispatch.envelope, dispatch.worker
        if not store.has_lease(worker):
            return Verdict.GONE
        if store.call(worker, envelope.id) is not None:
            return Verdict.DUP
        if envelope.due and envelope.due <= self.now_ms:
            return Verdict.LATE
        envelope.sender = envelope.sender or self.worker_id
        message = encode(envelope)
        about = (envelope.sender, envelope.agent, envelope.server, envelope.tool)
        record = Record(envelope.id, "sent", *about, sent_ms=self.now_ms, message=message)
        store.worker(worker).calls[envelope.id] = _Call(record, self.now_ms + int(dispatch.keep_seconds * 1000))
        if not store.publish(worker, message):
            del store.worker(worker).calls[envelope.id]
            return Verdict.NOSUB
        return Verdict.OK

    def answer(self, to: str, envelope: Envelope, keep_seconds: float = 30.0, on_unheard: Tell = nothing) -> None:
        envelope.sender = envelope.sender or self.worker_id
        call = self._store.call(self.worker_id, envelope.id)
        if call is not None:
            call.record = replace(call.record, state="answered", message=b"", result=encode(envelope))
            call.expires_ms = self.now_ms + int(keep_seconds * 1000)
        self.send(to, envelope, lambda receivers: None if receivers else on_unheard())

    def withdraw(self, worker: str, envelope: Envelope) -> None:
        self._store.worker(worker).calls.pop(envelope.id, None)
        self.send(worker, envelope)

    def drop(self, call_id: str, nack_to: str, envelope: Envelope, on_unheard: Tell = nothing) -> None:
        self.forget_local([call_id])
        self.send(nack_to, envelope, lambda receivers: None if receivers else on_unheard())

    def note_local(self, records: Sequence[Record], deadlines_ms: Sequence[int]) -> None:
        calls = self._store.worker(self.worker_id).calls
        for record, deadline_ms in zip(records, deadlines_ms, strict=True):
            expires_ms = max(deadline_ms, self.now_ms) + self._store.lifetimes.call_spare_ms
            calls[record.id] = _Call(replace(record, state="local"), expires_ms)

    def forget_local(self, call_ids: Sequence[str]) -> None:
        for call_id in call_ids:
            self._store.worker(self.worker_id).calls.pop(call_id, None)

    async def pending(self) -> list[Record]:
        calls = self._store.worker(self.worker_id).calls.values()
        return [call.record for call in calls if call.record.state == "sent" and call.expires_ms > self.now_ms]

    async def read(self, calls: Sequence[tuple[str, str]]) -> list[Record | None]:
        found = [self._store.call(worker, call_id) for worker, call_id in calls]
        return [call.record if call is not None else None for call in found]

    # -- Mailbox

    def send(self, worker: str, envelope: Envelope, on_receivers: Callable[[int], None] | None = None) -> None:
        envelope.sender = envelope.sender or self.worker_id
        receivers = self._store.publish(worker, encode(envelope))
        if on_receivers is not None:
            asyncio.get_running_loop().call_soon(on_receivers, receivers)

    # -- Membership

    async def beat(self, row: WorkerRow, lease_seconds: float) -> Beat:
        self._store.sweep()
        me = self._store.worker(self.worker_id)
        fresh = not self._store.has_lease(self.worker_id)
        me.row = row
        me.lease_ms = me.listed_ms = self.now_ms + int(lease_seconds * 1000)
        listed = {name: worker.listed_ms for name, worker in self._store.workers.items()}
        return Beat(fresh, self.now_ms, {name: ms for name, ms in listed.items() if ms is not None})

    async def alive(self, workers: Collection[str]) -> set[str]:
        return {worker for worker in workers if self._store.has_lease(worker)}

    async def owned(self, worker: str) -> list[Member]:
        return sorted(self._store.workers[worker].owned) if worker in self._store.workers else []

    async def bury(self, worker: str, done: Collection[Member]) -> None:
        buried = self._store.worker(worker)
        buried.owned.difference_update(done)
        if not buried.owned and not self._store.has_lease(worker):
            buried.listed_ms = None

    async def leave(self) -> None:
        me = self._store.worker(self.worker_id)
        me.lease_ms = 0
        me.listed_ms = self.now_ms if me.owned else None
        self._deafen()
        for worker in list(self._store.mailboxes):
            self.send(worker, Envelope("bye"))

    async def event(self, kind: str, fields: Mapping[str, Any]) -> None:
        self._store.events.append({"kind": kind, "worker": self.worker_id, "ms": self.now_ms, **fields})


def _apply(kept: dict[str, Any], change: Mapping[str, Any]) -> None:
    for name, value in change.items():
        if value is None:
            kept.pop(name, None)
        else:
            kept[name] = value


def _keep_newest(seen: dict[str, Seen], limit: int) -> None:
    newest_first = sorted(seen, key=lambda name: -max(seen[name].connected, seen[name].disconnected))
    for name in newest_first[limit:]:
        del seen[name]
