"""Point 3: any number of tool servers share one token without `server_id`; only an equal explicit one replaces."""

from tests.peers.tools import echo, held, text_of
from tests.support.gateway import Gateway


async def test_several_servers_on_one_token_are_all_listed_and_called(gateway: Gateway) -> None:
    """The official bridge opens one socket per configured server on the same URL: the most reported fault."""
    servers = [await gateway.tool_server(name, [echo(f"{name}_tool")]) for name in ("weather", "music", "lights")]
    robot = await gateway.robot()
    assert set(await robot.names()) == {"weather_tool", "music_tool", "lights_tool"}
    for server in servers:
        assert text_of(await robot.call(f"{server.name}_tool")) == f"{server.name}:{server.name}_tool"
        assert server.is_open


async def test_one_that_leaves_takes_only_itself_away(gateway: Gateway) -> None:
    """The old server's cleanup unregistered the newer connection, which stayed connected and invisible."""
    older = await gateway.tool_server("older", [echo("a")])
    newer = await gateway.tool_server("newer", [echo("b")])
    await older.close()
    await gateway.until_connected(1)
    robot = await gateway.robot()
    assert "result" in await robot.call("b")
    assert newer.is_open


async def test_an_equal_explicit_server_id_replaces_the_older_connection(gateway: Gateway) -> None:
    older = await gateway.tool_server("server", [echo()], server_id="kitchen")
    newer = await gateway.tool_server("server", [echo()], server_id="kitchen", is_awaited=False)
    closed = await older.until_closed()
    assert closed.code == 1000
    assert closed.reason
    robot = await gateway.robot()
    assert text_of(await robot.call("echo", {"text": "hi"})) == "hi"
    assert len(newer.calls) == 1


async def test_the_replaced_ones_late_cleanup_touches_nothing(gateway: Gateway) -> None:
    older = await gateway.tool_server("server", [echo()], server_id="kitchen")
    older.freeze()
    newer = await gateway.tool_server("server", [echo()], server_id="kitchen", is_awaited=False)
    robot = await gateway.robot()
    await robot.sees("echo")
    await robot.call("echo")
    await newer.until_called()
    older.thaw()
    await older.until_closed()
    await robot.ping()
    assert await robot.names() == ["echo"]
    assert "result" in await robot.call("echo")
    assert len(newer.calls) == 2


async def test_different_server_ids_stand_side_by_side(gateway: Gateway) -> None:
    one = await gateway.tool_server("server", [echo("a")], server_id="one")
    two = await gateway.tool_server("server", [echo("b")], server_id="two")
    robot = await gateway.robot()
    assert await robot.names() == ["a", "b"]
    assert one.is_open
    assert two.is_open


async def test_a_call_in_flight_on_a_replaced_connection_ends_at_once(gateway: Gateway) -> None:
    older = await gateway.tool_server("server", [held()], server_id="kitchen")
    robot = await gateway.robot()
    request_id = await robot.start_call("slow")
    await older.until_called()
    await gateway.tool_server("server", [held()], server_id="kitchen", is_awaited=False)
    error = (await robot.answer(request_id))["error"]
    assert error["code"] == -32002
    assert error["data"]["executed"] == "unknown"


async def test_three_takeovers_within_a_minute_are_named_in_the_close_reason(gateway: Gateway) -> None:
    """Two bridges that share one `server_id` would throw each other out for ever; say so (design §4.3)."""
    last = await gateway.tool_server("server", server_id="kitchen")
    reasons = []
    for _ in range(4):
        newer = await gateway.tool_server("server", server_id="kitchen", is_awaited=False)
        reasons.append((await last.until_closed()).reason)
        last = newer
    assert "kitchen" in reasons[-1] or "server_id" in reasons[-1]
    assert reasons[-1] != reasons[0]
