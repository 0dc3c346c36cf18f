"""Point 6: WebSocket pings to both sides, MCP pings to tool servers, and patience with those that are busy."""

import pytest
from websockets.frames import Opcode

from gateway import toolsession
from gateway.settings import Settings
from tests.peers.quirks import Da2Tunnel
from tests.peers.tools import echo, held, text_of
from tests.peers.wire import Peer
from tests.support.gateway import Gateway


def websocket_pings(peer: Peer) -> int:
    return sum(frame.opcode is Opcode.PING for frame in peer.seen)


def test_the_defaults_are_below_what_proxies_and_clients_bear() -> None:
    """nginx cuts after 60 s of silence, Verdure after 120 s without an MCP ping."""
    defaults = Settings()
    assert defaults.ping_seconds < 30
    assert defaults.mcp_ping_seconds <= 60


@pytest.mark.settings(ping_seconds=0.1)
async def test_both_sides_get_websocket_pings(gateway: Gateway) -> None:
    server = await gateway.tool_server()
    robot = await gateway.robot()
    for peer in (server, robot):
        await peer.until(lambda peer=peer: websocket_pings(peer) >= 2, "two WebSocket pings arrive")  # type: ignore[misc]


@pytest.mark.settings(mcp_ping_seconds=0.1)
async def test_a_tool_server_gets_mcp_pings_and_a_robot_does_not(gateway: Gateway) -> None:
    server = await gateway.tool_server()
    robot = await gateway.robot()
    await server.until_received("ping", 3)
    await robot.ping()
    assert not robot.received("ping")
    assert server.is_open


@pytest.mark.settings(mcp_ping_seconds=0.1)
async def test_an_error_answer_to_a_ping_is_a_sign_of_life(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolsession, "DEAD_LIST_SECONDS", 0.1)
    server = await gateway.tool_server()
    server.answers_ping = False
    answered = 0
    while answered < 6:
        message = await server.until_received("ping", answered + 1)
        await server.refuse(message, -32601, "Method not found")
        answered += 1
    assert server.is_open


@pytest.mark.settings(mcp_ping_seconds=0.1)
async def test_a_tool_server_that_is_silent_and_idle_is_closed(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two pings unanswered, then one `tools/list` unanswered (design §4.6): a bridge whose child has died."""
    monkeypatch.setattr(toolsession, "DEAD_LIST_SECONDS", 0.2)
    server = await gateway.tool_server()
    server.answers_ping = server.answers_list = False
    closed = await server.until_closed()
    assert closed.code in (1011, 1013)
    assert closed.reason
    assert len(server.received("ping")) >= 2
    assert server.received("tools/list")[1:]


@pytest.mark.settings(mcp_ping_seconds=0.1)
async def test_one_that_answers_no_ping_but_the_list_stays(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolsession, "DEAD_LIST_SECONDS", 0.2)
    server = await gateway.tool_server()
    server.answers_ping = False
    await server.until_listed(4)
    robot = await gateway.robot()
    assert "result" in await robot.call("echo")
    assert server.is_open


@pytest.mark.settings(mcp_ping_seconds=0.05)
async def test_a_serial_tool_server_is_not_dropped_while_a_call_runs(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers nothing else during a call (da2-xiaozhi-tunnel)."""
    monkeypatch.setattr(toolsession, "DEAD_LIST_SECONDS", 0.05)
    server = await gateway.attach(Da2Tunnel(gateway.mcp_url(), tools=[held(), echo()]))
    robot = await gateway.robot()
    request_id = await robot.start_call("slow")
    call = await server.until_called()
    await server.until_received("ping", 4)
    await call.answer("done")
    assert text_of(await robot.answer(request_id)) == "done"
    assert "result" in await robot.call("echo")
    assert server.is_open


@pytest.mark.settings(ping_seconds=0.1, pong_seconds=0.2)
async def test_a_peer_whose_network_is_gone_is_given_up(gateway: Gateway) -> None:
    server = await gateway.tool_server()
    robot = await gateway.robot()
    assert await gateway.connected() == 1
    server.freeze()
    await gateway.until_connected(0)
    assert "result" in await robot.ping()
