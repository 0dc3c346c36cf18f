"""Connections that end and deadlines that pass: every call is answered, with a code and the truth about execution."""

import pytest

from tests.peers.tool_server import ToolServer
from tests.peers.tools import echo, held, text_of
from tests.support.gateway import AGENT, Gateway


@pytest.mark.parametrize("ending", ["close", "vanish"])
async def test_a_lost_tool_server_ends_its_calls_at_once(gateway: Gateway, ending: str) -> None:
    server = await gateway.tool_server(tools=[held()])
    robot = await gateway.robot()
    ids = [await robot.start_call("slow") for _ in range(3)]
    await server.until_called(3)
    await getattr(server, ending)()
    for request_id in ids:
        error = (await robot.answer(request_id, seconds=3))["error"]
        assert error["code"] == -32002
        assert error["data"]["executed"] == "unknown"
        assert error["data"]["agent_id"] == AGENT


async def test_the_calls_of_another_tool_server_go_on(gateway: Gateway) -> None:
    lost = await gateway.tool_server("lost", [held("slow_a")])
    kept = await gateway.tool_server("kept", [held("slow_b")])
    robot = await gateway.robot()
    first, second = await robot.start_call("slow_a"), await robot.start_call("slow_b")
    await lost.until_called()
    call = await kept.until_called()
    await lost.vanish()
    await robot.answer(first)
    await call.answer("done")
    assert text_of(await robot.answer(second)) == "done"


@pytest.mark.settings(call_seconds=0.3)
async def test_a_call_that_is_not_answered_ends_at_its_deadline(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[held()])
    robot = await gateway.robot()
    request_id = await robot.start_call("slow")
    call = await server.until_called()
    error = (await robot.answer(request_id))["error"]
    assert error["code"] == -32002
    assert error["data"]["executed"] == "unknown"
    await server.until_cancelled(call)


@pytest.mark.settings(call_seconds=0.3)
async def test_an_answer_after_the_deadline_is_discarded(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[held(), echo()])
    robot = await gateway.robot()
    request_id = await robot.start_call("slow")
    call = await server.until_called()
    await robot.answer(request_id)
    await call.answer("too late")
    assert "result" in await robot.call("echo")
    assert len(robot.answers(request_id)) == 1
    assert server.is_open


async def test_an_error_of_the_gateway_is_one_text_in_two_languages(gateway: Gateway) -> None:
    robot = await gateway.robot()
    message = (await robot.call("anything"))["error"]["message"]
    chinese, separator, english = message.partition(" / ")
    assert separator
    assert any("\u4e00" <= character <= "\u9fff" for character in chinese)
    assert english.isascii()


@pytest.mark.settings(frame_bytes=256 * 1024)
async def test_a_frame_beyond_the_limit_ends_that_tool_server_only(gateway: Gateway) -> None:
    big = await gateway.tool_server("big", [held("slow_a")])
    await gateway.tool_server("small", [echo()])
    robot = await gateway.robot()
    request_id = await robot.start_call("slow_a")
    call = await big.until_called()
    await call.answer("x" * 300_000)
    assert (await big.until_closed()).code == 1009
    assert (await robot.answer(request_id))["error"]["code"] == -32002
    assert "result" in await robot.call("echo")


async def test_a_robot_notices_nothing_of_a_tool_server_that_never_initializes(gateway: Gateway) -> None:
    mute = ToolServer(gateway.mcp_url())
    mute.answers_initialize = False
    await gateway.attach(mute, is_awaited=False)
    await mute.until_received("initialize")
    await gateway.tool_server(tools=[echo()])
    robot = await gateway.robot()
    assert "result" in await robot.call("echo")
