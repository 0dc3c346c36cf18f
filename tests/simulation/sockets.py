"""A WebSocket between a peer and a worker, without the bytes: frames, with latency, and every kind of end."""

from collections.abc import Callable
from typing import Any, Protocol

from tests.simulation.journal import Journal
from tests.simulation.loop import Process
from tests.simulation.net import Net


class Peer(Protocol):
    """Who dialled in."""

    name: str

    def on_frame(self, socket: "Socket", frame: bytes) -> None: ...

    def on_closed(self, socket: "Socket", code: int) -> None: ...


class Socket:
    """Is the `gateway.connection.Wire` of its worker; the peer has the other end."""

    def __init__(self, net: Net, journal: Journal, place: Process, peers: Process, peer: Peer) -> None:
        self.connection_id = ""
        self.worker_name = place.name
        self.is_open_here = True
        """At the worker."""
        self.is_open_there = True
        """At the peer."""
        self.on_gone: Callable[[str], None] = lambda cause: None
        """Called at the worker when the socket is over there."""
        self._net, self._journal, self._loop = net, journal, net.loop
        self._place, self._peers, self._peer = place, peers, peer
        self._on_frame: Callable[[bytes], None] | None = None
        self._last_in = self._last_out = 0.0
        self._is_closing = False
        self._is_half_open = False

    # The worker's end: gateway.connection.Wire

    outbox_bytes = 0
    is_slow = False

    def attach(self, on_frame: Callable[[bytes], None], *, max_bytes: int) -> None:
        self._on_frame = on_frame

    def send(self, text: bytes) -> bool:
        if not self.is_open_here or self._is_closing:
            return False
        self._to_peer(self._hear, text)
        return True

    def answer(self, text: bytes) -> bool:
        return self.send(text)

    def close(self, code: int, reason: str) -> None:
        if self.is_open_here and not self._is_closing:
            self._is_closing = True
            self._to_peer(self._end_there, code)
            answered = self._last_out + self._net.latency() if not self._is_half_open else self._loop.time() + 1.0
            self._place.at(answered, self._end_here, f"{code} {reason}")

    def abort(self) -> None:
        if self.is_open_here:
            self._is_closing = True
            self._to_peer(self._end_there, 1006)
            self._place.soon(self._end_here, "aborted")

    # The peer's end

    def say(self, frame: bytes) -> None:
        if self.is_open_there and not self._is_half_open:
            self._to_worker(self._on_said, frame)

    def hang_up(self) -> None:
        """The peer closes, and the worker hears of it."""
        if self.is_open_there:
            self.is_open_there = False
            self._journal.note(self._peer.name, f"hangs up {self.connection_id}")
            if not self._is_half_open:
                self._to_worker(self._end_here, "1006")

    def vanish(self, notice_seconds: float) -> None:
        """The peer is gone without a word; the worker's pings find out after a while."""
        if self.is_open_there:
            self._journal.note(self._peer.name, f"vanishes from {self.connection_id}")
            self.is_open_there = False
            self._is_half_open = True
            self._place.at(self._loop.time() + notice_seconds, self._end_here, "1011 no pong")

    def worker_died(self) -> None:
        """The worker's kernel resets the socket."""
        if self.is_open_here:
            self.is_open_here = False
            self._to_peer(self._end_there, 1006)

    # In between

    def _to_peer(self, act: Callable[..., None], what: Any) -> None:
        self._last_out = max(self._last_out, self._loop.time() + self._net.latency())
        if not self._is_half_open:
            self._peers.at(self._last_out, act, what)

    def _to_worker(self, act: Callable[..., None], what: Any) -> None:
        self._last_in = max(self._last_in, self._loop.time() + self._net.latency())
        self._place.at(self._last_in, act, what)

    def _hear(self, frame: bytes) -> None:
        if self.is_open_there:
            self._journal.note(self._peer.name, f"← {frame.decode('utf-8', 'replace')[:160]}")
            self._peer.on_frame(self, frame)

    def _end_there(self, code: int) -> None:
        if self.is_open_there:
            self.is_open_there = False
            self._journal.note(self._peer.name, f"is closed with {code} ({self.connection_id})")
            self._peer.on_closed(self, code)

    def _on_said(self, frame: bytes) -> None:
        if self.is_open_here and not self._is_closing and self._on_frame is not None:
            try:
                self._on_frame(frame)
            except Exception as error:  # noqa: BLE001 - the wire would close with 1011: never right here
                self._journal.complain(f"on_frame raised {error!r}")

    def _end_here(self, cause: str) -> None:
        if self.is_open_here:
            self.is_open_here = False
            self.on_gone(cause)
