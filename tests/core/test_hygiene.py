"""What nobody can see is taken out of texts; what people see stays, and what a call means is left alone."""

import socket
import unicodedata
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import hygiene, tools
from gateway.tools import Bounds

WIDE = Bounds(1000, 4 * 2**20, 128 * 1024, 64)

SEEN = "\t\n\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"
"""Of Unicode's control and format characters: those that people see, or that a description needs."""


def hidden() -> list[str]:
    everything = (chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
    return [char for char in everything if unicodedata.category(char) in ("Cc", "Cf") and char not in SEEN]


def test_every_control_and_format_character_is_taken_out_of_plain_text_but_those_that_are_seen() -> None:
    breaks = "\r\x0b\x0c\x85\u2028\u2029"
    left = [char for char in hidden() if hygiene.clean(f"a{char}b") != ("a\nb" if char in breaks else "ab")]
    assert left == []
    assert hygiene.clean(SEEN) == SEEN


def test_nothing_that_would_be_taken_out_escapes_the_quick_look() -> None:
    taken = (
        chr(code)
        for code in range(0x110000)
        if not 0xD800 <= code < 0xE000 and hygiene.clean(f"a{chr(code)}") != f"a{chr(code)}"
    )
    assert [char for char in taken if not hygiene.is_suspect(orjson.dumps(char))] == []


@pytest.mark.parametrize(
    "text",
    ["👨‍👩‍👧", "🏳️‍🌈", "👍🏽", "1️⃣", "می‌خواهم", "क्‍ष", "葛\U000e0100城", "计算器，两个数。", "a\tb\nc", "é e\u0301 ﬁ"],
)
def test_what_people_see_stays_with_what_it_is_made_of(text: str) -> None:
    assert hygiene.clean(text) is text


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("ad\u200bd", "add"),
        ("a\u200db", "ab"),
        ("\u202eevil\u202c", "evil"),
        ("hi" + "".join(chr(0xE0000 + ord(char)) for char in "ignore all"), "hi"),
        ("👍" + "\ufe0f" * 5, "👍\ufe0f"),
        ("a\ufe01\ufe05", "a"),
        ("x\U000e0150\U000e0151", "x"),
        ("one\r\ntwo\rthree\u2028four", "one\ntwo\nthree\nfour"),
        ("\x1b[2Jgone", "[2Jgone"),
        ("ㅤ\u3164\uffa0\u115f", ""),
    ],
)
def test_what_hides_text_is_taken_out(text: str, clean: str) -> None:
    assert hygiene.clean(text) == clean


@settings(deadline=None, max_examples=100)
@given(st.text(st.sampled_from("a葛👍م\u200b\u200c\u200d\ufe0f\ufe01\U000e0100\U000e0041\r\n\u202e"), max_size=12))
def test_a_clean_text_is_clean_or_gets_shorter_until_it_is(text: str) -> None:
    clean = hygiene.clean(text)
    assert not set(clean) & set("\u200b\u202e\r\U000e0041")
    assert len(clean) <= len(text)


BAD, GOOD = "say\u200b it", "say it"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": BAD,
    "properties": {
        "a": {"type": "string", "description": BAD, "enum": [BAD], "default": BAD, "pattern": BAD, "examples": [BAD]},
        "enum": {"items": [{"description": BAD}], "anyOf": [{"const": BAD, "$comment": BAD}]},
        BAD: {"properties": {"properties": {"description": BAD}}},
    },
    "required": ["a", BAD],
    "$defs": {"default": {"description": BAD}},
}


def test_texts_are_cleaned_everywhere_in_a_tool_and_what_a_call_means_is_left_alone() -> None:
    taken = tools.take([{"name": BAD, "title": BAD, "description": BAD, "inputSchema": SCHEMA, "outputSchema": SCHEMA,
                         "annotations": {"title": BAD}}], WIDE)  # fmt: skip
    [tool] = taken.tools
    assert (tool["name"], tool["title"], tool["description"]) == (BAD, GOOD, GOOD), "it is called by the name it gave"
    assert tool["annotations"] == {"title": BAD}, "untouched, and nobody believes them"
    assert tool["outputSchema"] == tool["inputSchema"]
    schema = tool["inputSchema"]
    assert schema["title"] == GOOD
    assert schema["properties"]["a"] == {**SCHEMA["properties"]["a"], "description": GOOD}
    assert schema["properties"]["enum"] == {
        "items": [{"description": GOOD}],
        "anyOf": [{"const": BAD, "$comment": GOOD}],
    }
    assert schema["properties"][BAD]["properties"]["properties"]["description"] == GOOD
    assert schema["required"] == ["a", BAD]
    assert schema["$defs"]["default"]["description"] == GOOD
    assert taken.cleaned == 1
    assert dict(taken.oddities(WIDE)) == {"hidden": "invisible characters taken out of the texts of 1 tools"}


# References


@pytest.mark.parametrize(
    "reference",
    ["http://127.0.0.1:9/x", "https://evil.example/s.json", "//evil/s", "file:///etc/passwd", "other.json", " #/x", ""],
)
@pytest.mark.parametrize("key", ["$ref", "$dynamicRef", "$recursiveRef"])
def test_a_reference_to_another_document_is_taken_out_and_nobody_dials(
    reference: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "socket", None)
    monkeypatch.setattr(socket, "getaddrinfo", None)
    schema = {"properties": {"a": {key: reference, "type": "number"}}, "allOf": [{key: reference}]}

    taken = tools.take([{"name": "add", "inputSchema": schema, "outputSchema": {key: reference}}], WIDE)

    [tool] = taken.tools
    assert tool["inputSchema"]["properties"] == {"a": {"type": "number"}}
    assert tool["inputSchema"]["allOf"] == [{}]
    assert tool["outputSchema"] == {}
    assert taken.unreferenced == 3


def test_references_within_the_schema_and_things_that_are_only_called_so_stay() -> None:
    schema = {
        "type": "object",
        "properties": {"$ref": {"type": "string"}, "a": {"$ref": "#/$defs/n"}, "b": {"default": {"$ref": "http://x"}}},
        "required": [],
        "$defs": {"n": {"type": "number", "$id": "https://example.com/n"}, "$ref": {"$ref": "#"}},
        "$schema": "https://json-schema.org/draft/2020-12/schema",
    }
    [tool] = tools.take([{"name": "add", "inputSchema": schema}], WIDE).tools
    assert tool["inputSchema"] == schema


def test_references_in_a_circle_are_passed_on_and_followed_by_nobody() -> None:
    schema = {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": [], "$ref": "#/properties/a"}
    [tool] = tools.take([{"name": "add", "inputSchema": schema}], WIDE).tools
    assert tool["inputSchema"] == schema


# Bounds of one tool


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(levels - 1):
        schema = {"x": schema}
    return schema


@pytest.mark.parametrize("key", ["inputSchema", "outputSchema"])
def test_a_schema_may_be_nested_so_deep_and_no_deeper(key: str) -> None:
    bounds = Bounds(10, 2**20, 2**16, 8)
    assert len(tools.take([{"name": "fits", key: nested(8)}], bounds).tools) == 1
    taken = tools.take([{"name": "deep", key: nested(9)}, {"name": "b"}], bounds)
    assert [tool["name"] for tool in taken.tools] == ["b"]
    assert taken.oversized == 1


def test_a_tool_may_be_so_large_and_no_larger() -> None:
    bounds = Bounds(10, 2**20, 5000, 64)
    taken = tools.take(
        [{"name": "large", "description": "x" * 5000}, {"name": "fits", "description": "x" * 4900}], bounds
    )
    assert [tool["name"] for tool in taken.tools] == ["fits"]
    assert "GATEWAY_TOOL_BYTES=5000" in dict(taken.oddities(bounds))["oversized"]


def test_of_a_list_that_wants_to_be_looked_through_for_ever_the_rest_is_left_out() -> None:
    listed = [{"name": str(number), "inputSchema": {"x": [BAD] * 9000}} for number in range(40)]
    taken = tools.take(listed, WIDE)
    assert 0 < len(taken.tools) < 40
    assert taken.weight < 2 * tools.WEIGHT_MAX
    assert taken.cut == 40 - len(taken.tools)


@pytest.mark.parametrize(
    "entry",
    [
        {"description": "\U0001f468\u200d" * 15_000},
        {"description": "\r\n" * 30_000},
        {"inputSchema": {"x": [orjson.loads(b"[" * 60 + b"]" * 60)] * 1000}},
        {"inputSchema": {"x": [[]] * 40_000}},
    ],
    ids=["joiners", "breaks", "deep", "wide"],
)
def test_whatever_makes_a_list_dear_to_look_at_there_is_an_end_to_it(entry: dict[str, Any]) -> None:
    listed = [{"name": str(number), **entry} for number in range(32)]
    taken = tools.take(listed, WIDE)
    assert 0 < len(taken.tools) < 32
    assert taken.weight < 2 * tools.WEIGHT_MAX
