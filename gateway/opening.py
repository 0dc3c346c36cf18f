"""The opening handshake of a WebSocket (RFC 6455 §4.2): what its request has to say, and how it is answered.

The head has been read by httptools, and it does ask for an upgrade to `websocket`; what is left to look at is here.
"""

import base64
import binascii
import hashlib

from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from websockets.exceptions import InvalidHeader
from websockets.headers import parse_subprotocol

from gateway.refused import Refused
from gateway.sources import Headers

LINE_BYTES_MAX = 8192
"""Of one header; nothing that a peer of ours sends comes near."""
SUBPROTOCOL = "mcp"
"""The one that is spoken, if it is asked for; peers that name none, or others only, are welcome as well."""

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_BYTES = 16
_VERSION = b"13"
_LOOKED_AT = frozenset(
    (
        *(b"upgrade", b"sec-websocket-key", b"sec-websocket-version", b"sec-websocket-protocol"),
        *(b"origin", b"content-length", b"transfer-encoding"),
    )
)
# Spelled and ordered as the firmware of the devices, which compares them letter by letter, expects it.
_ACCEPTED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n"
)
_CHOSEN = b"Sec-WebSocket-Protocol: %b\r\n" % SUBPROTOCOL.encode()


def accepted(method: str, headers: Headers) -> bytes:
    """Return the answer to the handshake. No extension is ever accepted. Raises Refused for what is no handshake."""
    if method != "GET":
        raise Refused(405, "bad_request", "WebSocket 握手须用 GET / a WebSocket handshake is a GET")
    given: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        if len(name) + len(value) > LINE_BYTES_MAX:
            raise Refused(431, "head_too_large", f"请求头一行超过 {LINE_BYTES_MAX} 字节 / a header line too long")
        if name in _LOOKED_AT:
            given.setdefault(name, []).append(value.strip())
    _check(given)
    answer = _ACCEPTED % _proof(_only(given, b"sec-websocket-key"))
    return b"%b%b\r\n" % (answer, _CHOSEN if SUBPROTOCOL in _offered(given) else b"")


def declined(refused: Refused) -> bytes:
    """Return the answer to whoever is refused, with this handshake or with any other request."""
    body = refused.text.encode() + b"\n"
    head = {**refused.headers, "content-type": "text/plain; charset=utf-8", "connection": "close"}
    lines = "".join(f"{name.lower()}: {value}\r\n" for name, value in head.items())
    return STATUS_LINE[refused.status] + lines.encode() + b"content-length: %d\r\n\r\n" % len(body) + body


def _check(given: dict[bytes, list[bytes]]) -> None:
    if _only(given, b"sec-websocket-version") != _VERSION:
        raise _bad("Sec-WebSocket-Version")
    if len(given.get(b"upgrade", ())) != 1:
        raise _bad("Upgrade")
    if len(given.get(b"origin", ())) > 1:
        raise _bad("Origin")
    if b"transfer-encoding" in given or set(given.get(b"content-length", ())) - {b"0"}:
        raise _bad("a body")


def _only(given: dict[bytes, list[bytes]], name: bytes) -> bytes:
    values = given.get(name, ())
    if len(values) != 1:
        raise _bad(name.decode())
    return values[0]


def _proof(key: bytes) -> bytes:
    try:
        nonce = base64.b64decode(key, validate=True)
    except binascii.Error:
        nonce = b""
    if len(nonce) != _KEY_BYTES:
        raise _bad("Sec-WebSocket-Key")
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def _offered(given: dict[bytes, list[bytes]]) -> list[str]:
    try:
        return [
            name
            for value in given.get(b"sec-websocket-protocol", ())
            for name in parse_subprotocol(value.decode("latin-1"))
        ]
    except InvalidHeader:
        raise _bad("Sec-WebSocket-Protocol") from None


def _bad(what: str) -> Refused:
    text = "不是有效的 WebSocket 握手 / not a valid WebSocket handshake"
    return Refused(400, "bad_request", text, f"{text}: {what}")
