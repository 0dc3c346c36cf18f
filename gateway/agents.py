"""The agents that have a connection here, and the catalog of each.

Theory of operation
-------------------
An agent is looked after from its first connection on this worker until ten minutes after its last. While it has a
robot here, its changes are watched, and whenever its revision is ahead of the catalog's, the facts are read and the
catalog is built anew. (Tool servers need no catalog, and thousands of them redial at once when a worker dies.) One
load at a time per agent; what changes meanwhile causes one more. Facts that can't be read are those of last time,
with what is connected here (`outage`), and the next beat tries again.

What its people have decided (`Agent.policy`) is part of a catalog as well: when that changes, catalogs are built anew
from the facts that are here, one in a turn of the loop.

Subscribe, confirm, then read: a change can't fall between. The list of changed agents that every beat reads is the
second net under a lost message.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import replace
from functools import partial
from itertools import takewhile

import orjson

from gateway import catalog as catalogs
from gateway import outage, pins
from gateway.agent import Agent
from gateway.backplane.base import Backplane, BackplaneUnavailable, Snapshot
from gateway.catalog import Catalog
from gateway.directory import Row
from gateway.guarded import for_each
from gateway.outage import Registered
from gateway.pin_modes import AWAITED_SECONDS, PinModes
from gateway.pinboard import Pinboard
from gateway.policies import Policies
from gateway.quotas import Quotas
from gateway.registration import Rules
from gateway.settings import Settings
from gateway.tasks import Tasks
from gateway.tools import told
from gateway.toolsets import Toolsets

logger = logging.getLogger(__name__)

LINGER_SECONDS = 600.0
REMEMBER_SECONDS = 62.0
"""Who has a connection looks once a minute whether its row is still there."""
LOOK_AGAIN_SECONDS = 8.0
TIMER_SECONDS = 0.05
"""A timer may come a little early, and would then find that nothing is over yet."""


class Agents:
    """All agents looked after here.

    `on_catalog` hears of every catalog that was built, `on_trouble` of an agent whose facts can't be read now.
    """

    def __init__(
        self,
        settings: Settings,
        backplane: Backplane,
        tasks: Tasks,
        *,
        on_catalog: Callable[[Agent], None],
        on_trouble: Callable[[Agent], None],
        policies: Policies | None = None,
    ) -> None:
        self._settings = settings
        self._backplane = backplane
        self._tasks = tasks
        self._on_catalog = on_catalog
        self._on_trouble = on_trouble
        self.policies = Policies() if policies is None else policies
        """To be told of changes, `adopt` has to follow."""
        self._agents: dict[str, Agent] = {}
        self._left: dict[str, Agent] = {}
        """Without a connection, since when in this order."""
        self._fading: dict[str, Agent] = {}
        """Those with a tool server whose grace may end."""
        self._unsettled: dict[str, Agent] = {}
        """Those that may have to be read once more although nobody says so."""
        self.toolsets = Toolsets(settings.toolset_bytes)
        self.pinboard = Pinboard()
        self.pin_modes = PinModes(settings.pins, self.policies)
        self.quotas = Quotas(settings, backplane, tasks)
        """What they may spend here."""
        self.rules = Rules(
            hold_ms=round(settings.name_hold_seconds * 1000),
            handshake_ms=round(settings.handshake_seconds * 1000),
            servers_max=settings.servers_per_agent,
            tools_max=settings.tools_per_agent,
            catalog_bytes=settings.catalog_bytes,
            tells_alike_apart=settings.pins != "off",
        )
        self.dead_workers: set[str] = set()
        """Workers whose lease was seen to be gone, although rows still name them."""

    def __iter__(self) -> Iterator[Agent]:
        return iter(self._agents.values())

    def __len__(self) -> int:
        return len(self._agents)

    @property
    def by_id(self) -> Mapping[str, Agent]:
        return self._agents

    def get(self, agent_id: str) -> Agent | None:
        return self._agents.get(agent_id)

    def enter(self, agent_id: str) -> Agent:
        """The agent, looked after from now on."""
        agent = self._agents.get(agent_id)
        if agent is None:
            agent = self._agents[agent_id] = Agent(agent_id, self.dead_workers)
            agent.policy = self.policies.of(agent_id)
        self._left.pop(agent_id, None)
        return agent

    def attend(self, agent: Agent) -> None:
        """A robot of the agent has come: its catalog is wanted, as it is now."""
        if not agent.is_current:
            # While nobody was here it may have grown old; the last one will do only if no other can be had.
            agent.is_loaded = agent.is_loaded and len(agent.robots) > 1
            self.catch_up(agent)

    def leave(self, agent: Agent, now: float) -> None:
        """A connection of the agent has gone; after the last one the agent is kept for a while."""
        if not agent.robots and not agent.tool_servers:
            agent.left_at = now
            self._left.pop(agent.id, None)
            self._left[agent.id] = agent

    async def sweep(self, now: float) -> None:
        """Let go of the agents that have been without a connection for long enough, and of tool sets nobody shows."""
        if self.toolsets.is_due:
            self.toolsets.let_go(
                {row.toolset for agent in self._agents.values() for row in agent.catalog.rows.values()}
            )
        for agent in list(takewhile(lambda agent: now - agent.left_at > LINGER_SECONDS, self._left.values())):
            if agent.is_loading or agent.id not in self._left:
                continue
            for agents in (self._agents, self._left, self._fading, self._unsettled):
                agents.pop(agent.id, None)
            if agent.is_watched:
                await self._backplane.unwatch(agent.id)

    def rules_of(self, agent_id: str) -> Rules:
        """The rules of the directory, with what the agent's people have set."""
        return self.rules.under(self.policies.of(agent_id), has_pins=self.pin_modes.of(agent_id) != "off")

    def adopt(self, names: Set[str] | None) -> None:
        """The policies of these agents may be others now (None: those of all): they are in force in a moment."""
        agents = (
            self._agents.values() if names is None else [self._agents[name] for name in names & self._agents.keys()]
        )
        changed = [agent for agent in agents if agent.policy != self.policies.of(agent.id)]
        for agent in changed:
            before, agent.policy = agent.policy, self.policies.of(agent.id)
            if self.pin_modes.begins_to_block(agent.id, before, self._tasks.now()):
                self._tasks.later(AWAITED_SECONDS + TIMER_SECONDS, partial(self.refresh, agent))
            if not agent.robots:  # who comes next reads everything anew
                agent.changes_wanted += 1
        if changed:
            self._tasks.spawn(self._build_anew(changed), "policies")

    async def _build_anew(self, agents: list[Agent]) -> None:
        for agent in agents:
            for_each([agent], self._show_again, "building a catalog under another policy")
            await self._tasks.pause(0)

    def _show_again(self, agent: Agent) -> None:
        if agent.is_loaded and agent.robots:
            self._show(agent, replace(agent.facts, now_ms=self._backplane.now_ms))

    def note_revision(self, agent_id: str, revision: int) -> None:
        """Somebody says that the agent's facts have reached this revision."""
        agent = self._agents.get(agent_id)
        # Another one, not a later one: a number that somebody made up must not hide all that comes.
        if agent is not None and revision > agent.catalog.revision and revision != agent.noted:
            agent.noted = revision
            self.refresh(agent)

    def refresh(self, agent: Agent) -> None:
        """Read the agent's facts again, soon, or when somebody wants them: only robots do."""
        agent.changes_wanted += 1
        self.catch_up(agent)

    def catch_up(self, agent: Agent) -> None:
        """Read the agent's facts if they are wanted and not being read."""
        if agent.robots and not agent.is_current and not agent.is_loading:
            agent.is_loading = True
            self._tasks.spawn(self._load(agent), f"load {agent.id}")

    def refresh_stale(self) -> None:
        """Try again where the last load failed or left something out."""
        now = self._tasks.now()
        for agent in list(self._unsettled.values()):
            if agent.is_settled:
                del self._unsettled[agent.id]
            elif agent.robots and (agent.catalog.missing or 0 < agent.looks_again_at <= now):
                self.refresh(agent)
            else:
                self.catch_up(agent)

    def revive(self, workers: Set[str]) -> None:
        """These workers live after all: what waits because they were taken for dead may go on."""
        if self.dead_workers & workers:
            self.dead_workers -= workers
            for agent in self._agents.values():
                if agent.waiting:
                    self.refresh(agent)

    def watch_again(self) -> None:
        """Nothing is subscribed any more: what is read next is watched first."""
        for agent in self._agents.values():
            agent.is_watched = False

    def forget_dead(self, listed: Set[str]) -> None:
        """Let go of dead workers that are off the list of workers and that no row names any more."""
        if not self.dead_workers <= listed:
            self.dead_workers &= listed | {row.worker for agent in self._agents.values() for row in agent.present_rows}

    def naming(self, worker: str) -> set[str]:
        """The agents with a row that says a connection is on this worker."""
        return {agent.id for agent in self._agents.values() if any(row.worker == worker for row in agent.present_rows)}

    def refresh_all(self) -> None:
        for agent in self._agents.values():
            agent.noted = 0
            self.refresh(agent)

    def end_graces(self) -> None:
        """Read again where a tool server's grace has ended, so that its tools leave the list."""
        now_ms = self._backplane.now_ms
        for agent in list(self._fading.values()):
            if not agent.catalog.listed_until_ms:
                del self._fading[agent.id]
            elif agent.catalog.listed_until_ms <= now_ms and not agent.is_loading:
                self.refresh(agent)

    def do_without_store(self, agent_id: str) -> None:
        """A tool server has come or gone that the directory could not be told of: robots here are to know."""
        agent = self._agents.get(agent_id)
        if agent is not None and agent.robots and not self._backplane.is_connected:
            self._make_do(agent)

    def _make_do(self, agent: Agent) -> None:
        """Build a catalog of what is known without the store, if that is anything new."""
        links = [link for link in agent.tool_servers.values() if not link.cause]
        registered = [Registered(link.server_id, link.row, link.claims) for link in links if link.row is not None]
        newcomers = [link.offer for link in links if link.row is None and link.offer is not None]
        if not (registered or newcomers or agent.is_loaded or agent.catalog.revision):
            return
        for link in links:
            if link.row is not None and link.row.toolset not in self.toolsets:
                self.toolsets.keep(link.row.toolset, orjson.loads(link.toolset), len(link.toolset))
        facts = outage.facts(
            agent.facts,
            registered,
            newcomers,
            worker=self._backplane.worker_id,
            now_ms=self._backplane.now_ms,
            rules=self.rules_of(agent.id),
        )
        if agent.is_loaded and facts.rows == agent.catalog.rows:
            return
        agent.is_loaded = True
        self._show(agent, facts)

    def _show(self, agent: Agent, facts: Snapshot) -> None:
        agent.facts = replace(facts, seen={})
        before, agent.catalog = agent.catalog, self._build(agent, facts)
        if before.pages != agent.catalog.pages:
            self._backplane.meters.catalog_changes_total.add()
        self._follow(agent)
        agent.lost_conns &= {row.conn for row in facts.rows.values()}
        self._on_catalog(agent)

    def _follow(self, agent: Agent) -> None:
        """Look at it now and then from now on, if there is a reason: the clocks walk these few, not all agents."""
        if agent.catalog.listed_until_ms:
            self._fading[agent.id] = agent
        if not agent.is_settled:
            self._unsettled[agent.id] = agent

    async def _load(self, agent: Agent) -> None:
        if not self._backplane.is_connected:
            agent.is_makeshift = True  # a name that it does not know may still be known to the store
            self._make_do(agent)  # calls here need not wait until it has been tried
        try:
            while agent.robots and not agent.is_current:
                await self._tasks.pause(0)  # what changes in this turn of the loop is read at once
                await self._load_once(agent, agent.changes_wanted)
        except BackplaneUnavailable as error:
            fields = {"event": "catalog_unread", "agent": agent.id, "cause": str(error)}
            logger.warning("catalog not read", extra=fields)
            agent.is_makeshift = False
            self._make_do(agent)
            self._on_trouble(agent)
        finally:
            agent.is_loading = agent.is_makeshift = False
            self._follow(agent)

    async def _load_once(self, agent: Agent, changes: int) -> None:
        if not agent.is_watched:
            await self._backplane.watch(agent.id)
            agent.is_watched = True
        stored = await self._backplane.snapshot(agent.id)
        snapshot = self._recall(agent, self.pinboard.recall(agent.id, stored))
        await self._find_dead(snapshot)
        wanted = {row.toolset for row in snapshot.rows.values() if row.toolset} - self.toolsets.keys()
        if wanted:
            for digest, text in (await self._backplane.toolsets(wanted)).items():
                tools = told(digest, text)
                if tools is not None:
                    self.toolsets.keep(digest, tools, len(text))
        agent.changes_read, agent.is_loaded, agent.is_makeshift = changes, True, False
        self._show(agent, snapshot)

    def _recall(self, agent: Agent, snapshot: Snapshot) -> Snapshot:
        """Add what the store has forgotten, until those who know it have put it back."""
        known = snapshot
        if agent.is_loaded:
            grace_ms = round(self._settings.grace_seconds * 1000)
            is_gone = self._is_gone_from(agent)
            known = outage.remembered(snapshot, agent.facts, grace_ms=grace_ms, is_gone=is_gone)
        now = self._tasks.now()
        if known is snapshot or 0 < agent.remembers_until <= now:
            agent.remembers_until = agent.looks_again_at = 0.0
            return snapshot
        agent.remembers_until = agent.remembers_until or now + REMEMBER_SECONDS
        agent.looks_again_at = now + LOOK_AGAIN_SECONDS
        return known

    def _is_gone_from(self, agent: Agent) -> Callable[[Row], bool]:
        """Whether this worker knows for sure that the row's connection is no more."""
        own = self._backplane.worker_id
        return lambda row: row.conn in agent.lost_conns or (row.worker == own and row.conn not in agent.tool_servers)

    async def _find_dead(self, snapshot: Snapshot) -> None:
        """Rows may name workers that are gone and not yet reaped; ask the leases themselves."""
        workers = {row.worker for row in snapshot.rows.values() if row.state != "offline"} - {self._backplane.worker_id}
        if workers:
            alive = await self._backplane.alive(workers)
            self.dead_workers |= workers - alive
            self.dead_workers -= alive

    def _build(self, agent: Agent, snapshot: Snapshot) -> Catalog:
        mode = self.pin_modes.of_catalog(agent.id, snapshot, self._tasks.now())
        built = catalogs.build(
            snapshot,
            self.toolsets,
            grace_ms=round(self._settings.grace_seconds * 1000),
            page_bytes=self._settings.result_bytes,
            policy=agent.policy,
            blocked=pins.blocked(snapshot, self.toolsets.fingerprints, mode),
        )
        for name in built.omitted:
            logger.warning("tool too large for any list, left out", extra={"event": "tool_omitted", "tool": name})
        return built
