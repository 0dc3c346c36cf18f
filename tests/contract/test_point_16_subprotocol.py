"""Point 16: the sub-protocol `mcp` is echoed when it is offered, and never demanded."""

import pytest

from tests.peers.quirks import SubprotocolClient
from tests.peers.robot import Robot
from tests.peers.tool_server import ToolServer
from tests.peers.tools import echo
from tests.support.gateway import Gateway


async def test_a_client_that_insists_on_it_works(gateway: Gateway) -> None:
    """The TypeScript SDK fails with "Server sent no subprotocol" otherwise."""
    server = await gateway.attach(SubprotocolClient(gateway.mcp_url(), tools=[echo()]))
    assert server.socket.subprotocol == "mcp"
    robot = await gateway.robot()
    assert "result" in await robot.call("echo")


async def test_a_client_that_offers_none_works(gateway: Gateway) -> None:
    server = await gateway.tool_server()
    assert server.socket.subprotocol is None


@pytest.mark.parametrize("offered", [["mcp"], ["other", "mcp"], ["mcp", "other"]], ids=repr)
async def test_it_is_chosen_out_of_several_on_both_sides(gateway: Gateway, offered: list[str]) -> None:
    server = await ToolServer(gateway.mcp_url(), subprotocols=offered).open()
    robot = await Robot(gateway.call_url(), subprotocols=offered).open()
    assert server.socket.subprotocol == robot.socket.subprotocol == "mcp"
    await server.close()
    await robot.close()


async def test_nothing_is_echoed_of_other_offers(gateway: Gateway) -> None:
    robot = await Robot(gateway.call_url(), subprotocols=["chat", "mcp.auth.secret"]).open()
    assert robot.socket.subprotocol is None
    assert "result" in await robot.ping()
    await robot.close()
