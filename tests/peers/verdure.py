"""maker-community/verdure-mcp-for-xiaozhi, `McpSessionService.cs`: .NET with a 4096-byte buffer and `GetInt32()`.

Each `ReceiveAsync` into the buffer is taken for one whole message: what is longer than 4096 bytes, or comes in
fragments, is never put together. An id that is no 32-bit integer makes it throw, and nothing is answered. Without an
MCP ping for two minutes it declares itself disconnected.
"""

from typing import Any, Self

import orjson

from tests.peers.raw import RawFrame
from tests.peers.raw_peer import RawPeer
from tests.peers.tools import text_result
from tests.peers.wire import Message

BUFFER_BYTES = 4096


class Verdure(RawPeer):
    """A session with one tool, `garden`. `dropped` holds the reads it could make nothing of."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.dropped: list[bytes] = []
        self.pings = 0

    async def open(self) -> Self:
        await self.raw.open()
        self._begin("verdure")
        return self

    async def _on_frame(self, frame: RawFrame) -> None:
        for start in range(0, max(len(frame.payload), 1), BUFFER_BYTES):
            read = frame.payload[start : start + BUFFER_BYTES]
            try:
                message = orjson.loads(read)
            except orjson.JSONDecodeError:
                self.dropped.append(read)
                continue
            if "id" in message and not _is_int32(message["id"]):
                self.dropped.append(read)
            elif "id" in message and "method" in message:
                await self.raw.send({"jsonrpc": "2.0", "id": message["id"], "result": self._result(message)})

    def _result(self, message: Message) -> Any:
        match message["method"]:
            case "initialize":
                info = {"name": "Verdure", "version": "1.0.0"}
                return {"protocolVersion": "2024-11-05", "capabilities": {"tools": {}}, "serverInfo": info}
            case "tools/list":
                return {"tools": [{"name": "garden", "description": "", "inputSchema": {"type": "object"}}]}
            case "ping":
                self.pings += 1
                return {"healthy": True}
            case "tools/call":
                self.calls.append(message)
                return text_result("watered")
        return {}


def _is_int32(value: Any) -> bool:
    return type(value) is int and -(2**31) <= value < 2**31
