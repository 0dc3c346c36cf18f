"""HTTP as the gateway needs it: uvicorn's protocol with a bound on everything that comes before the app.

A request has `header_seconds` to arrive whole and `header_bytes` for its head; what takes longer or more is answered
408, 413 or 431 and closed, and logged. Any response that the peer does not read is dropped. What is decided about a
WebSocket handshake is decided here, by the app's `Gate`, where a refusal costs least: no scope, no task, no WebSocket
exists yet. Who may come in is answered here as well (`gateway.opening`): the socket goes over to `gateway.wire`, the
connection to the app's `Hall`, and then the bytes are read that an eager peer has sent behind its handshake.
"""

import asyncio
import logging
from asyncio import TimerHandle
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gateway.connection import OnEnd, Wire
from gateway.logs import quiet
from gateway.meters import Meters
from gateway.opening import accepted, declined
from gateway.pace import Pace
from gateway.rates import Turnstile
from gateway.refused import RefusalLog, Refused
from gateway.settings import Settings
from gateway.wire import GatewayWebSocketProtocol

BODY_BYTES_MAX = 64 * 1024
"""No endpoint reads a body; this leaves room for clients that send a small one regardless."""
HEADERS_MAX = 128
"""Thousands of tiny ones fit into a head, and to read them would take longer than to let somebody in."""
TURNSTILE_SETTING = "GATEWAY_TOOL_HANDSHAKES_PER_SECOND"
TURN_SECONDS_MAX = 8.0
"""How long a tool server waits for its turn; clients give a handshake ten seconds."""
TURNS_AT_ONCE = 20
NEWCOMERS_SECONDS = 0.0003
"""For so long first requests are read in a turn of the event loop, or one of them; calls go on in between."""
PIPELINE_MAX = 16
"""Requests of one socket that wait for an answer; a whole packet of tiny ones would start thousands."""

log = logging.getLogger(__name__)


class Gate(Protocol):
    """Who decides about handshakes (`gateway.admission`): `app_state["gate"]`. Without one nobody comes in."""

    def examine(self, target: bytes, headers: Sequence[tuple[bytes, bytes]], peer: str) -> Any:
        """Return the visit, which goes to all the others. Raises Refused."""

    def queues(self, visit: Any) -> bool:
        """Whether the visitor has to wait for his turn where there are many."""

    def queue(self, visit: Any) -> None:
        """The visitor waits for his turn."""

    def unqueue(self, visit: Any) -> None:
        """He does not any more: his turn has come, or he has gone."""

    def enter(self, visit: Any, *, has_waited: bool) -> None:
        """His turn has come, now or after a while in which much may have changed. Raises Refused."""

    def note_refused(self, visit: Any, refused: Refused) -> None:
        """He was refused here, after all."""


class Hall(Protocol):
    """Who gets the connections (`gateway.hall`): `app_state["hall"]`."""

    def receive(self, visit: Any, wire: Wire) -> OnEnd:
        """His handshake has been answered. Returns what is to be told of the end of his connection."""


def _invalid() -> Refused:
    return Refused(400, "bad_request", "不是有效的 HTTP 请求 / not a valid HTTP request")


class GatewayHttpProtocol(HttpToolsProtocol):
    """One socket until it is upgraded or closed. `gateway.server.make_protocols` gives it its settings."""

    settings: Settings
    turnstile: Turnstile
    pace: Pace
    refusal_log: RefusalLog

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = quiet
        self.access_log = False
        self._is_in_head = True
        self._is_taken = False  # the app has the request whose bytes are coming
        self._is_deaf = False  # refused or answered for good: what still comes is thrown away
        self._early: bytearray | None = None  # what came of the first request before its turn
        self._is_met = False  # the first request has had its turn
        self._visit: Any = None  # whose handshake is not answered yet
        self._accepted = b""  # the answer to his handshake, if he may come in
        self._is_queued = False  # the visit waits for its turn
        self._is_upgrade: bool | None = None  # None: not looked at yet
        self._heads = 0
        self._raw_bytes = 0  # of the current head, as received
        self._parsed_bytes = 0  # of the current head, as the parser told
        self._body_bytes = 0
        self._deadline: TimerHandle | None = None  # of the request, then of the closing
        self._stalled: TimerHandle | None = None  # while the peer doesn't read

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        if len(self.connections) > 2 * self.settings.connections:
            transport.abort()  # half of them may be on their way in or out; an answer would cost more than it is worth
        else:
            self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_deadline()
        self._forget_stall()
        self._unqueue()
        super().connection_lost(exc)

    def eof_received(self) -> None:
        """Let the transport close, but not wait for ever for what the peer has yet to read."""
        self._abort_later()

    # Bounds on what comes in

    def data_received(self, data: bytes) -> None:
        if self._early is not None:
            self._early += data
            self.transport.pause_reading()  # the first packet is all of a handshake; only who goes on is kept waiting
        elif self._is_met or self.pace.take():
            self._is_met = True
            self._read(data)
        else:
            self._early = bytearray(data)
            self.pace.later(self._meet)

    def _meet(self) -> None:
        """The turn of the first request has come."""
        data, self._early, self._is_met = bytes(self._early or b""), None, True
        if not self.transport.is_closing():
            self.transport.resume_reading()
            self._read(data)

    def _read(self, data: bytes) -> None:
        if self._is_deaf:
            return
        self._unset_keepalive_if_required()
        if self._deadline is None:
            self._await_request()
        head = self._heads if self._is_in_head else None
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, Refused) else _invalid())
        else:
            self._weigh(head, len(data))

    def _weigh(self, head: int | None, size: int) -> None:
        """Count what was received of a head that is still not complete: the parser tells of whole headers only."""
        if self._is_in_head and head == self._heads:
            self._raw_bytes += size
            if self._raw_bytes > self.settings.header_bytes:
                self._refuse(self._head_too_large())

    def _head_too_large(self) -> Refused:
        limit = self.settings.header_bytes
        text = f"请求头超过 {limit} 字节 / request head above {limit} bytes"
        return Refused(431, "head_too_large", text)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_upgrade = None
        self._is_taken = False
        self._raw_bytes = self._parsed_bytes = self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._parsed_bytes += len(url)
        if self._parsed_bytes > self.settings.header_bytes:
            raise self._head_too_large()

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._parsed_bytes += len(name) + len(value) + 4
        if self._parsed_bytes > self.settings.header_bytes:
            raise self._head_too_large()
        if len(self.headers) > HEADERS_MAX:
            text = f"请求头超过 {HEADERS_MAX} 行 / more than {HEADERS_MAX} header lines"
            raise Refused(431, "head_too_large", text)

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._heads += 1
        if len(self.pipeline) >= PIPELINE_MAX:
            text = "未等回答就发来太多请求 / too many requests without waiting"
            raise Refused(429, "pipelined", text)
        before = self.cycle
        super().on_headers_complete()
        self._is_taken = self.cycle is not before  # not so for a handshake

    def _should_upgrade(self) -> bool:
        if self._is_upgrade is None:  # asked three times of each head
            self._is_upgrade = super()._should_upgrade()
        return self._is_upgrade

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > BODY_BYTES_MAX:
            text = f"请求体超过 {BODY_BYTES_MAX} 字节 / request body above {BODY_BYTES_MAX} bytes"
            raise Refused(413, "body_too_large", text)
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._is_in_head = True
        self._forget_deadline()

    def _await_request(self) -> None:
        self._set_deadline(self.settings.header_seconds, self._be_late)

    def _be_late(self) -> None:
        seconds = self.settings.header_seconds
        text = f"请求未在 {seconds:g} 秒内到齐 / request not complete within {seconds:g} s"
        self._refuse(Refused(408, "late", text))

    # The handshake

    def _upgrade(self, rest: bytes) -> None:
        if not self._should_upgrade():
            # Some other upgrade was offered: the request is answered as if it were not, and nothing may follow it.
            self._is_deaf = True
            self.cycle.keep_alive = False
        elif self._is_answering():
            self.transport.abort()  # the answer to an earlier request would run into the WebSocket
        else:
            self._forget_deadline()
            self._forget_stall()
            try:
                self._examine()
                self._wait_turn(rest)
            except Refused as refused:
                self._refuse(refused)

    @property
    def _gate(self) -> Gate:
        gate: Gate | None = self.app_state.get("gate")
        if gate is None:
            raise Refused(404, "not_found", "Not Found")
        return gate

    def _examine(self) -> None:
        """Find out whether the visitor may come in, before anything is made for him. Raises Refused."""
        self._cut_to_origin_form()
        self._visit = self._gate.examine(self.url, self.headers, self.client[0] if self.client else "")
        self._accepted = accepted(self.scope["method"], self.headers)

    def _wait_turn(self, rest: bytes) -> None:
        """Thousands of tool servers redial at once when a worker dies: robots' calls must go on meanwhile.

        They wait here, where it costs least. Robots pass: they would not come again.
        """
        seconds = self.turnstile.turn(self.loop.time()) if self._gate.queues(self._visit) else 0.0
        if seconds is None:
            text = f"握手过于频繁 / too many handshakes: {TURNSTILE_SETTING}={self.settings.tool_handshakes_per_second}"
            raise Refused(503, "turnstile", text)
        if seconds == 0.0:
            self._enter(rest, has_waited=False)
        else:
            self.transport.pause_reading()
            self._is_queued = True
            self._gate.queue(self._visit)
            self._set_deadline(seconds, lambda: self._take_turn(rest))

    def _take_turn(self, rest: bytes) -> None:
        self._forget_deadline()
        self._unqueue()
        if self.transport.is_closing():
            return
        try:
            self._enter(rest, has_waited=True)
        except Refused as refused:
            self._refuse(refused)

    def _enter(self, rest: bytes, *, has_waited: bool) -> None:
        """Let the visitor in: his answer, then whatever the connection's new holder has to say."""
        self._gate.enter(self._visit, has_waited=has_waited)
        hall: Hall = self.app_state["hall"]
        websocket = cast(type[GatewayWebSocketProtocol], self.ws_protocol_class)(self.loop, self.connections)
        websocket.connection_made(self.transport)
        self.connections.discard(self)
        self.parser = None  # type: ignore[assignment]  # which holds this protocol, and is held by it
        self.transport.set_protocol(websocket)
        self.transport.write(self._accepted)
        if has_waited:
            self.transport.resume_reading()
        websocket.open(partial(hall.receive, self._visit))
        if rest:
            websocket.data_received(rest)

    def _unqueue(self) -> None:
        if self._is_queued:
            self._is_queued = False
            self._gate.unqueue(self._visit)

    def _cut_to_origin_form(self) -> None:
        """A target may name scheme and host as well (RFC 9112 §3.2.2), which uvicorn's WebSockets take for a path."""
        if self.url.startswith(b"/"):
            return
        try:
            parsed = httptools.parse_url(self.url)
        except httptools.HttpParserInvalidURLError:
            raise _invalid() from None
        path = b"/" + (parsed.path or b"").lstrip(b"/")  # of `*` as well
        self.url = path + (b"?" + parsed.query if parsed.query else b"")

    # Endings

    def _is_answering(self) -> bool:
        cycle = cast(RequestResponseCycle | None, self.cycle)
        return cycle is not None and not cycle.response_complete

    def _refuse(self, refused: Refused) -> None:
        """Answer in the app's place and close; just close where an answer has already begun."""
        self._note(refused)
        self._is_deaf = True
        if self.transport.is_closing():
            return
        if self._is_answering():
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started or self.pipeline:
                self.transport.abort()
                return
        if not (self._is_taken and self.cycle.response_complete):  # else it was answered already
            self.transport.write(declined(refused))
        # Closed for writing only: with unread bytes in the kernel, close() would reset the peer before it reads this.
        self._set_deadline(self.settings.close_seconds, self.transport.abort)
        self.transport.write_eof()

    def _note(self, refused: Refused) -> None:
        meters: Meters | None = self.app_state.get("meters")  # none where no gateway is behind it
        if meters is not None:
            meters.handshakes_refused_total.add(refused.kind)
        if self._visit is not None and not refused.about:
            self._gate.note_refused(self._visit, refused)
        fields: dict[str, Any] = {"address": self.client[0] if self.client else "?", "kind": refused.kind}
        fields |= {**refused.about, "status": refused.status, "cause": refused.cause}
        if refused.kind == "not_found":
            return  # a scanner's; there are many
        if refused.about:
            self.refusal_log.tell(logging.WARNING, "connection refused", fields, event="connection_refused")
        else:
            text = "HTTP 请求被拒绝 / HTTP request refused: {status}, {cause}, peer {address}".format(**fields)
            self.refusal_log.tell(logging.INFO, text, fields, event="request_refused")

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._abort_later()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._abort_later()

    def shutdown(self) -> None:
        super().shutdown()
        if self.transport.is_closing():
            self._abort_later()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(self.settings.pong_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._forget_stall()

    def _abort_later(self) -> None:
        self._set_deadline(self.settings.close_seconds, self.transport.abort)

    def _set_deadline(self, seconds: float, action: Callable[[], None]) -> None:
        self._forget_deadline()
        self._deadline = self.loop.call_later(seconds, action)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _forget_stall(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
