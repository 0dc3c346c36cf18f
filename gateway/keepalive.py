"""Whether the peer of a WebSocket is still there: pings after silence, and an end to who doesn't answer.

A peer is pinged when one of the directions has been silent for `ping_seconds`: proxies cut a connection on which they
hear nothing from us, and a dead peer is noticed by its silence. While frames go both ways there is nothing to find out,
and only every third ping is sent, for peers that count them. A pong that is late is forgiven as long as anything at all
is heard: it may be behind a long frame.
"""

import asyncio
import random
from asyncio import TimerHandle

from gateway.settings import Settings

PINGS_SPARED = 3
"""Of a peer that is heard and spoken to all the time one ping in so many is sent."""
PING_HEAD = b"\x89\x04"


class KeepaliveProtocol(asyncio.Protocol):
    """Pings by what has gone over the socket. Whoever reads and writes notes the times."""

    __slots__ = (
        *("_pinged_at", "_said_at", "_was_heard_at", "close_sent", "loop"),
        *("pending_ping_payload", "ping_timer", "pong_timer", "transport"),
    )

    settings: Settings
    transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.close_sent = False  # or the end has begun otherwise
        self.ping_timer: TimerHandle | None = None
        self.pong_timer: TimerHandle | None = None
        self.pending_ping_payload: bytes | None = None  # of the ping that is not answered

    def _write_soon(self, head: bytes, body: bytes = b"") -> None:
        """Send a frame, with this turn of the loop."""
        raise NotImplementedError

    def _lose(self) -> None:
        """End the connection of a peer that has fallen silent."""
        raise NotImplementedError

    @property
    def _is_unread(self) -> bool:
        """Whether nothing can be heard because nothing is read now."""
        raise NotImplementedError

    def start_keepalive(self) -> None:
        self._pinged_at = self._was_heard_at = self._said_at = self.loop.time()
        self.schedule_ping()

    def stop_keepalive(self) -> None:
        for timer in (self.ping_timer, self.pong_timer):
            if timer is not None:
                timer.cancel()
        self.ping_timer = self.pong_timer = self.pending_ping_payload = None

    def schedule_ping(self) -> None:
        self._look_at(self._pinged_at + self.settings.ping_seconds)

    def _look_at(self, due: float) -> None:
        self.ping_timer = self.loop.call_at(due, self._look)

    def _look(self) -> None:
        silent_since = min(self._was_heard_at, self._said_at)
        seconds = self.settings.ping_seconds
        due = min(silent_since + seconds, self._pinged_at + PINGS_SPARED * seconds)
        if due > self.loop.time():
            self._look_at(due)
        else:
            self.send_keepalive_ping()

    def send_keepalive_ping(self) -> None:
        self.ping_timer = None
        if self.close_sent or self.transport.is_closing():
            return
        self._was_heard_at = 0.0  # since the ping, that is
        self._pinged_at = self.loop.time()
        self.pending_ping_payload = random.getrandbits(32).to_bytes(4)
        self._write_soon(PING_HEAD, self.pending_ping_payload)
        self.pong_timer = self.loop.call_later(self.settings.pong_seconds, self.keepalive_timeout)

    def on_pong(self, payload: bytes) -> None:
        """The peer has sent a pong; unasked ones are nothing."""
        if payload == self.pending_ping_payload and self.pong_timer is not None:
            self.pending_ping_payload = None
            self.pong_timer.cancel()
            self.pong_timer = None
            self.schedule_ping()

    def keepalive_timeout(self) -> None:
        self.pong_timer = None
        if self._was_heard_at or self._is_unread:
            self._was_heard_at = 0.0
            self.pong_timer = self.loop.call_later(self.settings.pong_seconds, self.keepalive_timeout)
        else:
            self._lose()
