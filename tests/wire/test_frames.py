"""What comes in: every shape of a message reaches the app whole, and nothing of one peer harms another."""

import logging
import os

import pytest
from websockets.asyncio.client import connect

from gateway.flow import CONTROL_FRAMES_PER_SECOND, FRAGMENTS_MAX
from tests.peers.raw import BINARY, CLOSE, PING, PONG, TEXT, RawFrame, masked_frame
from tests.support.waiting import wait_until
from tests.wire.little_app import running

CONTINUATION = 0
NOT_UTF8 = b'{"a":"\xff\xfe"}'


def code_of(frame: RawFrame) -> int:
    assert frame.opcode == CLOSE
    return int.from_bytes(frame.payload[:2])


async def test_a_message_of_any_size_is_echoed_in_one_unfragmented_text_frame() -> None:
    async with running() as site:
        peer, _ = await site.raw()
        for size in (0, 1, 125, 126, 65535, 65536, 1_000_000):
            message = os.urandom(size)
            await peer.send_frame(TEXT, message)
            frame = await peer.read_data()
            assert (frame.opcode, frame.is_final, frame.reserved, frame.payload) == (TEXT, True, 0, message)
        await peer.close()


async def test_many_messages_in_one_packet_arrive_in_order() -> None:
    async with running() as site:
        peer, session = await site.raw()
        messages = [b"%d" % number for number in range(500)]
        await peer.write(b"".join(masked_frame(TEXT, message) for message in messages))
        await wait_until(lambda: len(session.frames) == 500, "all messages are there")
        assert session.frames == messages
        await peer.close()


async def test_a_message_that_arrives_byte_by_byte_is_put_together() -> None:
    async with running() as site:
        peer, session = await site.raw()
        message = b"x" * 300
        for byte in masked_frame(TEXT, message) + masked_frame(TEXT, b"next"):
            await peer.write(bytes([byte]))
        await wait_until(lambda: len(session.frames) == 2, "both messages are there")
        assert session.frames == [message, b"next"]
        await peer.close()


async def test_fragments_are_joined_with_a_ping_between_them_answered() -> None:
    async with running() as site:
        peer, session = await site.raw()
        await peer.send_frame(TEXT, b"one ", is_final=False)
        await peer.send_frame(CONTINUATION, b"two ", is_final=False)
        await peer.send_frame(PING, b"ping")
        await peer.send_frame(CONTINUATION, b"three")
        assert (await peer.read_frame()).opcode == PONG
        assert (await peer.read_frame()).payload == b"one two three"
        await peer.send_text(b"whole again")
        assert (await peer.read_frame()).payload == b"whole again"
        assert session.frames == [b"one two three", b"whole again"]
        await peer.close()


async def test_a_binary_message_is_delivered_like_text() -> None:
    async with running() as site:
        peer, session = await site.raw()
        await peer.send_frame(BINARY, b'{"a":1}')
        assert (await peer.read_data()).opcode == TEXT
        assert session.frames == [b'{"a":1}']
        await peer.close()


async def test_text_that_is_not_utf8_is_delivered_as_bytes_and_the_connection_stays() -> None:
    async with running() as site:
        peer, session = await site.raw()
        await peer.send_frame(TEXT, NOT_UTF8)
        await peer.send_frame(TEXT, b"still here")
        await wait_until(lambda: len(session.frames) == 2, "both messages are there")
        assert session.frames == [NOT_UTF8, b"still here"]
        await peer.close()


async def test_a_message_of_exactly_the_limit_is_taken() -> None:
    async with running(frame_bytes=70_000) as site:
        peer, session = await site.raw()
        await peer.send_frame(TEXT, b"x" * 70_000)
        await wait_until(lambda: len(session.frames) == 1, "the message is there")
        await peer.close()


async def test_a_frame_above_the_limit_is_refused_from_its_header_alone() -> None:
    async with running(frame_bytes=70_000) as site:
        peer, session = await site.raw()
        await peer.write(masked_frame(TEXT, b"x" * 70_001)[:14])
        frame = await peer.read_frame()
        assert code_of(frame) == 1009
        assert b"70000" in frame.payload
        assert await session.until_ended() == (1009, frame.payload[2:].decode())
        await peer.close()


async def test_a_library_client_that_sends_too_much_sees_1009_and_no_reset() -> None:
    async with running(frame_bytes=70_000) as site:
        async with connect(site.url("/echo"), compression=None) as client:
            await client.send("x" * 30_000_000)
            await client.wait_closed()
        assert client.close_code == 1009
        await site.until_empty()


async def test_fragments_that_together_exceed_the_limit_are_refused() -> None:
    async with running(frame_bytes=70_000) as site:
        peer, _ = await site.raw()
        await peer.send_frame(TEXT, b"x" * 40_000, is_final=False)
        await peer.send_frame(CONTINUATION, b"x" * 40_000)
        assert code_of(await peer.read_frame()) == 1009
        await peer.close()


async def test_a_flood_of_empty_fragments_is_refused() -> None:
    async with running() as site:
        peer, _ = await site.raw()
        flood = masked_frame(CONTINUATION, b"", is_final=False) * FRAGMENTS_MAX
        await peer.write(masked_frame(TEXT, b"", is_final=False) + flood)
        assert code_of(await peer.read_frame()) == 1009
        await peer.close()


RULE_BREAKERS = {
    "unmasked": b"\x81\x02hi",
    "unmasked and empty": b"\x81\x00",
    "unknown opcode": masked_frame(3, b"hi"),
    "reserved bit": b"\xc1\x82\0\0\0\0hi",
    "continuation of nothing": masked_frame(CONTINUATION, b"hi"),
    "text inside a message": masked_frame(TEXT, b"a", is_final=False) + masked_frame(TEXT, b"b"),
    "long ping": masked_frame(PING, b"x" * 126),
    "fragmented ping": masked_frame(PING, b"x", is_final=False),
    "short close": masked_frame(CLOSE, b"x"),
}


async def test_a_frame_against_the_rules_closes_that_connection_with_1002() -> None:
    async with running() as site:
        for name, frame in RULE_BREAKERS.items():
            peer, session = await site.raw()
            await peer.write(frame)
            assert code_of(await peer.read_frame()) == 1002, name
            assert (await session.until_ended())[0] == 1002, name
            await peer.close()


async def test_an_exception_in_on_frame_closes_that_connection_only(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as site:
        other, _ = await site.raw()
        peer, session = await site.raw("/boom")
        with caplog.at_level(logging.ERROR):
            await peer.send_text(b"one")
            await peer.send_text(b"two")
            assert code_of(await peer.read_frame()) == 1011
        assert (await session.until_ended())[0] == 1011
        assert "ValueError: boom" in caplog.text
        await other.send_text(b"still here")
        assert (await other.read_data()).payload == b"still here"
        await peer.close()
        await other.close()


async def test_a_flood_of_pings_is_closed_with_1008() -> None:
    async with running() as site:
        peer, session = await site.raw()
        await peer.write(masked_frame(PING, b"") * (CONTROL_FRAMES_PER_SECOND * 2))
        frame = await peer.read_frame()
        while frame.opcode == PONG:
            frame = await peer.read_frame()
        assert code_of(frame) == 1008
        assert (await session.until_ended())[0] == 1008
        await peer.close()


async def test_what_the_app_does_not_take_back_is_heard_only_once_when_it_attaches_again() -> None:
    async with running() as site:
        peer, session = await site.raw()
        later: list[bytes] = []
        session.wire.attach(later.append, max_bytes=1000)
        await peer.send_text(b"for the second")
        await wait_until(lambda: later == [b"for the second"], "the second reader has it")
        assert session.frames == []
        await peer.close()
