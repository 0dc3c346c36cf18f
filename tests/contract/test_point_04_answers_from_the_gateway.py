"""Point 4: a robot's handshake is answered by the gateway, in order and at once, with an empty list if need be."""

from tests.peers.console import Console
from tests.peers.tools import echo
from tests.peers.wire import Message
from tests.support.gateway import AGENT, Gateway


async def test_a_xiaozhi_server_is_ready_without_any_tool_server(gateway: Gateway) -> None:
    """On an error it would be "not ready" for its whole session."""
    robot = await gateway.xiaozhi()
    assert robot.is_ready
    assert robot.tools == {}
    assert robot.errors == []


async def test_the_console_shows_an_empty_list_at_once(gateway: Gateway) -> None:
    assert await gateway.console().tool_names() == []


async def test_the_console_shows_the_tools(gateway: Gateway) -> None:
    """It sends `"params": null` and takes an answer only under the integer id, with `result`, without `error`."""
    await gateway.tool_server(tools=[echo("计算器"), echo("weather")])
    assert await gateway.console().tool_names() == ["计算器", "weather"]


async def test_each_click_of_the_console_is_a_connection_of_its_own(gateway: Gateway) -> None:
    await gateway.tool_server()
    consoles: list[Console] = [gateway.console() for _ in range(3)]
    for console in consoles:
        assert await console.tool_names() == ["echo"]
        assert console.closed is not None
        assert console.closed.code == 1000


async def test_answers_come_in_the_order_of_the_requests(gateway: Gateway) -> None:
    """A late answer to `initialize` would be taken for that of the first call, which reuses id 1."""
    robot = await gateway.xiaozhi()
    answers = [message["id"] for message in robot.messages if "result" in message]
    assert answers == [1, 2]


async def test_requests_sent_back_to_back_are_answered_in_order(gateway: Gateway) -> None:
    robot = await gateway.robot(is_ready=False)
    for number in range(20):
        await robot.start("ping" if number % 2 else "tools/list", id=number)
    await robot.answer(19)
    assert [message["id"] for message in robot.messages] == list(range(20))


async def test_an_answer_has_either_a_result_or_an_error(gateway: Gateway) -> None:
    await gateway.tool_server()
    robot = await gateway.robot()
    for method, params in all_requests():
        answer = await robot.request(method, params)
        assert ("result" in answer) != ("error" in answer)
        assert answer["jsonrpc"] == "2.0"


def all_requests() -> list[tuple[str, Message | None]]:
    return [
        ("initialize", {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "x"}}),
        ("ping", None),
        ("tools/list", None),
        ("tools/call", {"name": "echo"}),
        ("tools/call", {"name": "nothing"}),
        ("resources/list", None),
    ]


async def test_a_call_without_a_tool_server_says_what_to_do(gateway: Gateway) -> None:
    robot = await gateway.robot()
    error = (await robot.call("calculator"))["error"]
    assert error["code"] == -32001
    assert error["data"]["executed"] is False
    assert error["data"]["agent_id"] == AGENT
    assert error["data"]["reason"]


async def test_the_list_asks_no_tool_server(gateway: Gateway) -> None:
    server = await gateway.tool_server()
    robot = await gateway.robot()
    for _ in range(5):
        await robot.names()
    assert len(server.received("tools/list")) == 1


async def test_params_null_is_never_passed_to_a_tool_server(gateway: Gateway) -> None:
    """The TypeScript SDK's schema rejects it."""
    server = await gateway.tool_server()
    await gateway.console().tool_names()
    robot = await gateway.robot()
    await robot.send({"jsonrpc": "2.0", "method": "notifications/initialized", "params": None})
    await robot.call("echo")
    assert all(message.get("params", {}) is not None for message in server.messages)
