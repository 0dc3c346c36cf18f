"""The answers to plain HTTP: health, the front page, and the two probes of an orchestrator."""

import pytest

from tests.peers.tools import echo
from tests.support.gateway import Gateway
from tests.support.running import KEY


async def test_the_root_leads_to_the_front_page(gateway: Gateway) -> None:
    response = await gateway.get("/")
    assert response.status in (301, 302, 303, 307, 308)
    assert response.headers["location"] == "/mcp_endpoint/"


@pytest.mark.parametrize("path", ["/mcp_endpoint/", "/mcp_endpoint", "/behind/a/proxy/mcp_endpoint/"])
async def test_the_front_page_says_what_listens_here(gateway: Gateway, path: str) -> None:
    response = await gateway.get(path)
    assert response.status == 200
    body = response.json()
    assert body["jsonrpc"] == "2.0"
    assert body["result"]["status"] == "running"
    assert body["result"]["version"]


async def test_the_front_page_tells_nothing_that_needs_a_key(gateway: Gateway) -> None:
    await gateway.tool_server("secret-name", [echo("secret_tool")], agent="secret-agent")
    for path in ("/", "/mcp_endpoint/", "/livez", "/readyz", "/mcp_endpoint/health"):
        assert "secret" not in (await gateway.get(path)).text


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_a_serving_worker_is_alive_and_ready(gateway: Gateway, path: str) -> None:
    assert (await gateway.get(path)).status == 200


@pytest.mark.parametrize("prefix", ["", "/gateway", "/a/b"])
async def test_health_is_found_behind_any_prefix(gateway: Gateway, prefix: str) -> None:
    assert (await gateway.get(f"{prefix}/mcp_endpoint/health?key={KEY}")).status == 200


async def test_health_has_the_documented_shape(gateway: Gateway) -> None:
    """What scripts written for the old server read, without one key missing."""
    await gateway.tool_server()
    connections = await gateway.health()
    assert set(connections) >= {
        "mcp_server_connections",
        "tool_connections",
        "robot_connections",
        "total_connections",
        "multi_server_support",
        "available_agents",
        "total_tools",
        "robot_connections_by_agent",
        "mcp_servers",
        "truncated",
    }
    server = connections["mcp_servers"]["home"]["server"]
    assert set(server) >= {"tools_count", "tools", "server_info", "worker", "connected_since"}


async def test_health_of_an_empty_gateway_is_all_zeros(gateway: Gateway) -> None:
    connections = await gateway.health()
    assert connections["total_connections"] == connections["total_tools"] == 0
    assert connections["available_agents"] == []
    assert connections["mcp_servers"] == {}


async def test_health_of_an_unknown_agent_is_empty(gateway: Gateway) -> None:
    await gateway.tool_server()
    connections = await gateway.health("nobody")
    assert connections["mcp_servers"] == {}
    assert connections["total_tools"] == 0


async def test_health_follows_those_who_leave(gateway: Gateway) -> None:
    server = await gateway.tool_server()
    assert (await gateway.health())["mcp_server_connections"] == 1
    await server.close()
    await gateway.until_connected(0)
    assert (await gateway.health())["mcp_server_connections"] == 0


@pytest.mark.parametrize("agent", ["家庭", "a b", "a/b", "a:b", "x" * 200, "{a}", "%"], ids=repr)
async def test_any_agent_id_is_shown_as_it_is(gateway: Gateway, agent: str) -> None:
    await gateway.tool_server(agent=agent)
    assert (await gateway.health())["available_agents"] == [agent]


@pytest.mark.parametrize("path", ["/nothing", "/mcp_endpoint/nothing", "/metrics/x", "/health", "/..", "//"])
async def test_an_unknown_path_is_404(gateway: Gateway, path: str) -> None:
    assert (await gateway.get(path)).status in (404, 307)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_other_methods_are_refused(gateway: Gateway, method: str) -> None:
    response = await gateway.get(f"/mcp_endpoint/health?key={KEY}", method=method, headers={"Content-Length": "0"})
    assert response.status == 405
    assert "success" not in response.text


async def test_the_key_is_not_taken_from_anywhere_else(gateway: Gateway) -> None:
    response = await gateway.get("/mcp_endpoint/health", headers={"key": KEY, "Cookie": f"key={KEY}"})
    assert response.status == 401
