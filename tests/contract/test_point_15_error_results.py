"""Point 15: an isError result keeps its content, and its text is where a xiaozhi-server looks for it."""

import pytest

from tests.peers.tools import answering, text_result
from tests.support.gateway import Gateway


async def test_the_text_of_an_error_result_reaches_the_language_model(gateway: Gateway) -> None:
    """Without it users read 工具调用返回错误，但未提供具体错误信息."""
    await gateway.tool_server(tools=[answering("fails", text_result("没有这个城市", is_error=True))])
    robot = await gateway.xiaozhi()
    with pytest.raises(RuntimeError, match="没有这个城市"):
        await robot.call_tool("fails")


async def test_content_and_everything_else_stay(gateway: Gateway) -> None:
    result = {**text_result("no such city", is_error=True), "structuredContent": {"code": 404}, "_meta": {"a": 1}}
    await gateway.tool_server(tools=[answering("fails", result)])
    robot = await gateway.robot()
    answer = (await robot.call("fails"))["result"]
    assert answer.pop("error") == "no such city"
    assert answer == result


async def test_several_texts_are_all_in_the_error(gateway: Gateway) -> None:
    blocks = [
        {"type": "text", "text": "one"},
        {"type": "image", "data": "", "mimeType": "x"},
        {"type": "text", "text": "two"},
    ]
    await gateway.tool_server(tools=[answering("fails", {"content": blocks, "isError": True})])
    robot = await gateway.robot()
    answer = (await robot.call("fails"))["result"]
    assert "one" in answer["error"]
    assert "two" in answer["error"]
    assert answer["content"] == blocks


async def test_an_error_that_the_tool_server_named_itself_stays(gateway: Gateway) -> None:
    result = {**text_result("text", is_error=True), "error": "its own"}
    await gateway.tool_server(tools=[answering("fails", result)])
    robot = await gateway.robot()
    assert (await robot.call("fails"))["result"] == result


@pytest.mark.parametrize("content", [[], None, [{"type": "image", "data": "", "mimeType": "x"}], [5], "text"], ids=repr)
async def test_an_error_result_without_text_still_says_something(gateway: Gateway, content: object) -> None:
    await gateway.tool_server(tools=[answering("fails", {"content": content, "isError": True})])
    robot = await gateway.xiaozhi()
    with pytest.raises(RuntimeError, match="工具调用错误"):
        await robot.call_tool("fails")


@pytest.mark.parametrize("flag", [False, None, "true", 1], ids=repr)
async def test_only_is_error_true_makes_an_error_result(gateway: Gateway, flag: object) -> None:
    result = {**text_result("fine"), "isError": flag}
    await gateway.tool_server(tools=[answering("works", result)])
    robot = await gateway.robot()
    assert "error" not in (await robot.call("works"))["result"]


async def test_there_is_never_an_error_beside_a_result(gateway: Gateway) -> None:
    """At the top level that would be two answers in one."""
    await gateway.tool_server(tools=[answering("fails", text_result("no", is_error=True))])
    robot = await gateway.robot()
    assert set(await robot.call("fails")) == {"jsonrpc", "id", "result"}
