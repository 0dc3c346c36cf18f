"""Every call ends in time; a tool that tells of its progress gets more of it."""

import asyncio

import pytest

from tests.peers.tools import held, text_of
from tests.support.gateway import Gateway


@pytest.mark.settings(call_seconds=0.3)
async def test_a_call_that_nobody_answers_ends_with_an_error(gateway: Gateway) -> None:
    await gateway.tool_server("oven", [held("bake")])
    robot = await gateway.robot()

    error = (await robot.call("bake"))["error"]

    assert error["code"] == -32002
    assert error["data"]["executed"] == "unknown"


@pytest.mark.settings(call_seconds=1.0)
async def test_progress_gives_a_call_more_time(gateway: Gateway) -> None:
    server = await gateway.tool_server("oven", [held("bake")])
    robot = await gateway.robot()
    request_id = await robot.start_call("bake", _meta={"progressToken": "my-token"})
    call = await server.until_called()

    for percent in (25, 50, 75, 100):
        await asyncio.sleep(0.4)
        await call.progress(percent, total=100)
    await call.answer("a cake")

    assert text_of(await robot.answer(request_id)) == "a cake"
    reports = await robot.until_progress(4)
    assert [report["progress"] for report in reports] == [25, 50, 75, 100]
    assert reports[0]["progressToken"] == "my-token"
