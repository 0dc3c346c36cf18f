"""Answers of tool servers as robots can bear them: whole, one of result or error, never above the limit."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import results
from gateway.results import Shape

LIMIT = 4096
"""The smallest that the settings allow."""


def told(message: dict[str, Any], *, limit_bytes: int = LIMIT, with_error_text: bool = False) -> dict[str, Any]:
    """The answer, as the robot with id 5 reads it; checked for what must hold always."""
    frame = results.answer(5, message, Shape(limit_bytes, with_error_text))
    assert len(frame) <= limit_bytes
    answer: dict[str, Any] = orjson.loads(frame)
    assert answer["jsonrpc"] == "2.0"
    assert answer["id"] == 5
    assert ("result" in answer) is not ("error" in answer)
    return answer


def text_block(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": text, **more}


def nested(levels: int) -> Any:
    return orjson.loads(b"[" * levels + b"]" * levels)


RESULT = {"content": [text_block("42"), {"type": "x"}], "structuredContent": {"n": 1}, "_meta": {"k": [1]}, "own": None}


def test_a_result_passes_whole_under_the_robots_id() -> None:
    assert told({"jsonrpc": "2.0", "id": 77, "result": RESULT}) == {"jsonrpc": "2.0", "id": 5, "result": RESULT}


@pytest.mark.parametrize("result", [None, "text", 5, [], {}], ids=repr)
def test_a_result_of_any_type_is_a_result(result: Any) -> None:
    assert told({"id": 77, "result": result})["result"] == result


def test_an_error_of_the_tool_server_passes_verbatim() -> None:
    error = {"code": -32042, "message": "我不行", "data": {"why": [1, None]}}
    assert told({"id": 77, "error": error})["error"] == error


@pytest.mark.parametrize("rpc_id", [0, "", "1", 1, "长🦊", -(2**63)], ids=repr)
def test_the_id_keeps_value_and_type(rpc_id: int | str) -> None:
    answer = orjson.loads(results.answer(rpc_id, {"id": 77, "result": {}}, Shape(LIMIT, with_error_text=False)))
    assert answer["id"] == rpc_id
    assert type(answer["id"]) is type(rpc_id)


def test_a_null_beside_the_one_that_counts_is_left_out() -> None:
    assert told({"id": 77, "result": {}, "error": None}) == {"jsonrpc": "2.0", "id": 5, "result": {}}
    both = told({"id": 77, "result": None, "error": {"code": 1, "message": "x"}})
    assert both == {"jsonrpc": "2.0", "id": 5, "error": {"code": 1, "message": "x"}}


@pytest.mark.parametrize(
    "error",
    [None, "broken", {}, {"code": "x", "message": "y"}, {"code": True, "message": "y"}, {"code": 1}, [1], 7.5],
    ids=repr,
)
def test_an_error_that_is_none_becomes_one(error: Any) -> None:
    answer = told({"id": 77, "error": error})
    assert answer["error"]["code"] == -32603
    assert " / " in answer["error"]["message"]


def test_an_error_nested_deeper_than_python_goes_is_still_answered() -> None:
    assert told({"id": 77, "error": nested(1000)})["error"]["code"] == -32603


def test_a_result_nested_too_deep_to_be_written_is_answered_with_an_error() -> None:
    assert told({"id": 77, "result": nested(300)})["error"]["code"] == -32603


def test_an_error_with_data_nested_too_deep_keeps_code_and_message() -> None:
    error = {"code": 3, "message": "m", "data": nested(300)}
    assert told({"id": 77, "error": error})["error"] == {"code": 3, "message": "m"}


@pytest.mark.parametrize("character", ["e", "长", "🦊", "\u0001"], ids=repr)
def test_a_large_error_loses_its_data_and_the_end_of_its_message(character: str) -> None:
    error = told({"id": 77, "error": {"code": 3, "message": character * 9000, "data": "d" * 9000}})["error"]
    assert error["code"] == 3
    assert error["message"].startswith(character * 100)
    assert "data" not in error


# Error text for robots that show nothing else


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (
            {"content": [text_block("no such city"), text_block("try again")], "isError": True},
            "no such city\ntry again",
        ),
        ({"content": [], "isError": True}, "error"),
        ({"content": None, "isError": True}, "error"),
        ({"content": [{"type": "image"}, 5], "isError": True}, "error"),
        ({"content": [text_block("a")], "isError": True, "error": "own words"}, "own words"),
    ],
    ids=repr,
)
def test_an_error_result_says_its_text_also_as_error(result: dict[str, Any], text: str) -> None:
    answer = told({"id": 77, "result": result}, with_error_text=True)
    assert answer["result"] == {**result, "error": text}
    assert told({"id": 77, "result": result})["result"] == result


@pytest.mark.parametrize("flag", [False, None, "true", 1], ids=repr)
def test_any_other_result_gets_no_error_text(flag: Any) -> None:
    result = {"content": [text_block("fine")], "isError": flag}
    assert told({"id": 77, "result": result}, with_error_text=True)["result"] == result


# Too large


@pytest.mark.parametrize("text", ["a", "长", "🦊", '"', "\\", "\n", "\u0001", "é🦊\u0000长"], ids=repr)
def test_a_long_text_is_cut_between_two_characters_with_a_notice(text: str) -> None:
    answer = told({"id": 77, "result": {"content": [text_block(text * 9000)]}})
    [block] = answer["result"]["content"]
    kept, notice = block["text"].split("\n[", 1) if text != "\n" else block["text"].rsplit("\n[", 1)
    assert (text * 9000).startswith(kept)
    assert len(orjson.dumps(kept)) > LIMIT - 1000
    assert str(LIMIT) in notice
    assert notice.endswith("]")
    assert "isError" not in answer["result"]


def test_blocks_in_front_of_the_cut_stay_whole_and_those_behind_it_go() -> None:
    blocks = [text_block("a" * 1000, annotations={"priority": 1}), text_block("b" * 9000), text_block("c")]
    content = told({"id": 77, "result": {"content": blocks}})["result"]["content"]
    assert content[0] == blocks[0]
    assert content[1]["text"].startswith("b" * 1000)
    assert len(content) == 2


@pytest.mark.parametrize(
    "result",
    [
        {"content": [{"type": "image", "data": "A" * 9000}]},
        {"content": [text_block("a" * 9000), {"type": "resource"}]},
        {"content": [text_block("a" * 9000)], "structuredContent": {"a": 1}},
        {"content": "a" * 9000},
        ["a" * 9000],
        "a" * 9000,
    ],
    ids=["image", "text and more", "structured", "no blocks", "list", "text"],
)
def test_anything_else_becomes_an_error_result_that_names_size_and_limit(result: Any) -> None:
    for with_error_text in (False, True):
        answer = told({"id": 77, "result": result}, with_error_text=with_error_text)["result"]
        assert answer["isError"] is True
        text = answer["content"][0]["text"]
        assert str(LIMIT) in text
        assert " / " in text
        assert answer.get("error") == (text if with_error_text else None)


def test_a_long_error_result_stays_one() -> None:
    result = {"content": [text_block("长" * 9000)], "isError": True}
    answer = told({"id": 77, "result": result}, with_error_text=True)["result"]
    assert answer["isError"] is True
    assert answer["error"].startswith("长" * 100)
    assert answer["content"][0]["text"].startswith("长" * 100)


def test_a_frame_of_exactly_the_limit_is_not_touched() -> None:
    result = {"content": [text_block("")]}
    size = len(results.answer(5, {"id": 1, "result": result}, Shape(10**6, with_error_text=False)))
    exact = {"content": [text_block("x" * (LIMIT - size))]}
    assert told({"id": 1, "result": exact})["result"] == exact
    assert told({"id": 1, "result": {"content": [text_block("x" * (LIMIT - size + 1))]}})["result"] != exact


TEXTS = st.builds(
    lambda part, count: part * count,
    st.sampled_from(["a", "长", "🦊", '"', "\\", "\u0001", "é\n", "𝄞x"]),
    st.integers(0, 5000),
)
BLOCKS = st.lists(st.builds(text_block, TEXTS) | st.just({"type": "image", "data": "A" * 3000}), max_size=4)
FLAGS = st.sampled_from([True, False, None, "x" * 5000])
RESULTS = st.fixed_dictionaries(
    {"content": BLOCKS},
    optional={
        "isError": FLAGS,
        "error": TEXTS,
        "structuredContent": st.none() | TEXTS,
        "_meta": st.just({"k": "v" * 5000}),
    },
)
ERRORS = (
    st.none() | TEXTS | st.fixed_dictionaries({"code": st.integers(-5, 5), "message": TEXTS}, optional={"data": TEXTS})
)
MESSAGES = st.builds(lambda result: {"id": 1, "result": result}, RESULTS | TEXTS) | st.builds(
    lambda error: {"id": 1, "error": error}, ERRORS
)


@settings(deadline=None, max_examples=150)
@given(MESSAGES, st.sampled_from([LIMIT, LIMIT + 1, 10_000]), st.booleans())
def test_no_answer_is_ever_above_the_limit(message: dict[str, Any], limit_bytes: int, with_error_text: bool) -> None:
    told(message, limit_bytes=limit_bytes, with_error_text=with_error_text)


# What belongs to one connection


def test_what_belongs_to_one_connection_does_not_travel() -> None:
    meta = {"io.modelcontextprotocol/clientInfo": {}, "traceparent": "00-1", "io.modelcontextprotocol/other": 1}
    clean = results.without_connection_meta({"name": "a", "_meta": meta})
    assert clean == {"name": "a", "_meta": {"traceparent": "00-1", "io.modelcontextprotocol/other": 1}}


@pytest.mark.parametrize("container", [{}, {"_meta": None}, {"_meta": 5}, {"_meta": {"progressToken": 1}}], ids=repr)
def test_everything_else_travels_as_it_is(container: dict[str, Any]) -> None:
    assert results.without_connection_meta(container) is container


@pytest.mark.parametrize("message", [
    {"result": {"content": [{"type": "text", "text": "é" * 20_000}]}},
    {"error": {"code": -32000, "message": "é" * 20_000}},
], ids=["result", "error"])  # fmt: skip
def test_the_longest_id_leaves_the_limit_as_it_is(message: dict[str, Any]) -> None:
    frame = results.answer("\x01" * 512, message, Shape(LIMIT, with_error_text=False))
    assert len(frame) <= LIMIT
    assert orjson.loads(frame)["id"] == "\x01" * 512
