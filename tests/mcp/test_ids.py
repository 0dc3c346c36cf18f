"""Request ids at the robot's edge: echoed with value and type, rewritten toward the tool server, never confused."""

from typing import Any

import pytest

from tests.peers.tools import echo, held, text_of
from tests.support.gateway import Gateway

GOOD_IDS: list[Any] = [0, 1, 2, -5, 2**53, 2**63 - 1, "", "0", "1", "a-b", "订单", "x" * 200]
WRONG_IDS: list[Any] = [None, True, False, 1.5, [], {}]


@pytest.mark.parametrize("request_id", GOOD_IDS, ids=repr)
async def test_an_answer_of_the_gateway_carries_the_robots_id_with_its_type(gateway: Gateway, request_id: Any) -> None:
    robot = await gateway.robot()
    answer = await robot.request("tools/list", id=request_id)
    assert answer["result"] == {"tools": []}


@pytest.mark.parametrize("request_id", GOOD_IDS, ids=repr)
async def test_a_calls_answer_carries_the_robots_id_with_its_type(gateway: Gateway, request_id: Any) -> None:
    await gateway.tool_server(tools=[echo()])
    robot = await gateway.robot()
    assert text_of(await robot.call("echo", {"text": "hello"}, id=request_id)) == "hello"


async def test_equal_looking_ids_of_different_type_are_different_calls(gateway: Gateway) -> None:
    """`0`, `""`, `"1"` and `1` are four ids (design §6.3)."""
    server = await gateway.tool_server(tools=[held()])
    robot = await gateway.robot()
    for number, request_id in enumerate([0, "", "1", 1], start=1):
        await robot.start_call("slow", {"which": repr(request_id)}, id=request_id)
        await server.until_called(number)
    for call in reversed(server.calls):
        await call.answer(call.arguments["which"])
    for request_id in (0, "", "1", 1):
        assert text_of(await robot.answer(request_id)) == repr(request_id)
        assert len(robot.answers(request_id)) == 1


async def test_an_id_may_be_used_again_once_it_is_answered(gateway: Gateway) -> None:
    await gateway.tool_server(tools=[echo()])
    robot = await gateway.robot()
    for text in ("one", "two", "three"):
        assert text_of(await robot.call("echo", {"text": text}, id=7)) == text


async def test_two_robots_with_equal_ids_get_their_own_answers(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[held()])
    robots = [await gateway.robot() for _ in range(2)]
    for number, robot in enumerate(robots, start=1):
        await robot.start_call("slow", {"robot": number}, id=1)
        await server.until_called(number)
    for call in reversed(server.calls):
        await call.answer(f"for robot {call.arguments['robot']}")
    for number, robot in enumerate(robots, start=1):
        assert text_of(await robot.answer(1)) == f"for robot {number}"
        await robot.ping()
        assert len(robot.answers(1)) == 1


@pytest.mark.parametrize("request_id", WRONG_IDS, ids=repr)
async def test_a_value_that_is_no_id_is_an_invalid_request(gateway: Gateway, request_id: Any) -> None:
    """An id is a string or an integer. `null` is no request either: -32600, or silence, but never a result."""
    robot = await gateway.robot()
    position = len(robot.messages)
    await robot.send({"jsonrpc": "2.0", "id": request_id, "method": "tools/list"})
    await robot.ping()
    answers = [message for message in robot.messages[position:-1] if "method" not in message]
    assert all(answer["error"]["code"] == -32600 and answer.get("id") is None for answer in answers), answers
    assert answers or request_id is None


@pytest.mark.parametrize("digits", ["18446744073709551616", "99999999999999999999999", "-9223372036854775809"])
async def test_an_integer_id_beyond_64_bits_is_an_invalid_request(gateway: Gateway, digits: str) -> None:
    robot = await gateway.robot()
    position = len(robot.messages)
    await robot.send_frame(f'{{"jsonrpc":"2.0","id":{digits},"method":"tools/list"}}')
    await robot.until(lambda: len(robot.messages) > position, "the request is refused")
    assert robot.messages[position]["error"]["code"] == -32600
    assert "result" in await robot.ping()


async def test_the_tool_server_never_sees_a_robots_id(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[echo()])
    robot = await gateway.robot()
    await robot.call("echo", id="a robot's own id")
    assert all(type(request_id) is int and 0 <= request_id < 2**31 for request_id in server.request_ids)
    assert len(set(server.request_ids)) == len(server.request_ids)
