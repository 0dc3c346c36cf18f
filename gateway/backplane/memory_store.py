"""What the workers of one process share: the store behind the memory backplane.

Nothing runs in the background: what has expired is treated as gone when somebody looks, and swept out at beats.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.backplane.base import Listener, Record, RobotRow, WorkerRow
from gateway.backplane.durable_files import DurableFile
from gateway.backplane.keys import Lifetimes
from gateway.backplane.memory_shelf import Shelf
from gateway.directory import Claim, Pins, Row, Seen
from gateway.meters import Meters

_EVENTS = 10_000
_SWEEP_MS = 60_000
_FORGET_WORKER_MS = 3_600_000
Member = tuple[str, str, str]


@dataclass(slots=True)
class KeptAgent:
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
class KeptCall:
    record: Record
    expires_ms: int


@dataclass(slots=True)
class KeptWorker:
    """What is kept of one worker."""

    row: WorkerRow | None = None
    lease_ms: int = 0
    listed_ms: int | None = None
    """The lease's deadline in the list of announced workers; None: not on the list."""
    owned: set[Member] = field(default_factory=set)
    calls: dict[str, KeptCall] = field(default_factory=dict)

    def is_over(self, now_ms: int) -> bool:
        """True when nobody needs to know of it any more."""
        return not self.owned and not self.calls and (self.listed_ms or self.lease_ms) < now_ms - _FORGET_WORKER_MS


class MemoryStore:
    """What the workers of one process share. `clock` returns seconds; tests pass one that they can turn.

    With a `directory` what people decide is kept there, for the next process.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        lifetimes: Lifetimes | None = None,
        directory: Path | None = None,
    ) -> None:
        self.clock = clock
        self.lifetimes = lifetimes or Lifetimes()
        self.agents: dict[str, KeptAgent] = {}
        self.workers: dict[str, KeptWorker] = {}
        self.toolsets: dict[str, tuple[bytes, int]] = {}
        self.pins: dict[str, dict[str, Pins]] = {}
        """Agent → server_id → pins. They have no end."""
        self.pins_file = DurableFile(directory / "pins.json") if directory else None
        """Where they outlive this process; None: nowhere."""
        self.shelf = Shelf(directory, self.now_ms)
        """The books, which have no end either."""
        self.readers: dict[str, Callable[[str], None]] = {}
        self.events: deque[dict[str, Any]] = deque(maxlen=_EVENTS)
        self.audit: deque[tuple[int, bytes]] = deque()
        self.buckets: dict[str, float] = {}
        """Of limits → when they are full again, in seconds."""
        self.mailboxes: dict[str, Callable[[bytes], None]] = {}
        self.watchers: dict[str, dict[str, Callable[[str, int], None]]] = {}
        self._swept_ms = 0

    @property
    def now_ms(self) -> int:
        return int(self.clock() * 1000)

    def agent(self, agent: str) -> KeptAgent:
        found = self.agents.setdefault(agent, KeptAgent())
        found.expire(self.now_ms)
        return found

    def worker(self, worker: str) -> KeptWorker:
        return self.workers.setdefault(worker, KeptWorker())

    def has_lease(self, worker: str) -> bool:
        return worker in self.workers and self.workers[worker].lease_ms > self.now_ms

    def call(self, worker: str, call_id: str) -> KeptCall | None:
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
        self.buckets = {name: full_at for name, full_at in self.buckets.items() if full_at * 1000 > now_ms}
        for worker in self.workers.values():
            worker.calls = {id: call for id, call in worker.calls.items() if call.expires_ms > now_ms}
        self.workers = {name: worker for name, worker in self.workers.items() if not worker.is_over(now_ms)}

    def clear(self) -> None:
        """Forget everything but the subscriptions, as a server that lost its data."""
        for part in (self.agents, self.workers, self.toolsets, self.pins, self.events, self.audit, self.buckets):
            part.clear()
        self.shelf.clear()


class MemoryCore:
    """What every part of one worker's access stands on."""

    def __init__(self, store: MemoryStore, worker_id: str, *, is_shared: bool = False, seen_limit: int = 128) -> None:
        self.worker_id, self.is_shared = worker_id, is_shared
        self.meters = Meters()
        self._store = store
        self._seen_limit = seen_limit
        self._listener: Listener | None = None

    @property
    def now_ms(self) -> int:
        return self._store.now_ms
