"""A WebSocket client that costs little, so that the load leaves the machine to what is measured.

One process plays all peers. It masks as real peers do, but always with the same key, speaks no extension, and answers
everything that one read brought with one write.
"""

import asyncio
import base64
import os
from collections.abc import Callable
from typing import cast
from urllib.parse import urlsplit

from websockets.speedups import apply_mask

_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10
_MASK = b"\x1f\x8b\x5e\xa7"
_GOING_AWAY = (1001).to_bytes(2, "big")


class Socket(asyncio.Protocol):
    """One connection. Whoever hears it gets each text message; answers travel when the read has been worked off."""

    def __init__(self, target: str, host: str) -> None:
        self._early: list[bytes] = []
        self._on_text: Callable[[bytes], None] = self._early.append
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost = ""
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._head = (
            f"GET {target} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        self._inbox = bytearray()
        self._outbox: list[bytes] = []
        self._transport: asyncio.Transport

    def hear(self, on_text: Callable[[bytes], None]) -> None:
        """From now on each text message goes here; those that came before anybody heard go first."""
        self._on_text = on_text
        early, self._early = self._early, []
        for text in early:
            on_text(text)
        self.flush()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._head.encode())

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = self.lost or repr(exc)
        self._gone.set_result(None)
        if not self.opened.done():
            self.opened.set_exception(ConnectionError(self.lost))

    def data_received(self, data: bytes) -> None:
        self._inbox += data
        if not self.opened.done() and not self._accepted():
            return
        while (frame := self._next_frame()) is not None:
            self._handle(*frame)
        self.flush()

    def send(self, text: bytes) -> None:
        """Queue one text message until `flush`."""
        self._outbox.append(_frame(_TEXT, text))

    def flush(self) -> None:
        """Write what is queued."""
        if self._outbox:
            self._transport.write(b"".join(self._outbox))
            self._outbox.clear()

    async def leave(self) -> None:
        """Close as a good peer does, and wait for the end of the connection."""
        self.lost = "closed by the benchmark"
        self._transport.write(_frame(_CLOSE, _GOING_AWAY))
        await self._gone

    def _accepted(self) -> bool:
        head, end, rest = bytes(self._inbox).partition(b"\r\n\r\n")
        if not end:
            return False
        if b" 101 " not in head.split(b"\r\n")[0]:
            self.lost = head.decode()
            self._transport.abort()
            return False
        self._inbox = bytearray(rest)
        self.opened.set_result(None)
        return True

    def _handle(self, opcode: int, payload: bytes) -> None:
        if opcode == _TEXT:
            self._on_text(payload)
        elif opcode == _PING:
            self._outbox.append(_frame(_PONG, payload))
        elif opcode == _CLOSE:
            self.lost = f"closed with {int.from_bytes(payload[:2], 'big')}: {payload[2:].decode()}"

    def _next_frame(self) -> tuple[int, bytes] | None:
        inbox = self._inbox
        if len(inbox) < 2:
            return None
        length, start = inbox[1], 2
        if length == 126:
            length, start = int.from_bytes(inbox[2:4], "big"), 4
        elif length == 127:
            length, start = int.from_bytes(inbox[2:10], "big"), 10
        if len(inbox) < start + length:
            return None
        opcode, payload = inbox[0] & 0x0F, bytes(inbox[start : start + length])
        del inbox[: start + length]
        return opcode, payload


def _frame(opcode: int, payload: bytes) -> bytes:
    length = len(payload)
    if length < 126:
        head = bytes((0x80 | opcode, 0x80 | length))
    elif length < 65536:
        head = bytes((0x80 | opcode, 0x80 | 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, 0x80 | 127)) + length.to_bytes(8, "big")
    return head + _MASK + apply_mask(payload, _MASK)


async def connect(url: str, seconds: float = 10) -> Socket:
    """Dial a ws:// URL; returns when the handshake is done, raises ConnectionError if it is refused."""
    parts = urlsplit(url)
    async with asyncio.timeout(seconds):
        _, socket = await asyncio.get_running_loop().create_connection(
            lambda: Socket(f"{parts.path}?{parts.query}", parts.netloc), parts.hostname or "", parts.port or 80
        )
        await socket.opened
    return socket
