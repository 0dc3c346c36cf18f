"""A tool server is an MCP server that dials in; the gateway asks it what it can do."""

from tests.peers.tools import adder
from tests.support.gateway import Gateway


async def test_a_tool_server_dials_in_and_is_asked_for_its_tools(gateway: Gateway) -> None:
    """It may live behind NAT: it opens the WebSocket, and then answers what it is asked on it."""
    server = await gateway.tool_server("calculator", [adder("add")])

    asked = [message["method"] for message in server.messages]
    assert asked == ["initialize", "notifications/initialized", "tools/list"]


async def test_a_tool_server_is_known_by_the_name_it_gives_itself(gateway: Gateway) -> None:
    await gateway.tool_server("calculator", [adder("add")])

    assert list(await gateway.servers()) == ["calculator"]
