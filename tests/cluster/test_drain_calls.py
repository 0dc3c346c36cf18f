"""What becomes of calls, robots and tool servers while a worker drains: every call ends in its result."""

import asyncio
from typing import Any

import pytest

from tests.cluster.draining import redialling, until_ended, until_grace_is_over, until_held
from tests.cluster.inside import served
from tests.conftest import StartCluster
from tests.peers.robot import Robot
from tests.peers.tools import echo, held, text_of
from tests.support.waiting import wait_until

pytestmark = pytest.mark.settings(lease_seconds=6.0)
short = pytest.mark.settings(drain_seconds=2.0)
long = pytest.mark.settings(drain_seconds=60.0)


@long
@pytest.mark.settings(drain_grace_seconds=30.0)
async def test_nothing_is_closed_in_the_grace(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    server = await redialling(b, a, name="calc", tools=[echo()])
    robot = await a.robot()
    await robot.sees("echo")
    served(b).drain()
    for number in range(20):
        assert text_of(await robot.call("echo", {"text": str(number)})) == str(number)
        await asyncio.sleep(0.01)
    assert server.codes == []
    assert served(b).is_running


@long
async def test_tool_servers_leave_once_no_robot_is_left(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    server = await redialling(b, a, name="calc", tools=[echo()])
    staying, leaving = await a.robot(), await b.robot()
    for robot in (staying, leaving):
        await robot.sees("echo")
    served(b).drain()
    await until_grace_is_over(b)
    assert text_of(await leaving.call("echo", {"text": "as always"})) == "as always"
    assert server.codes == []
    await leaving.close()
    await until_ended(b)
    assert server.codes == [1012]
    assert text_of(await staying.call("echo", {"text": "moved"})) == "moved"
    assert not staying.received("notifications/tools/list_changed")


@short
async def test_a_robot_is_closed_when_its_call_has_ended(cluster: StartCluster) -> None:
    a, b = await cluster(2, call_seconds=8.0)
    slow = await a.tool_server("slow", [held("slow")])
    busy, idle = await b.robot(), await b.robot()
    await busy.sees("slow")
    request_id = await busy.start_call("slow")
    call = await slow.until_called()
    served(b).drain()
    assert (await idle.until_closed()).code == 1012
    assert busy.is_open
    await call.answer("before the end")
    closed = await busy.until_closed()
    assert text_of(busy.answers(request_id)[0]) == "before the end"
    assert closed.code == 1012
    assert "redial" in closed.reason
    await until_ended(b)


@pytest.mark.settings(drain_seconds=3.0)
async def test_a_call_that_runs_for_most_of_the_window_ends_in_its_result_and_those_behind_it_move(
    cluster: StartCluster,
) -> None:
    """The last hour of a tool server: from half the window new calls wait for it to redial."""
    a, b = await cluster(2)
    server = await redialling(b, a, name="calc", tools=[held("slow"), echo()])
    near, far = await b.robot(), await a.robot()
    for robot in (near, far):
        await robot.sees("slow", "echo")
    running = await far.start_call("slow")
    slow = await server.until_called()
    served(b).drain()
    await until_held(b)
    behind = [(robot, await robot.start_call("echo", {"text": "later"})) for robot in (near, far) for _ in range(3)]
    await asyncio.sleep(0.3)
    assert len(server.calls) == 1
    assert server.codes == []
    await slow.answer("the long one")
    assert text_of(await far.answer(running)) == "the long one"
    for robot, request_id in behind:
        assert text_of(await robot.answer(request_id)) == "later"
    assert len(server.calls) == 7
    assert server.codes == [1012]
    await until_ended(b)


@pytest.mark.settings(drain_seconds=2.5, calls_per_connection=3)
async def test_more_calls_than_may_be_held_wait_at_their_callers_and_go_out_as_there_is_room(
    cluster: StartCluster,
) -> None:
    a, b = await cluster(2)
    server = await redialling(b, a, name="calc", tools=[held("slow"), echo()])
    robots = [await gateway.robot() for gateway in (a, b, a, b)]
    for robot in robots:
        await robot.sees("slow", "echo")
    running = await robots[0].start_call("slow")
    slow = await server.until_called()
    served(b).drain()
    await until_held(b)
    behind = [(robot, await robot.start_call("echo", {"text": "later"})) for robot in robots for _ in range(2)]
    await slow.answer("the long one")
    assert text_of(await robots[0].answer(running)) == "the long one"
    for robot, request_id in behind:
        assert text_of(await robot.answer(request_id)) == "later"


@long
@pytest.mark.settings(call_seconds=2.5)
async def test_a_held_call_whose_time_runs_out_has_certainly_not_run(
    cluster: StartCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The running one reports progress, and so goes on for longer than those behind it may wait."""
    monkeypatch.setattr("gateway.drain.TOOL_SERVERS_SHARE", 0.0)
    monkeypatch.setattr("gateway.drain.HOLD_SHARE", 0.0)
    a, b = await cluster(2)
    server = await redialling(b, a, name="calc", tools=[held("slow"), echo()])
    near, far = await b.robot(), await a.robot()
    for robot in (near, far):
        await robot.sees("slow", "echo")
    running = await far.start_call("slow")
    slow = await server.until_called()
    served(b).drain()
    await until_held(b)
    behind = [(robot, await robot.start_call("echo")) for robot in (near, far)]
    step = 0
    while not all(robot.answers(request_id) for robot, request_id in behind):
        step += 1
        await slow.progress(step)
        await asyncio.sleep(0.05)
        assert step < 200
    for robot, request_id in behind:
        assert robot.answers(request_id)[0]["error"]["data"]["executed"] is False
    await slow.answer("the long one")
    assert text_of(await far.answer(running)) == "the long one"
    assert len(server.calls) == 1


@long
@pytest.mark.settings(close_seconds=20.0)
async def test_held_calls_do_not_wait_for_a_closing_handshake_that_takes_its_time(
    cluster: StartCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.drain.TOOL_SERVERS_SHARE", 0.0)
    monkeypatch.setattr("gateway.drain.HOLD_SHARE", 0.0)
    a, b = await cluster(2)
    server = await b.tool_server("calc", [held("slow"), echo()], server_id="calc")
    near, far = await b.robot(), await a.robot()
    for robot in (near, far):
        await robot.sees("slow", "echo")
    await far.start_call("slow")
    slow = await server.until_called()
    served(b).drain()
    await until_held(b)
    behind = [(robot, await robot.start_call("echo", {"text": "later"})) for robot in (near, far)]
    server.freeze()
    await slow.answer("its last words")
    await a.tool_server("calc", [held("slow"), echo()], server_id="calc", is_awaited=False)
    for robot, request_id in behind:
        assert text_of(await robot.answer(request_id)) == "later"
    assert len(server.calls) == 1
    assert server.is_open


@long
@pytest.mark.settings(close_seconds=20.0, ghost_seconds=60.0)
async def test_a_tool_server_that_is_back_before_its_old_socket_has_closed_is_itself_again_at_once(
    cluster: StartCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker says of a connection that it is closing: gone. Nobody has to find out by pings."""
    monkeypatch.setattr("gateway.drain.TOOL_SERVERS_SHARE", 0.0)
    a, b = await cluster(2)
    before = await b.tool_server("calc", [echo()])
    staying, robot = await b.robot(), await a.robot()
    await robot.sees("echo")
    before.freeze()
    served(b).drain()
    await wait_until(lambda: all(link.cause for link in served(b).tool_links), "it is being closed")
    after = await a.tool_server("calc", [echo()], is_awaited=False)
    assert text_of(await robot.call("echo", {"text": "the same"})) == "the same"
    assert len(after.calls) == 1
    assert await robot.names() == ["echo"]
    assert staying.is_open


async def calling(robot: Robot, until: asyncio.Event, answers: list[dict[str, Any]], sent: list[str]) -> None:
    """One call after the other, as fast as they are answered."""
    while not until.is_set():
        text = f"{id(robot)}-{len(sent)}"
        sent.append(text)
        answers.append(await robot.call("echo", {"text": text}, seconds=10))


@pytest.mark.settings(drain_seconds=6.0)
async def test_no_call_is_lost_or_run_twice_while_tool_servers_move(cluster: StartCluster) -> None:
    """Calls come without a pause, from this and from another worker; each tool server is closed between two of them.

    The window leaves seconds after that: a robot that still calls at its end is closed.
    """
    a, b = await cluster(2)
    servers = [
        await redialling(b, a, name=f"calc{number}", tools=[echo(f"echo{number}" if number else "echo")])
        for number in range(3)
    ]
    robots = [await gateway.robot() for gateway in (a, a, b)]
    for robot in robots:
        await robot.sees("echo")
    over, answers, sent = asyncio.Event(), list[dict[str, Any]](), list[str]()
    async with asyncio.TaskGroup() as tasks:
        for robot in robots:
            tasks.create_task(calling(robot, over, answers, sent))
        served(b).drain()
        await wait_until(lambda: all(server.codes == [1012] for server in servers), "all of them have moved", 10)
        await a.until_connected(3)
        over.set()
    assert [answer for answer in answers if "result" not in answer] == []
    texts = [call.arguments["text"] for server in servers for call in server.calls]
    assert sorted(texts) == sorted(sent)
    await until_ended(b)
