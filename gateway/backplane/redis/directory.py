"""The directory in Redis: which tool servers an agent has, where, and who holds which name."""

import logging
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from gateway.backplane import rows
from gateway.backplane.base import Change, Overview, RobotRow, Snapshot, WorkerRow
from gateway.backplane.keys import AgentTag, agent_tag, is_hashed
from gateway.backplane.redis.commands import Command, script_command
from gateway.backplane.redis.convoy import Convoy
from gateway.backplane.redis.core import SLICE, Core, Tools, paired, revision_of, text_of, whole
from gateway.directory import Claim, Row, Seen
from gateway.pace import sliced

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

_PAGE = 100
_MOST_REMEMBERED_TOOLSETS = 4096


class Directory(Core):
    """See `gateway.backplane.base.Directory`."""

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools)
        self._watched: dict[bytes, str] = {}
        """Channel → agent."""
        self._hashed: dict[str, str] = {}
        """For watched agents whose id can't be in a key: tag → agent."""
        self._unlisted: dict[AgentTag, int] = {}
        """Agents that have changed and are not noted so in the list of agents → revision."""
        self._put_ms: dict[str, float] = {}
        """Tool set → when it was last written or found to be there, by the monotonic clock."""
        self._owning: Convoy[tuple[bytes, bool]] = Convoy(self._enqueue, self._own_commands)
        """What this worker owns from now on, or no longer."""
        self._listing: Convoy[tuple[AgentTag, int]] = Convoy(self._enqueue, self._list_commands)
        """Which agents have changed, and to which revision."""
        self._convoys: list[Convoy[Any]] = [self._owning, self._listing]

    async def snapshot(self, agent: str) -> Snapshot:
        tag, keys = agent_tag(agent), self._keys
        parts = [keys.revision(tag), keys.servers(tag), keys.names(tag), keys.seen(tag), keys.pins(tag)]
        command = script_command("snapshot", parts, is_repeatable=True)
        ((revision, now_ms, servers, names, seen, pins),) = await self._link.call(command)
        self._learn_time(now_ms)
        latest = now_ms + rows.AHEAD_MS
        return Snapshot(
            revision=revision_of(revision),
            now_ms=now_ms,
            rows=_present({text_of(name): rows.load_row(text, latest) for name, text in paired(servers).items()}),
            claims=_present({text_of(name): rows.load_claim(text, latest) for name, text in paired(names).items()}),
            seen=_present({text_of(name): rows.load_seen(text, latest) for name, text in paired(seen).items()}),
            pins=_present({text_of(name): rows.load_pins(text, latest) for name, text in paired(pins).items()}),
        )

    async def commit(self, agent: str, expected: int, change: Change) -> int | None:
        mine = {name: self._is_mine(row) for name, row in change.rows.items()}
        await self._own([rows.dump_member("server", agent, name) for name, is_mine in mine.items() if is_mine])
        await self._put_missing(change.toolsets)
        tag, keys = agent_tag(agent), self._keys
        (revision,) = await self._link.call(
            script_command(
                "commit",
                [key(tag) for key in (keys.revision, keys.servers, keys.names, keys.seen, keys.pins, keys.catalog)],
                self._commit_args(agent if is_hashed(tag) else "", expected, change),
            )
        )
        if revision is None:
            return None
        gone = [rows.dump_member("server", agent, name) for name, is_mine in mine.items() if not is_mine]
        await self._after_commit(tag, int(revision), gone)
        return int(revision)

    async def _after_commit(self, tag: AgentTag, revision: int, gone: Collection[bytes]) -> None:
        self._unlisted[tag] = revision
        listing = self._listing.begin((tag, revision))
        await self._disown(gone)
        failure = await listing
        if failure is not None:
            # In a Cluster the list is elsewhere; the change has been taken all the same. `renew` tries again.
            logger.warning(
                "the list of agents was not reached", extra={"event": "agents_unreached", "cause": str(failure)}
            )
        elif self._unlisted.get(tag) == revision:
            del self._unlisted[tag]

    def _is_mine(self, row: Row | None) -> bool:
        return row is not None and row.worker == self.worker_id and row.state != "offline"

    def _commit_args(self, noted: str, expected: int, change: Change) -> list[Any]:
        parts: list[Mapping[str, Row | Claim | Seen | None]] = [change.rows, change.claims, change.seen]
        args: list[Any] = [self._tools.publish, expected, self._lifetimes.agent_ms, self._lifetimes.seen_ms]
        args += [self._tools.seen_limit, *(len(part) for part in parts), len(change.pins)]
        for part in parts:
            for name, value in part.items():
                args += [name, b"" if value is None else rows.dump(value, noted)]
        for name, pins in change.pins.items():
            args += [name, b"" if pins is None else rows.dump_pins(pins)]
        return args

    async def _own(self, members: Collection[bytes]) -> None:
        if members:
            await self._owning.send(*((member, True) for member in members))

    async def _disown(self, members: Collection[bytes]) -> None:
        if members:
            await self._owning.send(*((member, False) for member in members))

    def _own_commands(self, wanted: list[tuple[bytes, bool]]) -> list[Command]:
        """Of a member that comes and goes the last word counts."""
        owned, last = self._keys.owned(self.worker_id), dict(wanted)
        mine = [member for member, is_mine in last.items() if is_mine]
        gone = [member for member, is_mine in last.items() if not is_mine]
        commands: list[tuple[Any, ...]] = []
        if gone:
            commands.append(("SREM", owned, *gone))
        if mine:
            commands += [("SADD", owned, *mine), ("PEXPIRE", owned, self._lifetimes.owned_ms)]
        return [Command(words, is_repeatable=True) for words in commands]

    def _list_commands(self, changes: list[tuple[AgentTag, int]]) -> list[Command]:
        return [Command(words, is_repeatable=True) for words in self._list_words(dict(changes), "GT")]

    def _list_words(self, scores: Mapping[AgentTag, int], condition: str) -> list[tuple[Any, ...]]:
        """Note when the agents last changed. GT: only a later time; NX: only agents that are not listed."""
        pairs = [word for tag, score in scores.items() for word in (score, tag)]
        agents = self._keys.agents
        return [("ZADD", agents, condition, *pairs), ("PEXPIRE", agents, self._lifetimes.agent_ms)]

    # -- tool sets

    async def toolsets(self, digests: Collection[str]) -> dict[str, bytes]:
        asked = list(dict.fromkeys(digests))
        replies = await self._call_all([("GET", self._keys.toolset(digest)) for digest in asked])
        return {digest: text for digest, text in zip(asked, replies, strict=True) if text is not None}

    async def put_toolsets(self, toolsets: Mapping[str, bytes]) -> None:
        lifetime_ms = self._lifetimes.toolset_ms
        renewed = await self._call_all([("PEXPIRE", self._keys.toolset(digest), lifetime_ms) for digest in toolsets])
        missing = {digest: text for (digest, text), there in zip(toolsets.items(), renewed, strict=True) if not there}
        for digest, text in missing.items():
            # One at a time: each may have megabytes, and others share the connection.
            await self._call("SET", self._keys.toolset(digest), text, "PX", lifetime_ms)
        if len(self._put_ms) >= _MOST_REMEMBERED_TOOLSETS:
            self._put_ms.clear()
        self._put_ms.update(dict.fromkeys(toolsets, self._monotonic_ms))

    async def _put_missing(self, toolsets: Mapping[str, bytes]) -> None:
        """Put those that this worker has not put lately."""
        limit_ms = self._monotonic_ms - self._lifetimes.toolset_ms / 3
        unsure = {digest: text for digest, text in toolsets.items() if self._put_ms.get(digest, limit_ms) <= limit_ms}
        if unsure:
            await self.put_toolsets(unsure)

    def _forget_toolsets(self) -> None:
        """The store may have lost them."""
        self._put_ms.clear()

    # -- changes

    async def watch(self, agent: str) -> None:
        tag = agent_tag(agent)
        channel = self._keys.catalog(tag)
        self._watched[channel.encode()] = agent
        if is_hashed(tag):
            self._hashed[tag] = agent
        await self._subscriber.add(channel)

    async def unwatch(self, agent: str) -> None:
        tag = agent_tag(agent)
        channel = self._keys.catalog(tag)
        self._watched.pop(channel.encode(), None)
        self._hashed.pop(tag, None)
        self._subscriber.discard(channel)

    async def changed(self, since_ms: int) -> dict[str, int]:
        reply = await self._call("ZRANGEBYSCORE", self._keys.agents, max(since_ms, 1), "+inf", "WITHSCORES")
        hashed = self._hashed
        changed = {text_of(tag): whole(score) for tag, score in zip(reply[::2], reply[1::2], strict=True)}
        return {hashed.get(tag, tag): revision for tag, revision in changed.items()} if hashed else changed

    async def naming(self, worker: str, agents: Collection[str]) -> list[str]:
        asked = list(agents)
        replies = await self._call_all([("HVALS", self._keys.servers(agent_tag(agent))) for agent in asked])
        pairs = zip(asked, replies, strict=True)
        return [agent for agent, texts in pairs if any(rows.is_at(text, worker) for text in texts)]

    # -- robots

    async def put_robots(self, robots: Mapping[tuple[str, str], RobotRow | None]) -> dict[str, int]:
        counts: dict[str, int] = {}
        for part in sliced(robots.items(), SLICE):
            here = {of: row for of, row in part if row is not None}
            gone = [of for of, row in part if row is None]
            await self._call_all([("HDEL", self._keys.robots(agent_tag(agent)), conn) for agent, conn in gone])
            counts |= await self._put_robots(here)
            await self._disown([rows.dump_member("robot", agent, conn) for agent, conn in gone])
        return counts

    async def _put_robots(self, robots: Mapping[tuple[str, str], RobotRow]) -> dict[str, int]:
        if not robots:
            return {}
        await self._own([rows.dump_member("robot", agent, conn) for agent, conn in robots])
        commands: list[tuple[Any, ...]] = []
        tags = {agent: agent_tag(agent) for agent, _ in robots}
        for (agent, conn), row in robots.items():
            noted = agent if is_hashed(tags[agent]) else ""
            commands.append(("HSET", self._keys.robots(tags[agent]), conn, rows.dump(row, noted)))
        keys = [self._keys.robots(tag) for tag in tags.values()]
        commands += [("PEXPIRE", key, self._lifetimes.robots_ms) for key in keys]
        counts = (await self._call_all([*commands, *(("HLEN", key) for key in keys)]))[len(commands) :]
        await self._call_all(self._list_words(dict.fromkeys(tags.values(), self.now_ms), "NX"))
        return dict(zip(tags, counts, strict=True))

    # -- keeping alive

    async def renew(self, agents: Collection[str]) -> None:
        keys, lifetimes = self._keys, self._lifetimes
        tags = [agent_tag(agent) for agent in agents]
        commands: list[tuple[Any, ...]] = [("PEXPIRE", keys.agents, lifetimes.agent_ms)]
        for tag in tags:
            commands += [("PEXPIRE", key(tag), lifetimes.agent_ms) for key in (keys.revision, keys.servers, keys.names)]
            commands.append(("PEXPIRE", keys.robots(tag), lifetimes.robots_ms))
        await self._call_all(commands)
        await self._list_again()
        await self._prune_agents()

    async def _list_again(self) -> None:
        """List what could not be listed when it changed."""
        changes = dict(self._unlisted)
        if changes:
            await self._listing.send(*changes.items())
        for tag, revision in changes.items():
            if self._unlisted.get(tag) == revision:
                del self._unlisted[tag]

    async def _prune_agents(self) -> None:
        """Take agents off the list whose keys have expired."""
        oldest_ms = self.now_ms - self._lifetimes.agent_ms
        reply = await self._call(
            *("ZRANGEBYSCORE", self._keys.agents, "-inf", oldest_ms, "WITHSCORES", "LIMIT", 0, _PAGE)
        )
        listed = paired(reply)
        keys = [(self._keys.revision(_tag(name)), self._keys.robots(_tag(name))) for name in listed]
        alive = await self._call_all([("EXISTS", key) for both in keys for key in both])
        gone = [word for at, pair in enumerate(listed.items()) if not any(alive[2 * at : 2 * at + 2]) for word in pair]
        if gone:
            await self._link.call(script_command("prune", [self._keys.agents], gone, is_repeatable=True))

    # -- the cluster at a glance

    async def overview(self, *, limit: int, agent: str | None = None) -> Overview:
        agents: dict[str, dict[str, Row]] = {}
        robots: dict[str, int] = {}
        tags: list[bytes] = [] if agent is None else [agent_tag(agent).encode()]
        start, is_last = 0, agent is not None
        while len(agents) <= limit:
            if agent is None:
                tags = await self._call("ZREVRANGE", self._keys.agents, start, start + _PAGE - 1)
                is_last = len(tags) < _PAGE
            start += _PAGE
            for name, (its_rows, its_robots) in (await self._peopled(tags)).items():
                agents[agent or name], robots[agent or name] = its_rows, its_robots
            if is_last:
                break
        shown = list(agents)[:limit]
        return Overview(
            workers=await self._worker_rows(),
            agents={name: agents[name] for name in shown},
            robots={name: robots[name] for name in shown},
            truncated=len(agents) > limit,
        )

    async def _peopled(self, tags: Collection[bytes]) -> dict[str, tuple[dict[str, Row], int]]:
        """Those of the agents that have a row or a robot, in the same order."""
        found: dict[str, tuple[dict[str, Row], int]] = {}
        servers = await self._call_all([("HGETALL", self._keys.servers(_tag(name))) for name in tags])
        robots = await self._call_all([("HLEN", self._keys.robots(_tag(name))) for name in tags])
        for name, flat, count in zip(tags, servers, robots, strict=True):
            texts = paired(flat)
            its_rows = _present({text_of(field): rows.load_row(text) for field, text in texts.items()})
            if its_rows or count:
                found[await self._agent_of(_tag(name), texts)] = (its_rows, count)
        return found

    async def _agent_of(self, tag: AgentTag, texts: Mapping[bytes, bytes]) -> str:
        """The agent's own id, which a row or a robot has noted where the tag is a hash."""
        if not is_hashed(tag):
            return tag
        some_robot = await self._call("HRANDFIELD", self._keys.robots(tag), 1, "WITHVALUES")
        noted = [rows.noted_agent(text) for text in (*texts.values(), *some_robot[1:])]
        return next(filter(None, noted), tag)

    async def _worker_rows(self) -> dict[str, WorkerRow]:
        names = [text_of(name) for name in await self._call("ZRANGE", self._keys.workers, 0, -1)]
        replies = await self._call_all([("HGETALL", self._keys.worker(name)) for name in names])
        return _present({name: rows.load_worker(paired(flat)) for name, flat in zip(names, replies, strict=True)})


def _present(values: Mapping[str, Value | None]) -> dict[str, Value]:
    return {name: value for name, value in values.items() if value is not None}


def _tag(name: bytes) -> AgentTag:
    """A member of the list of agents is a tag already."""
    return AgentTag(text_of(name))
