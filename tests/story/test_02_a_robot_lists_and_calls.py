"""A robot is an MCP client that dials in; it sees all tools of its agent and calls them by name."""

from tests.peers.tools import adder, text_of
from tests.support.gateway import Gateway


async def test_a_robot_lists_the_tools_of_its_agent(gateway: Gateway) -> None:
    await gateway.tool_server("calculator", [adder("add")])
    robot = await gateway.robot()

    assert await robot.names() == ["add"]


async def test_a_robot_calls_a_tool(gateway: Gateway) -> None:
    await gateway.tool_server("calculator", [adder("add")])
    robot = await gateway.robot()

    answer = await robot.call("add", {"a": 2, "b": 3})

    assert text_of(answer) == "5"


async def test_a_robot_without_any_tool_server_is_served_all_the_same(gateway: Gateway) -> None:
    """The list is empty, and a call is answered with what to do about it."""
    robot = await gateway.robot()

    assert await robot.names() == []
    error = (await robot.call("add", {"a": 2, "b": 3}))["error"]
    assert error["code"] == -32001
    assert error["data"]["executed"] is False
