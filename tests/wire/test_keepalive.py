"""When a peer is pinged, and when it is given up, by a clock that the test turns."""

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any

from gateway.keepalive import PINGS_SPARED, KeepaliveProtocol
from tests.support.running import settings

PING_SECONDS, PONG_SECONDS = 20.0, 15.0


class Timer:
    def __init__(self) -> None:
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Clock:
    """As much of an event loop as a keepalive needs."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._due: list[tuple[float, int, Timer, Callable[[], None]]] = []
        self._numbers = count()

    def time(self) -> float:
        return self.now

    def call_at(self, due: float, action: Callable[[], None]) -> Timer:
        timer = Timer()
        heapq.heappush(self._due, (due, next(self._numbers), timer, action))
        return timer

    def call_later(self, seconds: float, action: Callable[[], None]) -> Timer:
        return self.call_at(self.now + seconds, action)

    def run_until(self, end: float) -> None:
        while self._due and self._due[0][0] <= end:
            self.now, _, timer, action = heapq.heappop(self._due)
            if not timer.is_cancelled:
                action()
        self.now = end


class Transport:
    def is_closing(self) -> bool:
        return False


class Socket(KeepaliveProtocol):
    """A socket without a network: pings are answered at once while `answers`."""

    settings = settings(ping_seconds=PING_SECONDS, pong_seconds=PONG_SECONDS)
    _is_unread = False

    def __init__(self) -> None:
        clock: Any = Clock()
        transport: Any = Transport()
        self.clock, self.loop, self.transport, self.close_sent = clock, clock, transport, False
        self.pending_ping_payload, self.pong_timer = None, None
        self.answers = True
        self.pings: list[float] = []
        self.lost_at = 0.0
        self.start_keepalive()

    def _write_soon(self, head: bytes, body: bytes = b"") -> None:
        self.pings.append(self.clock.now - 1000)
        self.said()
        if self.answers:
            self.clock.call_later(0.0, lambda: self.pong(body))

    def pong(self, payload: bytes) -> None:
        self.heard()
        self.on_pong(payload)

    def _lose(self) -> None:
        self.lost_at = self.clock.now - 1000

    def heard(self) -> None:
        self._was_heard_at = self.clock.now

    def said(self) -> None:
        self._said_at = self.clock.now

    def live(self, seconds: float, *steps: Callable[[], None]) -> None:
        """Let time go by, with these happening once a second."""
        for _ in range(int(seconds)):
            for step in steps:
                step()
            self.clock.run_until(self.clock.now + 1)


def test_a_silent_peer_is_pinged_once_a_period() -> None:
    socket = Socket()
    socket.live(90)
    assert socket.pings == [20, 40, 60, 80]


def test_who_is_heard_and_spoken_to_is_pinged_at_every_third_period_only() -> None:
    socket = Socket()
    socket.live(200, socket.heard, socket.said)
    assert socket.pings == [60, 120, 180]
    assert PINGS_SPARED * PING_SECONDS <= 60


def test_silence_in_one_direction_is_enough_for_a_ping() -> None:
    talker, listener = Socket(), Socket()
    talker.live(90, talker.heard)
    listener.live(90, listener.said)
    assert talker.pings == listener.pings == [20, 40, 60, 80]


def test_a_ping_comes_a_period_after_the_last_word_and_not_two() -> None:
    socket = Socket()
    socket.live(8, socket.heard, socket.said)
    socket.live(40)
    assert socket.pings == [27, 47]


def test_who_answers_no_ping_is_lost_a_pong_period_later() -> None:
    socket = Socket()
    socket.answers = False
    socket.live(60)
    assert (socket.pings, socket.lost_at) == ([20], 35)


def test_who_is_heard_after_the_ping_gets_another_pong_period() -> None:
    socket = Socket()
    socket.answers = False
    socket.live(25)
    socket.heard()
    socket.live(60)
    assert (socket.pings, socket.lost_at) == ([20], 50)


def test_who_was_heard_before_the_ping_only_gets_none() -> None:
    socket = Socket()
    socket.answers = False
    socket.live(20, socket.heard)
    socket.live(60)
    assert (socket.pings, socket.lost_at) == ([20], 35)


def test_a_pong_that_was_not_asked_for_starts_nothing() -> None:
    socket = Socket()
    socket.answers = False
    socket.on_pong(b"")
    socket.live(21)
    socket.on_pong(b"away")
    socket.live(60)
    assert (socket.pings, socket.lost_at) == ([20], 35)


def test_who_is_not_read_is_not_lost() -> None:
    socket = Socket()
    socket.answers, socket._is_unread = False, True
    socket.live(100)
    socket._is_unread = False
    socket.live(60)
    assert (socket.pings, socket.lost_at) == ([20], 110)
