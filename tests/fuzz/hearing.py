"""What the gateway said to one peer, judged: every answer must be one that its documents name.

Statuses are those of docs/protocol.md, and the ones that HTTP itself gives to what is no handshake; close codes are
those of `gateway.errors` and the two of the WebSocket layer, or the peer's own, given back.
"""

from collections.abc import Iterator

import httptools
import orjson

from gateway.errors import CloseCode

STATUSES = frozenset({200, 307, 400, 401, 403, 404, 405, 408, 413, 414, 426, 429, 431, 503})
CODES = frozenset({*map(int, CloseCode), 1002, 1007})
FRAME_BYTES_MAX = 4 * 1024 * 1024
TEXT, CLOSE, PING, PONG = 0x81, 0x88, 0x89, 0x8A
_NO_CODE = 1005


class Hearing:
    """The bytes of one connection as they come: HTTP answers, then frames. `faults` are what must not be."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.statuses: list[int] = []
        self.texts: list[bytes] = []
        self.close_code: int | None = None
        self.is_upgraded = False
        self._parser = httptools.HttpResponseParser(self)
        self._data = bytearray()
        self._answers: dict[bytes, bytes] = {}

    def feed(self, data: bytes) -> None:
        """Take what has come."""
        if not self.is_upgraded:
            data = self._feed_http(data)
        if self.is_upgraded and data:
            self._data += data
            for head, payload in self._frames():
                self._judge(head, payload)

    def ended(self, *, echoes: bool) -> list[str]:
        """The faults of the whole conversation. `echoes`: the peer may have sent a close code, which comes back."""
        code = self.close_code
        if code is not None and code not in CODES and not (echoes and (1000 <= code < 5000)):
            self.faults.append(f"close code {code} is not documented")
        return self.faults

    def answer_to(self, rpc_id: bytes) -> bytes | None:
        """The answer under this id, given as JSON text."""
        return self._answers.get(rpc_id)

    # HTTP

    def _feed_http(self, data: bytes) -> bytes:
        """Read answers; what comes behind a 101 is returned."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.is_upgraded = True
            return data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            self.faults.append(f"not HTTP: {error}: {data[:80]!r}")
        return b""

    def on_message_begin(self) -> None:
        """Called by the parser."""

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        self.statuses.append(status)
        if status not in STATUSES | {101}:
            self.faults.append(f"HTTP status {status} is not documented")

    # Frames

    def _frames(self) -> Iterator[tuple[int, bytes]]:
        data = self._data
        while len(data) >= 2:
            length, start = data[1] & 0x7F, 2
            if length >= 126:
                start = 4 if length == 126 else 10
                if len(data) < start:
                    return
                length = int.from_bytes(data[2:start])
            if data[1] & 0x80 or length > FRAME_BYTES_MAX:
                self.faults.append(f"a frame that no server sends: {bytes(data[:10])!r}")
                data.clear()
            if len(data) < start + length:
                return
            head, payload = data[0], bytes(data[start : start + length])
            del data[: start + length]
            yield head, payload

    def _judge(self, head: int, payload: bytes) -> None:
        if self.close_code is not None:
            self.faults.append("a frame behind the close frame")
        if head == TEXT:
            self.texts.append(payload)
            self._judge_text(payload)
        elif head == CLOSE:
            self.close_code = int.from_bytes(payload[:2]) if len(payload) >= 2 else _NO_CODE
            if self.close_code == _NO_CODE and payload:
                self.faults.append("a close frame of one byte")
        elif head not in (PING, PONG):
            self.faults.append(f"a frame of type {head:#x}")

    def _judge_text(self, payload: bytes) -> None:
        try:
            message = orjson.loads(payload)
        except orjson.JSONDecodeError as error:
            self.faults.append(f"no JSON: {error}: {payload[:80]!r}")
            return
        if type(message) is not dict or message.get("jsonrpc") != "2.0":
            self.faults.append(f"no JSON-RPC message: {payload[:80]!r}")
        elif "method" not in message:
            self._answers.setdefault(orjson.dumps(message.get("id")), payload)
            if ("result" in message) == ("error" in message):
                self.faults.append(f"not one of result and error: {payload[:80]!r}")
