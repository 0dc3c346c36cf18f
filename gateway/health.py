"""The health answer: the whole cluster in the shape that consoles and scripts of `mcp-endpoint-server` know."""

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.backplane.base import Overview, WorkerRow
from gateway.directory import Row
from gateway.errors import clock_text
from gateway.status import tool_names


def answer(overview: Overview, toolsets: Mapping[str, bytes], this_worker: tuple[str, WorkerRow]) -> dict[str, Any]:
    """The value of `connections`. Bounded by the overview's own limit; `truncated` says that it struck.

    Totals count everything as of each worker's last beat when the overview is truncated, else as of now.
    """
    servers = {
        agent: {server_id: row for server_id, row in rows.items() if row.state == "up"}
        for agent, rows in overview.agents.items()
    }
    tool_connections = sum(len(rows) for rows in servers.values())
    robots = sum(overview.robots.values())
    if overview.truncated:
        workers = {**overview.workers, this_worker[0]: this_worker[1]}
        tool_connections = sum(row.tool_servers for row in workers.values())
        robots = sum(row.robots for row in workers.values())
    names = {digest: tool_names(text) for digest, text in toolsets.items()}
    return {
        "mcp_server_connections": tool_connections,
        "tool_connections": tool_connections,
        "robot_connections": robots,
        "total_connections": tool_connections + robots,
        "multi_server_support": True,
        "available_agents": sorted(agent for agent, rows in servers.items() if rows),
        "total_tools": sum(row.tools for rows in servers.values() for row in rows.values()),
        "robot_connections_by_agent": {agent: count for agent, count in overview.robots.items() if count},
        "mcp_servers": {
            agent: {server_id: _server(row, names.get(row.toolset, ())) for server_id, row in sorted(rows.items())}
            for agent, rows in servers.items()
            if rows
        },
        "workers": len(overview.workers),
        "truncated": overview.truncated,
    }


def digests(overview: Overview) -> set[str]:
    """The tool sets that the answer shows the names of."""
    return {row.toolset for rows in overview.agents.values() for row in rows.values() if row.state == "up"}


def _server(row: Row, tools: Sequence[str]) -> dict[str, Any]:
    return {
        "tools_count": row.tools,
        "tools": list(tools),
        "server_info": {"name": row.name, "version": row.version},
        "worker": row.worker,
        "connected_since": clock_text(row.since),
    }
