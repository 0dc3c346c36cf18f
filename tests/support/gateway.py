"""A running gateway as a test holds it: URLs to dial, peers that come to it, and its answer about itself."""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, urlencode

from gateway.settings import Settings
from tests.peers.console import Console
from tests.peers.robot import Robot
from tests.peers.token import console_token
from tests.peers.tool_server import ToolServer
from tests.peers.tools import Tool, echo
from tests.peers.wire import Message, Peer
from tests.peers.xiaozhi_robot import XiaozhiRobot
from tests.support import http

AGENT = "home"
AnyServer = TypeVar("AnyServer", bound=ToolServer)


class Served(Protocol):
    """A gateway that runs somewhere on this machine."""

    port: int
    settings: Settings

    async def stop(self) -> None:
        """End as on SIGTERM."""


class Guests:
    """Every peer that dialled a gateway of one test, so that the test's end can send them home."""

    def __init__(self) -> None:
        self._peers: list[Peer] = []

    def add(self, peer: Peer) -> None:
        self._peers.append(peer)

    async def leave(self) -> None:
        """End every connection; raises what went wrong in a peer."""
        for peer in self._peers:
            if peer.is_open:
                peer.thaw()
                peer.socket.transport.abort()
        for peer in self._peers:
            await peer.close()


class Gateway:
    """One worker, seen from outside only: its sockets and its HTTP answers."""

    def __init__(self, worker: Served, guests: Guests) -> None:
        self.worker = worker
        self._guests = guests

    @property
    def settings(self) -> Settings:
        return self.worker.settings

    @property
    def port(self) -> int:
        return self.worker.port

    @property
    def key(self) -> str:
        return self.settings.key[0]

    # Where to dial.

    def url(self, path: str, **query: str) -> str:
        """A WebSocket URL of this worker; the query is percent-encoded."""
        return f"ws://127.0.0.1:{self.port}{path}" + (f"?{urlencode(query, quote_via=quote)}" if query else "")

    def mcp_url(self, agent: str = AGENT, server_id: str | None = None) -> str:
        """Where a tool server of the agent dials in."""
        query = {"token": console_token(agent, self.key)} | ({} if server_id is None else {"server_id": server_id})
        return self.url("/mcp_endpoint/mcp/", **query)

    def call_url(self, agent: str = AGENT) -> str:
        """Where a robot of the agent dials in."""
        return self.url("/mcp_endpoint/call/", token=console_token(agent, self.key))

    # Who comes.

    async def attach(self, server: AnyServer, *, agent: str = AGENT, is_awaited: bool = True) -> AnyServer:
        """Let a tool server of any kind dial in; returns once health counts one more of the agent's as connected."""
        before = await self.connected(agent) if is_awaited else 0
        self._guests.add(server)
        await server.open()
        if is_awaited:
            await self.until_connected(before + 1, agent)
        return server

    async def tool_server(
        self,
        name: str = "server",
        tools: Sequence[Tool] | None = None,
        *,
        agent: str = AGENT,
        server_id: str | None = None,
        is_awaited: bool = True,
        **options: Any,
    ) -> ToolServer:
        """A tool server of the agent, dialled in and (unless not awaited) known to the whole cluster."""
        tools = [echo()] if tools is None else tools
        server = ToolServer(self.mcp_url(agent, server_id), name=name, tools=tools, **options)
        return await self.attach(server, agent=agent, is_awaited=is_awaited)

    async def robot(self, *, agent: str = AGENT, version: str = "2025-11-25", is_ready: bool = True) -> Robot:
        """A robot of the agent, after its handshake unless told otherwise."""
        robot = Robot(self.call_url(agent))
        self._guests.add(robot)
        await robot.open()
        if is_ready:
            await robot.initialize(version)
        return robot

    async def xiaozhi(self, *, agent: str = AGENT) -> XiaozhiRobot:
        """A conversation of a xiaozhi-server with the agent, ready to call."""
        robot = XiaozhiRobot(self.call_url(agent))
        self._guests.add(robot)
        await robot.open()
        return await robot.until_ready()

    def console(self, *, agent: str = AGENT) -> Console:
        """The console, before the click."""
        console = Console(self.call_url(agent))
        self._guests.add(console)
        return console

    # What it says.

    async def get(self, path: str, **options: Any) -> http.Response:
        return await http.get(self.port, path, **options)

    async def health(self, agent: str | None = None) -> Message:
        """`connections` of the health answer."""
        target = f"/mcp_endpoint/health?key={self.key}" + (f"&agent={quote(agent)}" if agent else "")
        response = await self.get(target)
        assert response.status == 200, response.text
        connections: Message = response.json()["result"]["connections"]
        return connections

    async def servers(self, agent: str = AGENT) -> dict[str, Message]:
        """The agent's tool servers by server_id, as health names them."""
        found: dict[str, Message] = (await self.health(agent))["mcp_servers"].get(agent, {})
        return found

    async def connected(self, agent: str = AGENT) -> int:
        """How many tool servers of the agent are connected and known to the cluster."""
        return sum(is_up(server_id, server) for server_id, server in (await self.servers(agent)).items())

    async def until_connected(self, count: int, agent: str = AGENT, seconds: float = 5) -> None:
        """Wait until exactly so many tool servers of the agent are connected."""
        try:
            async with asyncio.timeout(seconds):
                while await self.connected(agent) != count:
                    await asyncio.sleep(0.005)
        except TimeoutError:
            servers = await self.servers(agent)
            raise AssertionError(f"not {count} connected tool servers within {seconds:g} s: {servers}") from None


def is_up(server_id: str, server: Message) -> bool:
    """Whether a tool server in a health answer is connected and through with its handshake."""
    return not server_id.startswith("~") and server.get("state", "up") == "up"
