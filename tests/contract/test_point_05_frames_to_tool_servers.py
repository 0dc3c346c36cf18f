"""Point 5: a tool server gets unfragmented, compact text frames, and the upgrade in canonical spelling."""

from collections.abc import AsyncGenerator

import orjson
import pytest
from websockets.frames import Opcode

from tests.peers.raw import TEXT, RawSocket
from tests.peers.tools import echo
from tests.support.gateway import Gateway


@pytest.fixture
async def raw(gateway: Gateway) -> AsyncGenerator[RawSocket]:
    """A tool server's socket, after the upgrade."""
    raw = await RawSocket(gateway.mcp_url()).open()
    yield raw
    await raw.close()


async def test_the_upgrade_is_spelled_as_the_esp32_compares_it(raw: RawSocket) -> None:
    assert raw.head.startswith(b"HTTP/1.1 101")
    names = [line.split(":")[0] for line in raw.header_lines]
    assert "Sec-WebSocket-Accept" in names
    assert any(line.startswith("Sec-WebSocket-Accept: ") for line in raw.header_lines)


async def test_nothing_is_negotiated_that_was_not_offered(raw: RawSocket) -> None:
    names = [line.split(":")[0].lower() for line in raw.header_lines]
    assert "sec-websocket-extensions" not in names
    assert "sec-websocket-protocol" not in names


async def test_the_handshake_is_short_compact_text_frames(raw: RawSocket) -> None:
    frame = await raw.read_data()
    initialize = orjson.loads(frame.payload)
    info = {"name": "raw", "version": "1"}
    result = {"protocolVersion": "2024-11-05", "capabilities": {}, "serverInfo": info}
    await raw.send({"jsonrpc": "2.0", "id": initialize["id"], "result": result})
    for one in (frame, await raw.read_data(), await raw.read_data()):
        assert one.opcode == TEXT
        assert one.is_final
        assert one.reserved == 0
        assert len(one.payload) < 700
        assert one.payload == orjson.dumps(orjson.loads(one.payload))


async def test_a_long_call_is_one_unfragmented_text_frame(gateway: Gateway) -> None:
    server = await gateway.tool_server()
    robot = await gateway.robot()
    await robot.call("echo", {"text": "长" * 100_000})
    data = [frame for frame in server.seen if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)]
    assert all(frame.opcode is Opcode.TEXT and frame.is_final for frame in data)
    assert max(frame.bytes for frame in data) > 300_000


async def test_non_ascii_text_is_sent_as_utf_8(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[echo("小智")])
    robot = await gateway.robot()
    await robot.call("小智", {"text": "你好🦊"})
    frame = next(frame for frame in server.frames if "tools/call" in str(frame))
    assert isinstance(frame, str)
    assert "你好🦊" in frame
    assert "\n" not in frame
