"""The drain: a worker's connections leave one by one, and lose no call, before it ends.

Theory of operation
-------------------
From its beginning on, a draining worker takes no connection, and says so; it goes on routing, beating and reading
catalogs. Then, in shares of the window (`GATEWAY_DRAIN_SECONDS`):

    0 ── grace ─────── 2/5 ─────── 1/2 ───────────────────── 4/5 ───────────── 1
         tool servers leave ·······┤ new calls to those that are │ robots without  │ what is left
         if no robot is here       │ due are held while their    │ a call are      │ is ended
         ┄┄┄┄ the others from here │ running ones end            │ closed          │

*Grace.* Nothing is closed: load balancers must have heard first, or sockets hop to the next worker that dies.
*Robots* never redial, so they are left to end by themselves: conversations idle out at 120 s of the usual 150. One that
calls all the time is closed right behind an answer.
*Tool servers* redial, and a call finds them wherever they are. Each draws a moment, 50 to a second on average, and is
closed when no call of it runs: what comes in that very turn is refused unsent and placed where it has redialled to.
Between a connection's last answer and its close nothing is written to it, so no call is ever lost in this.

A drain is over when no connection is left. Alone, on the memory backplane, there is nobody to redial to: it only waits
for the calls that run.
"""

import heapq
import logging
import random
from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import Any

from gateway.backplane.base import Backplane
from gateway.desk import Desk
from gateway.errors import RESTART_REASON, CloseCode
from gateway.guarded import for_each
from gateway.hub import Hub
from gateway.robotlink import RobotLink
from gateway.settings import Settings
from gateway.tasks import Tasks
from gateway.toollink import ToolLink

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.05
TOOL_SERVERS_SHARE = 2 / 5
HOLD_SHARE = 1 / 2
ROBOTS_SHARE = 4 / 5
"""What is left of the usual window, 30 s, is more than a call takes."""
TOOL_SERVERS_SPREAD_SHARE = 1 / 4
ROBOTS_SPREAD_SHARE = 1 / 10
CLOSES_PER_SECOND = 50
GIVE_BACK_SECONDS = 2.0
"""A call that is held gets back this long before its deadline, to be ended with the certainty that it did not run."""
CAUSE = "网关重启 / gateway restarted"


@dataclass(frozen=True, slots=True)
class Window:
    """When what may happen, in the event loop's time."""

    began: float
    seconds: float
    grace_seconds: float

    @property
    def ends(self) -> float:
        return self.began + self.seconds

    def is_grace(self, now: float) -> bool:
        return now < self.began + self.grace_seconds

    def is_past(self, share: float, now: float) -> bool:
        """Whether this share of the window has passed."""
        return now >= self.began + share * self.seconds

    def left_seconds(self, now: float) -> float:
        return max(0.0, self.ends - now)


class Turns:
    """Connections that are to leave: each draws a moment within the spread, so that they don't go all at once."""

    def __init__(self, began: float, spread_seconds: float, draw: Callable[[], float]) -> None:
        self._began = began
        self._spread_seconds = spread_seconds
        self._draw = draw
        self._drawn: set[str] = set()
        self._moments: list[tuple[float, str]] = []
        self._due: set[str] = set()

    def due(self, now: float, present: Set[str]) -> list[str]:
        """Those of the present whose moment has come; who is here only now draws now."""
        for name in present - self._drawn:
            self._drawn.add(name)
            heapq.heappush(self._moments, (self._began + self._draw() * self._spread_seconds, name))
        while self._moments and self._moments[0][0] <= now:
            self._due.add(heapq.heappop(self._moments)[1])
        self._due &= present
        return sorted(self._due)


class Drain:
    """One worker's leaving. Begins once, by whoever asks first."""

    def __init__(
        self,
        settings: Settings,
        backplane: Backplane,
        hub: Hub,
        desk: Desk,
        tasks: Tasks,
        *,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._backplane = backplane
        self._hub = hub
        self._desk = desk
        self._tasks = tasks
        self._draw = draw
        self.window: Window | None = None
        """None before it has begun."""
        self._tool_servers: Turns | None = None
        self._robots: Turns | None = None
        self._on_begin: list[Callable[[str], None]] = []
        self._on_end: list[Callable[[], None]] = []
        self._is_over = False

    def __repr__(self) -> str:
        state = "over" if self._is_over else "begun" if self.is_begun else "not begun"
        return f"<Drain [{len(self._hub)} connections | {state}]>"

    @property
    def is_begun(self) -> bool:
        return self.window is not None

    def follow(
        self, *, on_begin: Callable[[str], None] = lambda _: None, on_end: Callable[[], None] = lambda: None
    ) -> None:
        """Be told when it begins, with the cause, and when it has ended by itself."""
        self._on_begin.append(on_begin)
        self._on_end.append(on_end)

    def begin(self, cause: str) -> None:
        """Begin, unless that has happened. `cause` says who wanted it."""
        if self.is_begun or self._is_over:
            return
        self.window = self._plan()
        for_each(self._on_begin, lambda tell: tell(cause), "telling that the drain has begun")
        if self.window.seconds:
            fields = {"cause": cause, "seconds": self.window.seconds, **self._counts()}
            logger.info("draining", extra={"event": "drain_begun", **fields})
            self._tell("drain", fields)
        self._tasks.spawn(self._run(self.window), "drain")

    def stop(self) -> None:
        """The worker ends now, whatever is left."""
        self._is_over = True

    def report(self) -> dict[str, Any]:
        """How far it has come, for who asked for it."""
        window = self.window or self._plan()
        return {
            "worker": self._backplane.worker_id,
            "state": "draining" if self.is_begun else "up",
            "window_seconds": window.seconds,
            "seconds_left": round(window.left_seconds(self._tasks.now()), 1),
            "connections": len(self._hub),
            **self._counts(),
        }

    def _plan(self) -> Window:
        settings = self._settings
        if not self._backplane.is_shared:
            return Window(self._tasks.now(), min(settings.drain_seconds, settings.call_seconds), 0.0)
        return Window(self._tasks.now(), settings.drain_seconds, settings.drain_grace_seconds)

    def _counts(self) -> dict[str, int]:
        foreign = sum(1 for link in self._hub.tool_servers.values() for job in link.jobs.values() if job.origin)
        return {
            "robots": len(self._hub.robots),
            "tool_servers": len(self._hub.tool_servers),
            "calls": self._desk.open_calls + foreign,
        }

    async def _run(self, window: Window) -> None:
        try:
            while not self._is_done(window):
                self._tick_safely(window)
                await self._tasks.pause(TICK_SECONDS)
        finally:
            self._end(window)

    def _is_done(self, window: Window) -> bool:
        is_empty = not len(self._hub) if self._backplane.is_shared else not self._desk.running_calls
        return self._is_over or is_empty or self._tasks.now() >= window.ends

    def _end(self, window: Window) -> None:
        if self._is_over:
            return
        self._is_over = True
        if window.seconds:
            taken_seconds = round(self._tasks.now() - window.began, 1)
            fields = {"seconds": taken_seconds, **self._counts()}
            logger.info("drained", extra={"event": "drain_ended", **fields})
            self._tell("drained", fields)
        for_each(self._on_end, lambda tell: tell(), "telling that the drain has ended")

    def _tick_safely(self, window: Window) -> None:
        try:
            if self._backplane.is_shared:
                self._tick(window, self._tasks.now())
        except Exception:
            # What can't leave in peace now still ends with the window.
            logger.exception("a step of the drain failed", extra={"event": "drain_step_failed"})

    def _tick(self, window: Window, now: float) -> None:
        if window.is_grace(now):
            return
        robots, tool_servers = self._hub.robots, self._hub.tool_servers
        if robots and not self._backplane.is_connected and not window.is_past(ROBOTS_SHARE, now):
            return  # robots here reach only what is connected here
        if self._tool_servers is None and (not robots or window.is_past(TOOL_SERVERS_SHARE, now)):
            self._tool_servers = self._turns(now, len(tool_servers), TOOL_SERVERS_SPREAD_SHARE * window.seconds)
        if self._tool_servers is not None:
            due = [tool_servers[name] for name in self._tool_servers.due(now, tool_servers.keys())]
            for_each(due, lambda link: self._move(link, window, now), "moving a tool server")
        if window.is_past(ROBOTS_SHARE, now):
            self._robots = self._robots or self._turns(now, len(robots), ROBOTS_SPREAD_SHARE * window.seconds)
            for_each([robots[name] for name in self._robots.due(now, robots.keys())], self._dismiss, "closing a robot")

    def _turns(self, now: float, count: int, spread_seconds_max: float) -> Turns:
        return Turns(now, min(spread_seconds_max, count / CLOSES_PER_SECOND), self._draw)

    def _move(self, link: ToolLink, window: Window, now: float) -> None:
        """Let the tool server go if no call of it runs; after half the window no new one keeps it."""
        if link.cause:
            return
        if not link.jobs:
            link.close(CloseCode.RESTART, RESTART_REASON, CAUSE)
        elif window.is_past(HOLD_SHARE, now):
            link.hold()
            link.give_back(now + GIVE_BACK_SECONDS)

    def _dismiss(self, robot: RobotLink) -> None:
        robot.is_leaving = True  # one that calls all the time is closed behind an answer, by the desk
        robot.leave_if_idle()

    def _tell(self, kind: str, fields: dict[str, Any]) -> None:
        self._backplane.note_event(kind, fields)
