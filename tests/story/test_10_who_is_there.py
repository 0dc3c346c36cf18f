"""Whoever has the key can ask who is connected; the console does so before it stores the address."""

from tests.peers.tools import adder, echo
from tests.support.gateway import Gateway
from tests.support.running import KEY


async def test_health_tells_who_is_connected_and_with_which_tools(gateway: Gateway) -> None:
    await gateway.tool_server("calculator", [adder("add")], agent="kitchen")
    await gateway.tool_server("lights", [echo("switch")], agent="cellar")

    response = await gateway.get(f"/mcp_endpoint/health?key={KEY}")

    assert response.status == 200
    result = response.json()["result"]
    assert result["status"] == "success"
    servers = result["connections"]["mcp_servers"]
    assert servers["kitchen"]["calculator"]["tools"] == ["add"]
    assert servers["cellar"]["lights"]["tools"] == ["switch"]


async def test_without_the_key_nothing_is_told(gateway: Gateway) -> None:
    response = await gateway.get("/mcp_endpoint/health?key=guessed")

    assert response.status == 401
    assert "success" not in response.text
