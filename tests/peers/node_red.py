"""node-red-contrib-xiaozhi-mcp, `lib/websocket-mcp.js`: a tool server that thinks it is a client as well.

It sends an `initialize` of its own with a string id and wants a result; it pings by MCP requests and wants answers.
Its message handler runs before its own `open` promise has settled: a frame that arrives in one packet with the 101 is
answered with an error and lost.
"""

import asyncio
from typing import Any, Self

import orjson

from tests.peers.raw import TEXT, RawFrame
from tests.peers.raw_peer import RawPeer
from tests.peers.tools import text_result
from tests.peers.wire import Message


class NodeRed(RawPeer):
    """A node-red flow with one tool, `inject`. Drive it by `serve()`; it returns when the socket ends."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.messages: list[Message] = []
        self.lost: list[Message] = []
        self.answers: dict[str, Message] = {}
        self._pings = 0

    async def open(self) -> Self:
        await self.raw.connect()
        await self.raw.send_upgrade()
        # One read of the socket: what lies behind the head now came in the same packet.
        async with asyncio.timeout(5):
            packet = await self.raw.reader.read(65536)
        self.raw.head, _, early = packet.partition(b"\r\n\r\n")
        if early:
            self.lost.append({"bytes": len(early)})
            await self.raw.send({"jsonrpc": "2.0", "id": 0, "error": {"code": -32000, "message": "Not connected"}})
        self._begin("node-red")
        await self.raw.send(
            {
                "jsonrpc": "2.0",
                "id": "init_1",
                "method": "initialize",
                "params": {
                    "protocolVersion": "2024-11-05",
                    "capabilities": {"tools": {}},
                    "clientInfo": {"name": "node-red-xiaozhi-mcp", "version": "1.0.0"},
                },
            }
        )
        return self

    async def ping(self) -> str:
        """Send the MCP ping it sends every 30 s; returns its id."""
        self._pings += 1
        ping_id = f"ping_{self._pings}"
        await self.raw.send({"jsonrpc": "2.0", "id": ping_id, "method": "ping"})
        return ping_id

    async def _on_frame(self, frame: RawFrame) -> None:
        if frame.opcode == TEXT:
            await self._on_message(orjson.loads(frame.payload))

    async def _on_message(self, message: Message) -> None:
        self.messages.append(message)
        if "method" not in message:
            self.answers[str(message.get("id"))] = message
            if message.get("id") == "init_1" and "result" in message:
                await self.raw.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
            return
        if "id" in message:
            await self.raw.send({"jsonrpc": "2.0", "id": message["id"], "result": self._result(message)})

    def _result(self, message: Message) -> Any:
        match message["method"]:
            case "initialize":
                info = {"name": "node-red", "version": "1.0.0"}
                return {"protocolVersion": "2024-11-05", "capabilities": {"tools": {}}, "serverInfo": info}
            case "tools/list":
                return {"tools": [{"name": "inject", "description": "", "inputSchema": {"type": "object"}}]}
            case "tools/call":
                self.calls.append(message)
                return text_result("injected")
        return {}
