"""The same promises with the robot on one worker and the tool server on another, over memory and over Redis."""

import asyncio

import pytest

from gateway import calls
from tests.conftest import StartCluster
from tests.peers.tool_server import ToolServer
from tests.peers.tools import adder, answering, echo, failing, held, reporting, text_of, text_result
from tests.peers.wire import Message
from tests.support.gateway import AGENT, Gateway
from tests.support.waiting import wait_until

CHANGED = "notifications/tools/list_changed"


async def test_a_robot_lists_and_calls_tools_of_every_worker(cluster: StartCluster) -> None:
    workers = await cluster(4)
    for number, worker in enumerate(workers):
        await worker.tool_server(f"server{number}", [echo(f"tool{number}")])
    names = [f"tool{number}" for number in range(4)]
    for worker in workers:
        robot = await worker.robot()
        await robot.sees(*names)
        for number, name in enumerate(names):
            assert text_of(await robot.call(name)) == f"server{number}:{name}"


async def test_ids_and_results_cross_unchanged(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    server = await b.tool_server(tools=[echo()])
    robot = await a.robot()
    await robot.sees("echo")
    extra: Message = {"_meta": {"traceparent": "00-1-2-01"}, "vendor": [None, {"深": 1.0}]}
    for request_id in (0, "", "1", 1, 2**53):
        answer = await robot.call("echo", {"text": "你好"}, id=request_id, **extra)
        assert text_of(answer) == "你好"
        assert type(answer["id"]) is type(request_id)
    params = server.calls[0].params
    assert params["vendor"] == extra["vendor"]
    assert params["_meta"]["traceparent"] == "00-1-2-01"


async def test_calls_both_ways_at_once_find_their_robots(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    await a.tool_server("on_a", [echo("tool_a")])
    await b.tool_server("on_b", [echo("tool_b")])
    robots = [await worker.robot() for worker in (a, b) for _ in range(3)]
    for robot in robots:
        await robot.sees("tool_a", "tool_b")
    async with asyncio.TaskGroup() as tasks:
        answers = [
            tasks.create_task(robot.call(tool, {"text": f"{number}-{tool}-{turn}"}, id=turn))
            for number, robot in enumerate(robots)
            for turn, tool in enumerate(["tool_a", "tool_b"] * 5)
        ]
    texts = [text_of(answer.result()) for answer in answers]
    expected = [f"{number}-{tool}-{turn}" for number in range(6) for turn, tool in enumerate(["tool_a", "tool_b"] * 5)]
    assert texts == expected


async def test_calls_keep_their_order_over_workers(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    server = await b.tool_server(tools=[held()])
    robot = await a.robot()
    await robot.sees("slow")
    for number in range(40):
        await robot.start_call("slow", {"n": number})
    await server.until_called(40)
    assert [call.arguments["n"] for call in server.calls] == list(range(40))


async def test_a_xiaozhi_server_notices_nothing(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    await b.tool_server(tools=[echo("calculator")])
    await (await a.robot()).sees("calculator")
    robot = await a.xiaozhi()
    for text in ("一", "二", "三"):
        assert await robot.call_tool("calculator", {"text": text}) == text
    assert robot.errors == []


async def test_errors_and_error_results_cross_verbatim(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    tools = [failing("fails", 42, "自己的", {"x": 1}), answering("sad", text_result("no such city", is_error=True))]
    await b.tool_server(tools=tools)
    robot = await a.robot()
    await robot.sees("fails")
    assert (await robot.call("fails"))["error"] == {"code": 42, "message": "自己的", "data": {"x": 1}}
    assert (await robot.call("sad"))["result"]["error"] == "no such city"


async def test_a_long_result_is_cut_on_its_way(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    await b.tool_server(tools=[answering("long", text_result("长" * 400_000))])
    robot = await a.robot()
    await robot.sees("long")
    answer = await robot.call("long")
    assert len(robot.frames[-1].encode() if isinstance(robot.frames[-1], str) else b"") <= 512 * 1024
    assert text_of(answer).startswith("长" * 1000)


async def test_progress_crosses(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    server = await b.tool_server(tools=[held()])
    robot = await a.robot()
    await robot.sees("slow")
    request_id = await robot.start_call("slow", _meta={"progressToken": 7})
    call = await server.until_called()
    await call.progress(1, total=3, message="一")
    [params] = await robot.until_progress()
    assert params == {"progressToken": 7, "progress": 1, "total": 3, "message": "一"}
    await call.answer("done")
    assert text_of(await robot.answer(request_id)) == "done"


@pytest.mark.settings(call_seconds=1.0)
async def test_progress_moves_the_deadline_on_both_workers(
    cluster: StartCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for a robot that gave no token, though then but once a second (design §6.4)."""
    monkeypatch.setattr(calls, "UNASKED_PROGRESS_PER_SECOND", 10.0)
    a, b = await cluster(2)
    server = await b.tool_server(tools=[held()])
    robot = await a.robot()
    await robot.sees("slow")
    request_id = await robot.start_call("slow")
    call = await server.until_called()
    assert call.progress_token is not None
    for step in range(1, 6):
        await asyncio.sleep(0.3)
        await call.progress(step)
    await call.answer("late, but alive")
    assert text_of(await robot.answer(request_id)) == "late, but alive"
    assert not robot.received("notifications/progress")


async def test_a_flood_of_progress_is_thinned_before_the_answer(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    await b.tool_server(tools=[reporting("flood", [float(step) for step in range(1, 500)])])
    robot = await a.robot()
    await robot.sees("flood")
    assert text_of(await robot.call("flood", _meta={"progressToken": "t"})) == "done"
    steps = [message["params"]["progress"] for message in robot.received("notifications/progress")]
    assert steps == sorted(set(steps))
    assert len(steps) < 400


async def test_cancellation_crosses(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    server = await b.tool_server(tools=[held(), echo()])
    robot = await a.robot()
    await robot.sees("slow")
    request_id = await robot.start_call("slow")
    call = await server.until_called()
    await robot.cancel(request_id, "enough")
    await server.until_cancelled(call)
    assert server.received("notifications/cancelled")[0]["params"]["reason"] == "enough"
    await call.answer("too late")
    await robot.call("echo")
    assert not robot.answers(request_id)


async def test_a_robot_that_vanishes_cancels_its_calls_on_other_workers(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    server = await b.tool_server(tools=[held()])
    robot = await a.robot()
    await robot.sees("slow")
    await robot.start_call("slow")
    call = await server.until_called()
    await robot.vanish()
    await server.until_cancelled(call)


async def test_a_tool_server_lost_on_another_worker_ends_the_call(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    server = await b.tool_server(tools=[held()])
    robot = await a.robot()
    await robot.sees("slow")
    request_id = await robot.start_call("slow")
    await server.until_called()
    await server.vanish()
    error = (await robot.answer(request_id, seconds=3))["error"]
    assert error["code"] == -32002
    assert error["data"].keys() == {"reason", "executed", "agent_id", "call"}
    assert (error["data"]["executed"], error["data"]["agent_id"]) == ("unknown", AGENT)


@pytest.mark.settings(call_seconds=0.5)
async def test_the_deadline_holds_over_workers(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    server = await b.tool_server(tools=[held()])
    robot = await a.robot()
    await robot.sees("slow")
    request_id = await robot.start_call("slow")
    call = await server.until_called()
    assert (await robot.answer(request_id))["error"]["code"] == -32002
    await server.until_cancelled(call)


async def test_list_changes_cross(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    robot = await a.robot()
    assert await robot.names() == []
    server = await b.tool_server(tools=[echo()])
    await robot.until_received(CHANGED)
    assert await robot.names() == ["echo"]
    await server.change_tools([echo(), adder()])
    await robot.until_received(CHANGED, 2)
    assert await robot.names() == ["echo", "add"]


@pytest.mark.settings(grace_seconds=0.2)
async def test_the_grace_ends_on_every_worker(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    server = await b.tool_server(tools=[echo()])
    robots = [await worker.robot() for worker in (a, b)]
    for robot in robots:
        await robot.sees("echo")
    await server.vanish()
    for robot in robots:
        await robot.until_received(CHANGED)
        assert await robot.names() == []


async def test_a_late_tool_is_pushed_to_a_xiaozhi_server_on_another_worker(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    robot = await a.xiaozhi()
    await b.tool_server(tools=[echo("calculator")])
    await robot.until(lambda: "calculator" in robot.tools, "the tool is pushed")


async def test_a_list_waits_for_a_handshake_on_another_worker(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    server = ToolServer(b.mcp_url(), tools=[echo()])
    server.answers_initialize = False
    await b.attach(server, is_awaited=False)
    initialize = await server.until_received("initialize")
    await until_handshake_is_known(a)
    robot = await a.robot()
    request_id = await robot.start("tools/list")
    server.answers_initialize = True
    await server.on_initialize(initialize)
    answer = await robot.answer(request_id)
    assert [tool["name"] for tool in answer["result"]["tools"]] == ["echo"]


async def until_handshake_is_known(worker: Gateway) -> None:
    """A robot that has no tool to see waits for the handshake; one ping's time is enough for the row to be there."""
    robot = await worker.robot()
    await robot.ping()
    await worker.health()


async def test_a_takeover_on_another_worker_closes_the_older_connection(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    older = await a.tool_server("server", [echo()], server_id="kitchen")
    robots = [await worker.robot() for worker in (a, b)]
    for robot in robots:
        await robot.sees("echo")
    newer = await b.tool_server("server", [echo()], server_id="kitchen", is_awaited=False)
    assert (await older.until_closed()).code == 1000
    for number, robot in enumerate(robots, start=1):
        assert text_of(await robot.call("echo", {"text": "hi"})) == "hi"
        assert len(newer.calls) == number
    assert older.calls == []


async def test_a_call_in_flight_ends_when_its_server_is_taken_over(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    older = await a.tool_server("server", [held()], server_id="kitchen")
    robot = await b.robot()
    await robot.sees("slow")
    request_id = await robot.start_call("slow")
    await older.until_called()
    await b.tool_server("server", [held()], server_id="kitchen", is_awaited=False)
    error = (await robot.answer(request_id))["error"]
    assert error["code"] == -32002
    assert error["data"]["executed"] == "unknown"


@pytest.mark.settings(park_seconds=5, call_seconds=8)
async def test_a_parked_call_follows_a_redial_onto_another_worker(cluster: StartCluster) -> None:
    a, b, c = await cluster(3)
    server = await b.tool_server("calc", [echo("calculator")])
    robot = await a.robot()
    await robot.sees("calculator")
    await server.vanish()
    await a.until_connected(0)
    request_id = await robot.start_call("calculator", {"text": "waited"})
    await robot.ping()
    assert not robot.answers(request_id)
    again = await c.tool_server("calc", [echo("calculator")])
    assert text_of(await robot.answer(request_id)) == "waited"
    assert len(again.calls) == 1
    assert not robot.received(CHANGED)


@pytest.mark.settings(ghost_seconds=0.3)
async def test_a_ghost_on_another_worker_is_closed(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    ghost = await a.tool_server("calc", [echo("calculator")])
    ghost.freeze()
    [worker] = await owners(a)
    again = await b.tool_server("calc", [echo("calculator")], is_awaited=False)

    async def has_moved() -> bool:
        return await owners(a) not in ([], [worker])

    await wait_until(has_moved, "the newcomer has the row")
    robot = await a.robot()
    assert text_of(await robot.call("calculator", {"text": "4"})) == "4"
    assert again.calls
    assert await robot.names() == ["calculator"]


async def owners(worker: Gateway) -> list[str]:
    """The workers that hold the agent's tool servers."""
    return [server["worker"] for server in (await worker.servers()).values()]


async def test_a_twin_on_another_worker_is_left_alone(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    first = await a.tool_server("calc", [echo("calculator")])
    twin = await b.tool_server("calc", [echo("calculator")])
    robot = await a.robot()
    await robot.sees("calculator", "calc-2__calculator")
    await robot.call("calculator")
    await robot.call("calc-2__calculator")
    assert len(first.calls) == len(twin.calls) == 1


async def test_names_are_the_same_on_every_worker(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    await a.tool_server("one", [echo("search"), echo("x.y")], server_id="one")
    await b.tool_server("two", [echo("search"), echo("x/y")], server_id="two")
    robots = [await worker.robot() for worker in (a, b)]
    for robot in robots:
        await robot.sees("search", "two__search", "x_y", "two__x_y")
    assert await robots[0].list_tools() == await robots[1].list_tools()
    for robot in robots:
        assert text_of(await robot.call("two__search")) == "two:search"
        assert text_of(await robot.call("one__search")) == "one:search"


async def test_health_tells_the_whole_cluster_from_any_worker(cluster: StartCluster) -> None:
    a, b, c = await cluster(3)
    await a.tool_server("one", [echo("a")], agent="x")
    await b.tool_server("two", [echo("b"), echo("c")], agent="y")
    await b.robot(agent="x")
    await a.robot(agent="x")
    await c.until_connected(1, "x")
    await c.until_connected(1, "y")
    for worker in (a, b, c):
        await wait_until(lambda worker=worker: knows_both_robots(worker), "both robots are counted")  # type: ignore[misc]
        health = await worker.health()
        assert health["mcp_server_connections"] == 2
        assert health["total_connections"] == 4
        assert health["total_tools"] == 3
        owners = {server["worker"] for agent in ("x", "y") for server in health["mcp_servers"][agent].values()}
        assert len(owners) == 2


async def knows_both_robots(worker: Gateway) -> bool:
    return bool((await worker.health())["robot_connections_by_agent"].get("x") == 2)


async def test_agents_stay_apart_over_workers(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    await b.tool_server(tools=[echo("secret")], agent="one")
    robot = await a.robot(agent="two")
    watcher = await a.robot(agent="one")
    await watcher.sees("secret")
    assert await robot.names() == []
    assert (await robot.call("secret"))["error"]["code"] == -32001


async def test_a_worker_that_stops_leaves_the_others_their_tools(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    kept = await a.tool_server("kept", [echo("kept")])
    await b.tool_server("gone", [echo("gone")])
    robot = await a.robot()
    await robot.sees("kept", "gone")
    await b.worker.stop()
    assert text_of(await robot.call("kept")) == "kept:kept"
    assert kept.is_open
    again = await a.tool_server("gone", [echo("gone")], is_awaited=False)
    assert text_of(await robot.call("gone", seconds=8)) == "gone:gone"
    assert len(again.calls) == 1
