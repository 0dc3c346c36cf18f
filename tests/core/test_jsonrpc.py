"""Frames to messages and back: nothing a peer sends raises, and a usable id is never lost."""

import random
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import jsonrpc
from gateway.jsonrpc import (
    PARTS_MAX,
    TOO_MANY_PARTS,
    Garbage,
    Invalid,
    Message,
    Notification,
    Request,
    Response,
    classify,
    parse,
    standard_parse,
)

quick = settings(deadline=None, max_examples=60)

LARGE = b"NaN" * 100


@pytest.mark.parametrize(
    ("frame", "rpc_id"),
    [
        (b'{"jsonrpc":"2.0","id":7,"result":' + LARGE + b"}", 7),
        (b' { "id" : "7" , "result":' + LARGE, 7),
        (b'{"result":' + LARGE + b',"id":7}', 7),
        (b'{"result":' + LARGE + b', "id": 7, "jsonrpc": "2.0"}\r\n', 7),
        (b'{"result":{"id":7,"x":' + LARGE + b"}}", None),
        (b'{"result":' + LARGE + b',"x":{"id":7}}', None),
        (b'[{"id":7,"result":' + LARGE + b"}]", None),
        (b'{"jsonrpc":"2.0","id":true,"result":' + LARGE + b"}", None),
        (b'{"id":' + b"7" * 11 + b',"result":' + LARGE + b"}", None),
        (b"", None),
    ],
)
def test_of_a_frame_too_large_for_a_second_reading_the_id_is_still_found(frame: bytes, rpc_id: int | None) -> None:
    assert jsonrpc.answered_id(frame) == rpc_id


MESSAGES: list[tuple[bytes, Message]] = [
    (b'{"jsonrpc":"2.0","id":0,"method":"ping"}', Request(0, "ping", None)),
    (b'{"id":"","method":"ping","params":null}', Request("", "ping", None)),
    (b'{"id":"1","method":"ping","params":{}}', Request("1", "ping", {})),
    (b'{"id":-5,"method":"","params":[1]}', Request(-5, "", [1])),
    (b'{"id":9223372036854775807,"method":"m"}', Request(2**63 - 1, "m", None)),
    (b'{"id":-9223372036854775808,"method":"m"}', Request(-(2**63), "m", None)),
    (b' {"id":1,"method":"m"}\r\n', Request(1, "m", None)),
    (b'{"method":"n"}', Notification("n", None)),
    (b'{"method":"n","params":"text"}', Notification("n", "text")),
    (b'{"id":1,"result":null}', Response(1, {"id": 1, "result": None})),
    (b'{"id":"a","error":{}}', Response("a", {"id": "a", "error": {}})),
    (b'{"id":3,"method":5}', Invalid(3, "method is not a string", has_method=True)),
    (b'{"id":true,"method":5}', Invalid(None, "method is not a string", has_method=True)),
    (b'{"id":3}', Invalid(3, "neither method nor result nor error")),
    (b'{"id":3,"method":null}', Invalid(3, "neither method nor result nor error")),
    (b"{}", Invalid(None, "neither method nor result nor error")),
    (b'{"result":{}}', Invalid(None, "an answer without an id", is_answer=True)),
    (b'{"id":null,"error":{}}', Invalid(None, "an answer without an id", is_answer=True)),
    (b"1", Invalid(None, "not an object")),
    (b'"text"', Invalid(None, "not an object")),
    (b"null", Invalid(None, "not an object")),
    (b"[]", []),
    (b'[1,{"id":2}]', [1, {"id": 2}]),
]

NO_ID = Invalid(None, "id must be a string or a 64-bit integer", has_method=True)


@pytest.mark.parametrize(("frame", "message"), MESSAGES, ids=[frame.decode() for frame, _ in MESSAGES])
def test_a_frame_is_what_it_says(frame: bytes, message: Message) -> None:
    assert parse(frame) == message
    assert standard_parse(frame) == message


UNUSABLE_IDS: list[Any] = [None, True, False, 1.0, 1e300, 2**63, -(2**63) - 1, 2**200, [], {}]


@pytest.mark.parametrize("value", UNUSABLE_IDS, ids=repr)
def test_what_is_no_string_and_no_64_bit_integer_is_no_id(value: Any) -> None:
    assert jsonrpc.usable_id(value) is None
    assert classify({"id": value, "method": "m"}) == Invalid(
        None, "id must be a string or a 64-bit integer", has_method=True
    )


def test_an_integer_that_only_a_float_can_hold_is_no_id() -> None:
    assert parse(b'{"id":%d,"method":"m"}' % 2**70) == Invalid(
        None, "id must be a string or a 64-bit integer", has_method=True
    )
    assert parse(b'{"id":1.0,"method":"m"}') == Invalid(
        None, "id must be a string or a 64-bit integer", has_method=True
    )


def test_zero_empty_text_one_and_the_digit_one_are_four_ids() -> None:
    ids = [message.id for frame in (b"0", b'""', b'"1"', b"1") if isinstance(message := with_id(frame), Request)]
    assert ids == [0, "", "1", 1]
    assert len({(type(rpc_id), rpc_id) for rpc_id in ids}) == 4


def with_id(text: bytes) -> Message:
    return parse(b'{"id":%s,"method":"m"}' % text)


@pytest.mark.parametrize("frame", [b"", b" ", b"\n", b" \r\n\t"], ids=repr)
def test_blank_lines_are_told_from_other_garbage(frame: bytes) -> None:
    assert parse(frame) == Garbage(parse(frame).what, is_blank=True)  # type: ignore[union-attr]


@pytest.mark.parametrize("frame", [b"npm start", b"{", b'{"id":1}}', b"NaN", b"\xff", b"[" * 100_000, b'{"a":' * 5_000])
def test_what_is_no_json_is_garbage(frame: bytes) -> None:
    message = parse(frame)
    assert isinstance(message, Garbage)
    assert not message.is_blank


@pytest.mark.parametrize("part", [b"[],", b"{},", b'{"":0},', b'[""],', b'"","",[],{},'], ids=repr)
def test_a_frame_of_too_many_objects_and_arrays_is_not_read(part: bytes) -> None:
    message = parse(b"[" + part * (PARTS_MAX + 1) + b"0]")
    assert message == Garbage(TOO_MANY_PARTS)


@pytest.mark.parametrize("text", ["[{" * 300_000, '{"a": [1]}, ' * 300_000, '\\"[' * 600_000, "[\\" * 600_000], ids=len)
def test_a_text_may_have_as_many_brackets_as_it_likes(text: str) -> None:
    message = {"id": 1, "result": {"content": [{"type": "text", "text": text}]}}
    assert parse(orjson.dumps(message)) == Response(1, message)


@pytest.mark.parametrize(
    ("message", "is_error"),
    [
        ({"id": 1, "result": {}}, False),
        ({"id": 1, "result": None}, False),
        ({"id": 1, "result": {}, "error": None}, False),
        ({"id": 1, "error": {"code": 1}}, True),
        ({"id": 1, "error": None}, True),
        ({"id": 1, "result": None, "error": {"code": 1}}, True),
    ],
    ids=repr,
)
def test_an_error_counts_unless_it_is_a_null_beside_a_result(message: dict[str, Any], is_error: bool) -> None:
    answer = classify(message)
    assert isinstance(answer, Response)
    assert answer.is_error is is_error


# What orjson refuses


ODD = [
    b'{"id":7,"result":{"v":NaN}}',
    b'{"id":7,"result":{"v":[Infinity,-Infinity,1e999]}}',
    b'{"id":7,"result":{"v":"\\ud800"}}',
    b'{"id":7,"result":{"v":"\xff\xfe"}}',
    b'\xef\xbb\xbf{"id":7,"result":{}}',
]


@pytest.mark.parametrize("frame", ODD, ids=repr)
def test_the_standard_library_finds_the_id_in_what_orjson_refuses(frame: bytes) -> None:
    assert isinstance(parse(frame), Garbage)
    answer = standard_parse(frame)
    assert isinstance(answer, Response)
    assert answer.id == 7


@pytest.mark.parametrize("text", [b"\\ud800", b"\\udfff x", b"a\\ud83db", b"\xff", b"\xed\xa0\x80"], ids=repr)
def test_every_string_read_that_way_can_be_written_again(text: bytes) -> None:
    """A method, a cursor or an id goes back to its sender: one that can't be written would end the connection."""
    message = standard_parse(b'{"id":"%s","method":"%s","params":{"cursor":"%s"}}' % (text, text, text))
    assert isinstance(message, Request)
    assert orjson.loads(jsonrpc.request(message.id, message.method, message.params))["method"] == message.method


def test_a_whole_pair_of_surrogates_stays_what_it_is() -> None:
    assert standard_parse(b'\xef\xbb\xbf{"method":"\\ud83e\\udd8a"}') == Notification("🦊", None)


@pytest.mark.parametrize("frame", [b"", b"noise", b"[" * 100_000, b'{"id":%s}' % (b"9" * 5_000)], ids=lambda f: f[:9])
def test_the_standard_library_does_not_raise_either(frame: bytes) -> None:
    assert isinstance(standard_parse(frame), Garbage)


# Properties


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
MEMBERS = st.sampled_from(["jsonrpc", "id", "method", "params", "result", "error"])


@quick
@given(st.dictionaries(MEMBERS, JSON | st.sampled_from(["2.0", "ping", "tools/call", 0, "", "1", 1]), max_size=6))
def test_a_usable_id_is_always_yielded(value: dict[str, Any]) -> None:
    message = classify(value)
    rpc_id = jsonrpc.usable_id(value.get("id"))
    if isinstance(message, Notification):
        assert "id" not in value
    else:
        assert message.id == rpc_id
        assert type(message.id) is type(rpc_id)


@quick
@given(st.binary(max_size=64))
def test_no_bytes_raise(frame: bytes) -> None:
    for message in (parse(frame), standard_parse(frame)):
        assert isinstance(message, Request | Notification | Response | Invalid | Garbage | list)


SEEDS = [
    b'{"jsonrpc":"2.0","id":41,"method":"tools/call","params":{"name":"a","arguments":{"x":[1,2.5,null]}}}',
    '{"jsonrpc":"2.0","id":"长🦊","result":{"content":[{"type":"text","text":"\\u4e2d\\ud83e\\udd8a"}]}}'.encode(),
    b'[{"id":1,"method":"ping"},{"id":2,"error":{"code":-1,"message":"x"}}]',
    b'{"method":"notifications/progress","params":{"progressToken":7,"progress":NaN}}\n',
]
CHARACTERS = b'{}[]:,"\\0179-eE.unltrfsa\x00\x1f\x7f\x80\xc3\xef\xff \n'


def garbage(source: random.Random) -> bytes:
    """A frame of a peer, damaged in a few places."""
    frame = bytearray(source.choice(SEEDS))
    for _ in range(source.randint(1, 4)):
        at = source.randrange(len(frame) + 1)
        frame[at : at + source.randint(0, 3)] = bytes(source.choices(CHARACTERS, k=source.randint(0, 3)))
    return bytes(frame)


def test_twenty_thousand_damaged_frames_are_survived_and_no_id_is_lost() -> None:
    source = random.Random(20_261_122)
    for _ in range(20_000):
        frame = garbage(source)
        message = parse(frame)
        if isinstance(message, Garbage):
            assert isinstance(standard_parse(frame), Request | Notification | Response | Invalid | Garbage | list)
            continue
        value = orjson.loads(frame)
        members = value if type(value) is list else [value]
        told = [classify(member) for member in message] if type(message) is list else [message]
        for member, one in zip(members, told, strict=True):
            rpc_id = jsonrpc.usable_id(member.get("id")) if type(member) is dict else None
            if rpc_id is not None:
                assert isinstance(one, Request | Response | Invalid)
                assert one.id == rpc_id


# Messages to frames


def test_frames_are_compact_and_leave_absent_params_out() -> None:
    assert jsonrpc.request(0, "tools/list") == b'{"jsonrpc":"2.0","id":0,"method":"tools/list"}'
    assert (
        jsonrpc.request("a", "m", {"k": "长"}) == '{"jsonrpc":"2.0","id":"a","method":"m","params":{"k":"长"}}'.encode()
    )
    assert jsonrpc.notification("n") == b'{"jsonrpc":"2.0","method":"n"}'
    assert jsonrpc.notification("n", {}) == b'{"jsonrpc":"2.0","method":"n","params":{}}'
    assert jsonrpc.result(1, {}) == b'{"jsonrpc":"2.0","id":1,"result":{}}'
    assert jsonrpc.error(None, {"code": 1}) == b'{"jsonrpc":"2.0","id":null,"error":{"code":1}}'


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def test_what_is_nested_too_deep_to_be_written_says_so() -> None:
    with pytest.raises(jsonrpc.Undumpable):
        jsonrpc.dumps(nested(300))


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), ("", ""), ("text", "text"), ("x" * 99, "x" * 20), (5, "5"), ({"a": [1]}, '{"a":[1]}')],
    ids=repr,
)
def test_an_excerpt_is_text_for_people(value: Any, text: str) -> None:
    assert jsonrpc.excerpt(value, 20) == text


def test_an_excerpt_of_what_is_nested_deep_does_not_raise() -> None:
    """`str` would: the parser goes deeper than Python's own limit."""
    assert "deep" in jsonrpc.excerpt(orjson.loads(b"[" * 1000 + b"]" * 1000), 100)
