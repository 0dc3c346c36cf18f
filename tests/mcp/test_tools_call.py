"""`tools/call`: the shape is checked before anything goes out, the rest travels whole, both ways."""

from typing import Any

import pytest

from tests.conftest import StartCluster
from tests.peers.tools import answering, echo, failing, held, text_of
from tests.peers.wire import Message
from tests.support.gateway import AGENT, Gateway

WRONG_PARAMS: list[Any] = [
    None,
    {},
    {"name": None},
    {"name": 5},
    {"name": ["echo"]},
    {"name": "echo", "arguments": "text"},
    {"name": "echo", "arguments": ["a"]},
    {"name": "echo", "arguments": 5},
    {"name": "echo", "arguments": True},
    {"arguments": {}},
]


@pytest.mark.parametrize("params", WRONG_PARAMS, ids=repr)
async def test_a_call_of_wrong_shape_is_refused_and_never_sent(gateway: Gateway, params: Any) -> None:
    """A string for `arguments` ends old Python servers (CVE-2025-53366)."""
    server = await gateway.tool_server(tools=[echo()])
    robot = await gateway.robot()
    answer = await robot.request("tools/call", params)
    assert answer["error"]["code"] == -32602
    assert_refused_unsent(answer)
    await robot.call("echo")
    assert len(server.calls) == 1


def assert_refused_unsent(answer: Message) -> None:
    data = answer["error"]["data"]
    assert data["executed"] is False
    assert data["agent_id"] == AGENT
    assert isinstance(data["reason"], str)
    assert data["reason"]


async def test_an_unknown_tool_is_invalid_params(gateway: Gateway) -> None:
    await gateway.tool_server(tools=[echo()])
    robot = await gateway.robot()
    answer = await robot.call("nothing_like_it")
    assert answer["error"]["code"] == -32602
    assert_refused_unsent(answer)


async def test_arguments_null_are_sent_on_as_absent(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[echo()])
    robot = await gateway.robot()
    await robot.request("tools/call", {"name": "echo", "arguments": None})
    assert "arguments" not in server.calls[0].params


async def test_absent_arguments_stay_absent_or_become_an_object(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[echo()])
    robot = await gateway.robot()
    assert "result" in await robot.request("tools/call", {"name": "echo"})
    assert server.calls[0].params.get("arguments", {}) == {}


async def test_everything_in_params_travels_on(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[echo()])
    robot = await gateway.robot()
    arguments = {"mac_address": "aa:bb", "nested": {"n": [1, 2.5, None, "小智"]}, "": 0}
    extra: Message = {"serialNumber": None, "vendor": {"x": [1]}, "task": "later"}
    await robot.call("echo", arguments, **extra)
    params = server.calls[0].params
    assert params["arguments"] == arguments
    assert {key: params[key] for key in extra} == extra


async def test_big_integers_and_exact_numbers_survive(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[echo()])
    robot = await gateway.robot()
    await robot.call("echo", {"big": 2**63 - 1, "small": -(2**63), "float": 0.1, "whole": 1.0})
    arguments = server.calls[0].arguments
    assert arguments == {"big": 2**63 - 1, "small": -(2**63), "float": 0.1, "whole": 1.0}
    assert type(arguments["whole"]) is float


async def test_meta_passes_but_for_what_belongs_to_the_connection(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[echo()])
    robot = await gateway.robot()
    kept = {"traceparent": "00-abc-def-01", "tracestate": "a=b", "baggage": "k=v", "vendor/thing": {"x": 1}}
    names = ("protocolVersion", "clientInfo", "clientCapabilities", "logLevel", "serverInfo", "subscriptionId")
    owned = {f"io.modelcontextprotocol/{name}": "mine" for name in names}
    await robot.call("echo", _meta={**kept, **owned})
    meta = server.calls[0].params["_meta"]
    meta.pop("progressToken", None)
    assert meta == kept


async def test_a_result_comes_back_whole(gateway: Gateway) -> None:
    result = {
        "content": [
            {"type": "text", "text": "四十二", "annotations": {"audience": ["user"]}, "_meta": {"a": 1}},
            {"type": "image", "data": "aGk=", "mimeType": "image/png"},
            {"type": "audio", "data": "aGk=", "mimeType": "audio/wav"},
            {"type": "resource_link", "uri": "file:///x", "name": "x"},
            {"type": "resource", "resource": {"uri": "file:///y", "text": "y"}},
            {"type": "something new", "of": ["a", "kind"]},
        ],
        "structuredContent": {"n": 42},
        "_meta": {"vendor/took_ms": 3},
        "unknown": [None],
    }
    await gateway.tool_server(tools=[answering("rich", result)])
    robot = await gateway.robot()
    answer = await robot.call("rich", id=5)
    assert answer == {"jsonrpc": "2.0", "id": 5, "result": result}


@pytest.mark.parametrize("result", [{}, {"content": []}, {"content": [], "isError": False}], ids=repr)
async def test_an_empty_result_passes_as_it_is(gateway: Gateway, result: Message) -> None:
    await gateway.tool_server(tools=[answering("odd", result)])
    robot = await gateway.robot()
    assert (await robot.call("odd"))["result"] == result


@pytest.mark.parametrize(
    ("code", "message", "data"),
    [(-32603, "boom", None), (-32602, "bad", {"field": "x"}), (42, "自己的", [1]), (-32000, "", "text")],
)
async def test_an_error_of_the_tool_server_passes_verbatim(
    gateway: Gateway, code: int, message: str, data: Any
) -> None:
    await gateway.tool_server(tools=[failing("fails", code, message, data)])
    robot = await gateway.robot()
    answer = await robot.call("fails", id="e")
    expected = {"code": code, "message": message} | ({} if data is None else {"data": data})
    assert answer == {"jsonrpc": "2.0", "id": "e", "error": expected}


async def test_calls_do_not_wait_for_each_other(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[held("slow"), echo("fast")])
    robot = await gateway.robot()
    slow = await robot.start_call("slow")
    call = await server.until_called()
    assert "result" in await robot.call("fast")
    assert not robot.answers(slow)
    await call.answer("at last")
    assert text_of(await robot.answer(slow)) == "at last"


async def test_answers_may_come_in_another_order_than_the_calls(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[held()])
    robot = await gateway.robot()
    ids = [await robot.start_call("slow", {"n": number}) for number in range(10)]
    await server.until_called(10)
    for call in reversed(server.calls):
        await call.answer(str(call.arguments["n"]))
    assert [text_of(await robot.answer(request_id)) for request_id in ids] == [str(number) for number in range(10)]


async def test_calls_reach_a_tool_server_in_the_order_they_were_made(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[held()])
    robot = await gateway.robot()
    for number in range(50):
        await robot.start_call("slow", {"n": number})
    await server.until_called(50)
    assert [call.arguments["n"] for call in server.calls] == list(range(50))


async def test_a_second_answer_to_the_same_call_is_dropped(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[held(), echo()])
    robot = await gateway.robot()
    request_id = await robot.start_call("slow")
    call = await server.until_called()
    await call.answer("first")
    await call.answer("second")
    await robot.call("echo")
    assert [text_of(answer) for answer in robot.answers(request_id)] == ["first"]


@pytest.mark.parametrize("answer_id", ["text", 999_999, None, -1, 1.5, [1]], ids=repr)
async def test_an_answer_under_a_foreign_id_is_dropped(gateway: Gateway, answer_id: Any) -> None:
    server = await gateway.tool_server(tools=[held()])
    robot = await gateway.robot()
    request_id = await robot.start_call("slow")
    call = await server.until_called()
    await server.send({"jsonrpc": "2.0", "id": answer_id, "result": {"content": []}})
    await call.answer("mine")
    assert text_of(await robot.answer(request_id)) == "mine"


async def test_an_answer_whose_id_became_a_string_is_accepted(gateway: Gateway) -> None:
    """The Python SDK takes `"7"` and `7` for one id; accept that from a tool server, never produce it."""
    server = await gateway.tool_server(tools=[held()])
    robot = await gateway.robot()
    request_id = await robot.start_call("slow", id=4)
    call = await server.until_called()
    await server.send({"jsonrpc": "2.0", "id": str(call.id), "result": {"content": [{"type": "text", "text": "ok"}]}})
    assert text_of(await robot.answer(request_id)) == "ok"


@pytest.mark.parametrize(
    "body",
    [{"result": None}, {"result": 5}, {"result": []}, {"error": None}, {"error": "text"}, {"error": {}}, {}],
    ids=repr,
)
async def test_an_answer_of_broken_shape_ends_the_call_at_once(gateway: Gateway, body: Message) -> None:
    """With a usable id the robot must not wait in vain, and what it gets is well-formed."""
    server = await gateway.tool_server(tools=[held()])
    robot = await gateway.robot()
    request_id = await robot.start_call("slow")
    call = await server.until_called()
    await server.send({"jsonrpc": "2.0", "id": call.id, **body})
    answer = await robot.answer(request_id)
    assert ("result" in answer) != ("error" in answer)
    if "error" in answer:
        assert type(answer["error"]["code"]) is int
        assert type(answer["error"]["message"]) is str


async def test_an_answer_with_result_and_error_becomes_one_of_them(gateway: Gateway) -> None:
    """The old server sent `{"result":null,"error":{…}}`, which xiaozhi-server takes for a success."""
    server = await gateway.tool_server(tools=[held()])
    robot = await gateway.robot()
    request_id = await robot.start_call("slow")
    call = await server.until_called()
    await server.send({"jsonrpc": "2.0", "id": call.id, "result": None, "error": {"code": -1, "message": "no"}})
    answer = await robot.answer(request_id)
    assert answer["error"] == {"code": -1, "message": "no"}
    assert "result" not in answer


@pytest.mark.parametrize("raw", ["NaN", '"\\ud800"', "1e999", "Infinity"])
async def test_a_frame_that_only_a_lenient_parser_reads_ends_the_call(gateway: Gateway, raw: str) -> None:
    server = await gateway.tool_server(tools=[held()])
    robot = await gateway.robot()
    request_id = await robot.start_call("slow")
    call = await server.until_called()
    await server.send_frame(
        f'{{"jsonrpc":"2.0","id":{call.id},"result":{{"content":[],"structuredContent":{{"n":{raw}}}}}}}'
    )
    answer = await robot.answer(request_id)
    assert ("result" in answer) != ("error" in answer)


async def test_frames_that_are_too_much_for_a_lenient_parser_end_their_calls_too(gateway: Gateway) -> None:
    """Reading one takes long, and everybody waits meanwhile."""
    server = await gateway.tool_server(tools=[held()])
    robot = await gateway.robot()
    wide = "NaN," * 250_000
    for count in range(1, 5):
        request_id = await robot.start_call("slow")
        call = await server.until_called(count)
        await server.send_frame(f'{{"jsonrpc":"2.0","id":{call.id},"result":{{"content":[],"n":[{wide}0]}}}}')
        answer = await robot.answer(request_id)
        assert answer["error"]["data"]["executed"] is True
        assert await robot.names() == ["slow"]


async def test_a_frame_of_more_parts_than_can_be_read_in_time_ends_its_call(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[held()])
    robot = await gateway.robot()
    request_id = await robot.start_call("slow")
    call = await server.until_called()
    await server.send_frame(f'{{"jsonrpc":"2.0","id":{call.id},"result":[{"[]," * 500_001}0]}}')
    answer = await robot.answer(request_id)
    assert "500000" in answer["error"]["message"]


async def test_a_frame_with_a_byte_order_mark_ends_the_call(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[held()])
    robot = await gateway.robot()
    request_id = await robot.start_call("slow")
    call = await server.until_called()
    await server.send_frame(f'\ufeff{{"jsonrpc":"2.0","id":{call.id},"result":{{"content":[]}}}}')
    answer = await robot.answer(request_id)
    assert ("result" in answer) != ("error" in answer)


@pytest.mark.settings(calls_per_connection=4)
async def test_too_many_calls_on_one_connection_are_refused_unsent(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[held()])
    robot = await gateway.robot()
    ids = [await robot.start_call("slow") for _ in range(6)]
    for request_id in ids[4:]:
        answer = await robot.answer(request_id)
        assert answer["error"]["code"] == -32003
        assert_refused_unsent(answer)
    assert len(server.calls) == 4
    for call in server.calls:
        await call.answer("done")
    for request_id in ids[:4]:
        assert text_of(await robot.answer(request_id)) == "done"


async def test_an_open_calls_id_used_again_confuses_nobody(gateway: Gateway) -> None:
    """Not legal, but seen: two calls in flight under one id. Each ends, each once."""
    server = await gateway.tool_server(tools=[held()])
    robot = await gateway.robot()
    for number in (1, 2):
        await robot.start_call("slow", {"n": number}, id=1)
    await robot.ping()
    for call in server.calls:
        await call.answer(str(call.arguments["n"]))
    await robot.until(lambda: len(robot.answers(1)) == 2, "both are answered")


async def test_agents_do_not_see_each_others_tools(gateway: Gateway) -> None:
    await gateway.tool_server(tools=[echo("secret")], agent="a")
    other = await gateway.robot(agent="b")
    assert await other.names() == []
    for name in ("secret", "server__secret"):
        assert (await other.call(name))["error"]["code"] in (-32001, -32602)


async def test_a_call_in_a_batch_that_is_nested_too_deep_is_refused_unsent(cluster: StartCluster) -> None:
    """It can be read, but not be written again; also where its tool server is on another worker."""
    a, b = await cluster(2)
    server = await b.tool_server(tools=[echo()])
    robot = await a.robot(version="2025-03-26")
    await robot.sees("echo")
    call = '{"jsonrpc":"2.0","id":"deep","method":"tools/call","params":{"name":"echo","arguments":{"x":%s}}}'
    await robot.send_frame("[" + call % ("[" * 400 + "]" * 400) + "]")
    assert (await robot.answer("deep"))["error"]["data"]["executed"] is False
    assert server.calls == []
