"""Where peers dial in: every spelling of the two WebSocket paths, and what is refused before the upgrade."""

import asyncio

import pytest
from websockets.exceptions import InvalidStatus

from tests.peers.raw import RawSocket
from tests.peers.robot import Robot
from tests.peers.token import console_token
from tests.peers.tool_server import ToolServer
from tests.peers.tools import echo, text_of
from tests.peers.wire import Peer
from tests.support.gateway import AGENT, Gateway
from tests.support.running import KEY
from tests.support.waiting import wait_until

PREFIXES = ["", "/gateway", "/a/b/c", "/小智", "/mcp_endpoint", "/x.y~z"]


@pytest.mark.parametrize("slash", ["/", ""])
@pytest.mark.parametrize("prefix", PREFIXES)
async def test_both_roles_dial_in_with_any_prefix_with_and_without_the_final_slash(
    gateway: Gateway, prefix: str, slash: str
) -> None:
    """Proxies put a path in front; people forget the slash."""
    token = console_token(AGENT, KEY)
    server = ToolServer(gateway.url(f"{prefix}/mcp_endpoint/mcp{slash}", token=token), tools=[echo()])
    await gateway.attach(server)
    robot = await Robot(gateway.url(f"{prefix}/mcp_endpoint/call{slash}", token=token)).open()
    assert text_of(await robot.call("echo", {"text": "hello"})) == "hello"
    await robot.close()


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/mcp",
        "/call/",
        "/mcp_endpoint",
        "/mcp_endpoint/",
        "/mcp_endpoint/health",
        "/mcp_endpoint/other/",
        "/xmcp_endpoint/mcp/",
    ],
)
async def test_no_other_path_takes_a_websocket(gateway: Gateway, path: str) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        await Peer(gateway.url(path, token=console_token(AGENT, KEY))).open()
    assert refusal.value.response.status_code in (403, 404)


async def test_further_parameters_are_ignored(gateway: Gateway) -> None:
    url = gateway.mcp_url() + "&device=x&server=1&token_type=y"
    await gateway.attach(ToolServer(url, tools=[echo()]))
    robot = await gateway.robot()
    assert await robot.names() == ["echo"]


async def test_a_plain_get_of_a_websocket_path_is_no_server_error(gateway: Gateway) -> None:
    for role in ("mcp", "call"):
        response = await gateway.get(f"/mcp_endpoint/{role}/?token={console_token(AGENT, KEY)}")
        assert 400 <= response.status < 500


async def test_a_refusal_says_why_in_both_languages(gateway: Gateway) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        await Peer(gateway.url("/mcp_endpoint/mcp/")).open()
    body = bytes(refusal.value.response.body or b"").decode()
    assert " / " in body
    assert "token" in body.lower()


@pytest.mark.settings(connections=3)
async def test_a_full_worker_refuses_with_503_and_says_when_to_come_back(gateway: Gateway) -> None:
    robots = [await gateway.robot() for _ in range(3)]
    with pytest.raises(InvalidStatus) as refusal:
        await Robot(gateway.call_url()).open()
    assert refusal.value.response.status_code == 503
    assert int(refusal.value.response.headers["Retry-After"]) > 0
    await robots[0].close()
    assert "result" in await robots[1].ping()


@pytest.mark.settings(robots_per_agent=2)
async def test_an_agent_has_its_own_limit_of_robots(gateway: Gateway) -> None:
    for _ in range(2):
        await gateway.robot()
    with pytest.raises(InvalidStatus) as refusal:
        await Robot(gateway.call_url()).open()
    assert refusal.value.response.status_code == 503
    assert "result" in await (await gateway.robot(agent="another")).ping()


@pytest.mark.settings(handshakes_per_second=5)
async def test_a_flood_of_handshakes_is_refused_and_those_who_are_in_notice_nothing(gateway: Gateway) -> None:
    robot = await gateway.robot()
    statuses = []
    for _ in range(30):
        raw = await RawSocket(gateway.call_url()).open()
        statuses.append(int(raw.status_line.split()[1]))
        await raw.close()
    assert set(statuses) == {101, 503}
    assert "result" in await robot.ping()


@pytest.mark.settings(tool_handshakes_per_second=50)
async def test_tool_servers_that_redial_all_at_once_wait_their_turn_and_all_come_in(gateway: Gateway) -> None:
    """As when a worker dies: nobody is refused, so no bridge doubles its wait."""
    async with asyncio.TaskGroup() as tasks:
        for number in range(40):
            tool = [echo(f"tool_{number}")]
            tasks.create_task(gateway.tool_server(f"s{number}", tool, server_id=f"s{number}", is_awaited=False))
    await gateway.until_connected(40)
    assert len(await (await gateway.robot()).names()) == 40


@pytest.mark.settings(tool_handshakes_per_second=1)
async def test_a_tool_server_whose_turn_is_too_far_away_is_told_to_come_again(gateway: Gateway) -> None:
    statuses: list[int] = []

    async def knock() -> None:
        raw = RawSocket(gateway.mcp_url())
        try:
            await raw.open()
            statuses.append(int(raw.status_line.split()[1]))
        finally:
            await raw.close()

    knocks = [asyncio.get_running_loop().create_task(knock()) for _ in range(40)]
    await wait_until(lambda: statuses.count(503) >= 5, "some are refused")
    assert 101 in statuses, "some were let in before"
    for one in knocks:
        one.cancel()
    await asyncio.wait(knocks)


async def test_a_connection_is_one_peers_only(gateway: Gateway) -> None:
    """Many connections with one token are as many conversations."""
    robots = [await gateway.robot() for _ in range(20)]
    for number, robot in enumerate(robots):
        await robot.start("ping", id=number)
    for number, robot in enumerate(robots):
        assert (await robot.answer(number))["result"] == {}
        assert len(robot.messages) == 2


@pytest.mark.settings(tool_handshakes_per_second=20, servers_per_agent=10)
async def test_those_who_wait_their_turn_together_do_not_pass_their_agents_limit(gateway: Gateway) -> None:
    others = [RawSocket(gateway.mcp_url("other")) for _ in range(20)]
    knocks = [RawSocket(gateway.mcp_url()) for _ in range(25)]
    async with asyncio.TaskGroup() as tasks:
        for raw in (*others, *knocks):
            tasks.create_task(raw.open())
    statuses = [raw.status_line.split()[1] for raw in knocks]
    for raw in (*others, *knocks):
        await raw.close()
    assert (statuses.count("101"), statuses.count("503")) == (20, 5)
