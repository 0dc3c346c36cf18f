"""The traps of xiaozhi-ecosystem §8, one by one; those that are points of §5 as well are tested there."""

import asyncio

import pytest

from gateway.settings import Settings
from tests.peers.node_red import NodeRed
from tests.peers.raw import RawSocket
from tests.peers.tools import echo, held, text_of
from tests.support.gateway import Gateway


async def test_calls_one_and_two_reuse_the_ids_of_the_handshake(gateway: Gateway) -> None:
    """ "Id seen before" is no sign of a duplicate."""
    server = await gateway.tool_server()
    robot = await gateway.xiaozhi()
    for text in ("first", "second", "third"):
        assert await robot.call_tool("echo", {"text": text}) == text
    assert len(server.calls) == 3
    assert robot.errors == []


async def test_a_list_without_any_handshake_is_answered(gateway: Gateway) -> None:
    """Old consoles sent `notifications/initialized` first and `tools/list` with id 1 half a second later."""
    await gateway.tool_server()
    robot = await gateway.robot(is_ready=False)
    await robot.notify("notifications/initialized")
    answer = await robot.request("tools/list", id=1)
    assert [tool["name"] for tool in answer["result"]["tools"]] == ["echo"]


@pytest.mark.settings(hello_pause_seconds=0.05)
async def test_the_first_frame_does_not_share_a_packet_with_the_upgrade(gateway: Gateway) -> None:
    """Node-red loses an `initialize` that arrives before its own `open` has settled."""
    for _ in range(5):
        flow = await NodeRed(gateway.mcp_url()).open()
        assert flow.lost == []
        await flow.close()


def test_the_pause_is_on_by_default() -> None:
    assert Settings().hello_pause_seconds == 0.05


async def test_compression_is_spoken_only_with_those_who_offer_it(gateway: Gateway) -> None:
    plain = await RawSocket(gateway.mcp_url()).open()
    assert b"permessage-deflate" not in plain.head
    assert (await plain.read_data()).reserved == 0
    await plain.close()
    offer = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}
    other = await RawSocket(gateway.mcp_url(), headers=offer).open()
    frame = await other.read_data()
    assert (frame.reserved == 0) or b"permessage-deflate" in other.head
    await other.close()


async def test_replies_to_one_robot_may_overtake_each_other(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[held("slow"), echo("fast")])
    robot = await gateway.xiaozhi()
    async with asyncio.TaskGroup() as tasks:
        slow = tasks.create_task(robot.call_tool("slow"))
        call = await server.until_called()
        assert await robot.call_tool("fast", {"text": "first"}) == "first"
        assert not slow.done()
        await call.answer("second")
    assert slow.result() == "second"


async def test_a_client_that_overlaps_with_its_own_half_open_socket_keeps_its_names(gateway: Gateway) -> None:
    """`calculator_2` would confuse the language model."""
    ghost = await gateway.tool_server("Calculator", [echo("calculator")])
    ghost.freeze()
    again = await gateway.tool_server("Calculator", [echo("calculator")], is_awaited=False)
    robot = await gateway.robot()
    await again.until_listed()
    answer = await robot.call("calculator", {"text": "4"}, seconds=8)
    assert text_of(answer) == "4"
    assert await robot.names() == ["calculator"]
    assert len(again.calls) == 1


async def test_the_codes_that_users_match_on_keep_their_meaning(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[held()])
    robot = await gateway.robot()
    nobody = await gateway.robot(agent="nobody")
    assert (await nobody.call("slow"))["error"]["code"] == -32001
    request_id = await robot.start_call("slow")
    await server.until_called()
    await server.vanish()
    assert (await robot.answer(request_id))["error"]["code"] == -32002


async def test_a_robot_is_pinged_by_the_websocket_only(gateway: Gateway) -> None:
    """A xiaozhi-server logs every request and never answers it."""
    await gateway.tool_server()
    robot = await gateway.xiaozhi()
    await robot.call_tool("echo")
    assert not [message for message in robot.messages if "method" in message and "id" in message]
