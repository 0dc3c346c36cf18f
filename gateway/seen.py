"""What is remembered of an agent's tool servers, also of those that are gone or never got through: bounded."""

from dataclasses import replace

from gateway.backplane.base import Snapshot
from gateway.directory import Seen

UNNAMED = "~"
"""Under this name: what went wrong last with a connection that gave no server_id and never got through."""
ERROR_CHARS_MAX = 200


def came(snapshot: Snapshot, server_id: str, since: int, trouble: str = "") -> Seen:
    """It is connected since then; `trouble`: what is wrong with its list all the same."""
    seen = replace(snapshot.seen.get(server_id, Seen()), connected=since)
    return replace(seen, error=trouble[:ERROR_CHARS_MAX], failed=since) if trouble else seen


def left(snapshot: Snapshot, server_id: str, cause: str) -> Seen:
    """It is not connected from now on."""
    return replace(snapshot.seen.get(server_id, Seen()), disconnected=snapshot.now_ms, cause=cause)


def failed(snapshot: Snapshot, server_id: str, error: str, known: Seen | None = None) -> Seen:
    """Its handshake came to nothing. `known` goes before what the snapshot says."""
    seen = known or snapshot.seen.get(server_id, Seen())
    return replace(seen, error=error[:ERROR_CHARS_MAX], failed=snapshot.now_ms)


def to_drop(snapshot: Snapshot, newcomer: str, limit: int) -> dict[str, Seen | None]:
    """Room for the newcomer: those without a row go first, then the longest gone, never one that is connected."""
    surplus = len(snapshot.seen.keys() | {newcomer}) - limit
    stay = {newcomer, *(key for key, row in snapshot.rows.items() if row.state == "up")}
    gone = [
        (key in snapshot.rows, max(seen.disconnected, seen.failed), key)
        for key, seen in snapshot.seen.items()
        if key not in stay
    ]
    return {key: None for _, _, key in sorted(gone)[: max(0, surplus)]}
