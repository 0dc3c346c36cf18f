"""A WebSocket as the gateway needs it: uvicorn's protocol, with frames handed straight over and every bound set.

Theory of operation
-------------------
uvicorn speaks ASGI: a queue, a task switch and a pause of reading per message, and no way to drop a peer that reads
nothing. `GatewayWebSocketProtocol` keeps its handshake; for the rest the app finds the `Wire` of
`gateway.connection` in its scope. Of ASGI remain `connect`, `accept`, the refusals before it, `close`, and one
`disconnect` that tells how it ended.

*Reading.* What arrives before `attach` is held, within a bound. After it, the stream is cut into frames: a message in
one frame, nearly all of them, is unmasked and delivered here, as are pings and pongs; every other frame (fragments,
close, whatever breaks the rules) goes whole through the parser of websockets, which thereby always stands between two.
Reading is paused only to keep to a rate (`gateway.flow`): what a message costs is for `on_frame` to bound.

*Writing.* A text frame is a header and the bytes, written past `conn`; all frames of one turn of the loop go out in one
write. Close goes through `conn`, whose state stays the truth about the closing handshake. More unread bytes than
the outbox bound, or too many answers that the peer itself asked for: the socket is dropped.

*Ending.* `_end` is called once, by whatever ends the connection first; it is what the app is told. Every way out
arms one timer that aborts the transport, so a peer that neither reads nor answers is gone `close_seconds` later.
After a breach the socket is closed for writing only, and what still comes is thrown away: closed at once with unread
bytes in the kernel, TCP would reset it and the peer would lose the close frame that says what was wrong.
"""

import logging
from asyncio import TimerHandle
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.utils import ClientDisconnected
from websockets.frames import Frame, Opcode
from websockets.http11 import Request

from gateway.connection import Wire
from gateway.errors import RESTART_REASON, CloseCode
from gateway.flow import CONTROL_FRAMES_PER_SECOND, EARLY_BYTES_MAX, FRAGMENTS_MAX, Throttle, Unread
from gateway.frames import BINARY, PING, PONG, SMALL_END, TEXT, Fragments, FrameCutter, pong_head, text_head, unmask
from gateway.keepalive import KeepaliveProtocol
from gateway.logs import quiet
from gateway.rates import Rate

WIRE = "gateway.wire"
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
        *("_unread", "_unwritten", "_unwritten_bytes", "disconnected", "loop", "transport"),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = self.conn.logger = quiet
        self.conn.debug = False
        self.is_slow = False
        self._is_open = False  # accepted, and nothing has ended it
        self._is_ended = False  # the app has been told, or refused by itself
        self._is_flowing = False  # frames are read as they come
        self._is_joining = False  # in the middle of a message in fragments
        self._is_deaf = False  # nothing is read any more
        self._limit, self._outbox_bytes = 0, self.settings.outbox_bytes  # of a message; of what waits for the peer
        self._on_frame: Callable[[bytes], None] | None = None
        self._held = bytearray()  # what came before attach
        self._unwritten: list[bytes] = []  # frames of this turn of the loop, heads and texts
        self._unwritten_bytes = 0
        self._cutter, self._fragments = FrameCutter(), Fragments()
        self._control_rate = Rate(CONTROL_FRAMES_PER_SECOND)
        self._throttle: Throttle | None = None
        self._unread = Unread(self.settings.result_bytes)
        self._deadline: TimerHandle | None = None

    # The wire

    def attach(self, on_frame: Callable[[bytes], None], *, max_bytes: int) -> None:
        if not self.handshake_complete:
            raise RuntimeError("attach comes after websocket.accept")
        self._on_frame = on_frame
        self.conn.max_message_size = self._limit = max_bytes
        if self.settings.connection_rate_bytes and self._throttle is None:
            self._throttle = Throttle(self.loop, self.transport, self.settings.connection_rate_bytes)
        if not self._is_flowing:
            self.loop.call_soon(self._release)

    def send(self, text: bytes) -> bool:  # type: ignore[override]  # ASGI's is asgi_send, see run_asgi
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
        self._release()

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
        elif not self._is_ended:
            self._receive_early(data)

    def _receive_early(self, data: bytes) -> None:
        if not self.handshake_initiated:
            self._shake_hands(data)
            return
        self._held += data
        if self._on_frame is not None:
            self._release()  # before the turn of the loop that attach asked for
        elif len(self._held) > EARLY_BYTES_MAX:
            self.abort()

    def _release(self) -> None:
        """Read what was held back, and from now on everything as it comes."""
        if self._is_flowing or self._is_deaf or self.transport.is_closing():
            return
        self._is_flowing = True
        held, self._held = self._held, bytearray()
        self._read(bytes(held))

    def _stop_reading(self) -> None:
        """For good: also what `attach` has asked to be read comes too late now."""
        self._is_flowing, self._is_deaf = False, True

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
                self.handle_close(frame)
            else:
                self._join(frame)

    def _control(self, kind: int, payload: bytes) -> None:
        """A ping or a pong. Both may stand between the fragments of a message, so the parser need not see them."""
        if not self._is_open:
            return  # what is said after our close frame needs no answer
        if not self._control_rate.take(self.loop.time()):
            self._fail(CloseCode.POLICY, "ping/pong 过于频繁 / too many pings or pongs")
        elif kind == PONG:
            self.on_pong(payload)
        elif self._may_answer(len(payload) + 2) and not self._is_full():
            self._write_soon(pong_head(len(payload)), payload)

    def _join(self, frame: Frame) -> None:
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
        """Leave the open state. The first to come decides what the app is told."""
        self._is_open = False
        if self._throttle is not None:
            self._throttle.stop()
        if self._is_ended:
            return
        self._is_ended = True
        self._cancel_deadline()  # of the accept; the end has its own
        self.stop_keepalive()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})

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

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None

    def handle_close(self, event: Frame) -> None:
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
        self._cancel_deadline()
        self._end(ABNORMAL, "连接中断 / connection lost")
        self._stop_reading()
        self._on_frame = None
        self._held, self._fragments, self._cutter = bytearray(), Fragments(), FrameCutter()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close for the server's own end. What is closing already keeps its own deadline."""
        if self._is_open:
            self.close(CloseCode.RESTART, RESTART_REASON)
        elif not self._is_ended:
            self._refuse(503, RESTART_REASON)

    # Keepalive

    def _lose(self) -> None:
        self._fail(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")

    @property
    def _is_unread(self) -> bool:
        return self._throttle is not None and self._throttle.is_paused

    # The handshake, and what is left of ASGI

    def _shake_hands(self, head: bytes) -> None:
        super().data_received(head)
        if not self.handshake_initiated:  # websockets found it unreadable; some of that it answers itself
            self._is_ended = True
            answer = b"".join(self.conn.data_to_send())
            self.transport.write(answer or self.conn.reject(400, "不是有效的握手 / bad handshake\n").serialize())
            self._linger()

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code != 101:
            self._is_ended = True
            self._abort_later()
            return
        wire: Wire = self
        cast(dict[str, Any], self.scope["extensions"])[WIRE] = wire
        late = "网关未能及时回答握手 / the gateway took too long to answer the handshake"
        self._deadline = self.loop.call_later(self.settings.header_seconds, self._refuse, 503, late)

    def _refuse(self, status: int, text: str) -> None:
        """Answer in the app's place, which did not accept or refuse the handshake."""
        self.handshake_complete = True
        self._end(ABNORMAL, text)
        response = self.conn.reject(status, text + "\n")
        if status == 503:
            response.headers["Retry-After"] = "5"
        self.conn.send_response(response)
        self._flush()
        self._linger()

    async def run_asgi(self) -> None:
        """Run the app. Returning ends the connection, raising ends it with 1011."""
        code, reason = CloseCode.INTERNAL_ERROR, INTERNAL_REASON
        try:
            with suppress(ClientDisconnected):  # connection_lost has told the app already
                await self.app(self.scope, self.receive, self.asgi_send)
            code, reason = CloseCode.REPLACED, ""
        except Exception:
            self.logger.exception("Exception in ASGI application\n", extra={"event": "app_failed"})
        finally:
            self.close(code, reason)
            if not self._is_ended:
                self._refuse(500, INTERNAL_REASON)

    async def asgi_send(self, message: ASGISendEvent) -> None:
        """Take `accept`, a refusal, `send` (always as text) or `close` from the app. OSError if the peer is gone."""
        if self._is_open and message["type"] == "websocket.close":
            self.close(message.get("code", 1000), message.get("reason") or "")
        elif self._is_open and message["type"] == "websocket.send":
            self.send((message.get("text") or "").encode() or message.get("bytes") or b"")
        elif not self._is_ended and not self.transport.is_closing():
            await super().send(message)
            self._after_answer()
        elif message["type"] != "websocket.close":
            raise ClientDisconnected

    def _after_answer(self) -> None:
        """Note what the app's answer to the handshake was; a refusal may still lack its body."""
        if self.handshake_complete or self.close_sent:
            self._cancel_deadline()
            self._is_open = not self.close_sent
        if self.close_sent:
            self._is_ended = True
            self._abort_later()
