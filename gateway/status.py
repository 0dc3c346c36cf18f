"""The answer to "工具端未连接, why?": an agent's tool servers, the names of their tools, and what went wrong.

Pure: the facts come from whoever asks, a worker (`gateway.enquiry`) or an operator's window into Redis, and the answer
is plain data. It has no token, no key, and no address. A token that is for tool servers only is told nothing of robots,
and one that is for a single tool server nothing of the others: not even their names.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from gateway import catalog, names, pins, verdicts
from gateway.ages import iso
from gateway.backplane.base import Snapshot, WorkerRow
from gateway.credential import Credential
from gateway.directory import Row, Seen
from gateway.policy import UNSET, Policy
from gateway.registry import TAKEOVER_WINDOW_MS
from gateway.seen import UNNAMED
from gateway.verdicts import Verdict

NAMES_ONLY_PAGE_BYTES = 2**30
UNAPPROVED = (
    "定义与记住的不同，等待批准：mcp-gateway pins show / "
    "its definition is not the pinned one and waits for approval: mcp-gateway pins show"
)

_Names = dict[tuple[str, str], str]
"""(server_id, its own name of a tool) → the name under which robots see it."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What decides, besides the facts, about what robots see."""

    grace_seconds: float = 30.0
    policy: Policy = UNSET
    pins: str = "off"
    """What becomes of definitions that differ from their pins, where the policy does not say."""


@dataclass(frozen=True, slots=True)
class _Listed:
    """What robots see, and the policy that it was decided by."""

    names: _Names
    policy: Policy
    pins_mode: str


def answer(
    credential: Credential,
    snapshot: Snapshot,
    tools: Mapping[str, list[str]],
    workers: Mapping[str, WorkerRow],
    robots: int,
    terms: Terms = Terms(),
) -> dict[str, Any]:
    """The status of the credential's agent, as far as the credential may be told it; a legacy token is told all.

    `tools`: the names in the tool sets of the agent's rows; `workers`: those with a lease.
    """
    listed = _listed(snapshot, tools, terms)
    whole, snapshot = snapshot, _visible(snapshot, credential.server_id)
    found = [
        _tool_server(snapshot, name, row, tools.get(row.toolset, []), listed, is_alive=row.worker in workers)
        for name, row in sorted(snapshot.rows.items())
    ]
    found += [
        _remembered(snapshot, name, seen)
        for name, seen in sorted(snapshot.seen.items())
        if name not in snapshot.rows and name != UNNAMED
    ]
    unnamed = snapshot.seen.get(UNNAMED)
    return {
        "agent": credential.agent,
        "time": iso(snapshot.now_ms),
        "source": "store",
        "revision": snapshot.revision,
        "verdict": _of_agent([verdict for _, verdict in found], snapshot).as_dict(),
        **({} if credential.role == "mcp" else {"robots": robots}),
        "workers": len(workers),
        "tool_servers": [{**told, "verdict": verdict.as_dict()} for told, verdict in found],
        "unnamed_error": _error(unnamed) if unnamed else None,
        "names": {"collisions": [] if credential.server_id else _collisions(whole, listed)},
    }


def _visible(snapshot: Snapshot, server_id: str) -> Snapshot:
    """The facts of one tool server alone; all of them where none is named."""
    if not server_id:
        return snapshot
    return replace(
        snapshot,
        rows={name: row for name, row in snapshot.rows.items() if name == server_id},
        seen={name: seen for name, seen in snapshot.seen.items() if name == server_id},
        claims={name: claim for name, claim in snapshot.claims.items() if claim.server == server_id},
    )


def digests(snapshot: Snapshot) -> set[str]:
    """The tool sets that the answer wants."""
    return {row.toolset for row in snapshot.rows.values() if row.toolset}


def _of_agent(found: list[Verdict], snapshot: Snapshot) -> Verdict:
    unnamed = snapshot.seen.get(UNNAMED, Seen())
    named = [max(seen.connected, seen.disconnected) for seen in snapshot.seen.values()]
    if unnamed.failed > max(named, default=0):  # else the one that failed is among those that came since
        found = [*found, verdicts.handshake_failed(unnamed.error, unnamed.failed, snapshot.now_ms)]
    return verdicts.of_agent(found) if found else verdicts.never_connected()


def _tool_server(
    snapshot: Snapshot, server_id: str, row: Row, tools: list[str], listed: _Listed, *, is_alive: bool
) -> tuple[dict[str, Any], Verdict]:
    """What is known of one row, and the verdict on it."""
    seen = snapshot.seen.get(server_id, Seen())
    state, verdict = _judged(snapshot, server_id, row, seen, is_alive=is_alive)
    ruling = listed.policy.ruling_on_server(server_id)
    if state == "connected" and not ruling.is_allowed:
        verdict = verdicts.not_allowed(ruling.rule)
    told = {
        "server_id": "" if row.state == "handshake" else server_id,
        "state": state,
        "name": row.name,
        "version": row.version,
        "anonymous": row.anonymous,
        "worker": row.worker,
        "connection": row.conn,
        "since": iso(row.since),
        "connected": iso(seen.connected or (row.since if row.state != "handshake" else 0)),
        "disconnected": iso(row.offline_since or seen.disconnected),
        "cause": row.cause if row.state == "offline" else seen.cause,
        "error": _error(seen),
        "takeovers_last_minute": _takeovers(snapshot, row),
        "tools_count": row.tools,
        "tools": [_tool(snapshot, server_id, tool, listed) for tool in tools],
        "listed": any(name == server_id for name, _ in listed.names),
    }
    return told, verdict


def _judged(snapshot: Snapshot, server_id: str, row: Row, seen: Seen, *, is_alive: bool) -> tuple[str, Verdict]:
    now_ms = snapshot.now_ms
    if row.state != "offline" and not is_alive:
        return "lost", verdicts.worker_lost(row.worker)
    match row.state:
        case "up":
            trouble = seen.error if seen.failed >= row.since else ""
            takeovers = _takeovers(snapshot, row)
            return "connected", verdicts.connected(row.tools, row.since, now_ms, takeovers, trouble)
        case "handshake":
            return "handshake", verdicts.in_handshake(row.since, now_ms)
        case _:
            return "disconnected", _left(seen, row.cause, row.offline_since, now_ms)


def _remembered(snapshot: Snapshot, server_id: str, seen: Seen) -> tuple[dict[str, Any], Verdict]:
    """One that has no row any more, or never had one."""
    told = {
        "server_id": server_id,
        "state": "disconnected",
        "name": "",
        "version": "",
        "anonymous": False,
        "worker": "",
        "connection": "",
        "since": None,
        "connected": iso(seen.connected),
        "disconnected": iso(seen.disconnected),
        "cause": seen.cause,
        "error": _error(seen),
        "takeovers_last_minute": 0,
        "tools_count": 0,
        "tools": [],
        "listed": False,
    }
    return told, _left(seen, seen.cause, seen.disconnected, snapshot.now_ms)


def _left(seen: Seen, cause: str, disconnected_ms: int, now_ms: int) -> Verdict:
    """The verdict on one that is not there: whichever came last, its failing to come back or its leaving."""
    if seen.failed > disconnected_ms or not disconnected_ms:
        return verdicts.handshake_failed(seen.error, seen.failed, now_ms)
    return verdicts.disconnected(cause, disconnected_ms, now_ms)


def _takeovers(snapshot: Snapshot, row: Row) -> int:
    return sum(1 for at in row.takeovers if at > snapshot.now_ms - TAKEOVER_WINDOW_MS)


def _error(seen: Seen) -> dict[str, str | None] | None:
    return {"time": iso(seen.failed), "text": seen.error} if seen.error else None


# Names


def tool_names(text: bytes) -> list[str]:
    """The names in a tool set's text; none where that is not what a worker writes."""
    try:
        return [str(tool["name"]) for tool in orjson.loads(text)]
    except (ValueError, TypeError, KeyError):  # an operator's hand, or a newer version's form
        return []


def _listed(snapshot: Snapshot, tools: Mapping[str, list[str]], terms: Terms) -> _Listed:
    bare = {digest: [{"name": name} for name in names_of] for digest, names_of in tools.items()}
    mode = terms.policy.pins_mode(terms.pins)
    unapproved = (
        (server_id, tool)
        for server_id, row in snapshot.rows.items()
        for tool in pins.waiting(snapshot, server_id, tools.get(row.toolset, ()))
    )
    built = catalog.build(
        snapshot,
        bare,
        grace_ms=round(terms.grace_seconds * 1000),
        page_bytes=NAMES_ONLY_PAGE_BYTES,
        policy=terms.policy,
        blocked=frozenset(unapproved if mode == "block" else ()),
    )
    shown = [tool["name"] for page in built.pages for tool in orjson.loads(page)["tools"]]
    # What a hand in the store has broken may be listed and lead nowhere.
    routes = {name: built.routes[name] for name in shown if name in built.routes}
    return _Listed({(route.server_id, route.original): name for name, route in routes.items()}, terms.policy, mode)


def _tool(snapshot: Snapshot, server_id: str, tool: str, listed: _Listed) -> dict[str, str]:
    name = listed.names.get((server_id, tool), "")
    told = {"tool": tool, "listed_as": name}
    why = _why(snapshot, server_id, tool, name) if name else _why_not(server_id, tool, listed.policy)
    if listed.pins_mode != "off" and pins.waiting(snapshot, server_id, [tool]):
        return {**told, "why": UNAPPROVED}
    return told if name == tool or not why else {**told, "why": why}


def _why_not(server_id: str, tool: str, policy: Policy) -> str:
    """Why the policy keeps robots from seeing the tool; empty if it doesn't."""
    ruling = policy.ruling(server_id, tool, *names.usual(server_id, tool))
    if not ruling.is_allowed:
        return f"策略不允许（{ruling.rule}） / the agent's policy does not allow it ({ruling.rule})"
    return ""


def _why(snapshot: Snapshot, server_id: str, tool: str, name: str) -> str:
    """Why robots see the tool under another name than its own."""
    holder, bare = _holder(snapshot, server_id, tool), names.cut(names.fold(tool), tool)
    if name.startswith(f"{names.fold(server_id)}__"):
        if not holder:
            return f"登记时名称 {bare} 已被占用 / the name {bare} was taken when it was registered"
        return (
            f"名称 {bare} 已属于 {holder}，所以加上前缀 / "
            f"the name {bare} belongs to {holder}, so this one has its server's name before it"
        )
    if names.fold(tool) != tool:
        return "含有小智端不支持的字符，已替换 / has characters that robots can't take; they were replaced"
    if len(tool) > names.NAME_CHARACTERS_MAX:
        limit = names.NAME_CHARACTERS_MAX
        return f"超过 {limit} 个字符，已截短 / longer than {limit} characters; it was cut"
    return "与同一工具服务器的另一个工具重名 / another tool of the same tool server has that name"


def _holder(snapshot: Snapshot, server_id: str, tool: str) -> str:
    """The other tool server that holds the tool's own name; empty if none does."""
    claim = snapshot.claims.get(names.cut(names.fold(tool), tool))
    return claim.server if claim is not None and claim.server != server_id else ""


def _collisions(snapshot: Snapshot, listed: _Listed) -> list[dict[str, Any]]:
    """Names that several tool servers want, who holds each, and what the others' tools are called instead."""
    others: dict[str, list[dict[str, str]]] = {}
    for server_id, tool, name in _entries(listed.names):
        if name != tool and _holder(snapshot, server_id, tool):
            bare = names.cut(names.fold(tool), tool)
            others.setdefault(bare, []).append({"server_id": server_id, "tool": tool, "listed_as": name})
    return [
        {
            "name": bare,
            "held_by": snapshot.claims[bare].server,
            "until": iso(snapshot.claims[bare].until),
            "others": found,
        }
        for bare, found in sorted(others.items())
    ]


def _entries(listed: _Names) -> Iterator[tuple[str, str, str]]:
    for (server_id, tool), name in sorted(listed.items()):
        yield server_id, tool, name
