"""Reads for `mcp-gateway doctor` everything under the prefix, and what each server says of itself.

The keys are found by SCAN, not by the lists that are kept of workers and agents: what has fallen off a list is what
the doctor looks for. Where a right is missing, that part stays unread and is named with the command that grants it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from redis.exceptions import ResponseError

from gateway.backplane.facts import BufferFacts, ClusterFacts, EventFacts, MemoryFacts
from gateway.backplane.keys import AgentTag
from gateway.backplane.redis.probe_server import TROUBLE, Server
from gateway.backplane.redis.probe_settings import config, info, settings
from gateway.backplane.redis.window import Window
from gateway.finding import Finding, Level

_OF_WORKERS = ("worker", "owned", "inflight", "call")
_OF_AGENTS = ("rev", "servers", "names", "seen", "robots", "rate")
_OF_OTHERS = ("toolset", "source", "changes")
_LISTS = ("workers", "agents", "events", "audit")
_CALLS_MAX = 10_000
_ROBOTS_MAX = 10_000
_EVENTS, _EVENTS_PAGE = 10_000, 1000
_DEFAULT_LIMIT_BYTES = 8 * 1024 * 1024
"""Redis' own soft limit for subscribers, where the real one may not be read."""
_BUFFER_SETTING = "client-output-buffer-limit"


@dataclass(slots=True)
class _Found:
    """The keys under the prefix, by what they are."""

    workers: dict[str, None] = field(default_factory=dict)
    agents: dict[str, None] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)


async def examine(window: Window, keys_max: int) -> ClusterFacts:
    """Look once. Raises BackplaneUnavailable where Redis is away or the rights of a reader are missing."""
    names = await window.reader.scan(f"{_escaped(window.keys.prefix)}*", keys_max)
    found = _sorted_out(window, names)
    endless = await _endless(window, names)
    known = await window.tagged([AgentTag(tag) for tag in found.agents], _ROBOTS_MAX)
    agents = [facts for facts in known if facts is not None]
    rows = [row for agent in agents for row in agent.rows.values() if row.state != "offline"]
    robots = [row for agent in agents for row in agent.robots.values()]
    holders = dict.fromkeys([row.worker for row in rows] + [row.worker for row in robots])
    workers = await window.workers(also=[*found.workers, *holders])
    toolsets = await window.toolsets_there({row.toolset for row in rows if row.state == "up"})
    unread: dict[str, str] = {}
    if any(worker.listeners is None for worker in workers):
        by_hand = f"redis-cli PUBSUB NUMSUB '{window.keys.mailbox('WORKER')}'"
        unread["mailboxes"] = _cure(window.reader.primaries[0].server, "+pubsub", by_hand)
    buffers, memory = await _servers(window, unread)
    return ClusterFacts(
        now_ms=await window.now_ms(),
        workers={worker.id: worker for worker in workers},
        agents=agents,
        toolsets=toolsets,
        calls=await window.calls([worker.id for worker in workers], _CALLS_MAX),
        events=await _events(window),
        keys_without_end=endless,
        keys_unknown=found.unknown,
        buffers=buffers,
        memory=memory,
        unread=unread,
        is_cut=len(names) >= keys_max,
    )


async def _events(window: Window) -> list[EventFacts]:
    """About all of the event log; a large fleet says thousands within minutes."""
    found: list[EventFacts] = []
    while len(found) < _EVENTS:
        page = await window.events(_EVENTS_PAGE, found[-1].id if found else "")
        found += page
        if len(page) < _EVENTS_PAGE:
            break
    return found


async def server_settings(window: Window) -> list[Finding]:
    """What `mcp-gateway check` says of the settings of every server; of what is good only that it is."""
    told: dict[Finding, list[str]] = {}
    for member in window.reader.members:
        for finding in await settings(member.server, member.standing):
            if finding.level is not Level.OK:
                told.setdefault(finding, []).append(member.server.where)
    many = len(window.reader.members) > 1
    fine = [] if told else [Finding(Level.OK, "Redis 设置 settings", "正常 / fine")]
    return fine + [
        Finding(one.level, one.subject, f"{one.text} ({', '.join(where)})" if many else one.text, one.cure)
        for one, where in told.items()
    ]


def _escaped(prefix: str) -> str:
    return "".join(f"\\{char}" if char in "*?[]\\" else char for char in prefix)


def _sorted_out(window: Window, names: Sequence[str]) -> _Found:
    found = _Found()
    for name in names:
        kind, _, rest = name.removeprefix(window.keys.prefix).partition(":")
        tag = rest.partition("{")[2].partition("}")[0]
        if kind in _OF_WORKERS and tag:
            found.workers[tag] = None
        elif kind in _OF_AGENTS and tag:
            found.agents[tag] = None
        elif not (kind in _LISTS or (kind in _OF_OTHERS and rest) or window.keys.is_durable(name)):
            found.unknown.append(name)
    return found


async def _endless(window: Window, names: Sequence[str]) -> list[str]:
    """Keys without a time to live that are not meant to be so."""
    asked = [name for name in names if not window.keys.is_durable(name)]
    left = await window.reader.ask_all([("PTTL", name) for name in asked])
    return [name for name, left_ms in zip(asked, left, strict=True) if int(left_ms) == -1]


async def _servers(window: Window, unread: dict[str, str]) -> tuple[list[BufferFacts], list[MemoryFacts]]:
    buffers: list[BufferFacts] = []
    memory: list[MemoryFacts] = []
    for member in window.reader.primaries:
        server = member.server
        try:
            limit = await config(server, _BUFFER_SETTING)
            buffers += await _buffers(server, limit, unread)
            used, stats = await info(server, "memory"), await info(server, "stats")
        except TROUBLE as error:
            by_hand = {"buffers": "redis-cli CLIENT LIST TYPE pubsub", "memory": "redis-cli INFO memory"}
            reason = f"{server.where}: {server.reason(error)}"
            unread |= {name: f"请手动查看 / look by hand: {one} ({reason})" for name, one in by_hand.items()}
            continue
        if used:
            memory.append(
                MemoryFacts(
                    server.where,
                    int(used.get("used_memory", 0)),
                    int(used.get("maxmemory", 0)),
                    int(stats.get("evicted_keys", 0)),
                )
            )
        else:
            unread["memory"] = _cure(server, "+info", "redis-cli INFO memory")
    return buffers, memory


async def _buffers(server: Server, limit: str | None, unread: dict[str, str]) -> list[BufferFacts]:
    try:
        lines = str(await server.ask("CLIENT", "LIST", "TYPE", "pubsub")).splitlines()
    except ResponseError:
        unread["buffers"] = _cure(server, "+client|list", "redis-cli CLIENT LIST TYPE pubsub")
        return []
    clients = [dict(word.partition("=")[::2] for word in line.split()) for line in lines]
    limit_bytes = _DEFAULT_LIMIT_BYTES if limit is None else _lower(limit)
    return [
        BufferFacts(one.get("name") or f"id={one.get('id')} {one.get('addr')}", int(one.get("omem", 0)), limit_bytes)
        for one in clients
    ]


def _cure(server: Server, right: str, by_hand: str) -> str:
    return f"授权 / grant: {server.grant(right)}；或手动查看 / or look by hand: {by_hand}"


def _lower(limit: str) -> int:
    """The lower of the two limits for subscribers that are set at all; 0 where none is."""
    words = limit.split()
    hard, soft, _ = (int(word) for word in words[words.index("pubsub") + 1 :][:3])
    return min((size for size in (hard, soft) if size), default=0)
