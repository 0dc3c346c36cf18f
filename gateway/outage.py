"""What an agent has while the store can't be asked: what was last read of it, and what is connected to this worker.

Robots here are served from that. A tool server that dials in meanwhile is admitted for the time being, by the same
rules; what it is called in the end is decided when the store is back. If that comes back empty, what it said before
is believed until everybody has had the time to put back what they have.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from gateway import registry
from gateway.backplane.base import Change, Snapshot
from gateway.directory import Claim, Row
from gateway.registration import Admitted, Newcomer, Rules

Value = TypeVar("Value")

CAUSE = "连接已断开 / connection closed"


@dataclass(frozen=True, slots=True)
class Registered:
    """A tool server that is connected here, as it is registered."""

    server_id: str
    row: Row
    claims: Mapping[str, Claim]


def facts(
    last: Snapshot,
    registered: Collection[Registered],
    newcomers: Collection[Newcomer],
    *,
    worker: str,
    now_ms: int,
    rules: Rules,
) -> Snapshot:
    """The agent's facts as far as `worker` can know them; the revision stays that of what was last read.

    Rows of other workers are believed; of this worker's, those that have no connection any more go offline.
    """
    known = replace(last, now_ms=now_ms)
    for entry in registered:
        change = registry.restore(known, entry.server_id, entry.row, entry.claims)
        if isinstance(change, Change):  # else somebody newer has the row, and this connection only has not heard of it
            known = _with(known, change)
    here = {entry.row.conn for entry in registered} | {newcomer.conn for newcomer in newcomers}
    for server_id, row in last.rows.items():
        if row.worker == worker and row.conn not in here:
            known = _with(known, registry.go_offline(known, server_id, row.conn, CAUSE, rules))
    admitted_before = {(row.conn, row.toolset) for row in known.rows.values() if row.state == "up"}
    for newcomer in newcomers:
        if (newcomer.conn, newcomer.toolset) in admitted_before:
            continue
        others = {row.conn for row in known.rows.values()}
        admitted = registry.register(known, newcomer, rules, dead=(), ghosts=(), twins=others)
        if isinstance(admitted, Admitted):
            known = _with(known, admitted.change)
    return known


def remembered(
    snapshot: Snapshot, last: Snapshot, *, grace_ms: int, is_gone: Callable[[Row], bool] = lambda _: False
) -> Snapshot:
    """The facts of a store, and of `last` those that it can only have forgotten.

    A tool server that was connected and has no row any more: in the ordinary course of things it would be offline. So
    it is, from now on, where `is_gone` knows that its connection is no more.
    """
    conns = {row.conn for row in snapshot.rows.values()}
    lost: dict[str, Row] = {}
    for server_id, row in last.rows.items():
        is_listed = row.state == "up" or (row.state == "offline" and snapshot.now_ms < row.offline_since + grace_ms)
        if not is_listed or server_id in snapshot.rows or row.conn in conns:
            continue
        if row.state == "up" and is_gone(row):
            row = replace(row, state="offline", offline_since=snapshot.now_ms, cause=CAUSE)
        lost[server_id] = row
    if not lost:
        return snapshot
    claims = {name: claim for name, claim in last.claims.items() if claim.server in lost}
    return replace(snapshot, rows={**lost, **snapshot.rows}, claims={**claims, **snapshot.claims})


def _with(snapshot: Snapshot, change: Change) -> Snapshot:
    return replace(
        snapshot,
        rows=_changed(snapshot.rows, change.rows),
        claims=_changed(snapshot.claims, change.claims),
        seen=_changed(snapshot.seen, change.seen),
    )


def _changed(values: Mapping[str, Value], changes: Mapping[str, Value | None]) -> dict[str, Value]:
    merged: dict[str, Value | None] = {**values, **changes}
    return {name: value for name, value in merged.items() if value is not None}
