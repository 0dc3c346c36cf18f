"""This process's seat in the cluster: takes connections, hears the mailbox, and ends in order.

Theory of operation
-------------------
The worker builds its rooms and joins them; what happens in each is theirs. Connections come from the endpoints
(`open_*`, `closed`), envelopes from the backplane (`on_*`). One task keeps the session with the backplane and beats
in it; a worker that can't reach the backplane at its start is not ready, says so, and tries again for ever.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager, suppress

from gateway import __version__, toolsession
from gateway.agent import Agent
from gateway.agents import Agents
from gateway.audit import Audit
from gateway.backplane.base import Backplane, BackplaneUnavailable, WorkerRow
from gateway.backplane.envelope import Envelope
from gateway.bouncer import Bouncer
from gateway.connection import Connection
from gateway.desk import Desk
from gateway.drain import CAUSE, Drain
from gateway.errors import RESTART_REASON, CloseCode
from gateway.executor import Executor
from gateway.hub import Hub
from gateway.lease import Lease
from gateway.mailroom import Mailroom
from gateway.meters import Reading
from gateway.panel import Panel
from gateway.policies import BOOK, DEFAULT
from gateway.reception import Reception
from gateway.registrar import Registrar
from gateway.robotlink import RobotLink
from gateway.robotsession import RobotSession
from gateway.rulebook import Rulebook
from gateway.settings import Settings
from gateway.tasks import Tasks
from gateway.tokens import Keyring
from gateway.toollink import ToolLink
from gateway.toolsession import ToolSession
from gateway.tracing import make_tracer
from gateway.trail import Trail

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.05
CLOSE_SHARE = 0.6
"""How much of the time for closing peers have to answer; the rest is for telling the directory."""
GRACE_CHECK_SECONDS = 0.5
CONNECT_RETRY_SECONDS = 1.0
CONNECT_LOG_SECONDS = 10.0
SERVER_INFO = {"name": "xiaozhi-mcp-gateway", "version": __version__}


class Worker:
    """One gateway process. Is the backplane's listener."""

    def __init__(self, settings: Settings, backplane: Backplane) -> None:
        self.settings = settings
        self.backplane = backplane
        self.meters = backplane.meters
        self.hub = Hub()
        self._tasks = Tasks()
        self._started_ms = 0
        self._born = time.monotonic()
        self._count = 0
        self._opened = asyncio.Event()
        self.is_stopping = False
        self.trouble = "starting"
        self.keyring = Keyring(settings.key)
        self.rulebook = Rulebook(settings, backplane, self._tasks, self._on_decided)
        self._bouncer = Bouncer(settings, self.hub, self.rulebook)
        self.agents = Agents(
            settings,
            backplane,
            self._tasks,
            policies=self.rulebook.policies,
            on_catalog=self._on_new_catalog,
            on_trouble=self._on_agent_trouble,
        )
        self.quotas = self.agents.quotas
        self._tracer = make_tracer(settings, backplane.worker_id)
        self.audit = Audit(settings, backplane, self._client_of)
        trail = Trail(settings, backplane, self._tracer, self.audit)
        self.desk = Desk(settings, backplane, self.hub, self.agents, self._tasks, trail)
        self._registrar = Registrar(settings, backplane, self._tasks, self.hub, self.agents)
        self._executor = Executor(
            settings, backplane, self.hub, self._tasks, trail, is_fenced=lambda: self._lease.is_fenced
        )
        self._reception = Reception(settings, backplane, self.agents, self.desk, self._tasks)
        self._lease = Lease(
            settings,
            backplane,
            self._tasks,
            self.hub,
            (self.agents, self._registrar, self.desk, self._executor, self._reception),
            self.describe,
        )
        self._lease.on_beat = self._on_beat
        self.drain = Drain(settings, backplane, self.hub, self.desk, self._tasks)
        self.drain.follow(on_begin=lambda _: self._lease.beat_soon())
        rooms = (self.desk, self._executor, self._registrar, self._lease, self.drain)
        self._mailroom = Mailroom(backplane, self.hub, rooms)
        self._panel = Panel(settings, backplane, self.hub, self.agents, self.desk, self._lease, self.drain)

    def __repr__(self) -> str:
        state = self.state if self.state not in ("up", "starting") else "ready" if self.is_ready else self.trouble
        counts = f"{len(self.hub.tool_servers)} tool servers, {len(self.hub.robots)} robots"
        return f"<Worker {self.backplane.worker_id} [{counts} | {self.desk.open_calls} calls open | {state}]>"

    @property
    def state(self) -> str:
        """One of `meters.STATES`."""
        if self.is_stopping or self.drain.is_begun:
            return "stopping" if self.is_stopping else "draining"
        return "up" if self._opened.is_set() else "starting"

    @property
    def is_ready(self) -> bool:
        """Whether this worker may take connections. Redis away later on does not end it, unless a setting says so."""
        if self.state != "up":
            return False
        limit_seconds = self.settings.unready_after_seconds
        return not limit_seconds or not self.backplane.is_shared or self._lease.age_seconds < limit_seconds

    def describe(self) -> WorkerRow:
        """What this worker says of itself at each beat."""
        return WorkerRow(
            host=socket.gethostname(),
            pid=os.getpid(),
            version=__version__,
            started_ms=self._started_ms or self.backplane.now_ms,
            state=self.state if self.state != "starting" else "up",  # who beats can be reached
            robots=len(self.hub.robots),
            tool_servers=len(self.hub.tool_servers),
            calls=self.desk.open_calls,
        )

    def read_meters(self) -> Reading:
        """Everything that this worker measures, as it is now."""
        up_seconds = time.monotonic() - self._born
        gauges = self._panel.gauges(self.state, is_ready=self.is_ready, up_seconds=up_seconds, now=self.now())
        return self.meters.read(gauges)

    def now(self) -> float:
        """The event loop's time, in seconds."""
        return self._tasks.now()

    # Connections

    def new_connection_id(self) -> str:
        self._count += 1
        return f"{self.backplane.worker_id}.{self._count}"

    def open_tool_server(self, connection: Connection) -> ToolLink:
        """A tool server has been accepted: begin its conversation."""
        settings = self.settings
        limits = toolsession.Limits(
            hello_pause_seconds=settings.hello_pause_seconds,
            handshake_seconds=settings.handshake_seconds,
            ping_seconds=settings.mcp_ping_seconds,
            reread_seconds=settings.reread_seconds,
            tools_max=settings.tools_per_server,
            toolset_bytes=settings.toolset_bytes,
            tool_bytes=settings.tool_bytes,
            schema_depth=settings.schema_depth,
        )
        session = ToolSession(limits, SERVER_INFO)
        link = ToolLink(connection, session, self._registrar, ghost_seconds=settings.ghost_seconds)
        agent = self.agents.enter(connection.agent)
        agent.tool_servers[connection.id] = link
        self.hub.add_tool_server(link)
        self.meters.connections_opened_total.add("tool_server")
        connection.wire.attach(link.on_frame, max_bytes=settings.frame_bytes)
        link.open()
        self._registrar.on_dialled(link)
        self._bouncer.note(connection, self.backplane.now_ms)
        return link

    def open_robot(self, connection: Connection) -> RobotLink:
        """A robot has been accepted: it may speak."""
        session = RobotSession(connection.agent, SERVER_INFO)
        link = RobotLink(connection, session, self._reception, limit_bytes=self.settings.result_bytes)
        agent = self.agents.enter(connection.agent)
        agent.robots[connection.id] = link
        self.hub.add_robot(link)
        self.meters.connections_opened_total.add("robot")
        self.agents.attend(agent)
        connection.wire.attach(link.on_frame, max_bytes=self.settings.robot_frame_bytes)
        self._reception.note_row(link)
        self._bouncer.note(connection, self.backplane.now_ms)
        return link

    def tool_server_closed(self, link: ToolLink, cause: str) -> None:
        """The tool server's socket is closed: its calls end now, its row goes offline."""
        connection = link.connection
        self.hub.remove(connection.id)
        self._note_slow(connection)
        if link.row is None:
            self.meters.tool_server_handshakes_total.add("failed" if link.cause else "left")
        link.gone()
        self._registrar.on_gone(link, link.cause or cause)
        agent = self.agents.get(connection.agent)
        if agent is not None:
            agent.tool_servers.pop(connection.id, None)
            self.agents.leave(agent, self._tasks.now())

    def robot_closed(self, link: RobotLink) -> None:
        """The robot's socket is closed: nobody is left to answer."""
        connection = link.connection
        self.desk.robot_gone(link)
        self.hub.remove(connection.id)
        self._note_slow(connection)
        self._reception.forget(link)
        agent = self.agents.get(connection.agent)
        if agent is not None:
            agent.robots.pop(connection.id, None)
            self.agents.leave(agent, self._tasks.now())

    def _client_of(self, conn: str) -> str:
        robot = self.hub.robots.get(conn)
        return robot.session.client_name if robot is not None else ""

    def _note_slow(self, connection: Connection) -> None:
        if connection.wire.is_slow:
            self.meters.slow_peers_total.add()

    # What the backplane says

    def on_envelope(self, envelope: Envelope) -> None:
        self._mailroom.on_envelope(envelope)

    def on_catalog(self, agent: str, revision: int) -> None:
        self.agents.note_revision(agent, revision)

    def on_book(self, book: str) -> None:
        self.rulebook.refresh()

    def on_gap(self) -> None:
        self.meters.gaps_total.add()
        self.rulebook.note_gap()
        logger.warning("messages may have been missed; recovering", extra={"event": "gap_suspected"})
        self.desk.note_gap()
        self._lease.recover()

    def _on_beat(self) -> None:
        self.quotas.on_beat(self._lease.workers)
        self.rulebook.refresh()

    def _on_decided(self, book: str, names: Collection[str]) -> None:
        """People have decided something; the rulebook knows it already."""
        if book == BOOK:
            whose = None if DEFAULT in names else set(names)
            self.agents.adopt(whose)
            self._registrar.note_policy(whose)
        self._bouncer.on_change(book, names, self.backplane.now_ms)
        for name in names if self.rulebook.is_loaded else ():
            self.audit.noticed(book, name, self.rulebook.version(book))

    def _on_new_catalog(self, agent: Agent) -> None:
        self.desk.on_catalog(agent, self._tasks.now())
        self._reception.on_catalog(agent)

    def _on_agent_trouble(self, agent: Agent) -> None:
        self.desk.on_trouble(agent, self._tasks.now())
        self._reception.on_trouble(agent)

    # Life

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """The worker is alive inside this block; it may take a while until it `is_ready`."""
        async with self._tasks:
            self._tasks.spawn(self._serve(), "session")
            self._tasks.spawn(self._tick(), "tick")
            if self.audit.is_on:
                self._tasks.spawn(self.audit.run(), "audit")
            try:
                yield
            finally:
                await self.shut_down()

    async def opened(self) -> None:
        """Wait until the worker may take connections, but not for a backplane that can't be reached.

        Until then nothing is accepted; afterwards peers are told 503, and probes why.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(self.settings.redis_timeout_seconds):
                await self._opened.wait()

    async def shut_down(self) -> None:
        """Close every connection with 1012, let their rows go offline, and leave the cluster. Idempotent, bounded."""
        if self.is_stopping:
            return
        self.is_stopping = True
        self.drain.stop()
        links = list(self.hub.tool_servers.values())
        for link in links:
            link.give_back()  # what is held has certainly not run
        self.desk.close()
        for link in links:
            link.close(CloseCode.RESTART, RESTART_REASON, CAUSE)
        for robot in list(self.hub.robots.values()):
            robot.connection.wire.close(int(CloseCode.RESTART), RESTART_REASON)
        with suppress(TimeoutError, BackplaneUnavailable):  # what stays behind is cleaned up by the lease
            async with asyncio.timeout(self.settings.close_seconds):
                await self._empty_hub()
                await self._registrar.settled()
                if self._opened.is_set():
                    self._lease.stop()
                    await self._reception.flush()
                    await self.audit.close()
                    await self.backplane.leave()
        if self._tracer is not None:
            await self._tracer.close()

    async def _empty_hub(self) -> None:
        """Wait for the peers to close as well; those that don't are dropped while there is time to say so in Redis."""
        try:
            async with asyncio.timeout(self.settings.close_seconds * CLOSE_SHARE):
                await self.hub.emptied()
        except TimeoutError:
            for connection in self.hub.connections:
                connection.wire.abort()
            await self.hub.emptied()

    async def _serve(self) -> None:
        """Keep the session with the backplane; it reconnects by itself once it has been there."""
        told_at = -CONNECT_LOG_SECONDS
        while True:
            try:
                async with self.backplane.session(self):
                    self._started_ms = self._started_ms or self.backplane.now_ms
                    await self.rulebook.load()
                    await self._lease.keep(self._on_open)
            except BackplaneUnavailable as error:
                self.trouble = str(error)
                if self._tasks.now() - told_at >= CONNECT_LOG_SECONDS:
                    told_at = self._tasks.now()
                    logger.error("not ready: %s", self.trouble, extra={"event": "worker_unready"})
            except Exception:
                # A worker that beats no more would be a zombie: sockets open, and nobody can reach them.
                text = "the session with the backplane failed; beginning another one"
                logger.exception(text, extra={"event": "session_failed"})
            await asyncio.sleep(CONNECT_RETRY_SECONDS)

    def _on_open(self) -> None:
        self.trouble = ""
        if self._opened.is_set():
            self.agents.watch_again()
            self.rulebook.note_gap()
            self._lease.recover()  # what was said between two sessions was not heard
            return
        self._opened.set()
        logger.info("worker ready", extra={"event": "worker_ready", "worker": self.backplane.worker_id})

    async def _tick(self) -> None:
        """What happens by the clock alone."""
        next_grace_check = 0.0
        while True:
            due = self._tasks.now() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            now = self._tasks.now()
            self._note_lag(max(0.0, now - due), now)
            is_grace_check = now >= next_grace_check
            if is_grace_check:
                next_grace_check = now + GRACE_CHECK_SECONDS
            try:
                self._tick_once(now, is_grace_check=is_grace_check)
            except Exception:
                # Deadlines must go on ending calls, whatever happened to one of them.
                logger.exception("a tick failed", extra={"event": "tick_failed"})

    def _note_lag(self, lag_seconds: float, now: float) -> None:
        self.meters.loop_lag_seconds.observe(lag_seconds)
        self.meters.loop_lag_peak.note(lag_seconds, now)
        self.meters.fold()

    def _tick_once(self, now: float, *, is_grace_check: bool) -> None:
        self._bouncer.tick(self.backplane.now_ms)
        self.desk.tick(now)
        self._executor.tick(now)
        self._reception.tick(now)
        if is_grace_check:
            self.agents.end_graces()
