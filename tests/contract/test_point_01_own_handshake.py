"""Point 1: the gateway initializes each tool server itself, at once, and never passes a robot's `initialize` on."""

import asyncio

import pytest

from tests.peers.mcp_pipe import McpPipe
from tests.peers.tool_server import ToolServer
from tests.peers.tools import echo
from tests.peers.wire import Message
from tests.support.gateway import Gateway


async def test_the_handshake_is_initialize_then_initialized_then_the_list(gateway: Gateway) -> None:
    server = await gateway.tool_server()
    methods = [message["method"] for message in server.messages[:3]]
    assert methods == ["initialize", "notifications/initialized", "tools/list"]


async def test_initialize_is_the_very_first_frame(gateway: Gateway) -> None:
    """No probe before it: old servers die of one."""
    server = await gateway.tool_server()
    first = server.messages[0]
    assert first["method"] == "initialize"
    assert first["params"]["protocolVersion"] == "2025-11-25"


async def test_initialize_is_not_answered_means_nothing_else_is_sent(gateway: Gateway) -> None:
    server = ToolServer(gateway.mcp_url())
    server.answers_initialize = False
    await gateway.attach(server, is_awaited=False)
    await server.until_received("initialize")
    assert await server.ask("fence", "ping")
    assert [message["method"] for message in server.messages if "method" in message] == ["initialize"]


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2199-01-01", ""])
async def test_any_version_in_the_answer_is_accepted(gateway: Gateway, version: str) -> None:
    server = ToolServer(gateway.mcp_url(), tools=[echo()])
    server.protocol_version = version
    await gateway.attach(server)
    robot = await gateway.robot()
    assert await robot.names() == ["echo"]


class Choosy(ToolServer):
    """Refuses every protocol version but one."""

    accepts = "2024-11-05"

    async def on_initialize(self, message: Message) -> None:
        if message["params"]["protocolVersion"] == self.accepts:
            await super().on_initialize(message)
        else:
            await self.refuse(message, -32602, "Unsupported protocol version")


async def test_a_refused_version_is_followed_by_the_oldest_one(gateway: Gateway) -> None:
    server = await gateway.attach(Choosy(gateway.mcp_url(), tools=[echo()]))
    versions = [message["params"]["protocolVersion"] for message in server.received("initialize")]
    assert versions == ["2025-11-25", "2024-11-05"]
    robot = await gateway.robot()
    assert await robot.names() == ["echo"]


async def test_a_tool_server_that_refuses_both_is_closed_with_1013(gateway: Gateway) -> None:
    server = Choosy(gateway.mcp_url())
    server.accepts = "none"
    await gateway.attach(server, is_awaited=False)
    closed = await server.until_closed()
    assert closed.code == 1013
    assert closed.reason
    assert len(server.received("initialize")) == 2


@pytest.mark.settings(handshake_seconds=0.3)
async def test_a_tool_server_that_never_answers_is_closed_with_1013(gateway: Gateway) -> None:
    server = ToolServer(gateway.mcp_url())
    server.answers_initialize = False
    await gateway.attach(server, is_awaited=False)
    assert (await server.until_closed()).code == 1013


async def test_a_slow_child_has_time_to_come_up(gateway: Gateway) -> None:
    """The default waits a minute; some children need several seconds."""
    assert gateway.settings.handshake_seconds >= 60
    bridge = McpPipe(gateway.mcp_url(), tools=[echo("calculator")], child_start_seconds=1.2)
    await gateway.attach(bridge)
    robot = await gateway.robot()
    assert await robot.names() == ["calculator"]


async def test_robots_do_not_initialize_the_tool_server_again(gateway: Gateway) -> None:
    """Passed on, it breaks the calls of other robots (finding 2)."""
    server = await gateway.tool_server()
    for _ in range(3):
        robot = await gateway.robot()
        await robot.initialize()
        await robot.names()
        await robot.call("echo")
    await gateway.xiaozhi()
    await gateway.console().tool_names()
    assert len(server.received("initialize")) == 1
    assert len(server.received("notifications/initialized")) == 1
    assert len(server.received("tools/list")) == 1


async def test_a_list_asked_for_during_a_handshake_waits_for_it(gateway: Gateway) -> None:
    """Design §5.2: up to 2 s after the tool server dialled, so that a fresh conversation sees its tools."""
    server = ToolServer(gateway.mcp_url(), tools=[echo()])
    server.answers_initialize = False
    await gateway.attach(server, is_awaited=False)
    initialize = await server.until_received("initialize")
    robot = await gateway.robot()
    request_id = await robot.start("tools/list")
    server.answers_initialize = True
    await server.on_initialize(initialize)
    answer = await robot.answer(request_id)
    assert [tool["name"] for tool in answer["result"]["tools"]] == ["echo"]


@pytest.mark.settings(list_wait_seconds=0.3)
async def test_a_list_waits_for_a_slow_handshake_only_so_long(gateway: Gateway) -> None:
    server = ToolServer(gateway.mcp_url())
    server.answers_initialize = False
    await gateway.attach(server, is_awaited=False)
    await server.until_received("initialize")
    robot = await gateway.robot()
    assert await robot.names() == []


async def test_answers_keep_their_order_while_a_list_waits(gateway: Gateway) -> None:
    """A xiaozhi-server takes a late answer to `initialize` for that of its first call."""
    server = ToolServer(gateway.mcp_url(), tools=[echo()])
    server.answers_initialize = False
    await gateway.attach(server, is_awaited=False)
    initialize = await server.until_received("initialize")
    robot = await gateway.robot()
    list_id = await robot.start("tools/list")
    ping_id = await robot.start("ping")
    await asyncio.sleep(0)
    server.answers_initialize = True
    await server.on_initialize(initialize)
    await robot.answer(list_id)
    await robot.answer(ping_id)
    order = [message["id"] for message in robot.messages if message.get("id") in (list_id, ping_id)]
    assert order == [list_id, ping_id]
