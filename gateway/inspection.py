"""What `mcp-gateway inspect` shows: for each noun one look at the cluster, as a table and as values for machines."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import orjson

from gateway import status
from gateway.ages import age, from_iso, iso, span
from gateway.audit_look import audit
from gateway.backplane.base import RobotRow, WorkerRow
from gateway.backplane.facts import AgentFacts, CallFacts, EventFacts, WorkerFacts
from gateway.backplane.keys import AgentTag
from gateway.backplane.redis.window import Window
from gateway.credential import Credential
from gateway.directory import Claim, Row
from gateway.look import Look, Table, Wish, cut_note
from gateway.policies import BOOK, DEFAULT, Policies

Item = TypeVar("Item")

_AGENTS_PAGE, _EVENTS_PAGE, _CALLS_MAX = 1000, 1000, 10_000


async def look(window: Window, wish: Wish) -> Look | None:
    """Look once. None where the agent that was asked for is not known. Raises BackplaneUnavailable."""
    return await _NOUNS[wish.noun](window, wish)


async def _workers(window: Window, wish: Wish) -> Look:
    found = await window.workers(limit=wish.limit + 1)
    workers, is_cut, now_ms = found[: wish.limit], len(found) > wish.limit, await window.now_ms()
    columns = ("worker", "state", "servers", "robots", "calls", "executing", "lease", "beat", "started", "version")
    rows = [_worker_line(worker, now_ms) for worker in workers]
    notes = [
        f"{worker.id}: 邮箱没有人听 / nobody listens to its mailbox; mcp-gateway doctor"
        for worker in workers
        if worker.row is not None and worker.listeners == 0
    ]
    data = {"workers": [_worker_data(worker) for worker in workers], "truncated": is_cut}
    notes += cut_note(is_cut)
    return Look(f"工作进程 / workers: {len(workers)}", now_ms, data, [Table(columns, rows)], notes)


def _worker_line(worker: WorkerFacts, now_ms: int) -> Sequence[object]:
    row = worker.row or WorkerRow("", 0, "", 0)
    if worker.row is None:
        lease = f"ended {age(worker.listed_until_ms, now_ms)}"
    else:
        lease = "no end" if worker.lease_left_ms < 0 else span(worker.lease_left_ms / 1000)
    counts = (row.tool_servers, row.robots, row.calls, worker.executing)
    times = (age(worker.beat_ms, now_ms), age(row.started_ms, now_ms))
    return (worker.id, worker.state, *counts, lease, *times, row.version)


def _worker_data(worker: WorkerFacts) -> dict[str, Any]:
    row = worker.row or WorkerRow("", 0, "", 0)
    return {
        "worker": worker.id,
        "state": worker.state,
        "lease_left_ms": worker.lease_left_ms,
        "listed_until": iso(worker.listed_until_ms),
        "beat": iso(worker.beat_ms),
        "started": iso(row.started_ms),
        "version": row.version,
        "host": row.host,
        "pid": row.pid,
        "tool_servers": row.tool_servers,
        "robots": row.robots,
        "calls": row.calls,
        "executing": worker.executing,
        "owned": worker.owned,
        "listeners": worker.listeners,
    }


async def _agents(window: Window, wish: Wish) -> Look:
    agents = await window.agents(wish.limit + 1)
    shown, now_ms = agents[: wish.limit], await window.now_ms()
    columns = ("agent", "up", "offline", "handshake", "tools", "robots", "changed")
    rows = []
    data = []
    for agent in shown:
        counts = [agent.count(state) for state in ("up", "offline", "handshake")]
        tools = sum(row.tools for row in agent.rows.values() if row.state == "up")
        rows.append((agent.id, *counts, tools, agent.robots_count, age(agent.changed_ms, now_ms)))
        told = dict(zip(("up", "offline", "handshake"), counts, strict=True))
        more = {"tools": tools, "robots": agent.robots_count, "changed": iso(agent.changed_ms)}
        data.append({"agent": agent.id, "tag": agent.tag, **told, **more})
    is_cut = len(agents) > wish.limit
    title = f"智能体，最近变化的在前 / agents, the latest change first: {len(shown)}"
    return Look(title, now_ms, {"agents": data, "truncated": is_cut}, [Table(columns, rows)], cut_note(is_cut))


async def _agent(window: Window, wish: Wish) -> Look | None:
    facts = await window.agent(wish.id)
    if facts is None:
        return None
    snapshot = replace(facts.snapshot, pins=await window.pins(AgentTag(facts.tag)))
    workers = await window.workers(also={row.worker for row in snapshot.rows.values()})
    rows = {worker.id: worker.row for worker in workers if worker.row is not None}
    wanted = {row.toolset for row in snapshot.rows.values() if row.state != "handshake"}
    tools = {digest: status.tool_names(text) for digest, text in (await window.toolsets(wanted)).items()}
    everything = Credential(facts.id)
    told = status.answer(everything, snapshot, tools, rows, facts.robots_count, await _terms(window, facts.id, wish))
    return Look(
        f"智能体 / agent {facts.id}",
        snapshot.now_ms,
        told,
        _agent_tables(told, snapshot.now_ms),
        lead=[told["verdict"]["text"], f"小智端 / robots: {told['robots']}"],
        remarks=_reasons(told),
    )


async def _terms(window: Window, agent: str, wish: Wish) -> status.Terms:
    policies = Policies()
    for name, entry in (await window.decisions(BOOK, (DEFAULT, agent))).items():
        policies.put(name, entry.text)
    return status.Terms(wish.grace_seconds, policies.of(agent), wish.pins)


def _agent_tables(told: Mapping[str, Any], now_ms: int) -> list[Table]:
    servers = told["tool_servers"]
    lines = []
    for one in servers:
        when = age(from_iso(one.get("since") or one.get("connected")), now_ms)
        left = age(from_iso(one.get("disconnected")), now_ms)
        error = one.get("error") or {}
        peer = f"{one.get('name') or ''} {one.get('version') or ''}".strip()
        why = (one.get("cause") or "", error.get("text", ""))
        lines.append(
            (
                one["server_id"] or one["connection"],
                one["state"],
                when,
                one.get("worker") or "",
                one["tools_count"],
                peer,
                left,
                *why,
            )
        )
    columns = ("server", "state", "since", "worker", "tools", "calls itself", "last gone", "cause", "last error")
    tools = [
        (tool.get("listed_as") or "", one["server_id"], tool["tool"], tool.get("why") or "")
        for one in servers
        for tool in one.get("tools", ())
    ]
    return [
        Table(columns, lines, f"工具服务器 / tool servers: {len(lines)}"),
        Table(("listed as", "server", "tool", "note"), tools, f"工具 / tools: {len(tools)}"),
    ]


def _reasons(told: Mapping[str, Any]) -> list[str]:
    """The verdict on each of its tool servers."""
    verdicts = [f"{one['server_id'] or one['connection']}: {one['verdict']['text']}" for one in told["tool_servers"]]
    unnamed = told.get("unnamed_error")
    return [*verdicts, *([f"(server_id?) {unnamed['time']}: {unnamed['text']}"] if unnamed else [])]


async def _servers(window: Window, wish: Wish) -> Look | None:
    async def servers(agent: AgentFacts) -> list[tuple[str, str, Row]]:
        return [(agent.id, name, row) for name, row in sorted(agent.rows.items())]

    found = await _gathered(window, wish, servers)
    if found is None:
        return None
    alive = await window.alive(row.worker for _, _, row in found[: wish.limit])
    now_ms = await window.now_ms()
    columns = ("agent", "server", "state", "since", "worker", "tools", "calls itself", "cause")
    lines, data = [], []
    for agent, name, row in found[: wish.limit]:
        state = row.state if row.state == "offline" or row.worker in alive else "orphan"
        since = row.offline_since if state == "offline" else row.since
        peer = f"{row.name} {row.version}".strip()
        lines.append((agent, name, state, age(since, now_ms), row.worker, row.tools, peer, row.cause))
        data.append({"agent": agent, "server_id": name, **_row_data(row), "state": state})
    is_cut = len(found) > wish.limit
    title = f"工具服务器 / tool servers: {len(lines)}"
    return Look(title, now_ms, {"servers": data, "truncated": is_cut}, [Table(columns, lines)], cut_note(is_cut))


def _row_data(row: Row) -> dict[str, Any]:
    return {
        "worker": row.worker,
        "connection": row.conn,
        "since": iso(row.since),
        "epoch": row.epoch,
        "anonymous": row.anonymous,
        "name": row.name,
        "version": row.version,
        "toolset": row.toolset,
        "tools": row.tools,
        "offline_since": iso(row.offline_since),
        "cause": row.cause,
        "takeovers": [iso(at) for at in row.takeovers],
    }


async def _robots(window: Window, wish: Wish) -> Look | None:
    async def robots(agent: AgentFacts) -> list[tuple[str, str, RobotRow]]:
        has = agent.robots or (await window.robots(agent.tag, wish.limit + 1) if agent.robots_count else {})
        return [(agent.id, conn, row) for conn, row in sorted(has.items())]

    found = await _gathered(window, wish, robots)
    if found is None:
        return None
    now_ms, shown = await window.now_ms(), found[: wish.limit]
    lines = [(agent, conn, row.client, age(row.since, now_ms), row.worker) for agent, conn, row in shown]
    data = [
        {"agent": agent, "connection": conn, "client": row.client, "since": iso(row.since), "worker": row.worker}
        for agent, conn, row in shown
    ]
    is_cut, table = len(found) > wish.limit, Table(("agent", "connection", "client", "since", "worker"), lines)
    title = f"小智端 / robots: {len(lines)}"
    return Look(title, now_ms, {"robots": data, "truncated": is_cut}, [table], cut_note(is_cut))


async def _gathered(
    window: Window, wish: Wish, has: Callable[[AgentFacts], Awaitable[list[Item]]]
) -> list[Item] | None:
    """What the wanted agent has; or what all have, the latest change first, until that is more than the limit.

    None for an agent that is not known.
    """
    if wish.agent:
        facts = await window.agent(wish.agent, wish.limit + 1)
        return None if facts is None else await has(facts)
    found: list[Item] = []
    page, start = min(wish.limit + 1, _AGENTS_PAGE), 0
    while True:
        agents = await window.agents(page, start)
        for agent in agents:
            found += await has(agent)
            if len(found) > wish.limit:
                return found
        if len(agents) < page:
            return found
        start += page


async def _tools(window: Window, wish: Wish) -> Look | None:
    facts = await window.agent(wish.id)
    if facts is None:
        return None
    rows, now_ms = facts.rows, facts.snapshot.now_ms
    toolsets = await window.toolsets({row.toolset for row in rows.values()})
    texts = {digest: _descriptions(text) for digest, text in toolsets.items()}
    columns = ("listed as", "server", "state", "tool", "held", "description")
    lines: list[Sequence[object]] = []
    data = []
    for name, claim in sorted(facts.snapshot.claims.items())[: wish.limit]:
        row = rows.get(claim.server)
        told = texts.get(row.toolset, {}) if row is not None else {}
        state = row.state if row is not None else "gone"
        lines.append((name, claim.server, state, claim.original, _held(claim, now_ms), told.get(claim.original, "")))
        until = {"claimed": iso(claim.claimed), "until": iso(claim.until)}
        tool = {"tool": claim.original, "description": told.get(claim.original)}
        data.append({"listed_as": name, "server_id": claim.server, "state": state, **tool, **until})
    is_cut = len(facts.snapshot.claims) > wish.limit
    title = f"{facts.id} 的工具 / tools of {facts.id}: {len(lines)}"
    told_all = {"agent": facts.id, "tools": data, "truncated": is_cut}
    return Look(title, now_ms, told_all, [Table(columns, lines)], cut_note(is_cut))


def _held(claim: Claim, now_ms: int) -> str:
    """In use, or how long the name is kept for who is away."""
    if not claim.until:
        return "in use"
    return f"for {span((claim.until - now_ms) / 1000)}" if claim.until > now_ms else "free"


def _descriptions(text: bytes) -> dict[str, str]:
    try:
        tools = orjson.loads(text)
    except ValueError:  # an operator's hand, or a newer version's form
        return {}
    tools = [tool for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
    return {str(tool.get("name")): str(tool.get("description") or "") for tool in tools}


async def _calls(window: Window, wish: Wish) -> Look:
    workers = [worker.id for worker in await window.workers()]
    calls = await window.calls(workers, _CALLS_MAX if wish.agent else wish.limit + 1)
    calls = sorted(
        (call for call in calls if not wish.agent or call.agent == wish.agent), key=lambda call: call.sent_ms
    )
    now_ms, shown = await window.now_ms(), calls[: wish.limit]
    columns = ("call", "state", "sent", "due", "agent", "server", "tool", "from", "at")
    lines = [
        (call.id, call.state or "?", age(call.sent_ms, now_ms), age(call.due_ms, now_ms), *_parties(call))
        for call in shown
    ]
    is_cut, data = len(calls) > wish.limit, [_call_data(call) for call in shown]
    title = f"正在执行的调用 / calls in flight: {len(lines)}"
    notes = [
        *cut_note(is_cut),
        *([] if calls else ["同一进程内的调用一秒后才记录 / calls within one worker are noted after a second"]),
    ]
    return Look(title, now_ms, {"calls": data, "truncated": is_cut}, [Table(columns, lines)], notes)


def _parties(call: CallFacts) -> Sequence[str]:
    return (call.agent, call.server_id, call.tool, call.sender, call.worker)


def _call_data(call: CallFacts) -> dict[str, Any]:
    return {
        "call": call.id,
        "state": call.state,
        "sent": iso(call.sent_ms),
        "due": iso(call.due_ms),
        "agent": call.agent,
        "server_id": call.server_id,
        "tool": call.tool,
        "from": call.sender,
        "worker": call.worker,
    }


async def _events(window: Window, wish: Wish) -> Look:
    found: list[EventFacts] = []
    page, before = _EVENTS_PAGE if wish.agent else wish.limit + 1, ""
    while len(found) <= wish.limit:
        lately = await window.events(page, before)
        found += [event for event in lately if not wish.agent or event.field("agent") == wish.agent]
        if len(lately) < page:
            break
        before = lately[-1].id
    events, is_cut, now_ms = found[: wish.limit], len(found) > wish.limit, await window.now_ms()
    lines = [_event_line(event, now_ms) for event in events]
    data = [{"id": one.id, "time": iso(one.at_ms), "kind": one.kind, **one.fields} for one in events]
    columns = ("when", "kind", "agent", "server", "worker", "more")
    title = f"事件，最新的在前 / events, the newest first: {len(lines)}"
    return Look(title, now_ms, {"events": data, "truncated": is_cut}, [Table(columns, lines)], cut_note(is_cut))


def _event_line(event: EventFacts, now_ms: int) -> Sequence[str]:
    named = [event.field(name) for name in ("agent", "server", "worker")]
    rest = " ".join(f"{k}={v}" for k, v in event.fields.items() if k not in ("agent", "server", "worker"))
    return (age(event.at_ms, now_ms), event.kind, *named, rest)


_NOUNS: Mapping[str, Callable[[Window, Wish], Awaitable[Look | None]]] = {
    "workers": _workers,
    "agents": _agents,
    "agent": _agent,
    "servers": _servers,
    "robots": _robots,
    "tools": _tools,
    "calls": _calls,
    "events": _events,
    "audit": audit,
}
