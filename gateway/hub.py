"""The connections held by this worker, by id."""

import asyncio

from gateway.connection import Connection
from gateway.robotlink import RobotLink
from gateway.toollink import ToolLink


class Hub:
    """Whose sockets are here. A connection is in the hub from its acceptance until its socket is closed."""

    def __init__(self) -> None:
        self.robots: dict[str, RobotLink] = {}
        self.tool_servers: dict[str, ToolLink] = {}
        self.closed = 0
        """How many connections have been here and gone."""
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    @property
    def connections(self) -> list[Connection]:
        links: list[RobotLink | ToolLink] = [*self.tool_servers.values(), *self.robots.values()]
        return [link.connection for link in links]

    def find(self, connection_id: str) -> RobotLink | ToolLink | None:
        return self.tool_servers.get(connection_id) or self.robots.get(connection_id)

    def add_robot(self, link: RobotLink) -> None:
        self.robots[link.connection.id] = link
        self._is_empty.clear()

    def add_tool_server(self, link: ToolLink) -> None:
        self.tool_servers[link.connection.id] = link
        self._is_empty.clear()

    def remove(self, connection_id: str) -> None:
        self.robots.pop(connection_id, None)
        self.tool_servers.pop(connection_id, None)
        self.closed += 1
        if not len(self):
            self._is_empty.set()

    async def emptied(self) -> None:
        """Wait until no connection is left."""
        await self._is_empty.wait()

    def __len__(self) -> int:
        return len(self.robots) + len(self.tool_servers)

    def __repr__(self) -> str:
        return f"<Hub [{len(self.tool_servers)} tool servers, {len(self.robots)} robots]>"
