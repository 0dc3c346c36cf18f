"""Peers that read nothing, answer nothing or send for ever: dropped within a bound, unnoticed by everybody else."""

import asyncio
import socket
from typing import cast

import pytest

from gateway.flow import ANSWERS_BYTES_MAX
from gateway.wire import SLOW_REASON, GatewayWebSocketProtocol
from tests.peers.raw import CLOSE, PING, PONG, masked_frame
from tests.support.waiting import wait_until
from tests.wire.little_app import Session, running

KIB = 1024
MIB = 1024 * KIB


async def fill(session: Session, size: int = 256 * KIB) -> None:
    """Send to a peer that reads nothing until the kernel takes no more."""
    while session.wire.outbox_bytes == 0:
        assert session.wire.send(b"x" * size)
        await asyncio.sleep(0)


async def test_a_peer_that_reads_nothing_is_dropped_at_the_outbox_bound() -> None:
    async with running(outbox_bytes=MIB) as site:
        peer, session = await site.stalled()
        most = 0
        while session.wire.send(b"x" * 100 * KIB):
            most = max(most, session.wire.outbox_bytes)
            await asyncio.sleep(0)
        assert most <= MIB + 101 * KIB
        assert session.wire.is_slow
        assert session.wire.outbox_bytes <= MIB + 101 * KIB
        assert await session.until_ended() == (1013, SLOW_REASON)
        await site.until_empty()
        assert not session.wire.send(b"more")
        peer.close()


async def test_others_are_answered_while_a_peer_reads_nothing() -> None:
    async with running(outbox_bytes=4 * MIB) as site:
        peer, session = await site.stalled()
        await fill(session)
        other, _ = await site.raw()
        await other.send_text(b"hello")
        assert (await other.read_data()).payload == b"hello"
        await other.close()
        peer.close()


async def test_a_peer_that_pings_and_reads_no_pong_is_dropped_at_the_outbox_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.wire.CONTROL_FRAMES_PER_SECOND", 10_000_000)
    async with running(outbox_bytes=64 * KIB) as site:
        peer, session = await site.stalled()
        await fill(session, 64 * KIB)
        await asyncio.get_running_loop().sock_sendall(peer, masked_frame(PING, b"x" * 125) * 2000)
        assert await session.until_ended() == (1013, SLOW_REASON)
        assert session.wire.is_slow
        await site.until_empty()
        peer.close()


async def test_close_works_on_a_peer_that_reads_nothing() -> None:
    async with running(outbox_bytes=64 * MIB) as site:
        peer, session = await site.stalled()
        await fill(session)
        session.wire.close(1000, "bye")
        assert await session.until_ended() == (1000, "bye")
        await site.until_empty()
        peer.close()


async def test_close_works_on_a_peer_that_never_answers_it() -> None:
    async with running() as site:
        peer, session = await site.raw()
        session.wire.close(1000, "bye")
        assert (await peer.read_frame()).payload == b"\x03\xe8bye"
        await site.until_empty()
        await peer.close()


async def test_a_peer_that_closes_but_reads_nothing_is_dropped() -> None:
    async with running(outbox_bytes=64 * MIB) as site:
        peer, session = await site.stalled()
        await fill(session)
        peer.send(masked_frame(CLOSE, b"\x03\xe8"))
        assert (await session.until_ended())[0] == 1000
        await site.until_empty()
        peer.close()


async def test_a_peer_that_half_closes_but_reads_nothing_is_dropped() -> None:
    async with running(outbox_bytes=64 * MIB) as site:
        peer, session = await site.stalled()
        await fill(session)
        peer.shutdown(socket.SHUT_WR)
        assert (await session.until_ended())[0] == 1006
        await site.until_empty()
        peer.close()


async def test_a_peer_that_answers_no_ping_is_closed_with_1011() -> None:
    async with running(ping_seconds=0.05, pong_seconds=0.2) as site:
        peer, session = await site.raw()
        assert (await peer.read_frame()).opcode == PING
        frame = await peer.read_frame()
        assert (frame.opcode, frame.payload) == (CLOSE, b"\x03\xf3keepalive ping timeout")
        assert await session.until_ended() == (1011, "keepalive ping timeout")
        await site.until_empty()
        await peer.close()


async def test_a_peer_that_answers_no_ping_and_reads_nothing_is_dropped() -> None:
    async with running(ping_seconds=0.05, pong_seconds=0.2, outbox_bytes=64 * MIB) as site:
        peer, session = await site.stalled()
        await fill(session)
        assert await session.until_ended() == (1011, "keepalive ping timeout")
        await site.until_empty()
        peer.close()


async def test_a_peer_that_answers_pings_stays() -> None:
    async with running(ping_seconds=0.02, pong_seconds=2) as site:
        peer, session = await site.raw()
        for _ in range(10):
            frame = await peer.read_frame()
            assert frame.opcode == PING
            await peer.send_frame(PONG, frame.payload)
        assert session.ended is None
        await peer.close()


async def test_a_peer_in_the_middle_of_a_long_message_is_not_taken_for_dead() -> None:
    async with running(ping_seconds=20, pong_seconds=20) as site:
        peer, session = await site.raw()
        timer = cast(GatewayWebSocketProtocol, session.wire)
        timer.send_keepalive_ping()
        await peer.write(masked_frame(1, b"x" * 100)[:50])
        await peer.write(masked_frame(1, b"x" * 100)[50:])
        await wait_until(lambda: len(session.frames) == 1, "the long message is there")
        timer.keepalive_timeout()
        assert session.wire.send(b"still open")
        timer.keepalive_timeout()
        assert await session.until_ended() == (1011, "keepalive ping timeout")
        await peer.close()


# Answers that a peer asks for and does not read


async def test_a_peer_that_asks_and_reads_no_answer_is_dropped_long_before_the_outbox_is_full() -> None:
    async with running(outbox_bytes=64 * MIB) as site:
        peer, session = await site.stalled()
        await fill(session)
        held = session.wire.outbox_bytes
        for _ in range(10_000):
            if not session.wire.answer(b"x" * 100):
                break
        assert session.wire.is_slow
        assert await session.until_ended() == (1013, SLOW_REASON)
        assert session.wire.outbox_bytes <= held + ANSWERS_BYTES_MAX + 4 * KIB
        peer.close()


async def test_a_peer_that_pings_and_reads_no_pong_is_dropped_long_before_the_outbox_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.wire.CONTROL_FRAMES_PER_SECOND", 10_000_000)
    async with running(outbox_bytes=64 * MIB) as site:
        peer, session = await site.stalled()
        await fill(session)
        pings = masked_frame(PING, b"x" * 125) * (ANSWERS_BYTES_MAX // 127 + 10)
        await asyncio.get_running_loop().sock_sendall(peer, pings)
        assert await session.until_ended() == (1013, SLOW_REASON)
        peer.close()


async def test_many_answers_at_once_are_no_fault_of_a_peer_that_reads() -> None:
    async with running() as site:
        peer, session = await site.raw()
        assert all(session.wire.answer(b"x" * 1000) for _ in range(2 * ANSWERS_BYTES_MAX // 1000))
        for _ in range(2 * ANSWERS_BYTES_MAX // 1000):
            assert len((await peer.read_data()).payload) == 1000
        assert session.wire.answer(b"more")
        await peer.close()


async def test_pages_of_a_list_are_bounded_also_within_one_turn_of_the_loop() -> None:
    async with running(outbox_bytes=64 * MIB, result_bytes=64 * KIB) as site:
        peer, session = await site.stalled()
        given = [session.wire.answer(b"x" * 64 * KIB) for _ in range(50)]
        assert sum(given) <= 4
        assert session.wire.is_slow
        peer.close()


async def test_results_of_calls_have_the_whole_outbox_and_an_answer_behind_them_is_no_fault() -> None:
    async with running(outbox_bytes=64 * MIB) as site:
        peer, session = await site.stalled()
        await fill(session)
        for _ in range(40):
            assert session.wire.send(b"x" * MIB)
        assert all(session.wire.answer(b"pong") for _ in range(1000))
        assert not session.wire.is_slow
        peer.close()
