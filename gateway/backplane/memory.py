"""The backplane of one process: plain dictionaries, the same promises as Redis, nothing to install.

Theory of operation
-------------------
A `MemoryStore` stands for the server, a `MemoryBackplane` for one worker's connection to it. Normally there is one
of each; tests attach several workers to one store and have a cluster in one process.

Envelopes are encoded and decoded as if they travelled, and whatever is called back is called from the event loop,
never from inside the caller: a worker can't come to rely on what the Redis backplane could not give it.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from gateway.backplane.base import Beat, Dispatch, Listener, Record, Tell, Verdict, WorkerRow, nothing
from gateway.backplane.envelope import Envelope, decode, encode
from gateway.backplane.memory_books import MemoryBooks
from gateway.backplane.memory_buckets import MemoryBuckets
from gateway.backplane.memory_directory import MemoryDirectory
from gateway.backplane.memory_store import KeptCall, Member, MemoryStore

__all__ = ["MemoryBackplane", "MemoryStore"]


class MemoryBackplane(MemoryDirectory, MemoryBooks, MemoryBuckets):
    """One worker's access to a `MemoryStore`. Unavailable only where its files can't be read."""

    is_connected, trouble, pending_commands = True, "", 0

    @asynccontextmanager
    async def session(self, listener: Listener) -> AsyncGenerator[None, None]:
        self._listener = listener
        self._store.mailboxes[self.worker_id] = self._deliver
        self._begin_to_look()
        self.read_pins()
        try:
            yield
        finally:
            self._stop_looking()
            self._deafen()
            self._listener = None

    def _look(self) -> None:
        super()._look()
        self.read_pins()

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
        store.worker(worker).calls[envelope.id] = KeptCall(record, self.now_ms + int(dispatch.keep_seconds * 1000))
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
            calls[record.id] = KeptCall(replace(record, state="local"), expires_ms)

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
        self.check_pins()
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
        self.note_event(kind, fields)

    def note_event(self, kind: str, fields: Mapping[str, Any]) -> None:
        self._store.events.append({"kind": kind, "worker": self.worker_id, "ms": self.now_ms, **fields})

    async def note_audit(self, records: Sequence[bytes], records_max: int, keep_seconds: float) -> None:
        kept, oldest_ms = self._store.audit, self.now_ms - keep_seconds * 1000
        kept.extend((self.now_ms, record) for record in records)
        while kept and (len(kept) > records_max or kept[0][0] < oldest_ms):
            kept.popleft()
