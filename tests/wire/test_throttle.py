"""Peers that send faster than one connection may: they are read more slowly, and nothing else happens to them."""

from collections.abc import Callable
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from gateway.flow import Throttle
from gateway.wire import GatewayWebSocketProtocol
from tests.peers.raw import RawSocket, masked_frame
from tests.support.waiting import wait_until
from tests.wire.little_app import Session, Site, running

KIB = 1024
RATE = 64 * KIB


class Clockwork:
    """A loop and a transport that only note what is wanted of them."""

    def __init__(self) -> None:
        self.now = 0.0
        self.is_reading = True
        self._due: tuple[float, Callable[[], None]] | None = None

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, act: Callable[[], None]) -> "Clockwork":
        self._due = self.now + seconds, act
        return self

    def cancel(self) -> None:
        self._due = None

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        assert self.is_reading
        self.is_reading = False

    def resume_reading(self) -> None:
        assert not self.is_reading
        self.is_reading = True

    def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        if self._due is not None and self._due[0] <= until:
            (self.now, act), self._due = self._due, None
            act()
        self.now = until


@given(st.lists(st.tuples(st.integers(1, 256 * KIB), st.floats(0, 0.5)), max_size=50))
def test_what_is_read_keeps_to_the_rate_and_no_pause_is_long(reads: list[tuple[int, float]]) -> None:
    clockwork: Any = Clockwork()
    throttle, total, largest = Throttle(clockwork, clockwork, RATE), 0, 0
    for size, pause in reads:
        if not clockwork.is_reading:
            clockwork.pass_time(256 * KIB / RATE)
        assert clockwork.is_reading, "paused for longer than one read is worth"
        throttle.note(size)
        total, largest = total + size, max(largest, size)
        clockwork.pass_time(pause)
    assert total <= RATE * (clockwork.now + 1) + largest


def test_a_connection_that_ends_is_read_to_its_end() -> None:
    clockwork: Any = Clockwork()
    throttle = Throttle(clockwork, clockwork, RATE)
    throttle.note(4 * RATE)
    assert throttle.is_paused
    throttle.stop()
    assert clockwork.is_reading
    throttle.note(4 * RATE)
    assert clockwork.is_reading


async def paused(site: Site, frames: int = 20) -> tuple[RawSocket, Session, GatewayWebSocketProtocol]:
    """A peer that has sent so much that it is not read for a while."""
    peer, session = await site.raw()
    peer.writer.write(masked_frame(1, b"x" * 16 * KIB) * frames)
    protocol = cast(GatewayWebSocketProtocol, session.wire)
    await wait_until(lambda: protocol._throttle is not None and protocol._throttle.is_paused, "it is paused")
    return peer, session, protocol


async def test_a_peer_that_sends_too_fast_waits_and_everything_arrives_in_order() -> None:
    async with running(connection_rate_bytes=8 * RATE) as site:
        peer, session, _ = await paused(site, 60)
        assert len(session.frames) < 60
        peer.writer.write(masked_frame(1, b"last"))
        for _ in range(60):
            assert len((await peer.read_data()).payload) == 16 * KIB
        assert (await peer.read_data()).payload == b"last"
        assert session.ended is None
        await peer.close()


async def test_a_peer_that_is_not_read_is_not_taken_for_dead() -> None:
    async with running(connection_rate_bytes=RATE) as site:
        peer, session, protocol = await paused(site)
        protocol.send_keepalive_ping()
        protocol.keepalive_timeout()
        protocol.keepalive_timeout()
        assert session.wire.send(b"still open")
        assert session.ended is None
        await peer.close()


async def test_a_peer_that_is_not_read_can_be_closed_and_its_answer_is_heard() -> None:
    async with running(connection_rate_bytes=RATE, close_seconds=60) as site:
        peer, session, _ = await paused(site)
        session.wire.close(1000, "bye")
        assert await session.until_ended() == (1000, "bye")
        await peer.close()
        await site.until_empty()


async def test_others_are_read_while_one_waits() -> None:
    async with running(connection_rate_bytes=RATE) as site:
        peer, _, protocol = await paused(site)
        other, _ = await site.raw()
        await other.send_text(b"hello")
        assert (await other.read_data()).payload == b"hello"
        assert protocol._throttle is not None
        assert protocol._throttle.is_paused
        await peer.close()
        await other.close()
