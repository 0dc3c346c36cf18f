"""How a connection ends, and what each side is told of it."""

import logging

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.peers.raw import CLOSE, TEXT
from tests.support.waiting import wait_until
from tests.wire.little_app import running

LONG_REASON = "原因" * 60


async def test_the_peer_reads_the_code_and_reason_of_close() -> None:
    async with running() as site, connect(site.url("/echo")) as client:
        await wait_until(lambda: len(site.sessions) == 1, "the app has the session")
        site.sessions[0].wire.close(1013, "稍后再试 / try again later")
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert (client.close_code, client.close_reason) == (1013, "稍后再试 / try again later")
        assert await site.sessions[0].until_ended() == (1013, "稍后再试 / try again later")
        await site.until_empty()


async def test_a_long_reason_is_cut_between_two_characters() -> None:
    async with running() as site:
        peer, session = await site.raw()
        session.wire.close(1000, LONG_REASON)
        frame = await peer.read_frame()
        assert len(frame.payload) <= 125
        assert LONG_REASON.startswith(frame.payload[2:].decode())
        await peer.close()


async def test_nothing_is_sent_or_delivered_after_close() -> None:
    async with running() as site:
        peer, session = await site.raw()
        session.wire.close(1000, "")
        assert not session.wire.send(b"late")
        session.wire.close(1011, "again")
        await peer.send_text(b"late")
        assert (await peer.read_frame()).opcode == CLOSE
        await peer.send_frame(CLOSE, b"\x03\xe8")
        await site.until_empty()
        assert session.frames == []
        assert await session.until_ended() == (1000, "")
        await peer.close()


async def test_the_app_is_told_the_code_and_reason_of_the_peer() -> None:
    async with running() as site:
        async with connect(site.url("/echo")) as client:
            await wait_until(lambda: len(site.sessions) == 1, "the app has the session")
            await client.close(4321, "going home")
        assert await site.sessions[0].until_ended() == (4321, "going home")
        assert client.close_code == 4321


async def test_a_close_without_a_code_is_told_as_1005() -> None:
    async with running() as site:
        peer, session = await site.raw()
        await peer.send_frame(CLOSE, b"")
        assert await session.until_ended() == (1005, "")
        await peer.close()


async def test_a_socket_that_just_dies_is_told_as_1006() -> None:
    async with running() as site:
        peer, session = await site.raw()
        await peer.close()
        assert (await session.until_ended())[0] == 1006
        assert not session.wire.send(b"late")
        assert session.wire.outbox_bytes == 0
        session.wire.close(1000, "late")
        session.wire.abort()


async def test_abort_drops_the_socket_at_once() -> None:
    async with running() as site:
        peer, session = await site.raw()
        session.wire.abort()
        assert (await session.until_ended())[0] == 1006
        await site.until_empty()
        await peer.close()


async def test_a_close_inside_a_message_of_fragments_is_answered() -> None:
    async with running() as site:
        peer, session = await site.raw()
        await peer.send_frame(TEXT, b"begun", is_final=False)
        await peer.send_frame(CLOSE, b"\x03\xe8")
        assert (await peer.read_frame()).opcode == CLOSE
        await session.until_ended()
        await peer.close()


async def test_an_app_that_raises_closes_with_1011(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as site:
        with caplog.at_level(logging.ERROR):
            async with connect(site.url("/crash")) as client:
                await client.wait_closed()
        assert client.close_code == 1011
        assert "ValueError: crash" in caplog.text


async def test_who_fails_at_the_end_of_a_connection_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as site:
        other, _ = await site.raw()
        peer, session = await site.raw("/sore")
        await peer.close()
        assert (await session.until_ended())[0] == 1006
        await other.send_text(b"hello")
        assert (await other.read_data()).payload == b"hello"
        await other.close()
    assert "ValueError: sore" in caplog.text
    assert [vars(record).get("event") for record in caplog.records if record.levelno >= logging.ERROR] == ["app_failed"]


async def test_the_end_is_told_after_the_call_that_ended_it() -> None:
    """Whoever drops a peer while it walks through its connections must not find one gone in the middle."""
    async with running() as site:
        peer, session = await site.raw()
        session.wire.abort()
        assert session.ended is None
        assert await session.until_ended()
        await peer.close()
