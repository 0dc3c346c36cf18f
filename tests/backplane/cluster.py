"""Workers' ears and seats on one backplane, of whichever kind the test runs on."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from gateway.backplane.base import Backplane, Dispatch, Snapshot, Verdict, WorkerRow
from gateway.backplane.envelope import Envelope
from gateway.backplane.keys import Keys
from gateway.backplane.memory import MemoryBackplane, MemoryStore
from gateway.backplane.redis import RedisBackplane, RedisOptions
from gateway.directory import Row
from tests.support.redis_server import RedisServer

BOUND_SECONDS = 5.0
WORKER_ROW = WorkerRow(host="h", pid=1, version="1.0", started_ms=1)


class Ear:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.catalogs: list[tuple[str, int]] = []
        self.books: list[str] = []
        self.gaps = 0
        self._unread: asyncio.Queue[Envelope] = asyncio.Queue()

    def on_envelope(self, envelope: Envelope) -> None:
        self.envelopes.append(envelope)
        self._unread.put_nowait(envelope)

    def on_catalog(self, agent: str, revision: int) -> None:
        self.catalogs.append((agent, revision))

    def on_book(self, book: str) -> None:
        self.books.append(book)

    def on_gap(self) -> None:
        self.gaps += 1

    async def next(self) -> Envelope:
        """The next envelope that was not read yet."""
        async with asyncio.timeout(BOUND_SECONDS):
            return await self._unread.get()

    @property
    def ids(self) -> list[str]:
        return [envelope.id for envelope in self.envelopes]


@dataclass(slots=True)
class Seat:
    """A worker of a test: its backplane and its ear."""

    backplane: Backplane
    ear: Ear = field(default_factory=Ear)

    @property
    def id(self) -> str:
        return self.backplane.worker_id

    async def beat(self, lease_seconds: float = 60.0) -> bool:
        """Beat; whether the lease was fresh."""
        return (await self.backplane.beat(WORKER_ROW, lease_seconds)).fresh

    async def dispatch(self, to: str, *call_ids: str, due: int = 0, body: bytes = b"{}") -> list[Verdict]:
        """Dispatch the calls in one turn of the loop; their verdicts."""
        heard: asyncio.Queue[tuple[int, Verdict]] = asyncio.Queue()
        for at, call_id in enumerate(call_ids):
            envelope = Envelope("req", id=call_id, agent="a", server="s", tool="t", due=due, body=body)
            self.backplane.dispatch(Dispatch(to, envelope, 60.0), partial(_note, heard, at))
        async with asyncio.timeout(BOUND_SECONDS):
            verdicts = dict([await heard.get() for _ in call_ids])
        return [verdicts[at] for at in range(len(call_ids))]

    async def send(self, to: str, envelope: Envelope) -> int:
        """Send; how many were listening."""
        heard: asyncio.Queue[int] = asyncio.Queue()
        self.backplane.send(to, envelope, heard.put_nowait)
        async with asyncio.timeout(BOUND_SECONDS):
            return await heard.get()

    async def snapshot(self, agent: str) -> Snapshot:
        return await self.backplane.snapshot(agent)

    def row(self, conn: str = "c", **fields: object) -> Row:
        """An `up` row of a connection of this worker."""
        return Row("up", self.id, conn, since=1, **fields)  # type: ignore[arg-type]


def _note(heard: "asyncio.Queue[tuple[int, Verdict]]", at: int, verdict: Verdict) -> None:
    heard.put_nowait((at, verdict))


class Engine(Protocol):
    """Something that backplanes can be had on."""

    name: str

    def backplane(self, worker_id: str) -> Backplane: ...

    def drop_lease(self, worker_id: str) -> None:
        """As if the worker had not beaten for the length of its lease."""

    def lose_everything(self) -> None:
        """As if the store had come back without its data."""


class MemoryEngine:
    name = "memory"

    def __init__(self) -> None:
        self.store = MemoryStore()

    def backplane(self, worker_id: str) -> Backplane:
        return MemoryBackplane(self.store, worker_id, is_shared=True)

    def drop_lease(self, worker_id: str) -> None:
        self.store.worker(worker_id).lease_ms = 0

    def lose_everything(self) -> None:
        self.store.clear()


class RedisEngine:
    def __init__(self, name: str, server: RedisServer, client: Any, options: RedisOptions | None = None) -> None:
        self.name = name
        self.server = server
        self.client = client
        self.options = options or RedisOptions()
        self.keys = Keys(self.options.prefix)

    def backplane(self, worker_id: str) -> Backplane:
        return RedisBackplane(self.server.url, worker_id, self.options)

    def drop_lease(self, worker_id: str) -> None:
        self.client.delete(self.keys.worker(worker_id))

    def lose_everything(self) -> None:
        self.client.flushall()


class ManyEngine:
    """Several servers behind one URL; `primaries` says who of them has data now."""

    def __init__(
        self,
        name: str,
        url: str,
        primaries: Callable[[], Iterable[RedisServer]],
        owner: Callable[[str], RedisServer],
        options: RedisOptions | None = None,
    ) -> None:
        self.name = name
        self.url = url
        self.options = options or RedisOptions()
        self.keys = Keys(self.options.prefix)
        self._primaries, self._owner = primaries, owner

    def backplane(self, worker_id: str) -> Backplane:
        return RedisBackplane(self.url, worker_id, self.options)

    def drop_lease(self, worker_id: str) -> None:
        key = self.keys.worker(worker_id)
        with self._owner(key).client() as client:
            client.delete(key)

    def lose_everything(self) -> None:
        for server in self._primaries():
            with server.client() as client:
                client.flushall()

    def kept_without_end(self) -> list[str]:
        found: list[str] = []
        for server in self._primaries():
            with server.client() as client:
                found += kept_without_end(client, self.keys.is_durable)
        return found


@asynccontextmanager
async def seated(*backplanes: Backplane) -> AsyncGenerator[list[Seat], None]:
    """The backplanes with their sessions open, each worker announced by a first beat."""
    async with AsyncExitStack() as stack:
        seats = [Seat(backplane) for backplane in backplanes]
        for seat in seats:
            await stack.enter_async_context(seat.backplane.session(seat.ear))
            await seat.beat()
        yield seats


class Cluster:
    """`async with cluster("a", "b") as (a, b)`: two workers on the test's engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @asynccontextmanager
    async def __call__(self, *worker_ids: str) -> AsyncGenerator[list[Seat], None]:
        async with seated(*(self.engine.backplane(worker_id) for worker_id in worker_ids)) as seats:
            yield seats


def kept_without_end(client: Any, is_durable: Callable[[str], bool]) -> list[str]:
    """Keys that would stay for ever and are not meant to."""
    names = [name.decode() for name in client.scan_iter(count=1000)]
    return [name for name in names if client.pttl(name) == -1 and not is_durable(name)]
