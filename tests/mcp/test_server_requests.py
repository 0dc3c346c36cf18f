"""Requests that a tool server sends to the gateway: answered or refused at once, never passed to a robot."""

from typing import Any

import pytest

from tests.peers.tools import echo, held, text_of
from tests.support.gateway import Gateway


@pytest.mark.parametrize("request_id", [0, 1, "x", "", 2**40], ids=repr)
async def test_a_ping_of_a_tool_server_is_answered(gateway: Gateway, request_id: Any) -> None:
    server = await gateway.tool_server()
    assert await server.ask(request_id, "ping") == {"jsonrpc": "2.0", "id": request_id, "result": {}}


async def test_roots_are_an_empty_list(gateway: Gateway) -> None:
    server = await gateway.tool_server()
    assert (await server.ask("r", "roots/list"))["result"] == {"roots": []}


@pytest.mark.parametrize("method", ["sampling/createMessage", "elicitation/create", "tools/list", "nonsense"])
async def test_every_other_request_is_refused_at_once(gateway: Gateway, method: str) -> None:
    """Nothing in such a request says which call it belongs to (mcp-protocol, finding 4)."""
    server = await gateway.tool_server()
    robot = await gateway.robot()
    position = len(robot.messages)
    answer = await server.ask(5, method, {"messages": [], "maxTokens": 1})
    assert answer["error"]["code"] == -32601
    assert "result" not in answer
    await robot.ping()
    assert len(robot.messages) == position + 1


async def test_a_request_of_the_tool_server_is_not_taken_for_an_answer(gateway: Gateway) -> None:
    """Its ids are its own: one may equal the id of a call that it is executing."""
    server = await gateway.tool_server(tools=[held()])
    robot = await gateway.robot()
    request_id = await robot.start_call("slow")
    call = await server.until_called()
    assert (await server.ask(call.id, "ping"))["result"] == {}
    await call.answer("done")
    assert text_of(await robot.answer(request_id)) == "done"


async def test_the_gateway_declares_no_capabilities_to_tool_servers(gateway: Gateway) -> None:
    server = await gateway.tool_server()
    params = server.received("initialize")[0]["params"]
    assert params["capabilities"] == {}
    assert isinstance(params["clientInfo"]["name"], str)


@pytest.mark.parametrize("method", ["notifications/message", "notifications/resources/updated", "notifications/x"])
async def test_other_notifications_of_a_tool_server_stay_in_the_gateway(gateway: Gateway, method: str) -> None:
    server = await gateway.tool_server(tools=[echo()])
    robot = await gateway.robot()
    position = len(robot.messages)
    params = {"level": "info", "data": "a log line", "uri": "x"}
    await server.send({"jsonrpc": "2.0", "method": method, "params": params})
    await robot.call("echo")
    assert len(robot.messages) == position + 1


async def test_a_batch_of_a_tool_server_is_survived(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[echo()])
    robot = await gateway.robot()
    await server.send([{"jsonrpc": "2.0", "id": 1, "method": "ping"}])
    assert "result" in await robot.call("echo")
