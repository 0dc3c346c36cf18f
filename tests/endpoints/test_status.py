"""`GET /mcp_endpoint/status?token=…`: why an agent's tools are there, or are not."""

import asyncio
import threading
from typing import Any

import pytest

from gateway import enquiry
from gateway import status as status_module
from gateway.backplane.base import Snapshot
from gateway.credential import Credential
from gateway.endpoints import STATUS_PER_SECOND
from gateway.enquiry import OPEN_MAX, TOOLS_EACH, TooOften
from tests.conftest import StartCluster
from tests.peers.token import console_token
from tests.peers.tool_server import ToolServer
from tests.peers.tools import echo
from tests.peers.wire import Message
from tests.support.gateway import AGENT, Gateway
from tests.support.redis_server import RedisServer
from tests.support.running import KEY, RedisCluster, settings
from tests.support.waiting import wait_until


async def status(gateway: Gateway, agent: str = AGENT) -> Message:
    """The whole answer."""
    response = await gateway.get(f"/mcp_endpoint/status?token={console_token(agent, KEY)}")
    assert response.status == 200, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    told: Message = response.json()
    return told


async def until(gateway: Gateway, code: str, server_id: str | None = None) -> Message:
    """The answer, once its verdict (or that on one tool server) is this one."""

    async def answer() -> Message | None:
        response = await gateway.get(f"/mcp_endpoint/status?token={console_token(AGENT, KEY)}")
        if response.status == 503:
            return None  # asked too often
        told = response.json()
        verdicts = [told["verdict"]] if server_id is None else [one["verdict"] for one in servers(told, server_id)]
        return told if code in [verdict["code"] for verdict in verdicts] else None

    told: Message = await wait_until(answer, f"the verdict on {server_id or 'the agent'} is {code}")
    return told


def servers(told: Message, server_id: str) -> list[Message]:
    return [one for one in told["tool_servers"] if one["server_id"] == server_id]


async def test_nobody_ever_connected_with_this_token(gateway: Gateway) -> None:
    told = await status(gateway)
    assert told["verdict"]["code"] == "never_connected"
    assert told["tool_servers"] == []
    assert "网址和令牌" in told["verdict"]["text"]
    assert "URL and token" in told["verdict"]["text"]


async def test_it_says_on_every_worker_who_is_connected_where_and_with_which_tools(cluster: StartCluster) -> None:
    first, second = await cluster(2)
    await first.tool_server("Fan", [echo("blow"), echo("stop")], server_id="fan")
    await second.robot()

    async def with_its_robot() -> Message | None:
        told = await status(second)
        return told if told["robots"] == 1 else None

    told = await wait_until(with_its_robot, "the robot is counted")
    assert (told["verdict"]["code"], told["source"], told["workers"]) == ("ok", "store", 2)
    [fan] = told["tool_servers"]
    assert (fan["server_id"], fan["state"], fan["name"], fan["version"]) == ("fan", "connected", "Fan", "1.0")
    assert fan["worker"] == first.worker.id  # type: ignore[attr-defined]  # a worker of this process
    assert fan["tools"] == [{"tool": "blow", "listed_as": "blow"}, {"tool": "stop", "listed_as": "stop"}]
    assert fan["listed"]
    assert fan["since"].endswith("Z")


async def test_one_that_left_is_named_with_the_time_and_the_cause(cluster: StartCluster) -> None:
    [gateway] = await cluster(1)
    server = await gateway.tool_server("Fan", server_id="fan")
    await server.close()
    told = await until(gateway, "disconnected")
    [fan] = told["tool_servers"]
    assert fan["state"] == "disconnected"
    assert fan["disconnected"] is not None
    assert fan["cause"].startswith("1000")
    assert "工具端未连接" in told["verdict"]["text"]
    assert "start it" in told["verdict"]["text"]


async def test_one_whose_connection_just_broke_is_told_apart_from_one_that_said_goodbye(gateway: Gateway) -> None:
    server = await gateway.tool_server("Fan", server_id="fan")
    server.socket.transport.abort()
    told = await until(gateway, "disconnected", "fan")
    assert told["tool_servers"][0]["cause"].startswith("1006")
    assert "without a goodbye" in told["verdict"]["text"]


async def test_one_in_its_handshake_is_told(cluster: StartCluster) -> None:
    [gateway] = await cluster(1)
    silent = ToolServer(gateway.mcp_url(server_id="slow"))
    silent.answers_initialize = False
    await gateway.attach(silent, is_awaited=False)
    told = await until(gateway, "handshake")
    [one] = told["tool_servers"]
    assert (one["state"], one["server_id"], one["listed"]) == ("handshake", "", False)
    assert "initialize" in told["verdict"]["text"]


@pytest.mark.settings(handshake_seconds=0.2)
@pytest.mark.parametrize("fault", ["initialize", "tools/list"])
async def test_a_handshake_that_came_to_nothing_says_what_was_not_answered(gateway: Gateway, fault: str) -> None:
    silent = ToolServer(gateway.mcp_url(server_id="slow"), name="Slow")
    silent.answers_initialize, silent.answers_list = fault != "initialize", fault != "tools/list"
    await gateway.attach(silent, is_awaited=False)
    told = await until(gateway, "handshake_failed")
    [one] = told["tool_servers"]
    assert one["error"]["text"].startswith(f"{fault} unanswered")
    assert one["error"]["time"] is not None
    assert one["connected"] is None
    assert fault in told["verdict"]["text"]


async def test_one_that_gave_no_id_and_broke_off_in_its_handshake_is_remembered_too(cluster: StartCluster) -> None:
    [gateway] = await cluster(1)
    silent = ToolServer(gateway.mcp_url())
    silent.answers_initialize = False
    await gateway.attach(silent, is_awaited=False)
    await silent.until_received("initialize")
    silent.socket.transport.abort()
    told = await until(gateway, "handshake_failed")
    assert told["tool_servers"] == []
    assert told["unnamed_error"]["text"].startswith("1006")
    assert "before `initialize` was answered" in told["unnamed_error"]["text"]


async def test_a_restart_of_the_gateway_is_no_fault_of_a_tool_server_in_its_handshake(
    redis_server: RedisServer,
) -> None:
    with redis_server.client() as client:
        client.flushall()
    cluster = RedisCluster(settings(redis_url=redis_server.url))
    worker = await cluster.add_worker()
    try:
        silent = ToolServer(f"ws://127.0.0.1:{worker.port}/mcp_endpoint/mcp/?token={console_token(AGENT, KEY)}")
        silent.answers_initialize = False
        await silent.open()
        await silent.until_received("initialize")
        await worker.stop()
        await silent.close()
        with redis_server.client() as client:
            assert client.hgetall(f"mcpgw:seen:{{{AGENT}}}") == {}
    finally:
        await cluster.stop()


@pytest.mark.settings(frame_bytes=64 * 1024)
async def test_one_that_sends_too_much_in_its_handshake_learns_which_setting_is_in_the_way(gateway: Gateway) -> None:
    await gateway.attach(
        ToolServer(gateway.mcp_url(server_id="big"), tools=[echo(f"tool{'x' * 100}{n}") for n in range(1000)]),
        is_awaited=False,
    )
    told = await until(gateway, "handshake_failed", "big")
    assert told["tool_servers"][0]["error"]["text"].startswith("1009")
    assert "GATEWAY_FRAME_BYTES" in told["verdict"]["text"]


class Refusing(ToolServer):
    """It has its reasons, and a secret in them."""

    async def on_list(self, message: Message) -> None:
        await self.refuse(message, -32000, "no rights: token=abc123secret")


async def test_one_that_refuses_its_list_is_connected_without_tools_and_its_reason_is_told_without_secrets(
    gateway: Gateway,
) -> None:
    await gateway.attach(Refusing(gateway.mcp_url(server_id="shy")))
    told = await until(gateway, "no_tools")
    [shy] = told["tool_servers"]
    assert shy["error"]["text"].startswith("tools/list refused")
    assert "no rights" in shy["error"]["text"]
    assert "abc123secret" not in str(told)


@pytest.mark.parametrize("gives_id", [True, False])
async def test_a_secret_in_a_peers_last_words_is_told_to_nobody(gateway: Gateway, gives_id: bool) -> None:
    """As of a proxy that says which address it could not reach."""
    server = await gateway.tool_server("Fan", server_id="fan" if gives_id else "")
    await server.close(1011, "no route to wss://host/?token=abc123secret")
    told = await until(gateway, "disconnected")
    assert told["tool_servers"][0]["cause"].startswith("1011 no route to")
    assert "abc123secret" not in str(told)


async def test_two_programs_that_share_a_server_id_are_found_out(gateway: Gateway) -> None:
    await gateway.tool_server("Fan", server_id="fan")
    for _ in range(3):
        await gateway.tool_server("Fan", server_id="fan", is_awaited=False)
        await until_free(gateway)
    told = await until(gateway, "shared_server_id", "fan")
    assert told["tool_servers"][0]["takeovers_last_minute"] >= 3
    assert "two programs share" in told["verdict"]["text"]


async def until_free(gateway: Gateway) -> None:
    """Wait until only the newest connection is left."""

    async def only_one() -> bool:
        links = gateway.worker.tool_links  # type: ignore[attr-defined]  # a worker of this process
        return len(links) == 1 and links[0].row is not None

    await wait_until(only_one, "the older connection is gone")


async def test_names_that_collide_are_listed_with_their_holder_and_the_reason(cluster: StartCluster) -> None:
    [gateway] = await cluster(1)
    await gateway.tool_server("One", [echo("blow")], server_id="one")
    await gateway.tool_server("Two", [echo("blow"), echo("lamp.on")], server_id="two")
    told = await status(gateway)
    [two] = servers(told, "two")
    assert [tool["listed_as"] for tool in two["tools"]] == ["two__blow", "lamp_on"]
    assert "belongs to one" in two["tools"][0]["why"]
    assert "were replaced" in two["tools"][1]["why"]
    others = [{"server_id": "two", "tool": "blow", "listed_as": "two__blow"}]
    assert told["names"]["collisions"] == [{"name": "blow", "held_by": "one", "until": None, "others": others}]
    robot = await gateway.robot()
    listed = sorted(tool["listed_as"] for one in told["tool_servers"] for tool in one["tools"])
    assert sorted(await robot.names()) == listed


async def test_another_agent_is_not_told_of(gateway: Gateway) -> None:
    await gateway.tool_server("secret-name", [echo("secret_tool")], agent="other")
    assert "secret" not in str(await status(gateway))


@pytest.mark.parametrize(("query", "expected"), [("", 400), ("?token=", 400), ("?token=nonsense", 401)])
async def test_without_a_good_token_nothing_is_told(gateway: Gateway, query: str, expected: int) -> None:
    await gateway.tool_server("secret-name")
    response = await gateway.get(f"/mcp_endpoint/status{query}")
    assert response.status == expected
    assert "secret" not in response.text


async def test_it_is_found_behind_any_prefix(gateway: Gateway) -> None:
    token = console_token(AGENT, KEY)
    assert (await gateway.get(f"/a/b/mcp_endpoint/status?token={token}")).status == 200


async def test_a_flood_of_enquiries_is_refused_for_a_while(gateway: Gateway) -> None:
    path = f"/mcp_endpoint/status?token={console_token(AGENT, KEY)}"
    answers: list[Any] = []
    while len(answers) < 500 and (not answers or answers[-1].status == 200):
        answers.append(await gateway.get(path))
    assert answers[-1].status == 503
    assert answers[-1].headers["retry-after"]


async def test_a_flood_without_a_good_token_keeps_nobody_from_being_told(gateway: Gateway) -> None:
    for _ in range(2 * STATUS_PER_SECOND):
        assert (await gateway.get("/mcp_endpoint/status?token=nonsense")).status == 401
    await status(gateway)


async def test_an_agent_with_many_tools_that_asks_all_the_time_is_refused_and_others_are_not(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enquiry, "TOOLS_AT_ONCE", 3 * (TOOLS_EACH + 100))
    monkeypatch.setattr(enquiry, "TOOLS_PER_SECOND", 0.001)
    door = enquiry.Enquiries(gateway.worker.room.backplane, gateway.worker.room.agents, grace_seconds=30.0)  # type: ignore[attr-defined]  # a worker of this process
    await gateway.tool_server("Fan", [echo(f"tool{number}") for number in range(100)], server_id="fan")
    told = [await door.status_of(Credential(AGENT), 1000.0) for _ in range(3)]
    assert told[-1]["tool_servers"][0]["tools_count"] == 100
    with pytest.raises(TooOften):
        await door.status_of(Credential(AGENT), 1000.0)
    await door.status_of(Credential("another"), 1000.0)


async def test_no_more_than_so_many_enquiries_wait_for_the_store(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = gateway.worker.room  # type: ignore[attr-defined]  # a worker of this process
    snapshot, thawed = room.backplane.snapshot, asyncio.Event()

    async def frozen(agent: str) -> Snapshot:
        await thawed.wait()
        found: Snapshot = await snapshot(agent)
        return found

    monkeypatch.setattr(room.backplane, "snapshot", frozen)
    door = enquiry.Enquiries(room.backplane, room.agents, grace_seconds=30.0)
    async with asyncio.TaskGroup() as tasks:
        agents = [Credential(f"agent {number}") for number in range(OPEN_MAX)]
        waiting = [tasks.create_task(door.status_of(agent, 1000.0)) for agent in agents]
        await asyncio.sleep(0)
        with pytest.raises(TooOften):
            await door.status_of(Credential("one more"), 1000.0)
        thawed.set()
    assert {task.result()["verdict"]["code"] for task in waiting} == {"never_connected"}
    await door.status_of(Credential("one more"), 1000.0)


async def test_tool_sets_are_read_from_the_store_once_and_put_together_off_the_event_loop(
    cluster: StartCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await cluster(2)
    await first.tool_server("Fan", [echo("blow")], server_id="fan")
    backplane = second.worker.room.backplane  # type: ignore[attr-defined]  # a worker of this process
    toolsets, answer = backplane.toolsets, status_module.answer
    read, threads = [], set()

    async def toolsets_noted(digests: set[str]) -> dict[str, bytes]:
        read.append(digests)
        found: dict[str, bytes] = await toolsets(digests)
        return found

    def answer_noted(*of: Any, **more: Any) -> dict[str, Any]:
        threads.add(threading.current_thread())
        return answer(*of, **more)

    monkeypatch.setattr(backplane, "toolsets", toolsets_noted)
    monkeypatch.setattr(status_module, "answer", answer_noted)
    for _ in range(3):
        assert (await status(second))["tool_servers"][0]["tools"] == [{"tool": "blow", "listed_as": "blow"}]
    assert len(read) == 1
    assert threads
    assert threading.main_thread() not in threads


@pytest.mark.settings(redis_timeout_seconds=0.3, lease_seconds=60.0)
async def test_while_the_store_is_away_it_tells_what_this_worker_knows_and_says_so(
    pair: tuple[Gateway, Gateway], own_server: RedisServer
) -> None:
    first, second = pair
    await first.tool_server("Fan", [echo("blow")], server_id="fan")
    own_server.stop()
    told = await status(first)
    assert (told["source"], told["workers"]) == ("worker", 1)
    [fan] = told["tool_servers"]
    assert (fan["state"], fan["verdict"]["code"]) == ("connected", "connected")
    assert fan["tools"] == [{"tool": "blow", "listed_as": "blow"}]
    response = await second.get(f"/mcp_endpoint/status?token={console_token(AGENT, KEY)}")
    assert response.status == 503
    assert response.headers["retry-after"]
    assert "127.0.0.1" not in response.text
