"""Tool servers of the ecosystem that differ from a plain MCP server in one sharp way each."""

from typing import Any

from tests.peers.tool_server import ToolServer
from tests.peers.tools import Call
from tests.peers.wire import Message


class McpHub(ToolServer):
    """huangjunsen0406/xiaozhi-mcphub, `src/services/xiaozhiEndpointService.ts`.

    Says `list_changed` as soon as the socket is open, before anybody has initialized it, and never answers a call
    that fails.
    """

    async def on_open(self) -> None:
        await self.send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})

    async def on_call(self, message: Message) -> None:
        if any(tool.name == message["params"]["name"] for tool in self.tools):
            await super().on_call(message)
        else:
            self.calls.append(Call(self, message))


class XiaozhiClient(ToolServer):
    """shenjingnan/xiaozhi-client, `src/endpoint/endpoint.ts`.

    Answers the notification `notifications/initialized` with a result that has no id, refuses `arguments: null`, and
    does not come back after a close.
    """

    async def on_message(self, message: Message) -> None:
        if message.get("method") == "notifications/initialized":
            await self.send({"jsonrpc": "2.0", "result": {}})
        else:
            await super().on_message(message)

    async def on_call(self, message: Message) -> None:
        if "arguments" in message["params"] and message["params"]["arguments"] is None:
            await self.refuse(message, -32602, "arguments must be an object")
        else:
            await super().on_call(message)


class Da2Tunnel(ToolServer):
    """PyPI da2-xiaozhi-tunnel: strictly serial, so a ping that comes during a call is answered only after it."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._backlog: list[Message] = []

    async def on_message(self, message: Message) -> None:
        if self.open_calls:
            self._backlog.append(message)
        else:
            await super().on_message(message)

    async def on_answered(self) -> None:
        while self._backlog and not self.open_calls:
            await super().on_message(self._backlog.pop(0))


class HomeAssistant(ToolServer):
    """c1pher-cn/ha-mcp-for-xiaozhi, `websocket_transport.py` on Home Assistant's mcp 1.5.

    Reads TEXT frames only, and is of no use any more once it has been initialized a second time.
    """

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **{"max_size": 4 * 1024 * 1024, "ping_interval": 50, **options})
        self._is_broken = False

    async def _take(self, frame: str | bytes) -> None:
        if isinstance(frame, bytes):
            self.frames.append(frame)
        else:
            await super()._take(frame)

    async def on_message(self, message: Message) -> None:
        if self._is_broken and "id" in message:
            await self.refuse(message, -32602, "Invalid request parameters")
        else:
            await super().on_message(message)

    async def on_initialize(self, message: Message) -> None:
        if len(self.received("initialize")) > 1:
            self._is_broken = True
            await self.refuse(message, -32602, "Invalid request parameters")
        else:
            await super().on_initialize(message)


class OldPythonServer(ToolServer):
    """A server on the Python SDK below 1.9.4 (CVE-2025-53366).

    Any request before `initialize`, and a call whose `arguments` is no object, end its session: the connection stays
    and nothing is ever answered again.
    """

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self.is_dead = False
        self._is_initialized = False

    async def on_message(self, message: Message) -> None:
        if self.is_dead:
            return
        method = message.get("method")
        if method == "initialize":
            self._is_initialized = True
        elif "id" in message and not self._is_initialized:
            self.is_dead = True
            return
        if method == "tools/call" and not isinstance(message["params"].get("arguments", {}), dict):
            self.is_dead = True
            return
        await super().on_message(message)


class SubprotocolClient(ToolServer):
    """The TypeScript SDK over `ws`: offers the sub-protocol `mcp`, and fails if the answer does not name it."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **{"subprotocols": ["mcp"], "max_size": 100 * 1024 * 1024, **options})

    async def on_open(self) -> None:
        if self.socket.subprotocol != "mcp":
            await self.vanish()
            raise ConnectionError("Server sent no subprotocol")
