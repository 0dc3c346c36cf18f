"""A WebSocket as the gateway needs it: frames handed straight over, and every bound set.

Theory of operation
-------------------
uvicorn's WebSockets speak ASGI: a queue, a task switch and a pause of reading per message, a task and a scope per
connection, and no way to drop a peer that reads nothing. So nothing of uvicorn is in here: `gateway.intake` answers the
handshake and opens the connection, whoever gets it holds a `Wire`, and is told of the end.

*Reading.* The stream is cut into frames: a message in one frame, nearly all of them, is unmasked and delivered here, as
are pings and pongs; every other frame (fragments, close, whatever breaks the rules) goes whole through the parser of
websockets, which thereby always stands between two. Reading is paused only to keep to a rate (`gateway.flow`): what a
message costs is for `on_frame` to bound.

*Writing.* A text frame is a header and the bytes, written past `conn`; all frames of one turn of the loop go out in one
write. Close goes through `conn`, whose state stays the truth about the closing handshake. More unread bytes than
the outbox bound, or too many answers that the peer itself asked for: the socket is dropped.

*Ending.* `_end` is called once, by whatever ends the connection first; that is what its holder is told, in the loop's
next turn: it may be in the middle of something now. Every way out arms one timer that aborts the transport, so a peer
that neither reads nor answers is gone `close_seconds` later. After a breach the socket is closed for writing only, and
what still comes is thrown away: closed at once with unread bytes in the kernel, TCP would reset it and the peer would
lose the close frame that says what was wrong.
"""

import asyncio
import logging
from asyncio import TimerHandle
from collections.abc import Callable
from typing import Any, cast

from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side

from gateway.connection import OnEnd, Wire
from gateway.errors import RESTART_REASON, CloseCode
from gateway.flow import CONTROL_FRAMES_PER_SECOND, FRAGMENTS_MAX, Throttle, Unread
from gateway.frames import BINARY, PING, PONG, SMALL_END, TEXT, Fragments, FrameCutter, pong_head, text_head, unmask
from gateway.keepalive import KeepaliveProtocol
from gateway.logs import quiet
from gateway.rates import Rate

SLOW_REASON = "对方读取太慢 / slow peer: it does not read what it is sent"
INTERNAL_REASON = "网关内部错误 / internal error of the gateway"

COPY_BYTES_MAX = 64 * 1024
"""Up to here, joining heads and texts costs less than that many buffers in the transport."""
ABNORMAL = 1006

log = logging.getLogger(__name__)


class GatewayWebSocketProtocol(KeepaliveProtocol):
    """One WebSocket; implements `gateway.connection.Wire`. `gateway.server.make_protocols` gives it its settings."""

    # What each frame needs stands together; else ten thousand connections would not leave it in the processor's cache.
    __slots__ = (
        *("_cutter", "_is_flowing", "_is_joining", "_is_open", "_limit", "_on_frame", "_outbox_bytes", "_throttle"),
        *("_unread", "_unwritten", "_unwritten_bytes", "disconnected"),
        *("_conn", "_connections", "_control_rate", "_deadline", "_fragments", "_is_ended", "_on_end", "is_slow"),
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, connections: set[Any]) -> None:
        super().__init__(loop)
        self.disconnected = False
        self.is_slow = False
        self._is_open = True  # nothing has ended it
        self._is_ended = False  # the end is told, or about to be
        self._is_flowing = True  # frames are read as they come
        self._is_joining = False  # in the middle of a message in fragments
        self._limit = self.settings.frame_bytes  # of a message
        self._outbox_bytes = self.settings.outbox_bytes
        self._connections = connections  # of the server
        self._on_frame: Callable[[bytes], None] | None = None
        self._on_end: OnEnd | None = None
        self._unwritten: list[bytes] = []  # frames of this turn of the loop, heads and texts
        self._unwritten_bytes = 0
        self._cutter = FrameCutter()
        self._throttle: Throttle | None = None
        self._unread = Unread(self.settings.result_bytes)
        self._deadline: TimerHandle | None = None
        # What most connections don't need before their end, or ever:
        self._conn: Protocol | None = None
        self._fragments: Fragments | None = None
        self._control_rate: Rate | None = None

    @property
    def conn(self) -> Protocol:
        """The parser, and the state of the closing handshake."""
        if self._conn is None:
            self._conn = Protocol(Side.SERVER, max_size=self._limit, logger=quiet)
            self._conn.debug = False  # whatever somebody has made of the logger's level
        return self._conn

    # Beginning

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake has been read and found good; whoever made this answers it, and calls `open`."""
        self.transport = cast(asyncio.Transport, transport)
        self._connections.add(self)

    def open(self, receive: Callable[[Wire], OnEnd]) -> None:
        """Give the connection to whoever `receive` finds for it; what it returns is told of the end."""
        self.start_keepalive()
        try:
            self._on_end = receive(self)
        except Exception:
            log.exception("连接无法建立 / a connection could not be set up", extra={"event": "app_failed"})
            self.close(CloseCode.INTERNAL_ERROR, INTERNAL_REASON)

    # The wire

    def attach(self, on_frame: Callable[[bytes], None], *, max_bytes: int) -> None:
        self._on_frame = on_frame
        self._limit = max_bytes
        if self._conn is not None:
            self._conn.max_message_size = max_bytes
        if self.settings.connection_rate_bytes and self._throttle is None:
            self._throttle = Throttle(self.loop, self.transport, self.settings.connection_rate_bytes)

    def send(self, text: bytes) -> bool:
        if not self._is_open or self._is_full():
            return False
        self._write_soon(text_head(len(text)), text)
        return True

    def _write_soon(self, head: bytes, body: bytes = b"") -> None:
        if not self._unwritten:
            self.loop.call_soon(self._write_out)
        self._unwritten += (head, body)
        self._unwritten_bytes += len(body)

    def answer(self, text: bytes) -> bool:
        return self._may_answer(len(text)) and self.send(text)

    def _write_out(self) -> None:
        """Write what this turn of the loop has gathered: one write for all of it, however many frames."""
        parts, size = self._unwritten, self._unwritten_bytes
        self._unwritten, self._unwritten_bytes = [], 0
        if self.disconnected or not parts:
            return
        self._said_at = self.loop.time()
        if size < COPY_BYTES_MAX:
            self.transport.write(b"".join(parts))
        else:
            self.transport.writelines(parts)

    def close(self, code: int, reason: str = "") -> None:
        if not self._is_open:
            return
        reason = reason.encode()[:123].decode(errors="ignore")
        self.conn.send_close(code, reason)
        self._end(code, reason)
        self._flush()
        self._abort_later()

    def abort(self) -> None:
        self._end(ABNORMAL, "连接被网关丢弃 / dropped by the gateway")
        self._stop_reading()
        self.transport.abort()

    @property
    def outbox_bytes(self) -> int:
        return 0 if self.disconnected else self.transport.get_write_buffer_size() + self._unwritten_bytes

    def _is_full(self) -> bool:
        """Drop the peer if more than the bound waits for it; True if so."""
        is_full = self.transport.get_write_buffer_size() + self._unwritten_bytes > self._outbox_bytes
        if is_full:
            self._drop_slow()
        return is_full

    def _may_answer(self, size: int) -> bool:
        """Drop the peer if it asks and asks and reads no answer; False if so."""
        unread = 0 if self.disconnected else self.transport.get_write_buffer_size()
        is_well = self._unread.note(size, unread_bytes=unread, unwritten_bytes=self._unwritten_bytes)
        if not is_well and self._is_open:
            self._drop_slow()
        return is_well

    def _drop_slow(self) -> None:
        self.is_slow = True
        self._end(CloseCode.TRY_AGAIN_LATER, SLOW_REASON)
        self.abort()

    # Reading

    def data_received(self, data: bytes) -> None:
        self._was_heard_at = self.loop.time()
        if self._is_flowing:
            if self._throttle is not None:
                self._throttle.note(len(data))
            self._read(data)

    def _stop_reading(self) -> None:
        """For good."""
        self._is_flowing = False

    def _read(self, data: bytes) -> None:
        limit = self._limit
        for frame, start in self._cutter.cut(data, limit):
            kind = frame[0]
            if start > 0 and kind in (TEXT, BINARY) and not self._is_joining:
                self._deliver(unmask(frame, start))
            elif start > 0 and kind in (PING, PONG) and frame[1] < SMALL_END:
                self._control(kind, unmask(frame, start))
            elif start > 0 or frame[1] < 0x80:
                self._feed(frame)  # an unmasked one too: two bytes are enough for the parser to refuse it
            else:
                self._fail(CloseCode.TOO_BIG, f"消息超过上限 {limit} 字节 / message above the limit of {limit} bytes")
            if not self._is_flowing:
                break

    def _feed(self, data: bytes | bytearray) -> None:
        self.conn.receive_data(data)
        if self.conn.parser_exc is not None:
            sent = self.conn.close_sent
            self._fail(*((sent.code, sent.reason) if sent else (ABNORMAL, "")))
            return
        self._is_joining = self.conn.current_size is not None
        for event in self.conn.events_received():
            frame = cast(Frame, event)
            if frame.opcode is Opcode.CLOSE:
                self._handle_close()
            else:
                self._join(frame)

    def _control(self, kind: int, payload: bytes) -> None:
        """A ping or a pong. Both may stand between the fragments of a message, so the parser need not see them."""
        if not self._is_open:
            return  # what is said after our close frame needs no answer
        if self._control_rate is None:
            self._control_rate = Rate(CONTROL_FRAMES_PER_SECOND)
        if not self._control_rate.take(self.loop.time()):
            self._fail(CloseCode.POLICY, "ping/pong 过于频繁 / too many pings or pongs")
        elif kind == PONG:
            self.on_pong(payload)
        elif self._may_answer(len(payload) + 2) and not self._is_full():
            self._write_soon(pong_head(len(payload)), payload)

    def _join(self, frame: Frame) -> None:
        if self._fragments is None:
            self._fragments = Fragments()
        if self._fragments.add(frame.data, is_first=frame.opcode is not Opcode.CONT) > FRAGMENTS_MAX:
            self._fail(CloseCode.TOO_BIG, f"消息分片超过 {FRAGMENTS_MAX} 个 / more than {FRAGMENTS_MAX} fragments")
        elif frame.fin:
            self._deliver(self._fragments.take())

    def _deliver(self, message: bytes) -> None:
        if not self._is_open or self._on_frame is None:
            return
        try:
            self._on_frame(message)
        except Exception:
            text = "处理消息出错，连接关闭 / a frame could not be handled, its connection is closed"
            log.exception(text, extra={"event": "frame_failed"})
            self.close(CloseCode.INTERNAL_ERROR, INTERNAL_REASON)

    # Ending

    def _end(self, code: int, reason: str) -> None:
        """Leave the open state. The first to come decides what is told."""
        self._is_open = False
        if self._throttle is not None:
            self._throttle.stop()
        if self._is_ended:
            return
        self._is_ended = True
        self.stop_keepalive()
        self.loop.call_soon(self._tell_end, code, reason)

    def _tell_end(self, code: int, reason: str) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is None:
            return
        try:
            on_end(code, reason)
        except Exception:
            log.exception("连接的收尾出错 / the end of a connection failed", extra={"event": "app_failed"})

    def _fail(self, code: int, reason: str) -> None:
        """Close on a peer that broke a rule or fell silent: say why, read no more, wait for nothing but its leaving."""
        self.conn.fail(code, reason)
        self._end(code, reason)
        self._flush()
        self._linger()

    def _flush(self) -> None:
        self._write_out()
        self.transport.write(b"".join(self.conn.data_to_send()))

    def _linger(self) -> None:
        self.close_sent = True
        self._stop_reading()
        self._abort_later()
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()
        else:
            self.transport.close()

    def _abort_later(self) -> None:
        self.close_sent = True
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.settings.close_seconds, self.transport.abort)

    def _handle_close(self) -> None:
        """Take the peer's close frame: its own wish, or the answer to ours."""
        received = self.conn.close_rcvd
        assert received is not None
        self._end(received.code, received.reason)
        self._flush()
        self._abort_later()
        self._stop_reading()
        self.transport.close()

    def eof_received(self) -> None:
        """Let the transport close, but not wait for ever for what the peer has yet to read."""
        self._end(ABNORMAL, "对方断开，没有关闭握手 / the peer left without a closing handshake")
        self._abort_later()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._end(ABNORMAL, "连接中断 / connection lost")
        self._stop_reading()
        self.disconnected = True
        self._connections.discard(self)
        self._on_frame = self._fragments = None
        self._cutter = FrameCutter()

    def shutdown(self) -> None:
        """Close for the server's own end. What is closing already keeps its own deadline."""
        self.close(CloseCode.RESTART, RESTART_REASON)

    # Keepalive

    def _lose(self) -> None:
        self._fail(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")

    @property
    def _is_unread(self) -> bool:
        return self._throttle is not None and self._throttle.is_paused
