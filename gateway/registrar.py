"""Carries the decisions about tool servers into the shared directory, as often as it takes.

Theory of operation
-------------------
Each procedure lets `registry` decide over a snapshot and has the change taken (`settling`). Those of one connection
run one after the other (`_in_turn`), so that an `offline` can't overtake its own `register`. When the store is away a
procedure waits for it and tries again: what a live connection has is put back in the end, and what is gone is cleaned
up by the lease.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Set
from dataclasses import replace
from typing import Any

from gateway import registry
from gateway.agent import Agent
from gateway.agents import Agents
from gateway.backplane.base import Backplane, BackplaneUnavailable, Change, Snapshot
from gateway.backplane.envelope import Envelope
from gateway.directory import Pins, Row
from gateway.errors import CloseCode
from gateway.ghosts import Ghosts
from gateway.hub import Hub
from gateway.pinning import Pinning
from gateway.redaction import redact
from gateway.registration import Admitted, Newcomer, ProbeFirst, Superseded, TooMany
from gateway.settings import Settings
from gateway.settling import Settling
from gateway.tasks import Tasks, each
from gateway.toollink import ToolLink
from gateway.tools import Tool, digest, fit
from gateway.toolsession import Stage, ToolsRead
from gateway.toolsets import NEW_SETS

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
PINS_AT_ONCE = 4
NEW_TOOLS_LIMIT = f"{NEW_SETS} × GATEWAY_TOOLSET_BYTES of new tool lists within an hour"
REPLACED = "已被相同 server_id 的新连接取代 / replaced by a newer connection of the same server_id"
SUPERSEDED = "已被其他网关进程上的新连接取代 / replaced by a newer connection on another worker"


class Registrar:
    """What this worker tells the directory about its tool servers."""

    def __init__(self, settings: Settings, backplane: Backplane, tasks: Tasks, hub: Hub, agents: Agents) -> None:
        self._settings = settings
        self._backplane = backplane
        self._tasks = tasks
        self._hub = hub
        self._agents = agents
        self._is_settled = asyncio.Event()
        self._is_settled.set()
        self._turns: dict[str, list[Callable[[], Awaitable[None]]]] = {}
        self._ghosts = Ghosts(settings, backplane, hub)
        self._told: set[str] = set()
        """Connections of which the directory may know something."""
        self._displaced: dict[str, tuple[str, Row]] = {}
        """Connection → the server_id and live row that it may have taken over, in a commit that was not heard of."""
        self._pinning = Pinning(settings, backplane, agents)
        self._settling = Settling(backplane, agents, self._pinning)
        self.rules = agents.rules
        self._meters = backplane.meters

    async def settled(self) -> None:
        """Wait until everything has been told to the directory, at the worker's end: nobody is displaced any more."""
        self._ghosts.give_up()
        await self._is_settled.wait()

    # What happens to a tool server's connection

    def on_dialled(self, link: ToolLink) -> None:
        self._in_turn(link, lambda: self._begin(link))

    def on_tools(self, link: ToolLink, read: ToolsRead) -> None:
        """The tool server's list is in: register it, or swap its tools."""
        is_settled = link.connection.id not in self._turns  # else other tools may be on their way
        toolset = digest(read.encoded)
        if is_settled and link.row is not None and link.row.toolset == toolset:
            return
        toolsets, now = self._agents.toolsets, self._tasks.now()
        if not toolsets.may_bring(link.connection.agent, toolset, len(read.encoded), now):
            self._refuse(link, NEW_TOOLS_LIMIT)
            return
        toolsets.keep(toolset, read.tools, len(read.encoded))
        newcomer = link.offer = self._newcomer(link, toolset, read.tools, len(read.encoded))
        self._in_turn(link, lambda: self._register(link, newcomer, read.tools, read.encoded))

    def on_gone(self, link: ToolLink, cause: str) -> None:
        self._in_turn(link, lambda: self._end(link, cause))

    async def put_back(self, link: ToolLink) -> None:
        """Make sure that the directory says what this live connection has registered."""
        agent, conn, row, claims = link.connection.agent, link.connection.id, link.row, link.claims
        if row is None or conn not in self._hub.tool_servers:
            return

        def decide(snapshot: Snapshot) -> Change | Superseded:
            if link.row is not row:
                return Change()
            change = registry.restore(snapshot, link.server_id, row, claims)
            if not isinstance(change, Change):
                return change
            return self._pinning.judge(link, row.toolset, snapshot, link.server_id, change)

        decided = await self._settling.settle(agent, decide)
        self._pinning.report(link)
        if isinstance(decided, Superseded) and link.row is row:
            self._close_superseded(link)
        elif link.row is None:  # it went meanwhile, and `_end` may have looked before its row was back
            cause = link.cause or "连接已断开 / connection closed"
            await self._settling.settle(
                agent, lambda snapshot: registry.go_offline(snapshot, link.server_id, conn, cause, self.rules)
            )

    async def put_back_pins(self) -> None:
        """Make sure that the store has all pins that this worker knows of."""
        await each(self._agents.pinboard.agents, self._put_back_pins, at_once=PINS_AT_ONCE)

    async def _put_back_pins(self, agent: str) -> None:
        await self._settling.settle(agent, lambda _: Change())

    def note_policy(self, agents: Set[str] | None) -> None:
        """The policies of these agents (None: of all) may want tools pinned that were not until now."""
        wanted = [
            link
            for link in self._hub.tool_servers.values()
            if (agents is None or link.connection.agent in agents) and self._pinning.wants(link)
        ]
        if wanted:
            self._tasks.spawn(self._pin(wanted), "pin what is registered")

    def note_change(self, agent_id: str, revision: int) -> None:
        """The agent's facts have reached this revision: somebody may have had pins forgotten of what is here."""
        agent = self._agents.get(agent_id)
        if agent is None or not agent.tool_servers or self._pinning.mode(agent_id) == "off":
            return
        if revision > self._agents.pinboard.revision(agent_id):
            self._tasks.spawn(self._pin_again(agent), f"look at pins of {agent_id}")

    async def _pin_again(self, agent: Agent) -> None:
        try:
            stored = await self._backplane.snapshot(agent.id)
        except BackplaneUnavailable:
            return  # whoever has a connection here has its turn once a minute anyhow
        kept = self._agents.pinboard.recall(agent.id, stored).pins
        await self._pin([link for link in agent.tool_servers.values() if kept.get(link.server_id, Pins()).is_forgotten])

    async def _pin(self, links: list[ToolLink]) -> None:
        try:
            await each(links, self.put_back, at_once=PINS_AT_ONCE)
        except BackplaneUnavailable as error:  # every link has its turn once a minute anyhow
            logger.warning("tools not pinned yet", extra={"event": "pins_unwritten", "cause": str(error)})

    async def bury(self, agent: str, worker: str) -> None:
        """Take everything of a dead worker offline in this agent."""
        cause = f"网关进程 {worker} 失联 / worker {worker} was lost"
        await self._settling.settle(agent, lambda snapshot: registry.bury(snapshot, worker, cause, self.rules))

    def _in_turn(self, link: ToolLink, procedure: Callable[[], Awaitable[None]]) -> None:
        turns = self._turns.setdefault(link.connection.id, [])
        turns.append(procedure)
        self._is_settled.clear()
        if len(turns) == 1:
            self._tasks.spawn(self._take_turns(link, turns), f"registrar {link.connection.id}")

    async def _take_turns(self, link: ToolLink, turns: list[Callable[[], Awaitable[None]]]) -> None:
        try:
            while turns:
                await self._persist(link, turns[0])
                turns.pop(0)
        finally:
            del self._turns[link.connection.id]
            if not self._turns:
                self._is_settled.set()

    async def _persist(self, link: ToolLink, procedure: Callable[[], Awaitable[None]]) -> None:
        level = logging.WARNING
        while True:
            try:
                return await procedure()
            except BackplaneUnavailable as error:
                fields = {"event": "directory_unreached", "cause": str(error)}
                logger.log(
                    level, "directory not reached, trying again", extra={**fields, "agent": link.connection.agent}
                )
                self._agents.do_without_store(link.connection.agent)
                level = logging.DEBUG  # said once: thousands may wait for the store together
                await asyncio.sleep(RETRY_SECONDS * random.uniform(0.5, 1.0))

    async def _begin(self, link: ToolLink) -> None:
        if not self._is_here(link):
            return
        worker, conn = self._backplane.worker_id, link.connection.id

        def decide(snapshot: Snapshot) -> Change:
            self._told.add(conn)
            return registry.begin_handshake(snapshot, worker, conn, self.rules)

        await self._settling.settle(link.connection.agent, decide, is_half=True)

    async def _register(self, link: ToolLink, newcomer: Newcomer, tools: list[Tool], encoded: bytes) -> None:
        ghosts: set[str] = set()
        twins: set[str] = set()
        while self._is_here(link):
            self._agents.toolsets.keep(newcomer.toolset, tools, len(encoded))
            match decided := await self._decide(link, newcomer, encoded, ghosts, twins):
                case Admitted():
                    self._on_admitted(link, decided, encoded)
                    return
                case ProbeFirst(_, row):
                    (twins if await self._ghosts.is_alive(row) else ghosts).add(row.conn)
                case TooMany(limit, room, room_bytes):
                    most = self._settings.toolset_bytes
                    tools, encoded, left_out = fit(tools, room, most if room_bytes is None else min(most, room_bytes))
                    if not tools:
                        self._refuse(link, limit)
                        return
                    self._leave_out(link, limit, left_out)
                    newcomer = self._newcomer(link, digest(encoded), tools, len(encoded))
                case Superseded():
                    self._close_superseded(link)
                    return
                case _:
                    self._log(link, logging.WARNING, "its row is gone and is put back", event="row_put_back")
                    await self.put_back(link)

    async def _decide(
        self, link: ToolLink, newcomer: Newcomer, encoded: bytes, ghosts: set[str], twins: set[str]
    ) -> Any:
        connection, server_id = link.connection, link.server_id
        rules = self._agents.rules_of(connection.agent)
        if link.row is not None:

            def swap(snapshot: Snapshot) -> Any:
                decision = registry.swap_tools(snapshot, server_id, newcomer, rules)
                return self._completed(link, encoded, snapshot, decision)

            return await self._settling.settle(connection.agent, swap)

        def decide(snapshot: Snapshot) -> Any:
            self._told.add(connection.id)
            decision = registry.register(
                snapshot, newcomer, rules, dead=self._agents.dead_workers, ghosts=ghosts, twins=twins
            )
            if isinstance(decision, Admitted) and decision.displaced is not None:
                self._displaced[connection.id] = decision.server_id, decision.displaced
            return self._completed(link, encoded, snapshot, decision)

        return await self._settling.settle(connection.agent, decide)

    def _completed(self, link: ToolLink, encoded: bytes, snapshot: Snapshot, decision: Any) -> Any:
        """The decision, and with it the tools and what has to be noted of their pins."""
        if not isinstance(decision, Admitted):
            return decision
        toolset, change = decision.row.toolset, decision.change
        if change:
            change = replace(change, toolsets={toolset: encoded})
        return replace(decision, change=self._pinning.judge(link, toolset, snapshot, decision.server_id, change))

    def _newcomer(self, link: ToolLink, toolset: str, tools: list[Tool], size_bytes: int) -> Newcomer:
        return Newcomer(
            worker=self._backplane.worker_id,
            conn=link.connection.id,
            server_id=link.connection.server_id,
            name=link.session.name,
            version=link.session.version,
            toolset=toolset,
            originals=_names(tools),
            trouble=redact(link.trouble) if link.trouble else "",
            toolset_bytes=size_bytes,
        )

    def _on_admitted(self, link: ToolLink, admitted: Admitted, encoded: bytes) -> None:
        is_new = link.row is None
        server_id, displaced = self._displaced.pop(link.connection.id, ("", None))
        link.toolset, link.offer = encoded, None
        link.server_id, link.row, link.claims = admitted.server_id, admitted.row, dict(admitted.claims)
        if not self._is_here(link):
            return  # `on_gone` has its turn next
        self._pinning.report(link)
        peer = f"{link.session.name} {link.session.version}".strip()
        told: dict[str, object] = {"peer": peer, "tools": admitted.row.tools}
        if is_new:
            self._log(link, logging.INFO, "tool server registered", event="tool_server_registered", **told)
        else:
            self._log(link, logging.INFO, "tools changed", event="tools_changed", **told)
        if is_new:
            self._meters.tool_server_handshakes_total.add("ready")
            seconds = (self._backplane.now_ms - link.connection.opened_ms) / 1000
            self._meters.tool_server_handshake_seconds.observe(seconds)
            self._event("join", link, peer=peer, tools=admitted.row.tools)
        if displaced is not None and server_id == admitted.server_id:
            self._displace(link, admitted, displaced)

    def _displace(self, link: ToolLink, admitted: Admitted, old: Row) -> None:
        """Close the connection that held the row until now, wherever it is."""
        self._meters.takeovers_total.add()
        reason = REPLACED
        if admitted.takeovers >= registry.TAKEOVERS_TO_NAME:
            reason = (
                f"一分钟内第 {admitted.takeovers} 次取代：两个程序共用 server_id / "
                f"takeover {admitted.takeovers} within a minute: two bridges share one server_id"
            )
            told = {"takeovers": admitted.takeovers}
            self._log(link, logging.WARNING, "two bridges share one server_id", event="server_id_shared", **told)
        self._event("takeover", link, old=old.conn, within_a_minute=admitted.takeovers)
        self.kick(old, link.connection.agent, admitted.server_id, reason)

    def kick(self, row: Row, agent: str, server_id: str, reason: str) -> None:
        """Have the row's connection closed with 1000."""
        here = self._hub.tool_servers.get(row.conn)
        if here is not None and here.connection.agent == agent:
            here.close(CloseCode.REPLACED, reason, "replaced")
        elif row.worker != self._backplane.worker_id:
            self._backplane.send(
                row.worker, Envelope("kick", agent=agent, server=server_id, conn=row.conn, reason=reason)
            )

    async def _end(self, link: ToolLink, cause: str) -> None:
        cause = redact(cause)  # the reason is the peer's; it goes to whoever asks for the status
        agent, conn, server_id, row = link.connection.agent, link.connection.id, link.server_id, link.row
        link.row = None
        self._pinning.forget(link)
        if conn not in self._told:
            self._agents.do_without_store(agent)
            return  # it came and went while the store was away
        if row is None:
            named, error = link.connection.server_id, _what_failed(link, cause)
            await self._settling.settle(
                agent, lambda snapshot: registry.end_handshake(snapshot, conn, named, error, self.rules)
            )
        else:
            self._event("leave", link, cause=cause)
            await self._settling.settle(
                agent, lambda snapshot: registry.go_offline(snapshot, server_id, conn, cause, self.rules)
            )
        self._told.discard(conn)
        self._displaced.pop(conn, None)

    def _leave_out(self, link: ToolLink, limit: str, count: int) -> None:
        link.trouble = f"limit {limit}: {count} tools left out"
        self._log(link, logging.WARNING, "tools left out", event="tools_left_out", limit=limit, left_out=count)

    def _refuse(self, link: ToolLink, limit: str) -> None:
        self._log(link, logging.WARNING, "tool server refused", event="tool_server_refused", limit=limit)
        link.close(CloseCode.POLICY, f"超出上限 / limit reached: {limit}", f"limit {limit}")

    def _close_superseded(self, link: ToolLink) -> None:
        self._log(link, logging.WARNING, "superseded", event="tool_server_superseded")
        link.close(CloseCode.REPLACED, SUPERSEDED, "superseded")

    def _is_here(self, link: ToolLink) -> bool:
        return link.connection.id in self._hub.tool_servers and not link.cause

    def on_probed(self, number: str, *, is_alive: bool) -> None:
        """The verdict on one probe of ours."""
        self._ghosts.on_probed(number, is_alive=is_alive)

    def _event(self, kind: str, link: ToolLink, **fields: object) -> None:
        """Add a line to the operators' event log, without waiting for it."""
        of_link = {"agent": link.connection.agent, "server": link.server_id, "conn": link.connection.id}
        self._backplane.note_event(kind, {**of_link, **fields})

    def _log(self, link: ToolLink, level: int, message: str, **fields: object) -> None:
        extra = {"agent": link.connection.agent, "server_id": link.server_id, "conn": link.connection.id, **fields}
        logger.log(level, message, extra=extra)


def _what_failed(link: ToolLink, cause: str) -> str:
    """What a handshake died of, for its people; empty if it was not its fault."""
    if link.is_restart:
        return ""
    if not link.cause:
        unanswered = "tools/list" if link.last_stage is Stage.LISTING else "initialize"
        cause = f"{cause} (before `{unanswered}` was answered)"
    peer = f"{link.session.name} {link.session.version}".strip()
    return redact(f"{cause} [{peer}]" if peer else cause)


def _names(tools: list[Tool]) -> tuple[str, ...]:
    return tuple(tool["name"] for tool in tools)
