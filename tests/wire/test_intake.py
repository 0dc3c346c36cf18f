"""HTTP before the app: late, long, endless and unread, each within a bound."""

import asyncio
import logging
import socket
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager
from functools import partial

import pytest

from gateway import server
from gateway.intake import BODY_BYTES_MAX, HEADERS_MAX, NEWCOMERS_SECONDS, PIPELINE_MAX, GatewayHttpProtocol
from gateway.pace import Pace
from gateway.refused import Refused
from tests.peers.raw import TEXT, masked_frame
from tests.support.waiting import wait_until
from tests.wire.little_app import BIG_BYTES, Site, handshake, running

GET = b"GET /health HTTP/1.1\r\nHost: gateway\r\n"
KIB = 1024


def statuses(answer: bytes) -> list[int]:
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


async def test_a_request_is_answered_and_the_socket_kept_for_the_next() -> None:
    async with running() as site:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
            for _ in range(3):
                writer.write(GET + b"\r\n")
                assert (await reader.readuntil(b"\r\n\r\nok")).startswith(b"HTTP/1.1 200 OK\r\n")
        writer.close()


async def test_a_request_in_pieces_is_understood() -> None:
    async with running() as site:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
            for byte in GET + b"\r\n":
                writer.write(bytes([byte]))
                await writer.drain()
            assert (await reader.readuntil(b"\r\n\r\nok")).startswith(b"HTTP/1.1 200 OK\r\n")
        writer.close()


async def test_requests_of_a_crowd_are_read_a_few_in_a_turn_of_the_loop_and_in_their_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All have connected before; then all speak between two turns, as after a network's hiccup."""
    size, per_turn = 80, 20
    read, turns, now = GatewayHttpProtocol._read, [0], [0.0]

    def counted(protocol: GatewayHttpProtocol, data: bytes) -> None:
        turns[-1] += 1
        now[0] += NEWCOMERS_SECONDS / per_turn
        read(protocol, data)

    monkeypatch.setattr(GatewayHttpProtocol, "_read", counted)
    monkeypatch.setattr(server, "Pace", partial(Pace, clock=lambda: now[0]))
    async with running() as site, crowd_of(size, site) as peers:
        speak(peers)
        while sum(turns) < size:
            turns.append(0)
            await asyncio.sleep(0)
        for peer in peers:
            assert statuses(await asyncio.get_running_loop().sock_recv(peer, KIB)) == [200]
    assert max(turns) <= 2 * (per_turn + 1)  # those of one turn, and the next ones if the count began in between
    assert sum(turns) == size


async def test_a_peer_of_a_crowd_that_leaves_before_its_turn_is_forgotten() -> None:
    async with running() as site:
        async with crowd_of(60, site) as peers:
            speak(peers)
        assert statuses(await site.ask(GET + b"Connection: close\r\n\r\n")) == [200]
        await site.until_empty()


@asynccontextmanager
async def crowd_of(size: int, site: Site) -> AsyncGenerator[list[socket.socket]]:
    """So many who have connected and said nothing yet."""
    with ExitStack() as open_sockets:
        peers = [open_sockets.enter_context(socket.create_connection(("127.0.0.1", site.port), 5)) for _ in range(size)]
        for peer in peers:
            peer.setblocking(False)
        await wait_until(lambda: site.sockets == size, "all are connected")
        async with asyncio.timeout(10):
            yield peers


def speak(peers: list[socket.socket]) -> None:
    """All at once: it is in the kernel before the loop's next turn."""
    for peer in peers:
        peer.sendall(GET + b"\r\n")


async def test_a_head_that_is_not_complete_in_time_is_answered_408() -> None:
    async with running(header_seconds=0.1) as site:
        for start in (b"", b"\r\n", GET, GET[:5]):
            assert statuses(await site.ask(start)) == [408], start
        await site.until_empty()


async def test_a_body_that_is_not_complete_in_time_is_answered_408() -> None:
    async with running(header_seconds=0.1) as site:
        post = b"POST /hang HTTP/1.1\r\nHost: gateway\r\nContent-Length: 10\r\n\r\nhalf"
        assert statuses(await site.ask(post)) == [408]
        await site.until_empty()


LONG_HEADS = {
    "whole, a long value": GET + b"X: " + b"x" * 5000 + b"\r\n\r\n",
    "whole, many headers": GET + b"x: y\r\n" * 1000 + b"\r\n",
    "whole, a long path": b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\n\r\n",
    "endless value": GET + b"X: " + b"x" * 5000,
    "endless path": b"GET /" + b"x" * 5000,
    "handshake": handshake("/echo", "X: " + "x" * 5000),
}


async def test_a_head_above_the_limit_is_answered_431() -> None:
    async with running(header_bytes=4 * KIB) as site:
        for name, head in LONG_HEADS.items():
            assert statuses(await site.ask(head)) == [431], name
        await site.until_empty()


async def test_a_head_of_very_many_lines_is_answered_431() -> None:
    """In few bytes: to read thousands of them takes longer than to let somebody in."""
    async with running() as site:
        for first in (GET, handshake("/echo")[:-2]):
            answer = await site.ask(first + b"a:\r\n" * (HEADERS_MAX + 1) + b"\r\n")
            assert statuses(answer) == [431]
            assert b"header lines" in answer
        assert statuses(await site.ask(GET + b"a:\r\n" * 100 + b"Connection: close\r\n\r\n")) == [200]


async def test_an_endless_head_is_cut_off_and_its_sender_reads_why() -> None:
    async with running(close_seconds=5) as site:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
            writer.write(GET)
            for _ in range(64):
                writer.write(b"X: " + b"x" * 64 * KIB + b"\r\n")
            await writer.drain()
            assert statuses(await reader.read()) == [431]
        writer.close()
        await site.until_empty()


async def test_a_body_above_the_limit_is_answered_413() -> None:
    async with running() as site:
        head = b"POST /hang HTTP/1.1\r\nHost: gateway\r\nContent-Length: 10000000\r\n\r\n"
        assert statuses(await site.ask(head + b"x" * BODY_BYTES_MAX + b"x")) == [413]
        await site.until_empty()


async def test_a_body_that_goes_on_after_the_answer_is_cut_off_without_a_second_one() -> None:
    async with running() as site, asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(b"POST /health HTTP/1.1\r\nHost: gateway\r\nContent-Length: 10000000\r\n\r\n")
        assert statuses(await reader.readuntil(b"\r\n\r\nok")) == [200]
        writer.write(b"x" * BODY_BYTES_MAX + b"x")
        assert await reader.read() == b""
        writer.close()
        await site.until_empty()


GARBAGE = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "words": b"HELLO\r\n\r\n",
    "zeros": b"\0" * 100,
    "a proxy's request": b"CONNECT gateway:80 HTTP/1.1\r\nHost: gateway\r\n\r\n",
    "no path": b"GET http://[ HTTP/1.1\r\nHost: gateway\r\n\r\n",
}


async def test_garbage_is_answered_400() -> None:
    async with running() as site:
        for name, garbage in GARBAGE.items():
            assert statuses(await site.ask(garbage)) == [400], name
        await site.until_empty()


async def test_garbage_behind_an_answered_request_is_answered_400() -> None:
    async with running() as site, asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(GET + b"\r\n")
        assert statuses(await reader.readuntil(b"\r\n\r\nok")) == [200]
        writer.write(GARBAGE["no path"])
        assert statuses(await reader.read()) == [400]
        writer.close()
        await site.until_empty()


async def test_a_refusal_is_one_line_in_the_log_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="gateway.intake")
    async with running() as site:
        await site.ask(b"HELLO\r\n\r\n")
    lines = [record.getMessage() for record in caplog.records if record.name == "gateway.intake"]
    assert len(lines) == 1
    assert "400" in lines[0]
    assert "127.0.0.1" in lines[0]


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with running() as site:
        answer = await site.ask((GET + b"\r\n") * 5 + GET + b"Connection: close\r\n\r\n")
        assert statuses(answer) == [200] * 6


async def test_too_many_pipelined_requests_are_dropped() -> None:
    async with running() as site:
        hang = b"GET /hang HTTP/1.1\r\nHost: gateway\r\n\r\n"
        assert await site.ask(hang * (PIPELINE_MAX + 2)) == b""
        await site.until_empty()
        site.released.set()


async def test_a_handshake_behind_an_unanswered_request_is_dropped() -> None:
    async with running() as site:
        assert await site.ask(b"GET /hang HTTP/1.1\r\nHost: gateway\r\n\r\n" + handshake()) == b""
        await site.until_empty()


class Queue:
    """A gate at which everybody waits for his turn and is refused then, unless it `opens`."""

    def __init__(self) -> None:
        self.waiting: list[object] = []
        self.opens = False

    def examine(self, target: bytes, headers: object, peer: str) -> object:
        return "/echo"

    def queues(self, visit: object) -> bool:
        return True

    def queue(self, visit: object) -> None:
        self.waiting.append(visit)

    def unqueue(self, visit: object) -> None:
        self.waiting.remove(visit)

    def enter(self, visit: object, *, has_waited: bool) -> None:
        if not self.opens:
            raise Refused(401, "bad_token", "no")

    def note_refused(self, visit: object, refused: Refused) -> None:
        pass


@pytest.fixture
async def queue() -> AsyncGenerator[tuple[Queue, Site]]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("gateway.server.TURNS_AT_ONCE", 0)
        async with running(tool_handshakes_per_second=1) as site:
            gate = Queue()
            site.server.lifespan.state["gate"] = gate
            yield gate, site


async def test_who_is_dropped_before_his_turn_waits_no_more(queue: tuple[Queue, Site]) -> None:
    """Else he takes a place of his agent's for ever."""
    gate, site = queue
    peers = [await asyncio.open_connection("127.0.0.1", site.port) for _ in range(3)]
    for _, writer in peers:
        writer.write(handshake("/echo"))
    await wait_until(lambda: len(gate.waiting) == 2, "all but the first wait")
    for connection in list(site.server.server_state.connections):
        connection.shutdown()
    await wait_until(lambda: not gate.waiting, "nobody waits")
    for _, writer in peers:
        writer.transport.abort()
    await site.until_empty()


async def test_frames_sent_while_their_sender_waits_for_his_turn_are_not_lost(queue: tuple[Queue, Site]) -> None:
    gate, site = queue
    gate.opens = True
    async with asyncio.timeout(10):
        first, first_writer = await asyncio.open_connection("127.0.0.1", site.port)
        first_writer.write(handshake("/echo"))
        await first.readuntil(b"\r\n\r\n")
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(handshake("/echo") + masked_frame(TEXT, b"eager"))
        await wait_until(lambda: len(gate.waiting) == 1, "the second waits")
        writer.write(masked_frame(TEXT, b"patient"))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        assert await reader.readexactly(2 + 5 + 2 + 7) == b"\x81\x05eager\x81\x07patient"
    assert gate.waiting == []
    for each in (first_writer, writer):
        each.close()
    await site.until_empty()


async def test_a_handshake_that_is_refused_on_a_kept_connection_is_told_why(queue: tuple[Queue, Site]) -> None:
    """A proxy keeps connections, and passes on whatever comes: without an answer its client would hear 502."""
    _, site = queue
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(GET + b"\r\n")
        await reader.readuntil(b"\r\n\r\nok")
        writer.write(handshake("/echo"))
        assert statuses(await reader.read()) == [401]
    writer.close()


async def test_an_upgrade_to_something_else_is_answered_as_a_plain_request() -> None:
    async with running() as site:
        h2c = GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
        assert statuses(await site.ask(h2c + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" * 3)) == [200]
        await site.until_empty()


async def test_an_answer_that_nobody_reads_is_dropped() -> None:
    async with running(pong_seconds=0.2) as site:
        peer = socket.socket()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(peer, ("127.0.0.1", site.port))
        await loop.sock_sendall(peer, b"GET /big HTTP/1.1\r\nHost: gateway\r\n\r\n")
        await wait_until(lambda: site.sockets == 1, "the request has arrived")
        await site.until_empty()
        peer.close()


async def test_a_large_answer_arrives_whole() -> None:
    async with running() as site:
        answer = await site.ask(b"GET /big HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n")
        assert len(answer) > BIG_BYTES


async def test_more_sockets_than_twice_the_connections_are_dropped() -> None:
    async with running(connections=2) as site:
        peers = [socket.create_connection(("127.0.0.1", site.port)) for _ in range(10)]
        await wait_until(lambda: site.sockets == 4, "the rest is dropped")
        for peer in peers:
            peer.close()
