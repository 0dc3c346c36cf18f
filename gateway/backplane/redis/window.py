"""The window into the cluster: reads what an operator wants to see, in bounded steps and with rights to read only."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import orjson

from gateway.backplane import rows
from gateway.backplane.base import Entry, RobotRow, Snapshot, WorkerRow
from gateway.backplane.entries import load
from gateway.backplane.facts import AgentFacts, AuditFacts, CallFacts, EventFacts, WorkerFacts
from gateway.backplane.keys import AgentTag, Keys, agent_tag, is_hashed
from gateway.backplane.redis.reading import Reader, Refused
from gateway.directory import Pins, Row
from gateway.pace import sliced

Value = TypeVar("Value")

ROWS_MAX = 1000
"""Tool servers, claims and memories of one agent that are read: many times what the settings allow."""
_CALL_FIELDS = ("state", "from", "agent", "server_id", "tool", "sent")
_STEP = 500
_PAGE_MEMBERS = 5000
_DIGITS_MAX = 18
_SCORE_MAX = 2.0**53
"""Beyond that a score is no whole number any more."""


class Window:
    """Reads the directory, the ledger and the event log. Everything raises BackplaneUnavailable."""

    def __init__(self, reader: Reader, prefix: str) -> None:
        self.reader = reader
        self.keys = Keys(prefix)

    async def now_ms(self) -> int:
        """The time by Redis' clock."""
        seconds, micros = await self.reader.ask("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    # -- workers

    async def workers(self, also: Collection[str] = (), limit: int = ROWS_MAX) -> list[WorkerFacts]:
        """Those on the list, the longest lease first, and `also`, whether they are on it or not."""
        listed = await self._scores(self.keys.workers, limit)
        ids = list(dict.fromkeys((*listed, *also)))
        names = [self.keys.worker(worker) for worker in ids]
        hashes = await self.reader.hashes(names, ROWS_MAX)
        leases = await self.reader.ask_all([("PTTL", name) for name in names])
        executing = await self.reader.ask_all([("ZCARD", self.keys.inflight(worker)) for worker in ids])
        owned = await self.reader.ask_all([("SCARD", self.keys.owned(worker)) for worker in ids])
        listeners = await self._listeners(ids)
        return [
            WorkerFacts(
                id=worker,
                row=_worker_row(fields),
                listed_until_ms=listed.get(worker, 0),
                lease_left_ms=int(lease) if int(lease) != -2 else 0,
                beat_ms=_integer(fields.get("beat", "")),
                executing=int(running),
                owned=int(own),
                listeners=heard,
            )
            for worker, fields, lease, running, own, heard in zip(
                ids, hashes, leases, executing, owned, listeners, strict=True
            )
        ]

    async def _listeners(self, workers: Sequence[str]) -> Sequence[int | None]:
        try:
            return await self.reader.listeners([self.keys.mailbox(worker) for worker in workers])
        except Refused:
            return [None] * len(workers)

    async def alive(self, workers: Iterable[str]) -> set[str]:
        """Which of them have a lease."""
        asked = list(dict.fromkeys(workers))
        there = await self.reader.ask_all([("EXISTS", self.keys.worker(worker)) for worker in asked])
        return {worker for worker, count in zip(asked, there, strict=True) if int(count)}

    # -- agents

    async def agents(self, limit: int, start: int = 0) -> list[AgentFacts]:
        """Those that changed last, with their tool servers and the number of their robots; at most `limit`.

        `start` are passed over.
        """
        found: list[AgentFacts] = []
        listed = await self._scores(self.keys.agents, limit, start)
        for part in sliced(listed.items(), _STEP):
            tags = [AgentTag(tag) for tag, _ in part]
            servers = await self.reader.hashes([self.keys.servers(tag) for tag in tags], ROWS_MAX)
            counts = await self.reader.ask_all([("HLEN", self.keys.robots(tag)) for tag in tags])
            for (tag, changed), fields, count in zip(part, servers, counts, strict=True):
                agent = await self._agent_id(AgentTag(tag), fields.values())
                its_rows = _present({name: rows.load_row(text.encode()) for name, text in fields.items()})
                found.append(AgentFacts(agent, tag, Snapshot(0, 0, its_rows), changed, int(count)))
        return found

    async def agent(self, agent: str, robots_limit: int = ROWS_MAX) -> AgentFacts | None:
        """All about one agent, by its id or by the hash that stands for it; None where nothing is known."""
        tag = agent_tag(agent)
        (facts,) = await self.tagged([tag], robots_limit)
        if facts is None and is_hashed(agent):
            (facts,) = await self.tagged([AgentTag(agent)], robots_limit)
            return facts
        return facts and replace(facts, id=agent)

    async def tagged(self, tags: Sequence[AgentTag], robots_limit: int) -> list[AgentFacts | None]:
        """All about the agents whose keys have these tags."""
        found: list[AgentFacts | None] = []
        for part in sliced(tags, _STEP):
            found += await self._tagged(part, robots_limit)
        return found

    async def _tagged(self, tags: Sequence[AgentTag], robots_limit: int) -> list[AgentFacts | None]:
        keys, ask_all, hashes = self.keys, self.reader.ask_all, self.reader.hashes
        servers = await hashes([keys.servers(tag) for tag in tags], 8 * ROWS_MAX)
        claims = await hashes([keys.names(tag) for tag in tags], 8 * ROWS_MAX)
        seen = await hashes([keys.seen(tag) for tag in tags], 8 * ROWS_MAX)
        robots = await hashes([keys.robots(tag) for tag in tags], robots_limit)
        revisions = await ask_all([("GET", keys.revision(tag)) for tag in tags])
        counts = await ask_all([("HLEN", keys.robots(tag)) for tag in tags])
        changes = await ask_all([("ZSCORE", keys.agents, tag) for tag in tags])
        now_ms = await self.now_ms()
        found: list[AgentFacts | None] = []
        for at, tag in enumerate(tags):
            if not (servers[at] or claims[at] or seen[at] or robots[at] or revisions[at]):
                found.append(None)
                continue
            snapshot = Snapshot(
                revision=_integer(revisions[at] or ""),
                now_ms=now_ms,
                rows=_present({name: rows.load_row(text.encode()) for name, text in servers[at].items()}),
                claims=_present({name: rows.load_claim(text.encode()) for name, text in claims[at].items()}),
                seen=_present({name: rows.load_seen(text.encode()) for name, text in seen[at].items()}),
            )
            people = _present({conn: rows.load_robot(text.encode()) for conn, text in robots[at].items()})
            agent, changed_ms = await self._agent_id(tag, servers[at].values()), _score(changes[at] or "0")
            found.append(AgentFacts(agent, tag, snapshot, changed_ms, int(counts[at]), people))
        return found

    async def row(self, tag: str, server_id: str) -> Row | None:
        """The row of one tool server of the agent whose keys have this tag."""
        text = await self.reader.ask("HGET", self.keys.servers(AgentTag(tag)), server_id)
        return None if text is None else rows.load_row(text.encode())

    async def pins(self, tag: AgentTag) -> dict[str, Pins]:
        """What is pinned of the tool servers of the agent whose keys have this tag."""
        (pinned,) = await self.reader.hashes([self.keys.pins(tag)], 8 * ROWS_MAX)
        return _present({name: rows.load_pins(text.encode()) for name, text in pinned.items()})

    async def decisions(self, book: str, names: Sequence[str]) -> dict[str, Entry]:
        """What stands in a book under these names; what was taken back is left out."""
        texts = await self.reader.ask("HMGET", self.keys.book(book), *names)
        entries = {name: load(text.encode()) for name, text in zip(names, texts, strict=True) if text is not None}
        return {name: entry for name, entry in entries.items() if entry is not None and entry.text}

    async def robots(self, tag: str, limit: int) -> dict[str, RobotRow]:
        """The agent's robots, by their connection."""
        (robots,) = await self.reader.hashes([self.keys.robots(AgentTag(tag))], limit)
        return _present({conn: rows.load_robot(text.encode()) for conn, text in robots.items()})

    async def _agent_id(self, tag: AgentTag, texts: Iterable[str]) -> str:
        """The agent's own id, which a row, a memory or a robot has noted where the tag is a hash."""
        if not is_hashed(tag):
            return tag
        noted = next(filter(None, (rows.noted_agent(text.encode()) for text in texts)), "")
        for key in (self.keys.robots(tag), self.keys.seen(tag)) if not noted else ():
            some = await self.reader.ask("HRANDFIELD", key, 1, "WITHVALUES")
            noted = noted or next(filter(None, (rows.noted_agent(text.encode()) for text in some[1:])), "")
        return noted or tag

    # -- tools, calls, events

    async def toolsets(self, digests: Collection[str]) -> dict[str, bytes]:
        """The tools (JSON text) of each digest that is there."""
        asked = list(dict.fromkeys(filter(None, digests)))
        found: dict[str, bytes] = {}
        for part in sliced(asked, 16):  # each may have megabytes
            texts = await self.reader.ask_all([("GET", self.keys.toolset(digest)) for digest in part])
            found |= {digest: text.encode() for digest, text in zip(part, texts, strict=True) if text is not None}
        return found

    async def toolsets_there(self, digests: Collection[str]) -> set[str]:
        """Which of them are there."""
        asked = list(dict.fromkeys(filter(None, digests)))
        there = await self.reader.ask_all([("EXISTS", self.keys.toolset(digest)) for digest in asked])
        return {digest for digest, count in zip(asked, there, strict=True) if int(count)}

    async def calls(self, workers: Iterable[str], limit: int) -> list[CallFacts]:
        """Calls that these workers' tool servers execute, those that are due first; at most `limit` of each."""
        asked = list(workers)
        lists = await self.reader.ask_all(
            [("ZRANGE", self.keys.inflight(worker), 0, limit - 1, "WITHSCORES") for worker in asked]
        )
        due = [
            (worker, call_id, _score(score))
            for worker, flat in zip(asked, lists, strict=True)
            for call_id, score in zip(flat[::2], flat[1::2], strict=True)
        ]
        records = await self.reader.ask_all([("HMGET", self.keys.call(w, id_), *_CALL_FIELDS) for w, id_, _ in due])
        return [_call(worker, call_id, at, record) for (worker, call_id, at), record in zip(due, records, strict=True)]

    async def events(self, limit: int, before: str = "") -> list[EventFacts]:
        """The newest lines of the event log, newest first; those `before` a line of that id."""
        newest = f"({before}" if before else "+"
        lines = await self.reader.ask("XREVRANGE", self.keys.events, newest, "-", "COUNT", limit)
        return [_event(line_id, flat) for line_id, flat in lines]

    async def audit(self, limit: int, before: str = "") -> list[AuditFacts]:
        """The newest records of the audit, newest first; those `before` a record of that id."""
        newest = f"({before}" if before else "+"
        lines = await self.reader.ask("XREVRANGE", self.keys.audit, newest, "-", "COUNT", limit)
        return [_audit(line_id, flat) for line_id, flat in lines]

    async def _scores(self, key: str, limit: int, start: int = 0) -> dict[str, int]:
        """The members of a sorted set with the highest scores."""
        found: dict[str, int] = {}
        while len(found) < limit:
            known = len(found)
            first, step = start + known, min(_PAGE_MEMBERS, limit - known)
            flat = await self.reader.ask("ZREVRANGE", key, first, first + step - 1, "WITHSCORES")
            found |= {member: _score(score) for member, score in zip(flat[::2], flat[1::2], strict=True)}
            if len(flat) // 2 < step or len(found) == known:
                break
        return found


def _worker_row(fields: Mapping[str, str]) -> WorkerRow | None:
    return rows.load_worker({name.encode(): value.encode() for name, value in fields.items()})


def _call(worker: str, call_id: str, due_ms: int, record: Sequence[str | None]) -> CallFacts:
    state, sender, agent, server_id, tool, sent = (value or "" for value in record)
    return CallFacts(call_id, worker, due_ms, state, sender, agent, server_id, tool, _integer(sent))


def _event(line_id: str, flat: Sequence[str]) -> EventFacts:
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    return EventFacts(line_id, _integer(line_id.partition("-")[0]), fields.pop("kind", ""), fields)


def _audit(line_id: str, flat: Sequence[str]) -> AuditFacts:
    try:
        fields = orjson.loads(dict(zip(flat[::2], flat[1::2], strict=True)).get("record", ""))
    except ValueError:  # an operator's hand
        fields = {}
    return AuditFacts(line_id, _integer(line_id.partition("-")[0]), fields if isinstance(fields, dict) else {})


def _integer(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX else 0


def _score(text: str) -> int:
    """A score that is a time; a hand can have made it infinite."""
    return int(max(-_SCORE_MAX, min(float(text), _SCORE_MAX)))


def _present(values: Mapping[str, Value | None]) -> dict[str, Value]:
    return {name: value for name, value in values.items() if value is not None}
