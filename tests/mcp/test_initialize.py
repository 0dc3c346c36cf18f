"""`initialize` and `ping` at the robot's edge: answered by the gateway itself, at once, in any order robots try."""

import pytest

from tests.peers.tools import echo
from tests.support.gateway import Gateway

LEGACY = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"]


@pytest.mark.parametrize("version", LEGACY)
async def test_a_known_version_is_agreed_to(gateway: Gateway, version: str) -> None:
    robot = await gateway.robot(is_ready=False)
    assert (await robot.initialize(version))["result"]["protocolVersion"] == version


@pytest.mark.parametrize("version", ["2026-07-28", "1999-01-01", "2099-12-31", "", "DRAFT"])
async def test_an_unknown_version_is_answered_with_the_newest_one_of_this_kind(gateway: Gateway, version: str) -> None:
    """Not an error: the robot decides whether it can live with it (mcp-protocol §4)."""
    robot = await gateway.robot(is_ready=False)
    assert (await robot.initialize(version))["result"]["protocolVersion"] == "2025-11-25"


async def test_the_answer_offers_tools_that_change_and_nothing_else(gateway: Gateway) -> None:
    robot = await gateway.robot(is_ready=False)
    result = (await robot.initialize())["result"]
    assert result["capabilities"] == {"tools": {"listChanged": True}}
    assert isinstance(result["serverInfo"]["name"], str)
    assert isinstance(result["serverInfo"]["version"], str)


async def test_the_capabilities_do_not_depend_on_who_is_connected(gateway: Gateway) -> None:
    before = await (await gateway.robot(is_ready=False)).initialize()
    await gateway.tool_server(tools=[echo()])
    after = await (await gateway.robot(is_ready=False)).initialize()
    assert before["result"] == after["result"]


@pytest.mark.parametrize(
    "params",
    [
        None,
        {},
        {"protocolVersion": 5},
        {"protocolVersion": None, "clientInfo": None, "capabilities": None},
        {"protocolVersion": "2025-06-18", "clientInfo": "a robot", "capabilities": []},
        {"protocolVersion": "2025-06-18", "clientInfo": {"name": 7}},
    ],
    ids=repr,
)
async def test_a_sloppy_initialize_is_answered_all_the_same(gateway: Gateway, params: object) -> None:
    """Wrong types get a result or a clean -32602, never silence, and the connection stays usable."""
    robot = await gateway.robot(is_ready=False)
    answer = await robot.request("initialize", params)
    assert "result" in answer or answer["error"]["code"] == -32602
    assert "result" in await robot.request("tools/list")


async def test_a_second_initialize_negotiates_anew(gateway: Gateway) -> None:
    robot = await gateway.robot(version="2025-03-26")
    assert (await robot.initialize("2024-11-05"))["result"]["protocolVersion"] == "2024-11-05"
    await robot.send([{"jsonrpc": "2.0", "id": 1, "method": "ping"}])
    await robot.until(lambda: any("error" in message for message in robot.messages), "the batch is refused now")
    assert (await robot.initialize("2025-11-25"))["result"]["protocolVersion"] == "2025-11-25"


async def test_a_ping_is_answered_before_initialize(gateway: Gateway) -> None:
    robot = await gateway.robot(is_ready=False)
    assert (await robot.ping())["result"] == {}


async def test_a_ping_is_never_passed_on(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[echo()])
    robot = await gateway.robot()
    await robot.ping()
    await robot.call("echo")
    assert not server.received("ping")


async def test_a_list_and_a_call_are_served_without_a_handshake(gateway: Gateway) -> None:
    """Old consoles never sent `initialize` (xiaozhi-ecosystem §8)."""
    await gateway.tool_server(tools=[echo()])
    robot = await gateway.robot(is_ready=False)
    assert await robot.names() == ["echo"]
    assert "result" in await robot.call("echo")


async def test_a_robot_that_skips_the_initialized_notification_is_served(gateway: Gateway) -> None:
    await gateway.tool_server(tools=[echo()])
    robot = await gateway.robot(is_ready=False)
    await robot.request(
        "initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x"}}
    )
    assert await robot.names() == ["echo"]
    assert "result" in await robot.call("echo")


async def test_the_gateway_sends_a_robot_no_request(gateway: Gateway) -> None:
    """xiaozhi-server never answers one; what the gateway wants to know it learns from WebSocket pings."""
    server = await gateway.tool_server(tools=[echo()])
    robot = await gateway.robot()
    await robot.call("echo")
    await server.change_tools([echo("other")])
    await robot.sees("other")
    assert not [message for message in robot.messages if "method" in message and "id" in message]
