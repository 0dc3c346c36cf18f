"""Every limit on calls, when it strikes: a clear error that names it, for the one at fault (design §9)."""

import asyncio
import socket
from dataclasses import replace
from typing import Any

import pytest

from gateway.flow import ANSWERS_BYTES_MAX, TURN_BYTES_MAX
from tests.cluster.inside import worker_of
from tests.peers.raw import TEXT, masked_frame
from tests.peers.robot import Robot
from tests.peers.tools import Tool, echo, held, text_of
from tests.support.gateway import Gateway
from tests.support.waiting import wait_until
from tests.wire.little_app import handshake


async def refusal(robot: Robot, tool: str) -> dict[str, Any]:
    """The error that a call gets, which the limits must not let through."""
    error: dict[str, Any] = (await robot.call(tool))["error"]
    assert error["code"] == -32003
    assert error["data"]["reason"] == "overloaded"
    assert error["data"]["executed"] is False
    return error


@pytest.mark.settings(calls_per_connection=2)
async def test_a_robot_with_too_many_open_calls_is_refused_more_and_others_are_not(gateway: Gateway) -> None:
    slow = await gateway.tool_server("slow", [held("wait")])
    await gateway.tool_server("quick", [echo()])
    robot, other = await gateway.robot(), await gateway.robot()
    await robot.sees("wait", "echo")
    waiting = [await robot.start_call("wait") for _ in range(2)]
    assert "GATEWAY_CALLS_PER_CONNECTION=2" in (await refusal(robot, "echo"))["message"]
    assert text_of(await other.call("echo", {"text": "x"})) == "x"
    for number, request_id in enumerate(waiting, 1):
        await (await slow.until_called(number)).answer("done")
        assert text_of(await robot.answer(request_id)) == "done"
    assert text_of(await robot.call("echo", {"text": "again"})) == "again"


@pytest.mark.settings(calls_per_connection=2)
async def test_a_tool_server_is_given_no_more_than_it_may_have_open(gateway: Gateway) -> None:
    slow = await gateway.tool_server("slow", [held("wait")])
    robots = [await gateway.robot() for _ in range(3)]
    await robots[0].sees("wait")
    for robot in robots[:2]:
        await robot.start_call("wait")
    await slow.until_called(2)
    await refusal(robots[2], "wait")
    assert len(slow.calls) == 2


@pytest.mark.settings(calls_per_worker=3)
async def test_a_full_worker_sheds_calls(gateway: Gateway) -> None:
    slow = await gateway.tool_server("slow", [held("wait")])
    robots = [await gateway.robot() for _ in range(4)]
    await robots[0].sees("wait")
    for robot in robots[:3]:
        await robot.start_call("wait")
    await slow.until_called(3)
    assert "GATEWAY_CALLS_PER_WORKER=3" in (await refusal(robots[3], "wait"))["message"]


@pytest.mark.settings(calls_bytes=300_000)
async def test_large_requests_that_wait_together_are_bounded_and_small_ones_go_on_after(gateway: Gateway) -> None:
    slow = await gateway.tool_server("slow", [held("wait"), echo()])
    robot = await gateway.robot()
    await robot.sees("wait", "echo")
    waiting = [await robot.start_call("wait", {"text": "x" * 100_000}) for _ in range(2)]
    await slow.until_called(2)
    error = (await robot.call("echo", {"text": "x" * 200_000}))["error"]
    assert error["data"]["executed"] is False
    assert "GATEWAY_CALLS_BYTES=300000" in error["message"]
    for number, request_id in enumerate(waiting, 1):
        await (await slow.until_called(number)).answer("done")
        assert text_of(await robot.answer(request_id)) == "done"
    assert text_of(await robot.call("echo", {"text": "y" * 200_000})) == "y" * 200_000


@pytest.mark.settings(calls_per_second=5.0)
async def test_an_agent_that_calls_too_often_is_slowed_down_and_no_other_agent_is(gateway: Gateway) -> None:
    await gateway.tool_server(tools=[echo()])
    await gateway.tool_server(tools=[echo()], agent="neighbour")
    robot, neighbour = await gateway.robot(), await gateway.robot(agent="neighbour")
    await robot.sees("echo")
    await neighbour.sees("echo")
    answers = [await robot.call("echo") for _ in range(40)]
    refused = [answer["error"] for answer in answers if "error" in answer]
    assert refused
    assert all(error["code"] == -32004 and "GATEWAY_CALLS_PER_SECOND=5" in error["message"] for error in refused)
    of_error = {"reason": "quota", "executed": False, "agent_id": "home"}
    told = ("call", "retry_after_ms")
    assert all(error["data"] == {**of_error, **{name: error["data"][name] for name in told}} for error in refused)
    assert all(0 < error["data"]["retry_after_ms"] <= 200 for error in refused)
    assert "result" in await neighbour.call("echo")
    assert robot.is_open


@pytest.mark.settings(catalog_bytes=64 * 1024)
async def test_an_agents_tools_are_bounded_in_bytes_over_all_its_tool_servers(gateway: Gateway) -> None:
    large = [Tool(f"tool_{number}", echo().handler, "x" * 10_000) for number in range(4)]
    await gateway.tool_server("one", large, server_id="one")
    await gateway.tool_server("two", [replace(tool, name=f"two_{tool.name}") for tool in large], server_id="two")
    robot = await gateway.robot()
    names = await robot.names()
    assert {tool.name for tool in large} <= set(names)
    assert len(names) == 6, "what fits of the newcomer's"
    refused = await gateway.tool_server("three", large, server_id="three", is_awaited=False)
    closed = await refused.until_closed()
    assert closed.code == 1008
    assert "GATEWAY_CATALOG_BYTES=65536" in closed.reason


@pytest.mark.settings(tools_per_agent=100)
async def test_an_agent_may_have_limits_of_its_own_for_tool_servers_and_tools(gateway: Gateway) -> None:
    backplane = worker_of(gateway).backplane
    await backplane.write_entry("policy", "home", b'{"limits":{"servers_per_agent":1,"tools_per_agent":2}}')
    policies = worker_of(gateway).agents.policies
    await wait_until(lambda: policies.of("home").limit("servers_per_agent", 64) == 1, "the policy is in force")
    await gateway.tool_server("one", [echo("a"), echo("b"), echo("c")], server_id="one")
    assert len(await (await gateway.robot()).names()) == 2
    refused = await gateway.tool_server("two", [echo("d")], server_id="two", is_awaited=False)
    closed = await refused.until_closed()
    assert "GATEWAY_SERVERS_PER_AGENT=1" in closed.reason
    await gateway.tool_server("one", [echo(name) for name in "abcd"], agent="another", server_id="one")
    assert len(await (await gateway.robot(agent="another")).names()) == 4


# Robots that ask and read nothing


async def deaf_robot(gateway: Gateway) -> socket.socket:
    """A robot's socket after its handshake; nothing more is read from it, and its buffers are small."""
    before = len(worker_of(gateway).hub.robots)
    robot = socket.socket()
    robot.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    robot.setblocking(False)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(5):
        await loop.sock_connect(robot, ("127.0.0.1", gateway.port))
        await loop.sock_sendall(robot, handshake(gateway.call_url().partition(str(gateway.port))[2]))
        assert b" 101 " in await loop.sock_recv(robot, 65536)
    await wait_until(lambda: len(worker_of(gateway).hub.robots) > before, "it is in")
    return robot


async def most_held(gateway: Gateway, robot: socket.socket, request: bytes) -> int:
    """How many bytes the gateway held for the robot at the most, while that asked on and on until it was dropped."""
    link = list(worker_of(gateway).hub.robots.values())[-1]
    loop, most = asyncio.get_running_loop(), 0
    try:
        async with asyncio.timeout(20):
            while not link.connection.wire.is_slow:
                await loop.sock_sendall(robot, masked_frame(TEXT, request) * 50)
                most = max(most, link.connection.wire.outbox_bytes)
    except ConnectionError:
        pass
    finally:
        robot.close()
    await wait_until(lambda: worker_of(gateway).meters.slow_peers_total.of() == 1, "it is dropped, and counted")
    return most


@pytest.mark.parametrize("method", ["ping", "tools/call"])
async def test_a_robot_that_asks_and_reads_no_answer_is_dropped_long_before_the_outbox_is_full(
    gateway: Gateway, method: str
) -> None:
    robot = await deaf_robot(gateway)
    request = b'{"jsonrpc":"2.0","id":"%s","method":"%s"}' % (b"x" * 900, method.encode())
    assert await most_held(gateway, robot, request) < TURN_BYTES_MAX + 2 * ANSWERS_BYTES_MAX
    assert "result" in await (await gateway.robot()).ping()


@pytest.mark.settings(result_bytes=128 * 1024)
async def test_a_robot_that_reads_no_list_is_dropped_after_a_few_of_them(gateway: Gateway) -> None:
    await gateway.tool_server(tools=[Tool(f"tool_{number}", echo().handler, "x" * 2000) for number in range(60)])
    other = await gateway.robot()
    await other.sees("tool_0")
    robot = await deaf_robot(gateway)
    assert await most_held(gateway, robot, b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}') < 6 * 128 * 1024
    assert "result" in await other.ping()
