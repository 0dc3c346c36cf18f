"""Point 9: whatever a tool server's side prints by accident, before, during and after the handshake, is survived."""

import asyncio

import orjson
import pytest

from tests.peers.mcp_pipe import McpPipe
from tests.peers.tool_server import ToolServer
from tests.peers.tools import echo, text_of
from tests.peers.wire import Message
from tests.support.gateway import Gateway

NOISE: list[str | bytes] = [
    "",
    "\n",
    "   ",
    "npm WARN deprecated something@1.0.0",
    "> server@1.0.0 start\n",
    "{not json}",
    '{"jsonrpc":"2.0","result":{}}',
    '{"jsonrpc":"2.0","id":null,"result":{}}',
    '{"jsonrpc":"2.0","id":"mine","result":{}}',
    '{"jsonrpc":"2.0","id":987654,"result":{"tools":[]}}',
    '{"jsonrpc":"2.0","id":-1,"error":{"code":1,"message":"x"}}',
    '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"up"}}',
    '{"jsonrpc":"2.0","method":"notifications/initialized"}',
    '{"jsonrpc":"2.0","method":"notifications/progress","params":5}',
    '{"jsonrpc":"2.0","method":"notifications/cancelled"}',
    '{"jsonrpc":"2.0","method":7}',
    '{"type":"mcp","payload":{}}',
    "[]",
    "[1,2]",
    "null",
    "0",
    b"\xff\xfe\x00",
    b"\x00",
    b"",
    "[" * 10_000,
]


class Noisy(ToolServer):
    """Makes its noise as soon as it is connected, then around each of its answers."""

    noise: str | bytes = ""

    async def on_open(self) -> None:
        await self.send_frame(self.noise)

    async def reply(self, request: Message, result: object) -> None:
        await self.send_frame(self.noise)
        await super().reply(request, result)
        await self.send_frame(self.noise)


@pytest.mark.parametrize("noise", NOISE, ids=[f"{number}: {noise[:30]!r}" for number, noise in enumerate(NOISE)])
async def test_noise_is_survived(gateway: Gateway, noise: str | bytes) -> None:
    server = Noisy(gateway.mcp_url(), tools=[echo()])
    server.noise = noise
    await gateway.attach(server)
    robot = await gateway.robot()
    await server.send_frame(noise)
    assert await robot.names() == ["echo"]
    assert text_of(await robot.call("echo", {"text": "clear"})) == "clear"
    assert server.is_open


async def test_a_bridge_with_banner_and_newlines_works(gateway: Gateway) -> None:
    banner = ["╭──────────────╮", "│ FastMCP  2.0 │", "", "INFO: starting"]
    await gateway.attach(McpPipe(gateway.mcp_url(), tools=[echo("calculator")], banner=banner))
    robot = await gateway.xiaozhi()
    assert await robot.call_tool("calculator", {"text": "4"}) == "4"


async def test_a_tool_server_that_answers_in_binary_frames_works(gateway: Gateway) -> None:
    class Binary(ToolServer):
        async def send(self, message: object) -> None:
            await self.send_frame(orjson.dumps(message))

    await gateway.attach(Binary(gateway.mcp_url(), tools=[echo("小智")]))
    robot = await gateway.robot()
    assert text_of(await robot.call("小智", {"text": "你好"})) == "你好"


async def test_a_tool_server_that_sends_fragments_works(gateway: Gateway) -> None:
    class Fragmented(ToolServer):
        async def send(self, message: object) -> None:
            text = orjson.dumps(message).decode()
            await self.socket.send(text[start : start + 7] for start in range(0, len(text), 7))

    await gateway.attach(Fragmented(gateway.mcp_url(), tools=[echo()]))
    robot = await gateway.robot()
    assert text_of(await robot.call("echo", {"text": "你好"})) == "你好"


async def test_several_messages_on_lines_of_one_frame_do_not_end_the_connection(gateway: Gateway) -> None:
    server = await gateway.tool_server()
    await server.send_frame('{"jsonrpc":"2.0","method":"a"}\n{"jsonrpc":"2.0","method":"b"}\n')
    robot = await gateway.robot()
    assert "result" in await robot.call("echo")


class Chatty(ToolServer):
    """Talks without a pause while the gateway still waits before its first frame."""

    async def on_open(self) -> None:
        while not self.messages and self.is_open:
            await self.send_frame("npm WARN deprecated")
            await asyncio.sleep(0)


async def test_noise_at_the_very_moment_of_the_first_frame_is_survived(gateway: Gateway) -> None:
    for number in range(3):
        server = await gateway.attach(Chatty(gateway.mcp_url(), name=f"s{number}", tools=[echo(f"t{number}")]))
        assert server.is_open
    robot = await gateway.robot()
    assert len(await robot.names()) == 3
