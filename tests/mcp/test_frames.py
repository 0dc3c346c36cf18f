"""Frames at the robot's edge: what is broken is answered, and the connection lives on."""

from typing import Any

import pytest

from tests.peers.robot import Robot
from tests.peers.tools import echo
from tests.peers.wire import Message
from tests.support.gateway import Gateway


async def answer_to_frame(robot: Robot, frame: str | bytes) -> Any:
    """The one thing that comes back for a frame before the answer to a ping."""
    position = len(robot.messages)
    await robot.send_frame(frame)
    await robot.ping()
    between = robot.messages[position:-1]
    assert len(between) == 1, between
    return between[0]


@pytest.mark.parametrize(
    "frame",
    ["hello", "{", '{"jsonrpc":"2.0","id":1,', "nul", '"unclosed', "[1,", '{"id":1}}'],
    ids=repr,
)
async def test_a_frame_that_is_no_json_is_a_parse_error_and_the_connection_lives_on(
    gateway: Gateway, frame: str
) -> None:
    robot = await gateway.robot()
    answer = await answer_to_frame(robot, frame)
    assert answer["error"]["code"] == -32700
    assert answer["id"] is None
    assert "result" not in answer


@pytest.mark.parametrize("frame", ["", " ", "\n"], ids=repr)
async def test_a_blank_frame_harms_nobody(gateway: Gateway, frame: str) -> None:
    """Noise, or a parse error: either will do, as long as the connection lives on."""
    robot = await gateway.robot()
    position = len(robot.messages)
    await robot.send_frame(frame)
    await robot.ping()
    assert all(message["error"]["code"] == -32700 for message in robot.messages[position:-1])


@pytest.mark.parametrize("frame", ["1", '"text"', "null", "true", "{}", '{"jsonrpc":"2.0","id":1}'], ids=repr)
async def test_json_that_is_no_message_is_an_invalid_request(gateway: Gateway, frame: str) -> None:
    robot = await gateway.robot()
    answer = await answer_to_frame(robot, frame)
    assert answer["error"]["code"] == -32600


async def test_a_binary_frame_with_utf_8_is_read_like_text(gateway: Gateway) -> None:
    robot = await gateway.robot()
    answer = await answer_to_frame(robot, b'{"jsonrpc":"2.0","id":5,"method":"tools/list"}')
    assert answer == {"jsonrpc": "2.0", "id": 5, "result": {"tools": []}}


async def test_bytes_that_are_no_utf_8_are_a_parse_error(gateway: Gateway) -> None:
    robot = await gateway.robot()
    answer = await answer_to_frame(robot, b'{"jsonrpc":"2.0","id":5,"method":"\xff\xfe"}')
    assert answer["error"]["code"] == -32700


async def test_a_trailing_newline_is_accepted(gateway: Gateway) -> None:
    robot = await gateway.robot()
    answer = await answer_to_frame(robot, '{"jsonrpc":"2.0","id":5,"method":"tools/list"}\n')
    assert answer["id"] == 5
    assert "result" in answer


async def test_very_deep_json_harms_nobody(gateway: Gateway) -> None:
    robot = await gateway.robot()
    answer = await answer_to_frame(robot, "[" * 100_000 + "]" * 100_000)
    assert answer["error"]["code"] in (-32700, -32600)


async def test_an_unknown_method_is_refused(gateway: Gateway) -> None:
    robot = await gateway.robot()
    for method in ("resources/list", "prompts/list", "completion/complete", "logging/setLevel", "server/discover", "x"):
        answer = await robot.request(method)
        assert answer["error"]["code"] == -32601
        assert "result" not in answer


@pytest.mark.parametrize("method", [None, 1, True, [], {}], ids=repr)
async def test_a_method_that_is_no_string_is_an_invalid_request_under_its_own_id(gateway: Gateway, method: Any) -> None:
    """Never swallow a frame that has a usable id (mcp-protocol §3)."""
    robot = await gateway.robot()
    await robot.send({"jsonrpc": "2.0", "id": 31, "method": method})
    assert (await robot.answer(31))["error"]["code"] == -32600


async def test_params_that_are_a_list_are_invalid_params(gateway: Gateway) -> None:
    await gateway.tool_server(tools=[echo()])
    robot = await gateway.robot()
    for method in ("tools/call", "tools/list"):
        answer = await robot.request(method, [])
        assert answer["error"]["code"] == -32602


@pytest.mark.parametrize("params", [1, "text", True], ids=repr)
async def test_params_of_another_wrong_type_are_invalid_too(gateway: Gateway, params: Any) -> None:
    robot = await gateway.robot()
    answer = await robot.request("tools/call", params)
    assert answer["error"]["code"] in (-32602, -32600)


async def test_params_null_is_read_as_absent(gateway: Gateway) -> None:
    robot = await gateway.robot()
    await robot.send({"jsonrpc": "2.0", "id": 9, "method": "tools/list", "params": None})
    assert (await robot.answer(9))["result"] == {"tools": []}


@pytest.mark.parametrize("version", [None, "1.0", 2, ""], ids=repr)
async def test_a_request_without_the_right_jsonrpc_still_gets_an_answer(gateway: Gateway, version: Any) -> None:
    """Whatever the member `jsonrpc` says, the id is usable, so the robot must not wait in vain."""
    robot = await gateway.robot()
    await robot.send({"jsonrpc": version, "id": 9, "method": "tools/list"})
    answer = await robot.answer(9)
    assert "result" in answer or answer["error"]["code"] == -32600


async def test_a_notification_is_never_answered(gateway: Gateway) -> None:
    robot = await gateway.robot()
    position = len(robot.messages)
    for method in (
        "notifications/unknown",
        "notifications/cancelled",
        "notifications/roots/list_changed",
        "tools/call",
    ):
        await robot.notify(method, {})
    await robot.notify("notifications/cancelled", {"requestId": "never seen"})
    await robot.notify("notifications/progress", {"progressToken": 1, "progress": "x"})
    await robot.ping()
    assert len(robot.messages) == position + 1


async def test_a_response_to_nothing_is_dropped(gateway: Gateway) -> None:
    """Answering an answer could go on for ever between two peers that do it."""
    robot = await gateway.robot()
    position = len(robot.messages)
    bodies: list[Message] = [{"result": {}}, {"error": {"code": 1, "message": "x"}}]
    for body in bodies:
        for request_id in (0, 1, "x", None):
            await robot.send({"jsonrpc": "2.0", "id": request_id, **body})
    await robot.ping()
    assert len(robot.messages) == position + 1


BATCH: list[Message] = [
    {"jsonrpc": "2.0", "id": 1, "method": "ping"},
    {"jsonrpc": "2.0", "method": "notifications/unknown"},
    {"jsonrpc": "2.0", "id": "two", "method": "tools/list"},
    {"jsonrpc": "2.0", "id": 3, "method": "nonsense"},
]


def flat(messages: list[Any]) -> list[Message]:
    """The answers one by one, whether they came in one array or not."""
    return [one for message in messages for one in (message if isinstance(message, list) else [message])]


async def test_a_batch_is_taken_at_2025_03_26(gateway: Gateway) -> None:
    """That revision alone demands it; the answers may come in one array or one by one."""
    robot = await gateway.robot(version="2025-03-26")
    position = len(robot.messages)
    await robot.send(BATCH)
    await robot.until(lambda: len(flat(robot.messages[position:])) >= 3, "the batch is answered")
    await robot.ping(id="fence")
    answers = {answer["id"]: answer for answer in flat(robot.messages[position:]) if answer["id"] != "fence"}
    assert set(answers) == {1, "two", 3}
    assert answers[1]["result"] == {}
    assert answers["two"]["result"] == {"tools": []}
    assert answers[3]["error"]["code"] == -32601


async def test_a_call_in_a_batch_reaches_its_tool(gateway: Gateway) -> None:
    await gateway.tool_server(tools=[echo()])
    robot = await gateway.robot(version="2025-03-26")
    position = len(robot.messages)
    params = {"name": "echo", "arguments": {"text": "batched"}}
    await robot.send([{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}, BATCH[2]])
    await robot.until(lambda: len(flat(robot.messages[position:])) >= 2, "the batch is answered")
    answers = {answer["id"]: answer for answer in flat(robot.messages[position:])}
    assert answers[1]["result"]["content"][0]["text"] == "batched"


@pytest.mark.parametrize("version", ["2024-11-05", "2025-06-18", "2025-11-25"])
async def test_a_batch_is_refused_at_any_other_revision(gateway: Gateway, version: str) -> None:
    robot = await gateway.robot(version=version)
    position = len(robot.messages)
    await robot.send(BATCH)
    await robot.until(lambda: len(robot.messages) > position, "the batch is refused")
    await robot.ping()
    answers = flat(robot.messages[position:-1])
    assert len(answers) == 1
    assert answers[0]["error"]["code"] == -32600


async def test_an_empty_batch_is_an_invalid_request(gateway: Gateway) -> None:
    robot = await gateway.robot(version="2025-03-26")
    answer = await answer_to_frame(robot, "[]")
    assert flat([answer])[0]["error"]["code"] == -32600


async def test_a_frame_larger_than_the_limit_closes_the_robot_with_1009(gateway: Gateway) -> None:
    robot = await gateway.robot()
    other = await gateway.robot()
    await robot.send({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"x": "x" * (1024 * 1024)}})
    assert (await robot.until_closed()).code == 1009
    assert "result" in await other.ping()


async def test_a_fragmented_message_is_put_together(gateway: Gateway) -> None:
    robot = await gateway.robot()
    await robot.socket.send(iter(['{"jsonrpc":"2.0","id":8,', '"method":', '"tools/list"}']))
    assert (await robot.answer(8))["result"] == {"tools": []}
