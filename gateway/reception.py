"""Answers robots: their lists when the catalog may be told, their calls by way of the desk, changes as they come.

Theory of operation
-------------------
A list waits while the agent's facts are being read, and while a tool server of the agent is in its handshake, on any
worker; for each tool server no longer than two seconds from when it dialled in. Changes are told to an agent's
robots together, a moment after the first of them, and only to those whose list really changed.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping

from gateway.agent import Agent
from gateway.agents import Agents
from gateway.backplane.base import Backplane, BackplaneUnavailable, RobotRow
from gateway.desk import Desk
from gateway.errors import CloseCode
from gateway.robotlink import RobotLink
from gateway.robotsession import CancelCall, RouteCall
from gateway.settings import Settings
from gateway.tasks import Tasks

ROWS_PAUSE_SECONDS = 0.05
"""How long robots' rows are gathered before they are written: most robots introduce themselves meanwhile."""


FULL_REASON = "该智能体的小智端过多 / this agent has too many robots"


class Reception:
    """The robots' side of this worker."""

    def __init__(self, settings: Settings, backplane: Backplane, agents: Agents, desk: Desk, tasks: Tasks) -> None:
        self._settings = settings
        self._backplane = backplane
        self._agents = agents
        self._desk = desk
        self._tasks = tasks
        self._waiting: dict[RobotLink, float] = {}
        """Robots that wait for a list → when they are given whatever there is."""
        self._to_tell: set[str] = set()
        self._rows: dict[tuple[str, str], RobotRow | None] = {}
        self._written: set[tuple[str, str]] = set()
        """Robots whose rows may be in the directory; what was never there need not be removed."""
        self._is_writing = False
        self._one_at_a_time = asyncio.Lock()

    # What robots want

    def on_list(self, link: RobotLink) -> None:
        agent = self._agents.enter(link.connection.agent)
        if self._may_list(agent):
            link.serve_lists(agent.catalog)
        else:
            self._waiting[link] = self._tasks.now() + self._settings.list_wait_seconds
            self._agents.catch_up(agent)

    def on_call(self, link: RobotLink, call: RouteCall, frame: bytes) -> None:
        agent = self._agents.enter(link.connection.agent)
        self._desk.submit(link, agent, call, frame, self._tasks.now())

    def on_cancel(self, link: RobotLink, cancel: CancelCall) -> None:
        self._desk.cancel(link, cancel.id, cancel.reason)

    def on_ready(self, link: RobotLink) -> None:
        agent = self._agents.get(link.connection.agent)
        if link.listed is None and agent is not None and agent.is_loaded:
            link.listed = agent.catalog.pages
        self.note_row(link)

    # What robots are told

    def on_catalog(self, agent: Agent) -> None:
        """The agent has a new catalog."""
        for link in self._waiting_for(agent):
            self._serve_if_due(link, agent, self._tasks.now())
        if agent.robots and agent.id not in self._to_tell:
            self._to_tell.add(agent.id)
            self._tasks.later(self._settings.debounce_seconds, lambda: self._tell(agent))

    def on_trouble(self, agent: Agent) -> None:
        """The agent's facts can't be read now: its last catalog must do."""
        if agent.is_loaded:
            for link in self._waiting_for(agent):
                del self._waiting[link]
                link.serve_lists(agent.catalog)

    def tick(self, now: float) -> None:
        for link in list(self._waiting):
            self._serve_if_due(link, self._agents.enter(link.connection.agent), now)

    def forget(self, link: RobotLink) -> None:
        """The robot has gone."""
        self._waiting.pop(link, None)
        of = link.connection.agent, link.connection.id
        if of in self._written:
            self._put_row(link, None)
        else:
            self._rows.pop(of, None)

    def _waiting_for(self, agent: Agent) -> list[RobotLink]:
        return [link for link in self._waiting if link.connection.agent == agent.id]

    def _serve_if_due(self, link: RobotLink, agent: Agent, now: float) -> None:
        if now >= self._waiting[link] or self._may_list(agent):
            del self._waiting[link]
            link.serve_lists(agent.catalog)

    def _may_list(self, agent: Agent) -> bool:
        wait_ms = round(self._settings.list_wait_seconds * 1000)
        since_ms = self._backplane.now_ms - wait_ms
        if not agent.is_current or agent.catalog.handshakes_since(since_ms):
            return False
        return not any(
            link.row is None and not link.cause and link.connection.opened_ms >= since_ms
            for link in agent.tool_servers.values()
        )

    def _tell(self, agent: Agent) -> None:
        self._to_tell.discard(agent.id)
        for link in agent.robots.values():
            if link.listed is None and link.session.is_ready:
                link.listed = agent.catalog.pages
            else:
                link.tell_change(agent.catalog)

    # Their rows, for operators and the health answer

    def note_row(self, link: RobotLink) -> None:
        """Write the robot's row, soon."""
        session = link.session
        client = f"{session.client_name} {session.client_version}".strip()
        self._put_row(link, RobotRow(self._backplane.worker_id, client, link.connection.opened_ms))

    def _put_row(self, link: RobotLink, row: RobotRow | None) -> None:
        self._rows[link.connection.agent, link.connection.id] = row
        self.write_rows()

    def write_rows(self) -> None:
        """Write what has not been written yet, soon."""
        if self._rows and not self._is_writing:
            self._is_writing = True
            self._tasks.spawn(self._write_rows(), "robots' rows")

    async def flush(self) -> None:
        """Write what has not been written yet, now. A row can't be written after its removal."""
        async with self._one_at_a_time:
            if not self._backplane.is_connected:
                raise BackplaneUnavailable(self._backplane.trouble)
            rows, self._rows = self._rows, {}
            new = [of for of, row in rows.items() if row is not None and of not in self._written]
            self._written |= rows.keys()
            try:
                counts = await self._backplane.put_robots(rows)
            except BackplaneUnavailable:
                self._rows = {**rows, **self._rows}  # the next beat tries again
                raise
            self._written -= {of for of, row in rows.items() if row is None}
        if self._backplane.is_shared:
            self._check_room(counts, new)

    def _check_room(self, counts: Mapping[str, int], new: list[tuple[str, str]]) -> None:
        """Send those away that came last to an agent which has too many robots on all workers together.

        Of several workers that let somebody in at the same time only those that wrote last find too many.
        """
        unwritten: Counter[str] = Counter()
        for of, row in self._rows.items():
            unwritten[of[0]] += -1 if row is None else of not in self._written
        over: dict[str, int] = {}
        for agent_id, count in counts.items():
            agent = self._agents.get(agent_id)
            if agent is not None:
                here = len(agent.robots) - unwritten[agent_id]
                agent.note_robots_elsewhere(max(0, count - here), self._tasks.now())
                over[agent_id] = count - agent.policy.limit("robots_per_agent", self._settings.robots_per_agent)
        for agent_id, conn in reversed(new):
            if over.get(agent_id, 0) > 0:
                over[agent_id] -= 1
                self._send_away(agent_id, conn)

    def _send_away(self, agent_id: str, conn: str) -> None:
        agent = self._agents.get(agent_id)
        link = agent.robots.get(conn) if agent is not None else None
        if link is not None:
            link.connection.wire.close(int(CloseCode.TRY_AGAIN_LATER), FULL_REASON)

    async def _write_rows(self) -> None:
        try:
            while self._rows:
                await self._tasks.pause(ROWS_PAUSE_SECONDS)
                await self.flush()
        except BackplaneUnavailable:
            return
        finally:
            self._is_writing = False
