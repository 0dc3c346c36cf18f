"""Peers that misbehave: the one at fault is answered or closed, everybody else notices nothing."""

import asyncio
from typing import Any

import orjson
import pytest

from tests.peers.tool_server import ToolServer
from tests.peers.tools import answering, echo, held, text_of, text_result
from tests.peers.wire import Message
from tests.support.gateway import Gateway

VALUES: list[Any] = [None, True, 0, -1, 1.5, "", "text", [], [1], {}, {"a": 1}, "\u0000", "x" * 1000]


@pytest.mark.settings(outbox_bytes=256 * 1024)
async def test_a_robot_that_stops_reading_is_dropped_alone(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[answering("long", text_result("x" * 300_000)), echo()])
    frozen, other = await gateway.robot(), await gateway.robot()
    frozen.freeze()
    for _ in range(60):
        await frozen.start_call("long")
    await server.until_called(30)
    assert text_of(await other.call("echo", {"text": "fine"})) == "fine"
    assert server.is_open

    async def is_dropped() -> bool:
        return bool((await gateway.health())["robot_connections"] == 1)

    await other.until_async(is_dropped, lambda: "the frozen robot is dropped")


@pytest.mark.settings(outbox_bytes=256 * 1024, call_seconds=3.0)
async def test_a_tool_server_that_stops_reading_is_dropped_alone(gateway: Gateway) -> None:
    frozen = await gateway.tool_server("frozen", [held("stuck")])
    await gateway.tool_server("healthy", [echo()])
    robot = await gateway.robot()
    frozen.freeze()
    ids = [await robot.start_call("stuck", {"text": "x" * 500_000}) for _ in range(30)]
    assert text_of(await robot.call("echo", {"text": "fine"})) == "fine"
    for request_id in ids:
        error = (await robot.answer(request_id))["error"]
        assert error["code"] in (-32001, -32002, -32003)
        assert error["data"]["executed"] in (False, "unknown")


@pytest.mark.parametrize("key", ["jsonrpc", "id", "method", "params"])
async def test_wrong_types_in_any_field_of_a_robots_message_are_survived(gateway: Gateway, key: str) -> None:
    await gateway.tool_server()
    robot = await gateway.robot()
    for method in ("initialize", "tools/list", "tools/call", "ping", "notifications/cancelled"):
        for value in VALUES:
            await robot.send({"jsonrpc": "2.0", "id": 5, "method": method, "params": {}, key: value})
    assert text_of(await robot.call("echo", {"text": "fine"}, id="fine")) == "fine"


@pytest.mark.parametrize("key", ["name", "arguments", "_meta", "cursor", "protocolVersion", "clientInfo", "requestId"])
async def test_wrong_types_in_any_parameter_of_a_robot_are_survived(gateway: Gateway, key: str) -> None:
    await gateway.tool_server()
    robot = await gateway.robot()
    number = 0
    for method in ("initialize", "tools/list", "tools/call"):
        for value in VALUES:
            answer = await robot.request(method, {"name": "echo", key: value}, id=(number := number + 1))
            assert ("result" in answer) != ("error" in answer)
            assert answer.get("error", {}).get("code") in (None, -32602, -32600)


class Liar(ToolServer):
    """Answers with a value of its own for one key of one method's result."""

    method = ""
    key = ""
    value: Any = None

    def page(self, cursor: Any) -> Message:
        return super().page(None)

    async def reply(self, request: Message, result: Any) -> None:
        if request["method"] == self.method:
            result = self.value if self.key == "" else {**result, self.key: self.value}
        await super().reply(request, result)


@pytest.mark.parametrize("key", ["", "protocolVersion", "capabilities", "serverInfo", "instructions"])
async def test_wrong_types_in_the_answer_to_initialize_are_survived(gateway: Gateway, key: str) -> None:
    """What can be read is used; who says nothing usable is closed. The healthy one beside it is served."""
    await gateway.tool_server("healthy")
    robot = await gateway.robot()
    async with asyncio.TaskGroup() as tasks:
        for value in VALUES:
            liar = Liar(gateway.mcp_url(), name="liar", tools=[echo("lie")])
            liar.method, liar.key, liar.value = "initialize", key, value
            tasks.create_task(settled(gateway, liar))
    assert text_of(await robot.call("echo", {"text": "fine"})) == "fine"


async def settled(gateway: Gateway, liar: Liar) -> None:
    """Dial, and wait until the gateway has either gone on to the list or ended the connection."""
    await gateway.attach(liar, is_awaited=False)
    await liar.until(lambda: not liar.is_open or bool(liar.received("tools/list")), "the gateway makes up its mind")


@pytest.mark.parametrize("key", ["", "tools", "nextCursor"])
async def test_wrong_types_in_the_answer_to_the_list_are_survived(gateway: Gateway, key: str) -> None:
    await gateway.tool_server("healthy")
    robot = await gateway.robot()
    for value in VALUES:
        liar = Liar(gateway.mcp_url(), name="liar", tools=[echo("lie")])
        liar.method, liar.key, liar.value = "tools/list", key, value
        await gateway.attach(liar, is_awaited=False)
        await liar.until_listed()
    assert "echo" in await robot.names()
    assert text_of(await robot.call("echo", {"text": "fine"})) == "fine"


FIELDS = ["name", "title", "description", "inputSchema", "outputSchema", "annotations", "_meta", "icons", "server_id"]


@pytest.mark.parametrize("key", FIELDS)
async def test_wrong_types_in_any_field_of_a_tool_leave_the_other_tools_alone(gateway: Gateway, key: str) -> None:
    tools = [echo(f"tool_{number}", extra={key: value}) for number, value in enumerate(VALUES)]
    await gateway.tool_server("liar", [*tools, echo("healthy")])
    robot = await gateway.xiaozhi()
    assert robot.errors == []
    assert await robot.call_tool("healthy", {"text": "fine"}) == "fine"
    for tool in await (await gateway.robot()).list_tools():
        assert type(tool["name"]) is type(tool["description"]) is type(tool["server_id"]) is str
        assert type(tool["inputSchema"]) is dict


@pytest.mark.parametrize("key", ["content", "isError", "structuredContent", "_meta", "error"])
async def test_wrong_types_in_a_result_reach_the_robot_without_harm(gateway: Gateway, key: str) -> None:
    server = await gateway.tool_server(tools=[held()])
    robot = await gateway.xiaozhi()
    for number, value in enumerate(VALUES, start=1):
        async with asyncio.TaskGroup() as tasks:
            answer = tasks.create_task(outcome(robot.call_tool("slow")))
            call = await server.until_called(number)
            await call.answer({**text_result("fine"), key: value})
        assert answer.result()
    assert robot.is_open


async def outcome(call: Any) -> str:
    """The text of the call's answer, or what it raised."""
    try:
        return f"text {await call}"
    except RuntimeError as error:
        return str(error)


async def test_a_flood_of_garbage_from_one_peer_harms_no_other(gateway: Gateway) -> None:
    noisy_server, noisy_robot = await gateway.tool_server("noisy", [echo("n")]), await gateway.robot()
    await gateway.tool_server("healthy")
    robot = await gateway.robot()
    garbage: list[str | bytes] = [
        b"\xff" * 1000,
        "{" * 1000,
        "[" * 50_000,
        '"' + "x" * 10_000,
        orjson.dumps([[]] * 1000),
    ]
    for peer in (noisy_server, noisy_robot):
        for _ in range(40):
            for frame in garbage:
                await peer.send_frame(frame)
    assert text_of(await robot.call("echo", {"text": "fine"})) == "fine"


@pytest.mark.settings(calls_per_connection=1000)
async def test_a_thousand_calls_at_once_from_many_robots_all_end(gateway: Gateway) -> None:
    await gateway.tool_server()
    robots = [await gateway.robot() for _ in range(20)]
    ids = [(robot, await robot.start_call("echo", {"text": f"{n}"}), n) for robot in robots for n in range(50)]
    for robot, request_id, number in ids:
        assert text_of(await robot.answer(request_id, seconds=10)) == str(number)
