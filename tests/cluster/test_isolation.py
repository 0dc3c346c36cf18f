"""What a tool server must not reach or learn: other agents' calls, other robots, other tool servers, any token."""

import orjson
import pytest

from tests.cluster.inside import id_of, worker_of
from tests.conftest import StartCluster
from tests.peers.robot import Robot
from tests.peers.token import console_token
from tests.peers.tool_server import ToolServer
from tests.peers.tools import echo, held, text_of
from tests.peers.wire import Message
from tests.support.gateway import Gateway

HOME, OFFICE = "agent-of-the-home", "agent-of-the-office"
PAIRS = [pytest.param(0, id="same worker"), pytest.param(1, id="another worker")]


async def robot_of(gateway: Gateway, agent: str) -> Robot:
    return await gateway.robot(agent=agent)


async def forge(server: ToolServer, message: Message) -> None:
    """Say it under every id that a connection of the gateway's can have in use by now, in every spelling."""
    for number in range(40):
        for spelled in (number, str(number), float(number)):
            await server.send({"jsonrpc": "2.0", **message, "id": spelled})


async def say(server: ToolServer, params: Message) -> None:
    for token in [*range(40), *map(str, range(40)), "p-1", "mine"]:
        progress = {"jsonrpc": "2.0", "method": "notifications/progress"}
        await server.send({**progress, "params": {**params, "progressToken": token}})


@pytest.mark.parametrize("away", PAIRS)
async def test_an_answer_reaches_nobody_but_who_asked_that_very_connection(cluster: StartCluster, away: int) -> None:
    gateways = await cluster(2)
    honest = await gateways[0].tool_server("lamp", [held()], agent=HOME)
    neighbour = await gateways[0].tool_server("other", [held("theirs")], agent=HOME)
    stranger = await gateways[0].tool_server("evil", [held()], agent=OFFICE)
    robot = await robot_of(gateways[away], HOME)
    await robot.sees("slow", "theirs")
    asked = await robot.start_call("slow", _meta={"progressToken": "mine"})
    call = await honest.until_called()

    for liar in (neighbour, stranger):
        await forge(liar, {"result": {"content": [{"type": "text", "text": "forged"}]}})
        await forge(liar, {"error": {"code": -1, "message": "forged"}})
        await say(liar, {"progress": 1, "message": "forged"})
        await liar.ask("their own", "ping")  # all of it has been read

    await call.progress(1, message="honest")
    await robot.until_progress()
    await call.answer("honest")
    assert text_of(await robot.answer(asked)) == "honest"
    assert "forged" not in orjson.dumps(robot.messages).decode()


@pytest.mark.parametrize("away", PAIRS)
async def test_a_late_second_or_cancelled_answer_reaches_nobody(cluster: StartCluster, away: int) -> None:
    gateways = await cluster(2)
    server = await gateways[0].tool_server("lamp", [held()], agent=HOME)
    robot = await robot_of(gateways[away], HOME)
    await robot.sees("slow")
    first = await robot.start_call("slow")
    cancelled = await server.until_called()
    await robot.cancel(first)
    await server.until_cancelled(cancelled)
    second = await robot.start_call("slow")
    call = await server.until_called(2)

    await cancelled.answer("of the call before")
    await call.answer("the answer")
    await call.answer("once more")
    await cancelled.progress(1)

    assert text_of(await robot.answer(second)) == "the answer"
    assert text_of(await robot_echo(robot, server)) == "still there"
    told = orjson.dumps(robot.messages).decode()
    assert "of the call before" not in told
    assert "once more" not in told


async def robot_echo(robot: Robot, server: ToolServer) -> Message:
    """One more call, behind everything else that the tool server said."""
    request = await robot.start_call("slow")
    await (await server.until_called(3)).answer("still there")
    return await robot.answer(request)


@pytest.mark.settings(call_seconds=0.5)
async def test_a_tool_server_learns_nothing_of_other_agents_robots_tool_servers_workers_or_tokens(
    cluster: StartCluster,
) -> None:
    """Everything that it is sent in a life: handshake, list, calls, a deadline, a cancellation, the end."""
    a, b = await cluster(2)
    server = await a.tool_server("lamp", [echo(), held()], agent=HOME, server_id="lamp")
    await b.tool_server("neighbour-with-a-name", [echo("near")], agent=HOME, server_id="neighbour-with-a-name")
    await b.tool_server("stranger-with-a-name", [echo("far")], agent=OFFICE, server_id="stranger-with-a-name")
    robots = [await a.robot(agent=HOME, is_ready=False), await b.robot(agent=HOME, is_ready=False)]
    for robot in robots:
        await robot.initialize()
        await robot.sees("echo", "slow")
        await robot.call("echo", {"text": "x"})
        assert "error" in await robot.call("slow"), "its deadline"
        asked = await robot.start_call("slow", _meta={"progressToken": "token-of-the-robot"})
        await robot.cancel(asked)
    await server.until(lambda: len(server.cancelled) >= 3, "it hears of deadlines and cancellations")

    await a.tool_server("lamp", [echo()], agent=HOME, server_id="lamp", is_awaited=False)

    await server.until(lambda: server.closed is not None, "it is replaced")
    heard = b"\n".join(frame.encode() if isinstance(frame, str) else frame for frame in server.frames).decode()
    assert server.closed is not None
    heard += server.closed.reason + str(server.response_headers)
    tokens = [console_token(agent, a.key) for agent in (HOME, OFFICE)]
    names = [HOME, OFFICE, "neighbour-with-a-name", "stranger-with-a-name", "near", "far", "token-of-the-robot"]
    workers = [id_of(a), id_of(b)]
    ids = [message["id"] for robot in robots for message in robot.messages if isinstance(message.get("id"), str)]
    conns = [link for gateway in (a, b) for link in connections(gateway)]
    assert ids
    assert [secret for secret in [*tokens, a.key, *names, *workers, *conns] if secret in heard] == []
    assert not {f'"{rpc_id}"' for rpc_id in ids} & set(heard.split())
    assert all(type(rpc_id) is int for rpc_id in server.request_ids), "ids are counted for each connection alone"
    assert sorted(server.request_ids) == list(range(len(server.request_ids)))


def connections(gateway: Gateway) -> list[str]:
    hub = worker_of(gateway).hub
    return [*hub.robots, *hub.tool_servers]
