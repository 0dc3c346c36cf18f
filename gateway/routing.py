"""Where does this call go? One look at the catalog, one decision."""

from collections.abc import Set
from dataclasses import dataclass
from typing import TypeAlias

from gateway import errors
from gateway.catalog import Catalog, Route, is_in_grace
from gateway.directory import Row
from gateway.errors import Failure


@dataclass(frozen=True, slots=True)
class Deliver:
    """To this connection of this worker (which may be the asking one)."""

    route: Route
    worker: str
    conn: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Park:
    """Its tool server is gone and expected back: wait for another row."""

    route: Route


@dataclass(frozen=True, slots=True)
class Refuse:
    failure: Failure


@dataclass(frozen=True, slots=True)
class Lost:
    """Workers and connections that are known to be gone although rows still say `up`."""

    workers: Set[str]
    conns: Set[str]


Decision: TypeAlias = Deliver | Park | Refuse


def decide(catalog: Catalog, name: str, *, now_ms: int, grace_ms: int, lost: Lost) -> Decision:
    """The decision for a call of `name`."""
    route = catalog.routes.get(name)
    if route is None:
        return Refuse(_unlisted(catalog, name, now_ms, grace_ms))
    row = catalog.rows.get(route.server_id)
    if row is None:
        return Refuse(errors.server_offline(route.server_id, "?", "unknown"))
    if row.state == "up":
        if row.worker in lost.workers or row.conn in lost.conns:
            return Park(route)
        return Deliver(route, row.worker, row.conn, row.epoch)
    if is_in_grace(row, now_ms, grace_ms):
        return Park(route)
    return Refuse(offline(route.server_id, row))


def _unlisted(catalog: Catalog, name: str, now_ms: int, grace_ms: int) -> Failure:
    if name in catalog.refused:
        return errors.not_approved(name) if catalog.refused[name] == "pins" else errors.not_allowed(name)
    if has_tool_servers(catalog, now_ms, grace_ms):
        return errors.unknown_tool(name)
    gone = [(row.offline_since, key, row.cause) for key, row in catalog.rows.items() if row.state == "offline"]
    if not gone:
        return errors.no_tool_server()
    at_ms, server_id, cause = max(gone)
    since = errors.clock_text(at_ms)
    return errors.no_tool_server(
        f"（最后离线：{server_id}，{since}，{cause}）", f" (last to leave: {server_id}, {since}, {cause})"
    )


def has_tool_servers(catalog: Catalog, now_ms: int, grace_ms: int) -> bool:
    return any(row.state == "up" or is_in_grace(row, now_ms, grace_ms) for row in catalog.rows.values())


def offline(server_id: str, row: Row | None) -> Failure:
    """Why a call to this tool server can't be made, with the time it left and the cause."""
    if row is None or row.state != "offline":
        return errors.server_moving(server_id)
    return errors.server_offline(server_id, errors.clock_text(row.offline_since), row.cause)
