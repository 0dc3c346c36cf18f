"""The token says which agent a connection speaks for; nothing crosses from one agent to another."""

from tests.peers.tools import adder, echo
from tests.support.gateway import Gateway


async def test_each_agent_has_its_own_tools(gateway: Gateway) -> None:
    await gateway.tool_server("calculator", [adder("add")], agent="kitchen")
    await gateway.tool_server("lights", [echo("switch")], agent="cellar")

    assert await (await gateway.robot(agent="kitchen")).names() == ["add"]
    assert await (await gateway.robot(agent="cellar")).names() == ["switch"]
