"""The conversation with a robot: every request leads to exactly one answer, in the shape that robots can read."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import jsonrpc
from gateway.jsonrpc import Request
from gateway.robotsession import (
    BATCH_MAX,
    Answer,
    AnswerList,
    BecameReady,
    CancelCall,
    RobotSession,
    RouteCall,
    Step,
)

SERVER = {"name": "gateway", "version": "1"}


def new() -> RobotSession:
    return RobotSession("agent-1", SERVER)


def say(session: RobotSession, **message: Any) -> list[Step]:
    return session.on_message(jsonrpc.classify({"jsonrpc": "2.0", **message}))


def answer(steps: list[Step]) -> dict[str, Any]:
    """The one answer that the gateway gives itself."""
    [step] = steps
    assert isinstance(step, Answer)
    frame: dict[str, Any] = orjson.loads(step.frame)
    assert frame.keys() in ({"jsonrpc", "id", "result"}, {"jsonrpc", "id", "error"})
    return frame


def initialized(version: str = "2024-11-05", client: str = "XiaozhiMCPEndpointClient") -> RobotSession:
    session = new()
    params = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": client, "version": "1.0"}}
    say(session, id=1, method="initialize", params=params)
    say(session, method="notifications/initialized")
    return session


# initialize, ping, tools/list


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
def test_a_known_version_is_answered_with_itself(version: str) -> None:
    result = answer(say(new(), id=0, method="initialize", params={"protocolVersion": version}))["result"]
    assert result == {
        "protocolVersion": version,
        "capabilities": {"tools": {"listChanged": True}},
        "serverInfo": SERVER,
    }


@pytest.mark.parametrize("params", [None, [], {}, {"protocolVersion": "2026-07-28"}, {"protocolVersion": 5}], ids=repr)
def test_any_other_version_is_answered_with_the_newest_and_never_with_an_error(params: Any) -> None:
    session = new()
    assert answer(say(session, id=0, method="initialize", params=params))["result"]["protocolVersion"] == "2025-11-25"
    assert session.came_by_initialize


def test_a_robot_is_ready_once_it_says_so() -> None:
    session = new()
    say(session, id=1, method="initialize", params={})
    assert not session.is_ready
    assert say(session, method="notifications/initialized", params={}) == [BecameReady()]
    assert session.is_ready
    say(session, id=2, method="initialize", params={})
    assert not session.is_ready


@pytest.mark.parametrize(
    ("info", "name"),
    [({"name": "x" * 99}, "x" * 64), ({}, ""), ({"name": None}, ""), (None, ""), ("text", ""), ({"name": 5}, "5")],
    ids=repr,
)
def test_the_clients_name_is_kept_whatever_it_is(info: Any, name: str) -> None:
    session = new()
    say(session, id=1, method="initialize", params={"clientInfo": info})
    assert session.client_name == name
    assert not session.is_xiaozhi


def test_a_ping_is_answered_before_initialize_too() -> None:
    assert answer(say(new(), id="p", method="ping")) == {"jsonrpc": "2.0", "id": "p", "result": {}}


@pytest.mark.parametrize(
    ("params", "cursor"),
    [(None, None), ({}, None), ({"cursor": None}, None), ({"cursor": ""}, ""), ({"cursor": "p"}, "p")],
)
def test_a_list_is_asked_for_without_a_handshake_too(params: Any, cursor: str | None) -> None:
    assert say(new(), id=9, method="tools/list", params=params) == [AnswerList(9, cursor)]


@pytest.mark.parametrize("params", [[], "x", 5, False, {"cursor": 5}, {"cursor": ["p"]}], ids=repr)
def test_a_list_with_wrong_params_is_refused(params: Any) -> None:
    frame = answer(say(new(), id=9, method="tools/list", params=params))
    assert frame["id"] == 9
    assert frame["error"]["code"] == -32602


@pytest.mark.parametrize(
    "method", ["resources/list", "prompts/list", "server/discover", "", "notifications/initialized"]
)
def test_an_unknown_method_is_refused(method: str) -> None:
    assert answer(say(new(), id=9, method=method))["error"]["code"] == -32601


# Noise


def test_garbage_and_what_is_no_message_are_answered() -> None:
    session = new()
    assert answer(session.on_message(jsonrpc.parse(b"{")))["error"]["code"] == -32700
    assert answer(session.on_message(jsonrpc.parse(b"")))["error"]["code"] == -32700
    assert answer(session.on_message(jsonrpc.parse(b"5")))["error"]["code"] == -32600
    assert answer(say(session, id=7, method=5))["id"] == 7
    assert answer(say(session, id=None, method="ping"))["id"] is None


@pytest.mark.parametrize("message", [{"id": 1, "result": {}}, {"id": None, "error": {}}, {"result": {}}], ids=repr)
def test_an_answer_is_never_answered(message: dict[str, Any]) -> None:
    """Two peers that answer each other's errors would never stop."""
    assert say(new(), **message) == []


@pytest.mark.parametrize("method", ["tools/call", "notifications/unknown", "initialize", "ping"])
def test_a_notification_is_never_answered(method: str) -> None:
    assert say(new(), method=method, params={"name": "x"}) == []


# Calls


@pytest.mark.parametrize("arguments", [{}, {"arguments": None}, {"arguments": {}}, {"arguments": {"a": [1]}}], ids=repr)
def test_a_call_of_the_right_shape_is_routed_with_all_its_params(arguments: dict[str, Any]) -> None:
    params = {"name": "add", **arguments, "serialNumber": None, "_meta": {"x": 1}}
    assert say(new(), id=0, method="tools/call", params=params) == [RouteCall(0, "add", params, None)]


@pytest.mark.parametrize(
    "params",
    [
        None,
        [],
        "add",
        5,
        {},
        {"name": None},
        {"name": 5},
        {"name": ["add"]},
        {"name": "add", "arguments": []},
        {"name": "add", "arguments": "{}"},
        {"name": "add", "arguments": 0},
        {"name": "add", "arguments": False},
        {"name": "add", "_meta": []},
        {"name": "add", "_meta": "x"},
    ],
    ids=repr,
)
def test_a_call_of_a_wrong_shape_goes_nowhere(params: Any) -> None:
    """A string for arguments kills old servers for everybody."""
    error = answer(say(new(), id=4, method="tools/call", params=params))["error"]
    assert error["code"] == -32602
    assert error["data"] == {"reason": "bad params", "executed": False, "agent_id": "agent-1"}


@pytest.mark.parametrize(
    ("token", "kept"),
    [(7, 7), ("7", "7"), (0, 0), ("", ""), (None, None), (True, None), (1.5, None), ([], None)],
    ids=repr,
)
def test_a_progress_token_is_a_string_or_an_integer(token: Any, kept: int | str | None) -> None:
    [step] = say(new(), id=1, method="tools/call", params={"name": "a", "_meta": {"progressToken": token}})
    assert isinstance(step, RouteCall)
    assert step.progress_token == kept


@pytest.mark.parametrize(
    ("params", "steps"),
    [
        ({"requestId": 0}, [CancelCall(0, "")]),
        ({"requestId": "0", "reason": "r" * 500}, [CancelCall("0", "r" * 200)]),
        ({"requestId": 1, "reason": None}, [CancelCall(1, "")]),
        ({"requestId": 1, "reason": {"a": 1}}, [CancelCall(1, '{"a":1}')]),
        ({"requestId": True}, []),
        ({"requestId": None}, []),
        ({}, []),
        (None, []),
        ([1], []),
    ],
    ids=repr,
)
def test_a_cancellation_names_the_call_by_value_and_type(params: Any, steps: list[Step]) -> None:
    assert say(new(), method="notifications/cancelled", params=params) == steps


def test_a_reason_nested_deeper_than_python_goes_is_survived() -> None:
    deep = orjson.loads(b"[" * 1000 + b"]" * 1000)
    [step] = say(new(), method="notifications/cancelled", params={"requestId": 1, "reason": deep})
    assert isinstance(step, CancelCall)
    say(new(), id=1, method="initialize", params={"clientInfo": {"name": deep, "version": deep}})


# Batches


def test_a_batch_of_2025_03_26_is_worked_off_in_order() -> None:
    session = initialized("2025-03-26", "other")
    members = [
        {"id": 1, "method": "ping"},
        {"method": "notifications/unknown"},
        5,
        {"id": 2, "method": "tools/list"},
        {"id": 3, "method": "tools/call", "params": {"name": "a"}},
        {"id": 4, "result": {}},
        {"id": 5, "method": "initialize"},
    ]
    steps = session.on_message(members)
    assert [type(step) for step in steps] == [Answer, Answer, AnswerList, RouteCall, Answer]
    assert answer(steps[-1:])["error"]["code"] == -32600
    assert session.version == "2025-03-26"


@pytest.mark.parametrize("version", ["2024-11-05", "2025-06-18", "2025-11-25"])
def test_a_batch_of_any_other_revision_is_refused(version: str) -> None:
    ping = {"id": 1, "method": "ping"}
    assert answer(initialized(version, "other").on_message([ping]))["error"]["code"] == -32600
    assert answer(new().on_message([ping]))["error"]["code"] == -32600


def test_an_empty_batch_and_one_that_is_too_long_are_refused() -> None:
    session = initialized("2025-03-26", "other")
    assert answer(session.on_message([]))["error"]["code"] == -32600
    assert answer(session.on_message([{"id": 1, "method": "ping"}] * (BATCH_MAX + 1)))["error"]["code"] == -32600
    assert len(session.on_message([{"id": 1, "method": "ping"}] * BATCH_MAX)) == BATCH_MAX


# The push of id 2


def listed(client: str = "XiaozhiMCPEndpointClient") -> RobotSession:
    session = initialized(client=client)
    session.has_listed = True
    return session


def call(session: RobotSession, rpc_id: int, name: Any = "a") -> None:
    say(session, id=rpc_id, method="tools/call", params={"name": name})


def test_a_list_may_be_pushed_before_any_call() -> None:
    assert listed().may_push
    assert not listed("another client").may_push
    assert not initialized().may_push, "before its first list it takes id 2 for that"


def test_nothing_is_pushed_from_the_first_call_until_the_second_is_answered() -> None:
    session = listed()
    call(session, 1)
    assert not session.may_push
    session.on_answered(1)
    assert not session.may_push, "call 2 may be on its way"
    call(session, 2)
    assert not session.may_push
    session.on_answered(2)
    assert session.may_push


def test_an_answer_to_the_third_call_does_not_free_id_2_while_the_second_runs() -> None:
    session = listed()
    for rpc_id in (1, 2, 3):
        call(session, rpc_id)
    session.on_answered(3)
    assert not session.may_push
    session.on_answered(2)
    assert session.may_push


def test_a_call_that_the_session_refuses_itself_counts_as_answered() -> None:
    session = listed()
    call(session, 1)
    call(session, 2, name=None)
    assert session.may_push


def test_a_second_call_that_is_cancelled_waits_for_nothing() -> None:
    session = listed()
    for rpc_id in (1, 2, 3):
        call(session, rpc_id)
    say(session, method="notifications/cancelled", params={"requestId": 2})
    session.on_answered(3)
    assert session.may_push


def test_calls_with_text_ids_free_nothing() -> None:
    session = listed()
    call(session, 1)
    session.on_answered("2")
    assert not session.may_push


@settings(deadline=None, max_examples=60)
@given(st.permutations(range(2, 7)))
def test_a_push_is_never_allowed_while_id_2_is_in_flight(order: list[int]) -> None:
    session = listed()
    for rpc_id in range(1, 7):
        call(session, rpc_id)
    for answered in order:
        session.on_answered(answered)
        assert session.may_push is (2 in order[: order.index(answered) + 1])


# Properties


VALUES = st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
PARAMS = VALUES | st.dictionaries(
    st.sampled_from(["name", "arguments", "_meta", "cursor", "requestId", "reason", "clientInfo", "protocolVersion"]),
    VALUES | st.dictionaries(st.sampled_from(["progressToken", "name"]), VALUES, max_size=2),
    max_size=4,
)
METHODS = st.sampled_from(["tools/call", "tools/list", "initialize", "ping", "notifications/cancelled", "x"])


@settings(deadline=None, max_examples=150)
@given(st.sampled_from([0, "", "1", 1, -7]), METHODS, PARAMS)
def test_every_request_leads_to_exactly_one_step_under_its_id(rpc_id: int | str, method: str, params: Any) -> None:
    [step] = new().on_message(Request(rpc_id, method, params))
    if isinstance(step, Answer):
        assert answer([step])["id"] == rpc_id
    else:
        assert isinstance(step, AnswerList | RouteCall)
        assert step.id == rpc_id
    new().on_message(jsonrpc.classify({"method": method, "params": params}))
