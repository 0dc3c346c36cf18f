"""Gathers what a worker knows and the store says of one agent, for the status answer (`gateway.status`).

Theory of operation
-------------------
Whoever has one agent's token may ask, as often as he likes, on the event loop that carries everybody's calls. So the
answer is put together in a thread, tool sets are read from the store once, and an agent may ask for so many tools a
second.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from gateway import outage, status
from gateway.agents import Agents
from gateway.backplane.base import Backplane, BackplaneUnavailable, Snapshot, WorkerRow
from gateway.credential import Credential
from gateway.outage import Registered
from gateway.rates import Allowances
from gateway.status import Terms

TOOLS_AT_ONCE = 20_000
TOOLS_PER_SECOND = 500.0
"""What one agent may ask for; what it gets beyond that must grow back. A tool takes up to 80 µs of a thread."""
TOOLS_EACH = 20
"""An answer without tools costs as much as so many."""
AGENTS_MAX = 1000
"""Whose allowances are kept although they may be whole again."""
SETS_MAX = 200
"""So many tool sets of agents that are not looked after here are remembered, by the names in them."""
OPEN_MAX = 20
"""Enquiries at once, of all agents."""

ToolNames: TypeAlias = dict[str, list[str]]


class TooOften(Exception):
    """The agent has asked for too much, or too many ask at once; in a while it may ask again."""


class Enquiries:
    """Answers what agents ask about themselves."""

    def __init__(self, backplane: Backplane, agents: Agents, *, grace_seconds: float, pins: str = "off") -> None:
        self._backplane = backplane
        self._agents = agents
        self._grace_seconds = grace_seconds
        self._pins = pins
        self._names: ToolNames = {}
        self._open = 0
        self._one_by_one = asyncio.Lock()
        self._allowances = Allowances(TOOLS_AT_ONCE, TOOLS_PER_SECOND, names_max=AGENTS_MAX)

    async def status_of(self, credential: Credential, now: float) -> dict[str, Any]:
        """The status of the credential's agent, as far as it may be told (`status.answer`): from the store, and while
        that is away from what this worker knows, marked as such.

        Raises TooOften, and BackplaneUnavailable when the store is away and this worker knows nothing of the agent.
        """
        if self._open >= OPEN_MAX or self._allowances.of(credential.agent, now).is_spent(now):
            raise TooOften
        self._open += 1
        try:
            return await self._status_of(credential, now)
        finally:
            self._open -= 1

    async def _status_of(self, credential: Credential, now: float) -> dict[str, Any]:
        agent = credential.agent
        try:
            snapshot = await self._backplane.snapshot(agent)
            self._charge(agent, snapshot, now)
            tools = await self._tools(snapshot)
            overview = await self._backplane.overview(limit=1, agent=agent)
        except BackplaneUnavailable:
            known = self._known_here(agent)
            if known is None:
                raise
            snapshot, tools, robots = known
            self._charge(agent, snapshot, now)
            believed = {row.worker: WorkerRow("", 0, "", 0) for row in snapshot.rows.values()}
            told = await self._answer(credential, snapshot, tools, believed, robots)
            return {**told, "source": "worker", "workers": 1}
        return await self._answer(credential, snapshot, tools, overview.workers, overview.robots.get(agent, 0))

    def _charge(self, agent: str, snapshot: Snapshot, now: float) -> None:
        tools = TOOLS_EACH + sum(row.tools for row in snapshot.rows.values())
        self._allowances.of(agent, now).spend(min(tools, TOOLS_AT_ONCE), now)

    async def _tools(self, snapshot: Snapshot) -> ToolNames:
        """The names of the tools in each of the tool sets."""
        wanted = status.digests(snapshot)
        names = {**self._here(wanted), **{digest: self._names[digest] for digest in wanted & self._names.keys()}}
        missing = wanted - names.keys()
        if not missing:
            return names
        texts = await self._backplane.toolsets(missing)
        read = await asyncio.to_thread(lambda: {digest: status.tool_names(text) for digest, text in texts.items()})
        if len(self._names) + len(read) > SETS_MAX:
            self._names.clear()
        self._names.update(read)
        return {**names, **read}

    def _here(self, wanted: set[str]) -> ToolNames:
        known = self._agents.toolsets
        return {digest: [tool["name"] for tool in known[digest]] for digest in wanted & known.keys()}

    async def _answer(
        self,
        credential: Credential,
        snapshot: Snapshot,
        tools: ToolNames,
        workers: Mapping[str, WorkerRow],
        robots: int,
    ) -> dict[str, Any]:
        terms = Terms(self._grace_seconds, self._agents.policies.of(credential.agent), self._pins)
        async with self._one_by_one:  # several threads at work would leave the event loop one turn in so many
            return await asyncio.to_thread(lambda: status.answer(credential, snapshot, tools, workers, robots, terms))

    def _known_here(self, agent_id: str) -> tuple[Snapshot, ToolNames, int] | None:
        """What was last read of the agent, with what is connected here now; None if that is nothing."""
        agent = self._agents.get(agent_id)
        if agent is None or not (agent.tool_servers or agent.is_loaded):
            return None
        links = [link for link in agent.tool_servers.values() if not link.cause]
        facts = outage.facts(
            agent.facts,
            [Registered(link.server_id, link.row, link.claims) for link in links if link.row is not None],
            [link.offer for link in links if link.row is None and link.offer is not None],
            worker=self._backplane.worker_id,
            now_ms=self._backplane.now_ms,
            rules=self._agents.rules_of(agent_id),
        )
        names = {link.row.toolset: status.tool_names(link.toolset) for link in links if link.row is not None}
        return replace(facts, seen={}), {**names, **self._here(status.digests(facts))}, len(agent.robots)
