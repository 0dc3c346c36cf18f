"""Every kind of real tool server, end to end: it dials in, its tool is listed, a xiaozhi-server's call is answered."""

import pytest

from tests.peers.esp32 import Esp32
from tests.peers.mcp_pipe import McpPipe
from tests.peers.node_red import NodeRed
from tests.peers.quirks import Da2Tunnel, HomeAssistant, McpHub, OldPythonServer, SubprotocolClient, XiaozhiClient
from tests.peers.tool_server import ToolServer
from tests.peers.tools import echo, text_of
from tests.peers.verdure import Verdure
from tests.support.gateway import Gateway

KINDS: list[type[ToolServer]] = [
    ToolServer,
    McpPipe,
    McpHub,
    XiaozhiClient,
    Da2Tunnel,
    HomeAssistant,
    OldPythonServer,
    SubprotocolClient,
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
async def test_it_is_listed_and_called_by_a_xiaozhi_server(gateway: Gateway, kind: type[ToolServer]) -> None:
    server = await gateway.attach(kind(gateway.mcp_url(), tools=[echo("calculator")]))
    robot = await gateway.xiaozhi()
    for text in ("一", "二", "三"):
        assert await robot.call_tool("calculator", {"text": text}) == text
    assert robot.errors == []
    assert server.is_open


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
async def test_it_survives_everything_that_robots_send(gateway: Gateway, kind: type[ToolServer]) -> None:
    """Several handshakes, calls of wrong shape, cancellations: none of it may reach it in a form that harms it."""
    await gateway.attach(kind(gateway.mcp_url(), tools=[echo("calculator")]))
    for _ in range(2):
        robot = await gateway.robot()
        await robot.initialize()
        for arguments in ("text", ["list"], 5):
            assert "error" in await robot.request("tools/call", {"name": "calculator", "arguments": arguments})
        await robot.request("tools/call", {"name": "calculator", "arguments": None})
        await robot.notify("notifications/cancelled", {"requestId": 5})
        await robot.request("server/discover")
        assert text_of(await robot.call("calculator", {"text": "fine"})) == "fine"


@pytest.mark.settings(mcp_ping_seconds=0.1)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
async def test_it_stays_through_pings_and_rereads(gateway: Gateway, kind: type[ToolServer]) -> None:
    server = await gateway.attach(kind(gateway.mcp_url(), tools=[echo("calculator")]))
    await server.until_received("ping", 3)
    robot = await gateway.robot()
    assert "result" in await robot.call("calculator")
    assert server.is_open


async def test_all_of_them_serve_one_agent_together(gateway: Gateway) -> None:
    for kind in KINDS:
        await gateway.attach(kind(gateway.mcp_url(), name=kind.__name__, tools=[echo(kind.__name__)]))
    flow = await NodeRed(gateway.mcp_url()).open()
    garden = await Verdure(gateway.mcp_url()).open()
    lamp = await Esp32(gateway.mcp_url()).open()
    await (await gateway.robot()).sees("inject", "garden", "lamp")
    robot = await gateway.xiaozhi()
    names = {kind.__name__ for kind in KINDS}
    assert set(robot.tools) == names | {"inject", "garden", "lamp"}
    for name in names:
        assert await robot.call_tool(name, {"text": name}) == name
    assert [await robot.call_tool(name) for name in ("inject", "garden", "lamp")] == ["injected", "watered", "on"]
    for peer in (flow, garden, lamp):
        await peer.close()


@pytest.mark.settings(mcp_ping_seconds=0.1)
async def test_verdure_gets_the_pings_it_waits_for(gateway: Gateway) -> None:
    garden = await Verdure(gateway.mcp_url()).open()
    robot = await gateway.robot()
    await robot.until(lambda: garden.pings >= 2, "Verdure is pinged")
    await garden.close()


async def test_a_bridge_that_is_never_closed_never_waits(gateway: Gateway) -> None:
    """Its wait doubles at each close and is never reset, so a healthy connection is never closed."""
    bridge = await gateway.attach(McpPipe(gateway.mcp_url(), tools=[echo("calculator")]))
    robot = await gateway.robot()
    for _ in range(20):
        await robot.call("calculator")
    await robot.call("nothing")
    assert bridge.is_open
    assert bridge.waits == []


async def test_a_bridge_that_redials_finds_its_place_again(gateway: Gateway) -> None:
    bridge = await gateway.attach(McpPipe(gateway.mcp_url(), tools=[echo("calculator")]))
    robot = await gateway.robot()
    await robot.sees("calculator")
    await bridge.vanish()
    await gateway.until_connected(0)
    await bridge.redial()
    await gateway.until_connected(1)
    assert await robot.names() == ["calculator"]
    assert bridge.waits == [2.0]
