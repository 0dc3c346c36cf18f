"""Bridges lose their connection and dial again; for a while their tools stay listed, and calls wait for them."""

from tests.peers.tools import echo, held, text_of
from tests.support.gateway import Gateway


async def test_a_tool_server_that_redials_finds_its_place_again(gateway: Gateway) -> None:
    server = await gateway.tool_server("lights", [echo("switch")])
    robot = await gateway.robot()
    await server.vanish()
    await gateway.until_connected(0)
    assert await robot.names() == ["switch"]

    await gateway.tool_server("lights", [echo("switch")])

    assert await robot.names() == ["switch"]
    assert list(await gateway.servers()) == ["lights"]


async def test_a_call_that_was_not_sent_yet_waits_for_the_redial(gateway: Gateway) -> None:
    server = await gateway.tool_server("lights", [echo("switch")])
    robot = await gateway.robot()
    await robot.sees("switch")
    await server.vanish()
    await gateway.until_connected(0)

    request_id = await robot.start_call("switch", {"text": "on"})
    await gateway.tool_server("lights", [echo("switch")])

    assert text_of(await robot.answer(request_id)) == "on"


async def test_a_call_that_was_sent_is_never_sent_again(gateway: Gateway) -> None:
    """Whether the tool has run can't be known, so the robot is told just that."""
    server = await gateway.tool_server("lights", [held("switch")])
    robot = await gateway.robot()
    request_id = await robot.start_call("switch")
    await server.until_called()
    await server.vanish()

    error = (await robot.answer(request_id))["error"]
    assert error["code"] == -32002
    assert error["data"]["executed"] == "unknown"
