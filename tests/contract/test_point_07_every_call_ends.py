"""Point 7: every call ends, whatever becomes of the tool server, before a xiaozhi-server gives up at 30 s."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from gateway.settings import Settings
from tests.peers.quirks import McpHub
from tests.peers.tools import echo, held, reporting
from tests.support.gateway import Gateway


def test_the_default_deadline_is_below_the_thirty_seconds_of_a_xiaozhi_server() -> None:
    assert Settings().call_seconds < 30
    assert Settings().call_max_seconds == 300


async def test_a_xiaozhi_server_hears_at_once_that_its_tool_is_gone(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[held()])
    robot = await gateway.xiaozhi()
    async with asyncio.TaskGroup() as tasks:
        call = tasks.create_task(outcome(robot.call_tool("slow")))
        await server.until_called()
        await server.vanish()
    assert "MCP接入点错误" in call.result()
    assert "server" in call.result()


async def outcome(call: Coroutine[Any, Any, str]) -> str:
    """The text of the call's answer, or of the exception that it raised."""
    try:
        async with asyncio.timeout(5):
            return await call
    except RuntimeError as error:
        return str(error)


@pytest.mark.settings(call_seconds=0.3)
async def test_a_call_that_a_hub_never_answers_ends_at_the_deadline(gateway: Gateway) -> None:
    """xiaozhi-mcphub leaves a failing call without any answer."""
    hub = await gateway.attach(McpHub(gateway.mcp_url(), tools=[echo("gone")]))
    robot = await gateway.robot()
    await robot.sees("gone")
    hub.tools = []
    error = (await robot.call("gone"))["error"]
    assert error["code"] == -32002
    assert hub.is_open


async def test_an_unknown_tool_is_answered_at_once(gateway: Gateway) -> None:
    await gateway.tool_server()
    robot = await gateway.robot()
    assert (await robot.call("no_such_tool"))["error"]["code"] == -32602


@pytest.mark.settings(call_seconds=1.0, call_max_seconds=5.0)
async def test_progress_never_makes_a_xiaozhi_server_wait_longer(gateway: Gateway) -> None:
    """It gives up by itself, so its calls end at the default deadline whatever progress says (design §6.5)."""
    server = await gateway.tool_server(tools=[held()])
    robot = await gateway.xiaozhi()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(outcome(robot.call_tool("slow")))
        call = await server.until_called()
        step = 0
        while not task.done() and step < 40:
            step += 1
            if call.progress_token is not None:
                await call.progress(step)
            await asyncio.sleep(0.1)
        assert step < 35
    assert "MCP接入点错误" in task.result()


async def test_many_calls_at_once_all_end(gateway: Gateway) -> None:
    await gateway.tool_server(tools=[reporting("work", [1, 2])])
    robot = await gateway.robot()
    ids = [await robot.start_call("work") for _ in range(60)]
    for request_id in ids:
        assert "result" in await robot.answer(request_id)
