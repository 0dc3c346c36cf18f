"""Point 11: the health answer is what the console's parameter check and its operators read."""

import pytest

from tests.peers.tools import echo
from tests.support.gateway import Gateway
from tests.support.running import KEY
from tests.support.waiting import wait_until


async def test_the_right_key_gets_200_and_success(gateway: Gateway) -> None:
    response = await gateway.get(f"/mcp_endpoint/health?key={KEY}")
    assert response.status == 200
    assert response.headers["content-type"].startswith("application/json")
    body = response.json()
    assert body["jsonrpc"] == "2.0"
    assert body["id"] is None
    assert body["result"]["status"] == "success"
    assert KEY not in response.text


@pytest.mark.parametrize(
    "query", ["?key=wrong", "?key=", "", f"?key={KEY}x", f"?key={KEY[:-1]}", "?key=success", "?key=%00"]
)
async def test_a_wrong_key_gets_401_and_never_the_word_success(gateway: Gateway, query: str) -> None:
    """The console looks for nothing but that word."""
    response = await gateway.get(f"/mcp_endpoint/health{query}")
    assert response.status == 401
    assert "success" not in response.text.lower()
    assert KEY not in response.text


@pytest.mark.settings(key=(KEY, "fedcba9876543210fedcba9876543210"))
async def test_every_configured_key_opens_it(gateway: Gateway) -> None:
    for key in gateway.settings.key:
        assert (await gateway.get(f"/mcp_endpoint/health?key={key}")).status == 200


async def test_it_counts_who_is_connected(gateway: Gateway) -> None:
    await gateway.tool_server("one", [echo("a"), echo("b")], agent="x")
    await gateway.tool_server("two", [echo("c")], agent="y")
    for _ in range(2):
        await gateway.robot(agent="x")

    async def both_robots_are_known() -> bool:
        return bool((await gateway.health())["robot_connections"] == 2)

    await wait_until(both_robots_are_known, "both robots are counted")
    connections = await gateway.health()
    assert connections["mcp_server_connections"] == 2
    assert connections["tool_connections"] == 2
    assert connections["robot_connections"] == 2
    assert connections["total_connections"] == 4
    assert connections["multi_server_support"] is True
    assert set(connections["available_agents"]) == {"x", "y"}
    assert connections["total_tools"] == 3
    assert connections["robot_connections_by_agent"]["x"] == 2
    assert connections["truncated"] is False


async def test_it_names_every_tool_server(gateway: Gateway) -> None:
    await gateway.tool_server("weather", [echo("forecast"), echo("now")], server_id="w", version="2.1")
    server = (await gateway.servers())["w"]
    assert server["tools_count"] == 2
    assert server["tools"] == ["forecast", "now"]
    assert server["server_info"]["name"] == "weather"
    assert server["server_info"]["version"] == "2.1"
    assert server["worker"]
    assert server["connected_since"]


@pytest.mark.parametrize("parameter", ["agent", "agentid"])
async def test_it_can_be_asked_for_one_agent(gateway: Gateway, parameter: str) -> None:
    for agent in ("x", "y"):
        await gateway.tool_server(agent=agent)
    response = await gateway.get(f"/mcp_endpoint/health?{parameter}=x&key={KEY}")
    assert set(response.json()["result"]["connections"]["mcp_servers"]) == {"x"}


@pytest.mark.settings(health_agents=2)
async def test_it_is_cut_visibly(gateway: Gateway) -> None:
    for agent in ("a", "b", "c", "d"):
        await gateway.tool_server(agent=agent)
    connections = await gateway.health()
    assert connections["truncated"] is True
    assert len(connections["mcp_servers"]) == 2
