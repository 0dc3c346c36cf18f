"""The instrument panel: what is, now, on this worker, read from its rooms when somebody looks."""

import platform
from dataclasses import dataclass

from gateway import __version__
from gateway.agents import Agents
from gateway.backplane.base import Backplane
from gateway.desk import Desk
from gateway.drain import Drain
from gateway.hub import Hub
from gateway.lease import Lease
from gateway.meters import STATES, Gauges
from gateway.settings import Settings

OVERDUE_SECONDS = 2.0
"""A deadline is kept to a tenth of a second; what is this late will never be ended."""


@dataclass(frozen=True, slots=True)
class Panel:
    """Where the gauges of `meters.METRICS` are read. Costs a walk over the connections, nothing in between."""

    settings: Settings
    backplane: Backplane
    hub: Hub
    agents: Agents
    desk: Desk
    lease: Lease
    drain: Drain

    def gauges(self, state: str, *, is_ready: bool, up_seconds: float, now: float) -> Gauges:
        """Every gauge of a worker. `state` is one of `meters.STATES`; `up_seconds`: since when the worker is there."""
        kind = "redis" if self.backplane.is_shared else "memory"
        singles = {
            "ready": float(is_ready),
            "connections_limit": self.settings.connections,
            "agents": len(self.agents),
            "lease_age_seconds": min(self.lease.age_seconds, up_seconds),  # never renewed: since the start
            "redis_connected": float(self.backplane.is_connected),
            "redis_pending_commands": self.backplane.pending_commands,
            "loop_lag_max_seconds": self.backplane.meters.loop_lag_peak.value(now),
            **self._connections(),
            **self._catalogs(),
            **self._calls(now),
            **self._leaving(now),
        }
        return {
            "build_info": {(__version__, platform.python_version(), kind): 1.0},
            "worker_state": {(name,): float(name == state) for name in STATES},
            "connections": {
                ("tool_server",): len(self.hub.tool_servers),
                ("robot",): len(self.hub.robots),
            },
            "calls_in_flight": {
                ("robot",): self.desk.open_calls,
                ("tool_server",): sum(link.load for link in self.hub.tool_servers.values()),
            },
            **{name: {(): value} for name, value in singles.items()},
        }

    def _connections(self) -> dict[str, float]:
        waiting = [connection.wire.outbox_bytes for connection in self.hub.connections]
        return {
            "tool_server_handshakes": sum(link.row is None for link in self.hub.tool_servers.values()),
            "outbox_bytes": sum(waiting),
            "outbox_bytes_max": max(waiting, default=0),
        }

    def _catalogs(self) -> dict[str, float]:
        catalogs = [agent.catalog for agent in self.agents]
        return {
            "catalog_tools": sum(row.tools for one in catalogs for row in one.rows.values() if row.state == "up"),
            "catalog_bytes": sum(len(page) for one in catalogs for page in one.pages),
        }

    def _calls(self, now: float) -> dict[str, float]:
        open_calls = (call for robot in self.hub.robots.values() for call in robot.calls)
        return {
            "calls_parked": self.desk.parked_calls,
            "calls_overdue": sum(call.deadline + OVERDUE_SECONDS < now for call in open_calls),
        }

    def _leaving(self, now: float) -> dict[str, float]:
        window = self.drain.window
        if window is None:
            return {"drain_connections": 0, "drain_seconds_left": 0}
        return {"drain_connections": len(self.hub), "drain_seconds_left": window.left_seconds(now)}
