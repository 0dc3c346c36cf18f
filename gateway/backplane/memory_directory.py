"""Rows, claims, tool sets and robots in the memory of one process."""

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

from gateway.backplane.base import Change, Overview, RobotRow, Snapshot
from gateway.backplane.memory_pins import MemoryPins
from gateway.backplane.memory_store import KeptAgent
from gateway.directory import Row, Seen


class MemoryDirectory(MemoryPins):
    """See `gateway.backplane.base.Directory`."""

    def _hear_catalog(self, agent: str, revision: int) -> None:
        if self._listener is not None:
            self._listener.on_catalog(agent, revision)

    async def snapshot(self, agent: str) -> Snapshot:
        state = self._store.agent(agent)
        facts = dict(state.rows), dict(state.claims), dict(state.seen), dict(self._store.pins.get(agent, {}))
        return Snapshot(state.revision, self.now_ms, *facts)

    async def commit(self, agent: str, expected: int, change: Change) -> int | None:
        state = self._store.agent(agent)
        if state.revision != expected:
            return None
        await self.put_toolsets(change.toolsets)
        self._put_pins(agent, change.pins)
        self._own(agent, change.rows)
        _apply(state.rows, change.rows)
        _apply(state.claims, change.claims)
        if change.seen:
            _apply(state.seen, change.seen)
            _keep_newest(state.seen, self._seen_limit)
            state.seen_expire_ms = self.now_ms + self._store.lifetimes.seen_ms
        return self._revise(agent, state)

    def _revise(self, agent: str, state: KeptAgent) -> int:
        """The agent's facts are other ones now: a new revision, of which everybody hears who watches it."""
        now_ms = self.now_ms
        state.revision = state.changed_ms = max(state.revision + 1, now_ms)
        state.expires_ms = now_ms + self._store.lifetimes.agent_ms
        loop = asyncio.get_running_loop()
        for hear in self._store.watchers.get(agent, {}).values():
            loop.call_soon(hear, agent, state.revision)
        return state.revision

    def _own(self, agent: str, rows: Mapping[str, Row | None]) -> None:
        owned = self._store.worker(self.worker_id).owned
        for server_id, row in rows.items():
            if row is not None and row.worker == self.worker_id and row.state != "offline":
                owned.add(("server", agent, server_id))
            else:
                owned.discard(("server", agent, server_id))

    async def toolsets(self, digests: Collection[str]) -> dict[str, bytes]:
        kept = self._store.toolsets
        return {digest: kept[digest][0] for digest in digests if digest in kept and kept[digest][1] > self.now_ms}

    async def put_toolsets(self, toolsets: Mapping[str, bytes]) -> None:
        expires_ms = self.now_ms + self._store.lifetimes.toolset_ms
        for digest, tools in toolsets.items():
            self._store.toolsets[digest] = (tools, expires_ms)

    async def watch(self, agent: str) -> None:
        self._store.watchers.setdefault(agent, {})[self.worker_id] = self._hear_catalog

    async def unwatch(self, agent: str) -> None:
        watchers = self._store.watchers.get(agent, {})
        watchers.pop(self.worker_id, None)
        if not watchers:
            self._store.watchers.pop(agent, None)

    async def changed(self, since_ms: int) -> dict[str, int]:
        since_ms = max(since_ms, 1)
        return {name: state.changed_ms for name, state in self._store.agents.items() if state.changed_ms >= since_ms}

    async def naming(self, worker: str, agents: Collection[str]) -> list[str]:
        return [name for name in agents if any(row.worker == worker for row in self._store.agent(name).rows.values())]

    async def put_robots(self, robots: Mapping[tuple[str, str], RobotRow | None]) -> dict[str, int]:
        owned = self._store.worker(self.worker_id).owned
        for (agent, conn), row in robots.items():
            state = self._store.agent(agent)
            if row is None:
                state.robots.pop(conn, None)
                owned.discard(("robot", agent, conn))
                continue
            owned.add(("robot", agent, conn))
            state.robots[conn] = row
            state.changed_ms = state.changed_ms or self.now_ms
            state.robots_expire_ms = self.now_ms + self._store.lifetimes.robots_ms
        written = [agent for (agent, _), row in robots.items() if row is not None]
        return {agent: len(self._store.agent(agent).robots) for agent in written}

    async def renew(self, agents: Collection[str]) -> None:
        now_ms, lifetimes = self.now_ms, self._store.lifetimes
        for agent in agents:
            state = self._store.agent(agent)
            state.expires_ms = now_ms + lifetimes.agent_ms
            state.robots_expire_ms = now_ms + lifetimes.robots_ms

    async def overview(self, *, limit: int, agent: str | None = None) -> Overview:
        store = self._store
        known = [name for name in store.agents if agent in (None, name) and store.agent(name).is_peopled]
        known.sort(key=lambda name: -store.agents[name].changed_ms)
        shown = known[:limit]
        return Overview(
            workers={name: kept.row for name, kept in store.workers.items() if kept.row and store.has_lease(name)},
            agents={name: dict(store.agents[name].rows) for name in shown},
            robots={name: len(store.agents[name].robots) for name in shown},
            truncated=len(known) > limit,
        )


def _apply(kept: dict[str, Any], change: Mapping[str, Any]) -> None:
    for name, value in change.items():
        if value is None:
            kept.pop(name, None)
        else:
            kept[name] = value


def _keep_newest(seen: dict[str, Seen], limit: int) -> None:
    newest_first = sorted(seen, key=lambda name: -max(seen[name].connected, seen[name].disconnected))
    for name in newest_first[limit:]:
        del seen[name]
