"""Who an anonymous tool server is (design §4.4): one that redials, a ghost of itself, or a twin."""

import pytest

from tests.peers.quirks import Da2Tunnel
from tests.peers.tools import adder, echo, held, text_of
from tests.support.gateway import Gateway, is_up


async def up_ids(gateway: Gateway) -> set[str]:
    """The server_ids of what is connected."""
    return {server_id for server_id, server in (await gateway.servers()).items() if is_up(server_id, server)}


@pytest.mark.parametrize(
    ("name", "server_id"),
    [
        ("Calculator", "Calculator"),
        ("my server/1.0", "my_server_1_0"),
        ("天气", "天气"),
        ("", "server"),
        ("///", "server"),
        ("x" * 50, "x" * 32),
    ],
)
async def test_the_identity_is_the_sanitised_name(gateway: Gateway, name: str, server_id: str) -> None:
    await gateway.tool_server(name)
    assert await up_ids(gateway) == {server_id}


async def test_equal_names_with_other_tools_are_numbered(gateway: Gateway) -> None:
    for number in range(3):
        await gateway.tool_server("calc", [echo(f"tool_{number}")])
    assert await up_ids(gateway) == {"calc", "calc-2", "calc-3"}


async def test_one_that_redials_with_equal_tools_gets_its_row_back(gateway: Gateway) -> None:
    first = await gateway.tool_server("calc", [echo("a")])
    second = await gateway.tool_server("calc", [echo("b")])
    await first.vanish()
    await second.vanish()
    await gateway.until_connected(0)
    await gateway.tool_server("calc", [echo("b")])
    assert await up_ids(gateway) == {"calc-2"}
    await gateway.tool_server("calc", [echo("a")])
    assert await up_ids(gateway) == {"calc", "calc-2"}


async def test_one_that_redials_with_other_tools_gets_its_row_back_by_name(gateway: Gateway) -> None:
    first = await gateway.tool_server("calc", [echo("a")])
    await first.vanish()
    await gateway.until_connected(0)
    await gateway.tool_server("calc", [echo("a"), adder()])
    assert await up_ids(gateway) == {"calc"}
    robot = await gateway.robot()
    assert await robot.names() == ["a", "add"]


async def test_an_explicit_server_id_is_never_given_to_an_anonymous_one(gateway: Gateway) -> None:
    explicit = await gateway.tool_server("calc", [echo("a")], server_id="calc")
    await explicit.vanish()
    await gateway.until_connected(0)
    await gateway.tool_server("calc", [echo("a")])
    assert await up_ids(gateway) == {"calc-2"}


@pytest.mark.settings(ghost_seconds=0.3)
async def test_a_ghost_is_closed_and_the_newcomer_takes_its_names(gateway: Gateway) -> None:
    """A client redials while its old socket is still half open: nobody is there to answer on it."""
    ghost = await gateway.tool_server("calc", [echo("calculator")])
    ghost.freeze()
    again = await gateway.tool_server("calc", [echo("calculator")], is_awaited=False)
    robot = await gateway.robot()
    await again.until_listed()
    assert text_of(await robot.call("calculator", {"text": "x"})) == "x"
    assert again.calls
    assert await up_ids(gateway) == {"calc"}
    assert await robot.names() == ["calculator"]
    ghost.thaw()
    assert (await ghost.until_closed()).code in (1000, 1006)


async def test_a_twin_that_answers_keeps_its_names_and_the_newcomer_is_prefixed(gateway: Gateway) -> None:
    """Two machines with the same program: both stay."""
    first = await gateway.tool_server("calc", [echo("calculator")])
    twin = await gateway.tool_server("calc", [echo("calculator")])
    robot = await gateway.robot()
    assert set(await robot.names()) == {"calculator", "calc-2__calculator"}
    await robot.call("calculator")
    await robot.call("calc-2__calculator")
    assert len(first.calls) == len(twin.calls) == 1
    assert first.received("ping")
    assert first.is_open


@pytest.mark.settings(ghost_seconds=0.3)
async def test_a_busy_one_is_no_ghost(gateway: Gateway) -> None:
    """A serial server answers no ping while it works; its call shows that it lives."""
    busy = await gateway.attach(Da2Tunnel(gateway.mcp_url(), name="calc", tools=[held()]))
    robot = await gateway.robot()
    request_id = await robot.start_call("slow")
    call = await busy.until_called()
    await gateway.attach(Da2Tunnel(gateway.mcp_url(), name="calc", tools=[held()]))
    await call.answer("done")
    assert text_of(await robot.answer(request_id)) == "done"
    assert busy.is_open
    assert await up_ids(gateway) == {"calc", "calc-2"}


async def test_twins_never_displace_each_other(gateway: Gateway) -> None:
    servers = [await gateway.tool_server("calc", [echo("calculator")]) for _ in range(3)]
    assert all(server.is_open for server in servers)
    assert await up_ids(gateway) == {"calc", "calc-2", "calc-3"}
    robot = await gateway.robot()
    assert len(await robot.names()) == 3


async def test_a_twin_that_redials_gets_its_own_row_back(gateway: Gateway) -> None:
    await gateway.tool_server("calc", [echo("calculator")])
    twin = await gateway.tool_server("calc", [echo("calculator")])
    robot = await gateway.robot()
    before = await robot.names()
    await twin.vanish()
    await gateway.until_connected(1)
    await gateway.tool_server("calc", [echo("calculator")])
    assert await robot.names() == before
    assert await up_ids(gateway) == {"calc", "calc-2"}


@pytest.mark.settings(park_seconds=5, call_seconds=8)
async def test_a_call_in_the_grace_waits_for_the_redial(gateway: Gateway) -> None:
    """It was not sent, so waiting is safe (design §4.7)."""
    server = await gateway.tool_server("calc", [echo("calculator")])
    robot = await gateway.robot()
    await robot.sees("calculator")
    await server.vanish()
    await gateway.until_connected(0)
    request_id = await robot.start_call("calculator", {"text": "waited"})
    await robot.ping()
    assert not robot.answers(request_id)
    again = await gateway.tool_server("calc", [echo("calculator")])
    assert text_of(await robot.answer(request_id)) == "waited"
    assert len(again.calls) == 1


@pytest.mark.settings(park_seconds=0.3)
async def test_a_parked_call_is_refused_unsent_when_nobody_comes(gateway: Gateway) -> None:
    server = await gateway.tool_server("calc", [echo("calculator")])
    robot = await gateway.robot()
    await robot.sees("calculator")
    await server.vanish()
    error = (await robot.call("calculator"))["error"]
    assert error["code"] == -32001
    assert error["data"]["executed"] is False


@pytest.mark.settings(park_seconds=5)
async def test_a_parked_call_can_be_cancelled(gateway: Gateway) -> None:
    server = await gateway.tool_server("calc", [echo("calculator")])
    robot = await gateway.robot()
    await robot.sees("calculator")
    await server.vanish()
    await gateway.until_connected(0)
    request_id = await robot.start_call("calculator")
    await robot.cancel(request_id)
    await robot.ping()
    again = await gateway.tool_server("calc", [echo("calculator")])
    assert "result" in await robot.call("calculator", {"text": "other"})
    assert len(again.calls) == 1
    assert not robot.answers(request_id)
