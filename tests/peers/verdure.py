"""maker-community/verdure-mcp-for-xiaozhi, `McpSessionService.cs`: .NET with a 4096-byte buffer and `GetInt32()`.

Each `ReceiveAsync` into the buffer is taken for one whole message: what is longer than 4096 bytes, or comes in
fragments, is never put together. An id that is no 32-bit integer makes it throw, and nothing is answered. Without an
MCP ping for two minutes it declares itself disconnected.
"""

import asyncio
from typing import Any, Self

import orjson

from tests.peers.raw import CLOSE, PING, PONG, RawFrame, RawSocket
from tests.peers.tools import text_result
from tests.peers.wire import Message

BUFFER_BYTES = 4096


class Verdure:
    """A session with one tool, `garden`. `dropped` holds the reads it could make nothing of."""

    def __init__(self, url: str) -> None:
        self.raw = RawSocket(url, seconds=30)
        self.dropped: list[bytes] = []
        self.pings = 0
        self.calls: list[Message] = []
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> Self:
        await self.raw.open()
        self._task = asyncio.get_running_loop().create_task(self._serve(), name="verdure")
        return self

    async def close(self) -> None:
        await self.raw.close()
        if self._task is not None:
            await self._task

    async def _serve(self) -> None:
        try:
            while (frame := await self.raw.read_frame()).opcode != CLOSE:
                if frame.opcode == PING:
                    await self.raw.send_frame(PONG, frame.payload)
                else:
                    await self._on_frame(frame)
        except (asyncio.IncompleteReadError, ConnectionError):
            return

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
