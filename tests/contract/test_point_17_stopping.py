"""Point 17: a worker that stops says so with 1012 and a reason; tools of a tool server that left stay for a while.

The drain itself (letting robots finish, moving tool servers one by one) comes later.
"""

import pytest

from gateway.settings import Settings
from tests.peers.tools import echo, held, text_of
from tests.support.gateway import Gateway


async def test_a_stopping_worker_closes_with_1012_and_a_reason(gateway: Gateway) -> None:
    server = await gateway.tool_server()
    robot = await gateway.robot()
    await gateway.worker.stop()
    for peer in (server, robot):
        closed = await peer.until_closed()
        assert closed.code == 1012
        assert closed.reason


async def test_a_call_in_flight_is_answered_before_the_worker_is_gone(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[held()])
    robot = await gateway.robot()
    request_id = await robot.start_call("slow")
    await server.until_called()
    await gateway.worker.stop()
    await robot.until_closed()
    [answer] = robot.answers(request_id)
    assert answer["error"]["code"] in (-32002, -32003)


async def test_the_tools_of_one_that_left_stay_listed_for_a_while(gateway: Gateway) -> None:
    """Bridges come back after 2 s … 10 min: their tools do not flicker."""
    assert Settings().grace_seconds == 30
    server = await gateway.tool_server()
    robot = await gateway.robot()
    assert await robot.names() == ["echo"]
    await server.vanish()
    await gateway.until_connected(0)
    assert await robot.names() == ["echo"]
    assert not robot.received("notifications/tools/list_changed")


@pytest.mark.settings(park_seconds=0.3)
async def test_a_call_to_one_that_left_names_it_and_since_when(gateway: Gateway) -> None:
    server = await gateway.tool_server(server_id="kitchen")
    robot = await gateway.robot()
    await robot.sees("echo")
    await server.vanish()
    error = (await robot.call("echo"))["error"]
    assert error["code"] == -32001
    assert error["data"]["executed"] is False
    assert "kitchen" in error["message"]


async def test_it_comes_back_as_the_one_it_was(gateway: Gateway) -> None:
    server = await gateway.tool_server("Calculator", [echo("calculator")])
    robot = await gateway.robot()
    await robot.sees("calculator")
    await server.vanish()
    await gateway.until_connected(0)
    again = await gateway.tool_server("Calculator", [echo("calculator")])
    assert await robot.names() == ["calculator"]
    assert text_of(await robot.call("calculator", {"text": "back"})) == "back"
    assert len(again.calls) == 1
    assert not robot.received("notifications/tools/list_changed")


@pytest.mark.settings(grace_seconds=0.1, park_seconds=0.1)
async def test_after_the_grace_its_tools_are_gone(gateway: Gateway) -> None:
    server = await gateway.tool_server()
    robot = await gateway.robot()
    await robot.sees("echo")
    await server.vanish()
    await robot.sees(without=["echo"])
    error = (await robot.call("echo"))["error"]
    assert error["code"] in (-32001, -32602)
    assert error["data"]["executed"] is False
