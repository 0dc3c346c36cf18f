"""Point 13: names survive the robots' sanitiser unchanged and unique; schemas are such that no robot chokes on them."""

from typing import Any

import pytest

from tests.peers.tool_server import ToolServer
from tests.peers.tools import Tool, echo
from tests.peers.wire import Message
from tests.peers.xiaozhi_robot import sanitize_tool_name
from tests.support.gateway import Gateway


async def test_a_plain_name_stays_plain(gateway: Gateway) -> None:
    """Prompts and users rely on `calculator`."""
    await gateway.tool_server(tools=[echo("calculator"), echo("Get-Weather_2"), echo("查询天气")])
    robot = await gateway.robot()
    assert await robot.names() == ["calculator", "Get-Weather_2", "查询天气"]


@pytest.mark.parametrize(
    "name", ["a.b", "a/b", "a b", "été", "x" * 200, "🦊", "", "a:b:c", "长" * 100, " ", "a\nb"], ids=repr
)
async def test_every_listed_name_survives_the_sanitiser_and_can_be_called(gateway: Gateway, name: str) -> None:
    server = await gateway.tool_server(tools=[echo(name), echo("other")])
    robot = await gateway.xiaozhi()
    assert len(robot.tools) == 2
    for sanitised, listed in robot.name_mapping.items():
        assert sanitised == listed
        assert 1 <= len(listed) <= 64
        assert sanitize_tool_name(listed) == listed
        await robot.call_tool(sanitised)
    assert {call.tool for call in server.calls} == {name, "other"}


async def test_names_that_fold_into_one_are_all_callable(gateway: Gateway) -> None:
    """`a.b` and `a/b` become one name in the robot, and one tool would be lost."""
    server = await gateway.tool_server(tools=[echo("a.b"), echo("a/b"), echo("a b"), echo("a_b")])
    robot = await gateway.xiaozhi()
    assert len(robot.tools) == 4
    for name in robot.tools:
        await robot.call_tool(name)
    assert {call.tool for call in server.calls} == {"a.b", "a/b", "a b", "a_b"}


async def test_a_tool_of_another_server_never_hides_one_in_the_robot(gateway: Gateway) -> None:
    """A robot keeps the last of two equal names."""
    for server in ("one", "two", "three"):
        await gateway.tool_server(server, [echo("search"), echo(f"only_{server}")])
    robot = await gateway.xiaozhi()
    assert len(robot.tools) == 6
    assert len({await robot.call_tool(name) for name in robot.tools if "search" in name}) == 3


BROKEN_SCHEMAS: list[Any] = [
    None,
    5,
    "text",
    [],
    {},
    {"type": None},
    {"type": "string"},
    {"type": ["object", "null"]},
    {"type": "object", "properties": None},
    {"type": "object", "properties": []},
    {"type": "object", "properties": {}, "required": None},
    {"type": "object", "properties": {}, "required": "a"},
    {"type": "object", "properties": {"a": {}}, "required": ["a", 5, None]},
]


@pytest.mark.parametrize("schema", BROKEN_SCHEMAS, ids=repr)
async def test_a_broken_schema_is_normalised_and_costs_no_tool(gateway: Gateway, schema: Any) -> None:
    """One `"required": null` makes the Python robot stop reading: no tools at all."""
    await gateway.tool_server(tools=[Tool("broken", echo().handler, schema=schema), echo("healthy")])
    robot = await gateway.xiaozhi()
    assert set(robot.tools) == {"broken", "healthy"}
    assert robot.errors == []
    listed = await (await gateway.robot()).tool("broken")
    assert listed["inputSchema"]["type"] == "object"
    assert isinstance(listed["inputSchema"].get("properties", {}), dict)
    required = listed["inputSchema"].get("required", [])
    assert all(isinstance(name, str) for name in required)


@pytest.mark.parametrize("description", [None, 5, [], {}], ids=repr)
async def test_a_description_is_always_a_string(gateway: Gateway, description: Any) -> None:
    """The robot replaces names in it, and raises on anything else."""
    await gateway.tool_server(tools=[Tool("odd", echo().handler, description=description), echo("healthy")])
    robot = await gateway.xiaozhi()
    assert set(robot.tools) == {"odd", "healthy"}
    assert isinstance(robot.tools["odd"]["description"], str)


async def test_missing_description_and_schema_are_filled_in(gateway: Gateway) -> None:
    class Bare(ToolServer):
        def page(self, cursor: Any) -> Message:
            return {"tools": [{"name": "bare"}]}

    await gateway.attach(Bare(gateway.mcp_url()))
    robot = await gateway.robot()
    tool = await robot.tool("bare")
    assert isinstance(tool["description"], str)
    assert tool["inputSchema"]["type"] == "object"
    assert tool["inputSchema"]["properties"] == {}
