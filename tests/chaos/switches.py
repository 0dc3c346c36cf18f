"""Protections of the gateway, each with what takes it away inside a worker process before that serves."""

from collections.abc import Callable
from typing import Any

from gateway import courier, lease, registry
from gateway.backplane.base import Change, Record, Snapshot
from gateway.backplane.envelope import Envelope
from gateway.backplane.redis import RedisBackplane
from gateway.executor import Executor
from gateway.lease import Lease
from gateway.registration import Rules


def no_record() -> None:
    """What was published while a worker could not hear stays unread in the ledger."""

    async def nothing(self: RedisBackplane) -> list[Record]:
        return []

    RedisBackplane.pending = nothing  # type: ignore[method-assign,assignment]


def no_dedupe() -> None:
    """A request runs as often as it arrives."""

    on_request, recover = Executor.on_request, Executor.recover

    def run_again(self: Executor, envelope: Envelope) -> None:
        self._seen.pop(envelope.id, None)
        self._jobs.pop(envelope.id, None)
        on_request(self, envelope)

    async def recover_all(self: Executor) -> None:
        self._seen.clear()
        self._jobs.clear()
        await recover(self)

    Executor.on_request = run_again  # type: ignore[method-assign]
    Executor.recover = recover_all  # type: ignore[method-assign]


def no_fence() -> None:
    """A worker whose lease is over acts as if it were not."""
    Lease.is_fenced = property(lambda self: False)  # type: ignore[method-assign,assignment]


def no_late_check() -> None:
    """A request carries no deadline to anybody who could refuse it."""

    def without_end(kind: str, **fields: Any) -> Envelope:
        return Envelope(kind, **{**fields, "due": 0, "ms": 600_000} if kind == "req" else fields)

    courier.Envelope = without_end  # type: ignore[attr-defined,assignment]


def no_compare() -> None:
    """A connection's end takes the row offline, whoever holds it by now."""
    go_offline = registry.go_offline

    def whoever_holds_it(snapshot: Snapshot, server_id: str, conn: str, cause: str, rules: Rules) -> Change:
        row = snapshot.rows.get(server_id)
        return go_offline(snapshot, server_id, row.conn if row is not None else conn, cause, rules)

    registry.go_offline = whoever_holds_it


def no_lease_net() -> None:
    """Nobody looks after the calls of a worker that has lost its lease."""
    Lease.worker_lost = lambda self, worker: None  # type: ignore[method-assign]


def no_recover() -> None:
    """What the store has forgotten is not put back."""
    Lease.recover = lambda self: None  # type: ignore[method-assign]
    lease.RECONCILE_SECONDS = 1e9


SWITCHES: dict[str, Callable[[], None]] = {
    "dispatch record": no_record,
    "dedupe": no_dedupe,
    "fence": no_fence,
    "late check": no_late_check,
    "compare on unregister": no_compare,
    "owner lease": no_lease_net,
    "recovery": no_recover,
}
