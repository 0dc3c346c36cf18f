"""Every limit on calls, when it strikes: a clear error that names it, for the one at fault (design §9)."""

from typing import Any

import pytest

from tests.peers.robot import Robot
from tests.peers.tools import echo, held, text_of
from tests.support.gateway import Gateway


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
    of_error = {"reason": "overloaded", "executed": False, "agent_id": "home"}
    assert all(error["data"] == {**of_error, "call": error["data"]["call"]} for error in refused)
    assert "result" in await neighbour.call("echo")
    assert robot.is_open
