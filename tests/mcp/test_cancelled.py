"""`notifications/cancelled` and robots that leave: the tool server is told, and nobody is answered any more."""

from typing import Any

import pytest

from tests.peers.tools import echo, held, text_of
from tests.support.gateway import Gateway


async def test_a_cancelled_call_is_cancelled_at_the_tool_server_and_never_answered(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[held(), echo()])
    robot = await gateway.robot()
    request_id = await robot.start_call("slow")
    call = await server.until_called()
    await robot.cancel(request_id)
    await server.until_cancelled(call)
    await call.answer("too late")
    await robot.call("echo")
    assert not robot.answers(request_id)


async def test_the_reason_travels_on(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[held()])
    robot = await gateway.robot()
    request_id = await robot.start_call("slow")
    call = await server.until_called()
    await robot.cancel(request_id, "the user said stop")
    params = (await server.until_received("notifications/cancelled"))["params"]
    assert params["requestId"] == call.id
    assert params["reason"] == "the user said stop"


async def test_only_the_named_call_is_cancelled(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[held()])
    robot = await gateway.robot()
    first = await robot.start_call("slow", id=1)
    second = await robot.start_call("slow", id="1")
    await server.until_called(2)
    await robot.cancel("1")
    await server.until_cancelled(server.calls[1])
    await server.calls[0].answer("kept")
    assert text_of(await robot.answer(first)) == "kept"
    assert server.cancelled == [server.calls[1].id]
    assert not robot.answers(second)


async def test_a_robot_cannot_cancel_another_robots_call(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[held()])
    mine, other = await gateway.robot(), await gateway.robot()
    request_id = await mine.start_call("slow", id=1)
    call = await server.until_called()
    await other.cancel(1)
    await other.ping()
    await call.answer("done")
    assert text_of(await mine.answer(request_id)) == "done"
    assert not server.cancelled


@pytest.mark.parametrize(
    "params",
    [None, {}, {"requestId": None}, {"requestId": "unknown"}, {"requestId": [1]}, {"requestId": True}],
    ids=repr,
)
async def test_a_cancellation_of_nothing_is_ignored(gateway: Gateway, params: Any) -> None:
    server = await gateway.tool_server(tools=[held()])
    robot = await gateway.robot()
    request_id = await robot.start_call("slow", id=1)
    call = await server.until_called()
    await robot.notify("notifications/cancelled", params)
    await robot.ping()
    await call.answer("done")
    assert text_of(await robot.answer(request_id)) == "done"
    assert not server.cancelled


async def test_a_cancellation_after_the_answer_is_ignored(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[echo()])
    robot = await gateway.robot()
    await robot.call("echo", id=1)
    await robot.cancel(1)
    await robot.call("echo")
    assert not server.cancelled


async def test_initialize_is_never_cancelled(gateway: Gateway) -> None:
    robot = await gateway.robot(is_ready=False)
    answer = await robot.initialize()
    await robot.cancel(answer["id"])
    assert await robot.names() == []


async def test_a_robot_that_leaves_cancels_its_calls(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[held()])
    leaving, staying = await gateway.robot(), await gateway.robot()
    for number, robot in enumerate((leaving, leaving, staying), start=1):
        await robot.start_call("slow")
        await server.until_called(number)
    await leaving.close()
    for call in server.calls[:2]:
        await server.until_cancelled(call)
    assert len(server.cancelled) == 2


async def test_a_robot_that_vanishes_cancels_its_calls(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[held()])
    robot = await gateway.robot()
    await robot.start_call("slow")
    call = await server.until_called()
    await robot.vanish()
    await server.until_cancelled(call)


async def test_a_late_answer_to_a_robot_that_left_harms_nobody(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[held(), echo()])
    leaving, staying = await gateway.robot(), await gateway.robot()
    await leaving.start_call("slow", id=1)
    call = await server.until_called()
    await leaving.vanish()
    await server.until_cancelled(call)
    await call.answer("too late")
    assert "result" in await staying.call("echo", id=1)
    assert len(staying.answers(1)) == 1


async def test_a_cancellation_from_the_tool_server_is_ignored(gateway: Gateway) -> None:
    """It may cancel only requests of its own."""
    server = await gateway.tool_server(tools=[held()])
    robot = await gateway.robot()
    request_id = await robot.start_call("slow")
    call = await server.until_called()
    await server.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": call.id}})
    await call.answer("done")
    assert text_of(await robot.answer(request_id)) == "done"


async def test_an_id_can_be_used_again_after_its_cancellation(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[held(), echo()])
    robot = await gateway.robot()
    await robot.start_call("slow", id=1)
    call = await server.until_called()
    await robot.cancel(1)
    assert "result" in await robot.call("echo", {"text": "new"}, id=1)
    await call.answer("old")
    await robot.call("echo")
    assert [text_of(answer) for answer in robot.answers(1)] == ["new"]
