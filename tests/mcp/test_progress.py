"""`notifications/progress`: translated both ways, only ever forward, bounded in rate, and a reason to wait longer."""

import asyncio
from typing import Any

import pytest

from tests.peers.robot import Robot
from tests.peers.tool_server import ToolServer
from tests.peers.tools import Call, echo, held, reporting, text_of
from tests.support.gateway import Gateway

PROGRESS = "notifications/progress"


async def start(server: ToolServer, robot: Robot, token: Any) -> Call:
    """Start a call of `slow` under this token; returns it as the tool server got it."""
    count = len(server.calls)
    await robot.start_call("slow", _meta={"progressToken": token})
    return await server.until_called(count + 1)


@pytest.mark.parametrize("token", ["mine", "", 7, 0], ids=repr)
async def test_progress_comes_back_under_the_robots_own_token(gateway: Gateway, token: Any) -> None:
    server = await gateway.tool_server(tools=[held()])
    robot = await gateway.robot()
    call = await start(server, robot, token)
    await call.progress(1, total=2, message="half")
    [params] = await robot.until_progress()
    assert params == {"progressToken": token, "progress": 1, "total": 2, "message": "half"}
    assert type(params["progressToken"]) is type(token)


async def test_equal_tokens_of_two_robots_are_told_apart(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[held()])
    robots = [await gateway.robot() for _ in range(2)]
    calls = [await start(server, robot, 1) for robot in robots]
    assert calls[0].progress_token != calls[1].progress_token
    await calls[1].progress(5)
    assert (await robots[1].until_progress())[0]["progress"] == 5
    await robots[0].ping()
    assert not robots[0].received(PROGRESS)


async def test_a_robot_without_a_token_gets_no_progress(gateway: Gateway) -> None:
    """The gateway may still ask the tool server for it, to learn that the call lives; it swallows what comes."""
    server = await gateway.tool_server(tools=[held()])
    robot = await gateway.robot()
    request_id = await robot.start_call("slow")
    call = await server.until_called()
    if call.progress_token is not None:
        await call.progress(1)
    await call.answer("done")
    assert text_of(await robot.answer(request_id)) == "done"
    assert not robot.received(PROGRESS)


async def test_other_meta_stays_beside_the_translated_token(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[held()])
    robot = await gateway.robot()
    await robot.start_call("slow", _meta={"progressToken": "mine", "traceparent": "00-1-2-01"})
    meta = (await server.until_called()).params["_meta"]
    assert meta["traceparent"] == "00-1-2-01"
    assert meta["progressToken"] != "mine"


async def test_progress_only_ever_increases(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[held()])
    robot = await gateway.robot()
    call = await start(server, robot, "t")
    for step in (0.2, 0.2, 0.1, -1, 0.4, 0.3):
        await call.progress(step)
    await call.answer("done")
    await robot.until(lambda: bool(robot.answers("r-2")), "the call is answered")
    steps = [message["params"]["progress"] for message in robot.received(PROGRESS)]
    assert steps
    assert steps == sorted(set(steps))


@pytest.mark.parametrize("value", ["x", None, True, [], {}], ids=repr)
async def test_progress_that_is_no_number_is_dropped(gateway: Gateway, value: Any) -> None:
    server = await gateway.tool_server(tools=[held()])
    robot = await gateway.robot()
    call = await start(server, robot, "t")
    params = {"progressToken": call.progress_token, "progress": value}
    await server.send({"jsonrpc": "2.0", "method": PROGRESS, "params": params})
    await call.answer("done")
    assert text_of(await robot.answer("r-2")) == "done"
    assert not robot.received(PROGRESS)


async def test_a_flood_of_progress_is_thinned(gateway: Gateway) -> None:
    """Receivers must be protected by rate limits (MCP, progress); the answer comes all the same."""
    await gateway.tool_server(tools=[reporting("flood", [float(step) for step in range(1, 1001)])])
    robot = await gateway.robot()
    assert text_of(await robot.call("flood", _meta={"progressToken": "t"}, seconds=10)) == "done"
    assert 1 <= len(robot.received(PROGRESS)) <= 500


async def test_progress_after_the_answer_is_dropped(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[held(), echo()])
    robot = await gateway.robot()
    call = await start(server, robot, "t")
    await call.answer("done")
    await call.progress(9)
    await robot.call("echo")
    assert not robot.received(PROGRESS)


async def test_progress_never_overtakes_its_calls_answer(gateway: Gateway) -> None:
    await gateway.tool_server(tools=[reporting("steps", [1, 2, 3])])
    robot = await gateway.robot()
    request_id = await robot.start_call("steps", _meta={"progressToken": "t"})
    await robot.answer(request_id)
    await robot.ping()
    position = robot.messages.index(robot.answers(request_id)[0])
    assert not [message for message in robot.messages[position:] if message.get("method") == PROGRESS]


@pytest.mark.parametrize("token", ["unknown", 99, None, [1], {"a": 1}], ids=repr)
async def test_progress_under_an_unknown_token_is_dropped(gateway: Gateway, token: Any) -> None:
    server = await gateway.tool_server(tools=[held(), echo()])
    robot = await gateway.robot()
    await start(server, robot, "t")
    await server.send({"jsonrpc": "2.0", "method": PROGRESS, "params": {"progressToken": token, "progress": 1}})
    await robot.call("echo")
    assert not robot.received(PROGRESS)
    assert server.is_open


@pytest.mark.settings(call_seconds=1.0)
async def test_progress_keeps_a_call_alive_beyond_its_deadline(gateway: Gateway) -> None:
    """Each report moves the deadline; what does not move is the hard maximum (design §6.5)."""
    server = await gateway.tool_server(tools=[held()])
    robot = await gateway.robot()
    call = await start(server, robot, "t")
    for step in range(1, 7):
        await wait(0.3)
        await call.progress(step)
    await call.answer("late, but alive")
    assert text_of(await robot.answer("r-2")) == "late, but alive"


@pytest.mark.settings(call_seconds=0.5, call_max_seconds=1.2)
async def test_progress_does_not_keep_a_call_alive_for_ever(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[held()])
    robot = await gateway.robot()
    call = await start(server, robot, "t")
    for step in range(1, 30):
        if robot.answers("r-2"):
            break
        await call.progress(step)
        await wait(0.1)
    assert (await robot.answer("r-2"))["error"]["code"] == -32002
    await server.until_cancelled(call)


async def wait(seconds: float) -> None:
    """Let time pass: the one thing that these tests are about."""
    await asyncio.sleep(seconds)


async def test_progress_that_is_too_large_for_a_robot_is_told_as_numbers(gateway: Gateway) -> None:
    """A frame of 1 MiB would end the robot's connection, and with it all its calls."""
    server = await gateway.tool_server(tools=[held()])
    robot = await gateway.robot()
    call = await start(server, robot, 7)
    await call.progress(1, total=3, message="x" * 1_500_000)
    assert await robot.until_progress() == [{"progressToken": 7, "progress": 1, "total": 3}]
