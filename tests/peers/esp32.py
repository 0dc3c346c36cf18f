"""toddpan/xiaozhi-esp32-mcp, `WebSocketMCP.cpp` on an Arduino (also the WLED user module).

It compares the status line and the name `Sec-WebSocket-Accept: ` by exact text, pastes the id of a request unquoted
into its answer, reads JSON into 1024 bytes, and knows neither fragments nor 64-bit lengths.
"""

from typing import Any, Self

import orjson

from tests.peers.raw import TEXT, RawFrame
from tests.peers.raw_peer import RawPeer
from tests.peers.wire import Message

JSON_BUFFER_BYTES = 1024


class Esp32(RawPeer):
    """A lamp with one tool, `lamp`. `dropped` holds the frames that did not fit its buffer."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.frames: list[RawFrame] = []
        self.dropped: list[bytes] = []

    async def open(self) -> Self:
        """Dial. Raises ConnectionError where the library would not recognise the answer."""
        await self.raw.open()
        if not self.raw.head.startswith(b"HTTP/1.1 101"):
            raise ConnectionError(f"not recognised: {self.raw.status_line}")
        if b"\r\nSec-WebSocket-Accept: " not in self.raw.head:
            raise ConnectionError("no line that begins with 'Sec-WebSocket-Accept: '")
        self._begin("esp32")
        return self

    def _can_read(self, frame: RawFrame) -> bool:
        self.frames.append(frame)
        return frame.length_bits != 64

    async def _on_frame(self, frame: RawFrame) -> None:
        if frame.opcode == TEXT and frame.is_final and len(frame.payload) <= JSON_BUFFER_BYTES:
            await self._on_message(orjson.loads(frame.payload))
        else:
            self.dropped.append(frame.payload)

    async def _on_message(self, message: Message) -> None:
        if "method" not in message or "id" not in message:
            return
        result = orjson.dumps(self._result(message)).decode()
        # The id is pasted as it is: a string would stand there without its quotes.
        await self.raw.send_text(f'{{"jsonrpc":"2.0","id":{message["id"]},"result":{result}}}')
        if message["method"] == "initialize":
            await self.raw.send_text('{"jsonrpc":"2.0","method":"notifications/initialized"}')

    def _result(self, message: Message) -> Any:
        match message["method"]:
            case "initialize":
                info = {"name": "ESP-32", "version": "1.0.0"}
                return {"protocolVersion": "2024-11-05", "capabilities": {"tools": {}}, "serverInfo": info}
            case "tools/list":
                return {"tools": [{"name": "lamp", "description": "switch", "inputSchema": {"type": "object"}}]}
            case "tools/call":
                self.calls.append(message)
                return {"content": [{"type": "text", "text": "on"}], "isError": False}
        return {}
