"""A WebSocket client on a bare TCP stream, for what a library would smooth over: exact bytes, packets and frames."""

import asyncio
import base64
import os
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

import orjson

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


@dataclass(frozen=True, slots=True)
class RawFrame:
    """A frame as it was on the wire, header fields included. `length_bits` is 7, 16 or 64."""

    opcode: int
    is_final: bool
    reserved: int
    payload: bytes
    length_bits: int


class RawSocket:
    """The upgrade and the frames, byte by byte. Everything is bounded by `seconds`."""

    def __init__(self, url: str, *, headers: dict[str, str] | None = None, seconds: float = 5) -> None:
        self.parts = urlsplit(url)
        self.headers = headers or {}
        self.seconds = seconds
        self.head = b""
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def open(self) -> Self:
        """Dial and read exactly the head of the answer; what follows stays in the stream."""
        await self.connect()
        await self.send_upgrade()
        async with asyncio.timeout(self.seconds):
            self.head = await self.reader.readuntil(b"\r\n\r\n")
        return self

    async def connect(self) -> None:
        """Open the TCP connection only."""
        assert self.parts.hostname is not None
        async with asyncio.timeout(self.seconds):
            self.reader, self.writer = await asyncio.open_connection(self.parts.hostname, self.parts.port)

    async def send_upgrade(self) -> None:
        """Send the whole request for the upgrade in one packet."""
        target = self.parts.path + (f"?{self.parts.query}" if self.parts.query else "")
        lines = [
            f"GET {target} HTTP/1.1",
            f"Host: {self.parts.hostname}:{self.parts.port}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
        ]
        await self.write("\r\n".join(lines).encode() + b"\r\n\r\n")

    @property
    def status_line(self) -> str:
        return self.head.split(b"\r\n", 1)[0].decode()

    @property
    def header_lines(self) -> list[str]:
        return self.head.decode().split("\r\n")[1:-2]

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        async with asyncio.timeout(self.seconds):
            await self.writer.drain()

    async def read_frame(self) -> RawFrame:
        """The next frame of any kind."""
        async with asyncio.timeout(self.seconds):
            first, second = await self.reader.readexactly(2)
            length, bits = second & 0x7F, 7
            if length == 126:
                length, bits = int.from_bytes(await self.reader.readexactly(2)), 16
            elif length == 127:
                length, bits = int.from_bytes(await self.reader.readexactly(8)), 64
            payload = await self.reader.readexactly(length)
        return RawFrame(first & 0x0F, bool(first & 0x80), first & 0x70, payload, bits)

    async def read_data(self) -> RawFrame:
        """The next frame that is no control frame; pings are answered on the way."""
        while True:
            frame = await self.read_frame()
            if frame.opcode == PING:
                await self.send_frame(PONG, frame.payload)
            elif frame.opcode < CLOSE or frame.opcode == CLOSE:
                return frame

    async def read_message(self) -> Any:
        """The next frame, as JSON."""
        return orjson.loads((await self.read_data()).payload)

    async def send_frame(self, opcode: int, payload: bytes, *, is_final: bool = True) -> None:
        await self.write(masked_frame(opcode, payload, is_final=is_final))

    async def send_text(self, text: str | bytes) -> None:
        await self.send_frame(TEXT, text.encode() if isinstance(text, str) else text)

    async def send(self, message: Any) -> None:
        await self.send_text(orjson.dumps(message))

    async def close(self) -> None:
        """Drop the TCP connection."""
        self.writer.transport.abort()


def masked_frame(opcode: int, payload: bytes, *, is_final: bool = True) -> bytes:
    """A frame as a client sends it. The mask is all zeros: legal, and the payload stays readable."""
    first = (0x80 if is_final else 0) | opcode
    length = len(payload)
    if length < 126:
        header = bytes([first, 0x80 | length])
    elif length < 65536:
        header = bytes([first, 0x80 | 126]) + length.to_bytes(2)
    else:
        header = bytes([first, 0x80 | 127]) + length.to_bytes(8)
    return header + b"\0\0\0\0" + payload
