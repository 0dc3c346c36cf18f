"""Through nginx everything is as it is without: what robots, consoles, bridges and their closes look like."""

from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from tests.contract.test_public_bridges import mcp2xiaozhi, needs, running, xiaozhi_mcp
from tests.peers.tools import answering, echo, failing, text_of, text_result
from tests.peers.wire import Peer
from tests.support.gateway import Gateway

MIB = 1024 * 1024


@pytest.mark.parametrize("balance", ["hash"])
async def test_a_xiaozhi_server_calls_a_tool_behind_mcp2xiaozhi(edge: Gateway, tmp_path: Path) -> None:
    needs("mcp2xiaozhi")
    url = edge.mcp_url("bridged")
    async with running(mcp2xiaozhi(url, tmp_path), url, tmp_path):
        await edge.until_connected(1, "bridged", seconds=40)
        robot = await edge.xiaozhi(agent="bridged")
        for number in range(3):
            assert await robot.call_tool("calculator", {"a": number, "b": 40}) == str(number + 40)
        assert robot.errors == []
        assert await edge.console(agent="bridged").tool_names() == ["calculator"]


@pytest.mark.parametrize("balance", ["round-robin"])
async def test_a_xiaozhi_server_calls_two_tools_behind_one_xiaozhi_mcp(edge: Gateway, tmp_path: Path) -> None:
    """One bridge, one token, two sockets: here they come to two workers."""
    needs("xiaozhi_mcp")
    url = edge.mcp_url("piped")
    async with running(xiaozhi_mcp(url, tmp_path), url, tmp_path):
        await edge.until_connected(2, "piped", seconds=40)
        servers = await edge.servers("piped")
        assert len({server["worker"] for server in servers.values()}) == 2
        robot = await edge.xiaozhi(agent="piped")
        assert set(robot.tools) == {"calculator", "adder"}
        for name in ("calculator", "adder", "calculator"):
            assert await robot.call_tool(name, {"a": 2, "b": 40}) == "42"
        assert robot.errors == []


async def test_robots_and_consoles_see_and_call_every_tool(edge: Gateway, balance: str) -> None:
    agent = f"seen-{balance}"
    await edge.tool_server("lamp", [echo("lamp.on"), failing("lamp.off", -1, "no lamp")], agent=agent)
    await edge.tool_server("fan", [echo("fan")], agent=agent)
    for _ in range(3):
        robot = await edge.xiaozhi(agent=agent)
        assert set(robot.tools) == {"lamp_on", "lamp_off", "fan"}
        assert await robot.call_tool("lamp_on", {"text": "开灯"}) == "开灯"
        assert await robot.call_tool("fan", {"text": "x"}) == "x"
        with pytest.raises(RuntimeError, match="no lamp"):
            await robot.call_tool("lamp_off")
    assert set(await edge.console(agent=agent).tool_names()) == {"lamp_on", "lamp_off", "fan"}


async def test_the_paths_of_people_and_consoles_answer(edge: Gateway) -> None:
    root = await edge.get("/")
    assert (root.status, root.headers["location"]) == (307, "/mcp_endpoint/")
    assert (await edge.get("/mcp_endpoint/")).json()["result"]["status"] == "running"
    assert (await edge.get(f"/mcp_endpoint/health?key={edge.key}")).json()["result"]["status"] == "success"
    assert (await edge.get(f"/prefix/mcp_endpoint/health?key={edge.key}")).status == 200
    assert (await edge.get("/mcp_endpoint/health?key=wrong")).status == 401
    assert (await edge.get("/readyz")).text == "ready\n"


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/mcp_endpoint/mcp/?token=wrong", 401, "Invalid token"),
        ("/mcp_endpoint/call/", 400, "Missing token"),
        ("/mcp_endpoint/", 404, "Not Found"),
    ],
)
async def test_a_refusal_comes_before_the_upgrade(edge: Gateway, path: str, status: int, text: str) -> None:
    """A bridge that is accepted and then closed knocks for ever."""
    with pytest.raises(InvalidStatus) as refused:
        await Peer(f"ws://127.0.0.1:{edge.port}{path}").open()
    assert refused.value.response.status_code == status
    assert text in (refused.value.response.body or b"").decode()


async def test_messages_of_megabytes_come_through_whole(edge: Gateway, balance: str) -> None:
    agent = f"large-{balance}"
    long = text_result("长" * 150_000)
    photo = {"content": [{"type": "image", "data": "A" * 6 * MIB, "mimeType": "image/png"}]}
    await edge.tool_server(tools=[echo(), answering("long", long), answering("photo", photo)], agent=agent)
    robot = await edge.robot(agent=agent)
    assert (await robot.call("long"))["result"] == long
    sent = "x" * 900_000
    refused = await robot.call("photo")
    assert refused["result"]["isError"] is True
    assert "512 KiB" in refused["result"]["content"][0]["text"] or "524288" in refused["result"]["content"][0]["text"]
    assert len(text_of(await robot.call("echo", {"text": sent}))) > 400_000
    assert robot.is_open


async def test_close_codes_and_reasons_come_through(edge: Gateway, balance: str) -> None:
    agent = f"closed-{balance}"
    old = await edge.tool_server("lamp", agent=agent, server_id="lamp")
    await edge.tool_server("lamp", agent=agent, server_id="lamp", is_awaited=False)
    closed = await old.until_closed()
    assert closed.code == 1000
    assert closed.reason
    robot = await edge.robot(agent=agent)
    await robot.send_frame("x" * (edge.settings.robot_frame_bytes + 1))
    assert (await robot.until_closed()).code == 1009
    leaver = await edge.tool_server("fan", agent=agent)
    await leaver.close(4001, "on my way")
    await edge.until_connected(1, agent)
