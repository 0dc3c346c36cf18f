"""`tools/list`, on both edges: read whole from the tool servers, answered whole to the robots."""

from typing import Any

import pytest

from tests.peers.tool_server import ToolServer
from tests.peers.tools import Tool, echo
from tests.peers.wire import Message
from tests.support.gateway import Gateway


async def test_every_page_of_a_tool_server_is_read(gateway: Gateway) -> None:
    names = [f"tool_{number}" for number in range(7)]
    server = await gateway.tool_server(tools=[echo(name) for name in names], page_size=2)
    robot = await gateway.robot()
    assert await robot.names() == names
    cursors = [(message.get("params") or {}).get("cursor") for message in server.received("tools/list")]
    assert cursors == [None, "2", "4", "6"]


async def test_the_first_list_request_has_no_cursor_and_no_null_params(gateway: Gateway) -> None:
    server = await gateway.tool_server()
    request = server.received("tools/list")[0]
    assert request.get("params", {}) == {}


class EmptyCursor(ToolServer):
    """Its second page has the cursor `""`, which is a valid one: a list ends where `nextCursor` is absent."""

    def page(self, cursor: Any) -> Message:
        if cursor is None:
            return {"tools": [echo("first").listed], "nextCursor": ""}
        assert cursor == ""
        return {"tools": [echo("second").listed]}


async def test_an_empty_cursor_is_followed(gateway: Gateway) -> None:
    await gateway.attach(EmptyCursor(gateway.mcp_url()))
    robot = await gateway.robot()
    assert await robot.names() == ["first", "second"]


class LoopingPages(ToolServer):
    """Its pages lead in a circle."""

    def page(self, cursor: Any) -> Message:
        return {"tools": [echo(f"at_{cursor}").listed], "nextCursor": "a" if cursor == "b" else "b"}


class EndlessPages(ToolServer):
    """Every page leads to a new one."""

    def page(self, cursor: Any) -> Message:
        number = int(cursor or 0)
        return {"tools": [echo(f"tool_{number}").listed], "nextCursor": str(number + 1)}


async def test_pages_that_lead_in_a_circle_end(gateway: Gateway) -> None:
    server = await gateway.attach(LoopingPages(gateway.mcp_url()))
    robot = await gateway.robot()
    await robot.sees("at_None")
    assert len(server.received("tools/list")) <= 4
    assert server.is_open


async def test_pages_without_end_are_cut(gateway: Gateway) -> None:
    server = await gateway.attach(EndlessPages(gateway.mcp_url()))
    robot = await gateway.robot()
    await robot.sees("tool_0")
    asked = len(server.received("tools/list"))
    assert asked <= 1001
    await robot.ping()
    assert server.is_open


@pytest.mark.settings(tools_per_server=5)
async def test_a_tool_server_with_too_many_tools_keeps_the_first(gateway: Gateway) -> None:
    await gateway.tool_server(tools=[echo(f"tool_{number}") for number in range(9)])
    robot = await gateway.robot()
    assert await robot.names() == [f"tool_{number}" for number in range(5)]


async def test_every_field_of_a_tool_passes_known_or_not(gateway: Gateway) -> None:
    extra = {
        "title": "A title",
        "annotations": {"readOnlyHint": True},
        "outputSchema": {"type": "object", "properties": {"sum": {"type": "number"}}},
        "icons": [{"src": "https://example.com/i.png"}],
        "_meta": {"vendor/key": [1, 2]},
        "somethingNew": {"deep": [None, "x"]},
    }
    await gateway.tool_server(tools=[echo("rich", extra=extra)])
    robot = await gateway.robot()
    tool = await robot.tool("rich")
    assert {key: tool[key] for key in extra} == extra


async def test_every_listed_tool_carries_its_server_id(gateway: Gateway) -> None:
    await gateway.tool_server("weather", [echo("forecast")], server_id="w-1")
    robot = await gateway.robot()
    assert (await robot.tool("forecast"))["server_id"] == "w-1"


async def test_the_order_is_that_of_the_tool_server(gateway: Gateway) -> None:
    await gateway.tool_server(tools=[echo(name) for name in ("zebra", "ant", "mouse")])
    robot = await gateway.robot()
    assert await robot.names() == ["zebra", "ant", "mouse"]


async def test_the_order_is_the_same_for_every_robot(gateway: Gateway) -> None:
    await gateway.tool_server("b", [echo("b1"), echo("b2")], server_id="b")
    await gateway.tool_server("a", [echo("a1"), echo("a2")], server_id="a")
    robots = [await gateway.robot() for _ in range(2)]
    assert await robots[0].names() == await robots[1].names() == ["a1", "a2", "b1", "b2"]


async def test_a_json_schema_passes_unchanged(gateway: Gateway) -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://example.com/s",
        "type": "object",
        "$defs": {"n": {"type": "integer", "minimum": 0}},
        "properties": {"n": {"$ref": "#/$defs/n"}, "m": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
        "required": ["n"],
        "additionalProperties": False,
    }
    await gateway.tool_server(tools=[echo("typed", schema=schema)])
    robot = await gateway.robot()
    assert (await robot.tool("typed"))["inputSchema"] == schema


@pytest.mark.settings(result_bytes=16 * 1024)
async def test_a_long_list_comes_to_robots_in_pages_below_the_limit(gateway: Gateway) -> None:
    tools = [echo(f"tool_{number}", description="d" * 500) for number in range(100)]
    await gateway.tool_server(tools=tools)
    robot = await gateway.robot()
    assert await robot.names() == [tool.name for tool in tools]
    pages = [frame for frame in robot.frames if '"tools":[' in str(frame)]
    assert len(pages) > 3
    assert all(len(frame) <= 16 * 1024 for frame in pages)


@pytest.mark.settings(result_bytes=16 * 1024)
async def test_a_cursor_is_understood_on_another_connection(gateway: Gateway) -> None:
    """A cursor is self-contained, so that any worker can go on from it."""
    await gateway.tool_server(tools=[echo(f"tool_{number}", description="d" * 500) for number in range(100)])
    one, other = await gateway.robot(), await gateway.robot()
    first = (await one.request("tools/list"))["result"]
    params = {"cursor": first["nextCursor"]}
    assert (await one.request("tools/list", params))["result"] == (await other.request("tools/list", params))["result"]


@pytest.mark.parametrize(
    "cursor", ["nonsense", "", "🦊", "999999", "x" * 10_000, 5, ["a"], {}], ids=lambda one: repr(one)[:20]
)
async def test_a_cursor_that_the_gateway_did_not_give_is_invalid_params(gateway: Gateway, cursor: Any) -> None:
    await gateway.tool_server()
    robot = await gateway.robot()
    answer = await robot.request("tools/list", {"cursor": cursor})
    assert answer["error"]["code"] == -32602


async def test_a_cursor_null_is_no_cursor(gateway: Gateway) -> None:
    await gateway.tool_server()
    robot = await gateway.robot()
    answer = await robot.request("tools/list", {"cursor": None})
    assert [tool["name"] for tool in answer["result"]["tools"]] == ["echo"]


async def test_only_a_tool_without_a_string_name_is_dropped(gateway: Gateway) -> None:
    """One bad entry must not cost the list (xiaozhi-ecosystem finding 10)."""

    class Sloppy(ToolServer):
        def page(self, cursor: Any) -> Message:
            bad: list[Any] = [None, 5, "text", [], {}, {"name": 5}, {"name": None}]
            return {"tools": [echo("good").listed, *bad, {"name": "bare"}]}

    await gateway.attach(Sloppy(gateway.mcp_url()))
    robot = await gateway.robot()
    assert await robot.names() == ["good", "bare"]


async def test_a_server_without_tools_is_connected_and_lists_nothing(gateway: Gateway) -> None:
    await gateway.tool_server(tools=[])
    robot = await gateway.robot()
    assert await robot.list_tools() == []


async def test_a_server_that_refuses_the_list_is_connected_without_tools(gateway: Gateway) -> None:
    """One with only prompts or resources answers -32601; bridges double their wait at a close, so it stays."""

    class NoTools(ToolServer):
        async def on_list(self, message: Message) -> None:
            await self.refuse(message, -32601, "Method not found")

    server = NoTools(gateway.mcp_url(), tools=[Tool("never", echo().handler)])
    await gateway.attach(server, is_awaited=False)
    await server.until_listed()
    robot = await gateway.robot()
    assert await robot.list_tools() == []
    assert server.is_open
