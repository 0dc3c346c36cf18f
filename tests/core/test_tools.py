"""Tool lists: every robot can read what is left of them, and as much as possible is left."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import tools

quick = settings(deadline=None, max_examples=60)

WIDE = tools.Bounds(1000, 4 * 2**20, 128 * 1024, 64)
EMPTY = {"type": "object", "properties": {}, "required": []}


@pytest.mark.parametrize("tool", [None, 1, "add", [], {}, {"name": None}, {"name": 5}, {"name": ["add"]}], ids=repr)
def test_only_a_tool_without_a_string_name_is_dropped(tool: Any) -> None:
    assert tools.normalise(tool) is None


def test_a_name_alone_makes_a_tool() -> None:
    assert tools.normalise({"name": "add"}) == {"name": "add", "description": "", "inputSchema": EMPTY}


@pytest.mark.parametrize("description", [None, 5, [], {}], ids=repr)
def test_a_description_is_always_a_string(description: Any) -> None:
    assert sound({"name": "add", "description": description})["description"] == ""


@pytest.mark.parametrize(
    ("schema", "clean"),
    [
        (None, EMPTY),
        ("text", EMPTY),
        ([], EMPTY),
        ({}, EMPTY),
        ({"type": None}, EMPTY),
        ({"type": ["object", "null"]}, EMPTY),
        ({"type": "string"}, EMPTY),
        ({"properties": []}, EMPTY),
        ({"properties": None, "required": None}, EMPTY),
        ({"properties": {"a": None, "b": {}, "c": True}}, {**EMPTY, "properties": {"a": {}, "b": {}, "c": True}}),
        ({"required": "a"}, EMPTY),
        ({"required": ["a", 5, None, "b", "a"]}, {**EMPTY, "required": ["a", "b"]}),
        (
            {"$defs": {"x": 1}, "additionalProperties": False},
            {**EMPTY, "$defs": {"x": 1}, "additionalProperties": False},
        ),
    ],
    ids=repr,
)
def test_a_broken_schema_is_normalised(schema: Any, clean: dict[str, Any]) -> None:
    assert sound({"name": "add", "inputSchema": schema})["inputSchema"] == clean


def test_a_sound_schema_passes_whole() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "number", "enum": [1, None]}},
        "required": ["a"],
        "title": "T",
    }
    assert sound({"name": "add", "inputSchema": schema})["inputSchema"] == schema


def test_unknown_fields_pass_and_execution_goes() -> None:
    tool = {"name": "add", "annotations": {"x": 1}, "vendor": None, "execution": {"taskSupport": "required"}}
    clean = sound(tool)
    assert clean["annotations"] == {"x": 1}
    assert clean["vendor"] is None
    assert "execution" not in clean


@pytest.mark.parametrize("key", ["title", "annotations", "outputSchema", "icons", "_meta"])
def test_a_known_field_of_a_wrong_type_goes_since_some_clients_refuse_the_whole_list_for_it(key: str) -> None:
    for value in (None, 5):
        assert key not in sound({"name": "add", key: value})


def test_the_tool_that_was_given_is_not_changed() -> None:
    given_tool = {"name": "add", "inputSchema": {"required": None}}
    tools.normalise(given_tool)
    assert given_tool == {"name": "add", "inputSchema": {"required": None}}


def test_of_equal_names_the_first_counts_and_the_order_stays() -> None:
    listed = [{"name": "b"}, None, {"name": "a", "description": "first"}, {"name": "a"}, {"description": "nameless"}]
    taken = tools.take(listed, WIDE)
    assert [tool["name"] for tool in taken.tools] == ["b", "a"]
    assert taken.tools[1]["description"] == "first"
    assert taken.dropped == 3


def test_equal_tools_have_one_digest_and_others_another() -> None:
    one, two = [sound({"name": "a"})], [sound({"name": "b"})]
    assert tools.digest(tools.encode(one)) == tools.digest(tools.encode(list(one)))
    assert tools.digest(tools.encode(one)) != tools.digest(tools.encode(two))


def test_a_tool_that_is_nested_too_deep_can_not_be_encoded() -> None:
    deep: Any = {}
    for _ in range(300):
        deep = {"a": deep}
    with pytest.raises(TypeError):
        tools.encode([{"name": "deep", "inputSchema": deep}])


def sound(tool: dict[str, Any]) -> dict[str, Any]:
    clean = tools.normalise(tool)
    assert clean is not None
    return clean


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "properties", "required", "a"]), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = st.sampled_from(["name", "description", "inputSchema", "outputSchema", "title", "annotations", "x"])


@quick
@given(st.lists(JSON | st.dictionaries(FIELDS, JSON, max_size=5), max_size=6))
def test_whatever_is_listed_becomes_a_list_that_every_robot_can_read(listed: list[Any]) -> None:
    taken = tools.take(listed, WIDE)
    clean = taken.tools
    assert len(clean) + taken.dropped + taken.oversized + taken.cut == len(listed)
    for tool in clean:
        assert type(tool["name"]) is str
        assert type(tool["description"]) is str
        schema = tool["inputSchema"]
        assert schema["type"] == "object"
        assert type(schema["properties"]) is dict
        assert all(type(name) is str for name in schema["required"])
    assert tools.take(clean, WIDE).tools == clean
    assert orjson.loads(tools.encode(clean)) == clean
