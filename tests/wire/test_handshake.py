"""The handshake: spelled as an ESP32 compares it, patient with eager peers, impatient with the app."""

import asyncio
import logging
import logging.config

import pytest
from websockets.asyncio.client import connect

from tests.peers.raw import PING, PONG, TEXT, RawSocket, masked_frame
from tests.support.waiting import wait_until
from tests.wire.little_app import EAGER_BYTES, handshake, running

SECRET = "c2VjcmV0LXRva2Vu"


async def test_the_answer_is_spelled_canonically() -> None:
    async with running() as site:
        peer, _ = await site.raw()
        assert peer.status_line == "HTTP/1.1 101 Switching Protocols"
        names = [line.partition(": ")[0] for line in peer.header_lines]
        assert {"Upgrade", "Connection", "Sec-WebSocket-Accept"} <= set(names)
        assert "server" not in {name.lower() for name in names}
        await peer.close()


async def test_the_subprotocol_is_the_one_that_the_app_chose() -> None:
    async with running() as site:
        async with connect(site.url("/echo"), subprotocols=["other", "mcp"]) as client:  # type: ignore[list-item]
            assert client.subprotocol == "mcp"
        async with connect(site.url("/echo")) as client:
            assert client.subprotocol is None


async def test_compression_is_not_negotiated() -> None:
    async with running() as site, connect(site.url("/echo"), compression="deflate") as client:
        assert client.response is not None
        assert "Sec-WebSocket-Extensions" not in client.response.headers


async def test_frames_in_the_packet_of_the_handshake_are_not_lost() -> None:
    async with running() as site:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
            writer.write(handshake("/echo") + masked_frame(PING, b"early") + masked_frame(TEXT, b"eager"))
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101")
            assert await reader.readexactly(7) == bytes([0x80 | PONG, 5]) + b"early"
            assert await reader.readexactly(7) == bytes([0x80 | TEXT, 5]) + b"eager"
        writer.close()


async def test_a_large_frame_right_behind_the_accept_is_not_taken_for_a_flood() -> None:
    async with running() as site:
        peer, session = await site.raw("/eager")
        await wait_until(lambda: len(session.frames) == 1, "the frame is there")
        assert len(session.frames[0]) == EAGER_BYTES
        assert session.ended is None
        await peer.close()


async def test_a_peer_that_breaks_the_rules_right_behind_the_accept_is_read_no_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running() as site:
        site.early = b"\x81\x02hi"  # not masked
        peer, session = await site.raw("/eager")
        assert (await session.until_ended())[0] == 1002
        await peer.write(b"\x81\x02hi")
        await site.until_empty()
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
        await peer.close()


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://gateway/echo", b"101"),
        ("http://gateway/refuse?token=x", b"401"),
        ("http://gateway", b"404"),
        ("*", b"404"),
        ("gateway:80", b"400"),
    ],
)
async def test_a_target_with_scheme_and_host_leads_where_its_path_does(target: str, status: bytes) -> None:
    async with running() as site, asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(handshake("/echo").replace(b"/echo", target.encode(), 1))
        assert (await reader.readuntil(b"\r\n")).split()[1] in ({status} if status != b"404" else {b"403", b"404"})
        writer.close()
        await site.until_empty()


async def test_a_refusal_before_the_upgrade_is_plain_http() -> None:
    async with running() as site:
        answer = await site.ask(handshake("/refuse"))
        assert answer.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
        assert answer.endswith(b"\r\n\r\nno\n")
        await site.until_empty()


async def test_an_unknown_path_is_refused_and_the_server_lives_on() -> None:
    async with running() as site:
        assert (await site.ask(handshake("/nowhere"))).split()[1] in (b"403", b"404")
        await site.until_empty()


@pytest.mark.parametrize(
    ("line", "status"),
    [
        pytest.param("Sec-WebSocket-Key: again", b"400", id="two keys"),
        pytest.param("Sec-WebSocket-Version: 13", b"400", id="two versions"),
        pytest.param("Upgrade: websocket", b"400", id="two upgrades"),
        pytest.param("Origin: https://a.example\r\nOrigin: https://b.example", b"400", id="two origins"),
        pytest.param("Sec-WebSocket-Protocol: ;", b"400", id="no list of subprotocols"),
        pytest.param("X: \x01", b"400", id="a control character"),
        pytest.param("Transfer-Encoding: chunked", b"400", id="a body in chunks"),
        pytest.param("Content-Length: 5", b"400", id="a body"),
        pytest.param("X: " + "x" * 9000, b"431", id="a long line"),
    ],
)
async def test_a_bad_handshake_is_answered_and_closed(line: str, status: bytes) -> None:
    async with running() as site:
        assert (await site.ask(handshake("/echo", line))).split()[1] == status
        await site.until_empty()


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        pytest.param("GET", "POST", b"405", id="not a GET"),
        pytest.param("Sec-WebSocket-Key", "X", b"400", id="no key"),
        pytest.param("Sec-WebSocket-Version", "X", b"400", id="no version"),
        pytest.param("Version: 13", "Version: 8", b"400", id="a version of old"),
        pytest.param("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub24=", b"400", id="a short key"),
        pytest.param("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ", b"400", id="a key without its end"),
        pytest.param("dGhlIHNhbXBsZSBub25jZQ==", "ä" * 12, b"400", id="a key that is no base64"),
    ],
)
async def test_what_a_handshake_lacks_is_not_made_up(old: str, new: str, status: bytes) -> None:
    async with running() as site:
        answer = await site.ask(handshake("/echo").replace(old.encode(), new.encode(), 1))
        assert answer.split()[1] == status
        assert (b"allow: get" in answer.lower()) == (status == b"405")
        await site.until_empty()


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(("sEC-wEBsOCKET-pROTOCOL: a, mcp",), id="names in any case"),
        pytest.param(("Sec-WebSocket-Protocol: a", "Sec-WebSocket-Protocol: \t mcp , b"), id="a list in two lines"),
    ],
)
async def test_a_handshake_is_understood_however_it_is_spelled(lines: tuple[str, ...]) -> None:
    async with running() as site, asyncio.timeout(5):
        head = handshake("/echo", *lines, "X-Name: café", "Content-Length: 0", "Sec-WebSocket-Extensions: x-y; z=1")
        head = head.replace(b"Version: 13", b"Version:   13  ").replace(b": websocket", b": WebSocket")
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(head)
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
        assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in answer  # the example of RFC 6455
        assert b"\r\nSec-WebSocket-Protocol: mcp\r\n" in answer
        writer.close()


async def test_what_follows_a_bad_handshake_is_thrown_away() -> None:
    async with running() as site, asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(handshake("/echo", "Content-Length: 5") + b"hello")
        assert (await reader.readuntil(b"\r\n\r\n")).split()[1] == b"400"
        writer.write(b"more")
        writer.write(b"and more")
        await reader.read()
        writer.close()
        await site.until_empty()


@pytest.mark.parametrize("path", ["/echo", "/refuse", "/crash", "/nowhere", "/health"])
async def test_the_query_never_reaches_a_log(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """Also where somebody configures uvicorn's loggers late, which resets the levels of all loggers below them."""
    late = {"version": 1, "disable_existing_loggers": False, "loggers": {"uvicorn.error": {"level": "DEBUG"}}}
    logging.config.dictConfig(late)
    caplog.set_level(logging.DEBUG)
    for name in ("uvicorn.error", "uvicorn.access", "websockets"):
        caplog.set_level(logging.DEBUG, logger=name)
    async with running() as site:
        peer = RawSocket(site.url(f"{path}?token={SECRET}"))
        await peer.connect()
        await peer.send_upgrade()
        async with asyncio.timeout(5):
            await peer.reader.readuntil(b"\r\n\r\n")
        await peer.close()
        await site.until_empty()
    assert "Finished server process" in caplog.text  # the log was listened to
    assert SECRET not in caplog.text
