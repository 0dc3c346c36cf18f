"""Handshakes byte by byte, and the whole answer as it was on the wire."""

import asyncio
import itertools
import time
from dataclasses import dataclass
from urllib.parse import quote

from gateway.credential import Credential, Role
from gateway.tokens import Keyring
from tests.peers.token import console_token
from tests.support import http
from tests.support.gateway import AGENT
from tests.support.running import KEY

DAY_MS = 86_400_000
ISSUED_MS = time.time_ns() // 1_000_000 - DAY_MS

_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, to the last byte where it was a refusal."""

    raw: bytes

    @property
    def status(self) -> int:
        return int(self.raw.split(b" ", 2)[1])

    @property
    def headers(self) -> dict[str, str]:
        return http.parse(self.raw).headers


async def knock(port: int, target: str, *headers: str) -> Answer:
    """Dial, and leave: an accepted connection is dropped at once."""
    lines = [f"GET {target} HTTP/1.1", "Host: gateway", "Connection: Upgrade", "Upgrade: websocket"]
    lines += ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", *headers]
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write("\r\n".join([*lines, "", ""]).encode())
            raw = await reader.readuntil(b"\r\n\r\n")
            return Answer(raw if raw.startswith(b"HTTP/1.1 101") else raw + await reader.read())
        finally:
            writer.transport.abort()


def path(role: str, token: str = "", server_id: str = "") -> str:
    """The target of a handshake."""
    query = {"token": token, "server_id": server_id}
    joined = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items() if value)
    return f"/mcp_endpoint/{role}/" + (f"?{joined}" if joined else "")


def legacy(agent: str = AGENT, key: str = KEY) -> str:
    return console_token(agent, key)


def signed(
    role: Role,
    agent: str = AGENT,
    *,
    server_id: str = "",
    token_id: str = "",
    issued_ms: int = ISSUED_MS,
    expires_ms: int = ISSUED_MS + 30 * DAY_MS,
    key: str = KEY,
) -> str:
    """A token of the new kind; by default one that was issued yesterday and is good for a month."""
    token_id = token_id or f"t{next(_numbers)}"
    return Keyring((key,)).issue(Credential(agent, role, server_id, token_id, issued_ms, expires_ms))
