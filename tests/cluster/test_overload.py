"""A full worker sheds, a slow peer is closed alone, and one that can't be served does not cost the others theirs."""

from contextlib import suppress
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from gateway.backplane.envelope import Envelope
from gateway.executor import Executor
from gateway.robotlink import RobotLink
from tests.conftest import StartCluster
from tests.peers.robot import Robot
from tests.peers.tools import answering, echo, held, text_of, text_result
from tests.support.gateway import Gateway
from tests.support.waiting import wait_until

KIB = 1024


async def refused(robot: Robot, tool: str) -> str:
    """The text of the error that a call gets; it must say that nothing ran."""
    error: dict[str, Any] = (await robot.call(tool))["error"]
    assert (error["code"], error["data"]["reason"], error["data"]["executed"]) == (-32003, "overloaded", False)
    return str(error["message"])


async def two_robots(gateway: Gateway) -> bool:
    return bool((await gateway.health())["robot_connections"] == 2)


@pytest.mark.settings(calls_per_connection=2)
async def test_a_full_tool_server_of_another_worker_is_given_no_more(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    slow = await b.tool_server("slow", [held("wait")])
    robots = [await a.robot() for _ in range(3)]
    await robots[0].sees("wait")
    waiting = [(robot, await robot.start_call("wait")) for robot in robots[:2]]
    await slow.until_called(2)
    assert "GATEWAY_CALLS_PER_CONNECTION" in await refused(robots[2], "wait")
    assert len(slow.calls) == 2
    for number, (robot, request_id) in enumerate(waiting, 1):
        await (await slow.until_called(number)).answer("done")
        assert text_of(await robot.answer(request_id)) == "done"
    again = await robots[2].start_call("wait")
    await (await slow.until_called(3)).answer("again")
    assert text_of(await robots[2].answer(again)) == "again"


@pytest.mark.settings(outbox_bytes=256 * KIB, result_bytes=128 * KIB)
async def test_a_robot_that_reads_nothing_is_closed_alone(cluster: StartCluster) -> None:
    """Its results pile up to the bound; the tool server, the other robots and both workers go on."""
    a, b = await cluster(2)
    big = await b.tool_server("big", [answering("big", text_result("x" * 100 * KIB)), echo()])
    deaf, other = await a.robot(), await a.robot()
    for robot in (deaf, other):
        await robot.sees("big", "echo")
    await wait_until(lambda: two_robots(a), "both robots are known")
    deaf.freeze()
    asked = 0
    while await two_robots(a):
        if asked < 400:  # what the kernel holds for a peer counts against nobody
            asked += 1
            with suppress(ConnectionClosed):  # at last
                await deaf.start_call("big")
        assert text_of(await other.call("echo", {"text": "goes on"})) == "goes on"
    assert big.is_open
    assert text_of(await other.call("echo", {"text": "and on"})) == "and on"


@pytest.mark.settings(outbox_bytes=256 * KIB, robot_frame_bytes=200 * KIB, park_seconds=0.1, grace_seconds=0.1)
async def test_a_tool_server_that_reads_nothing_is_closed_alone(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    deaf = await b.tool_server("deaf", [echo("deaf")], server_id="deaf")
    await b.tool_server("other", [echo("other")], server_id="other")
    robot, neighbour = await a.robot(), await a.robot()
    for one in (robot, neighbour):
        await one.sees("deaf", "other")
    deaf.freeze()
    sent: list[Any] = []
    while "deaf" in {name for name, row in (await a.servers()).items() if row.get("state", "up") == "up"}:
        if len(sent) < 60:
            sent.append(await robot.start_call("deaf", {"text": "x" * 190 * KIB}))
        assert text_of(await neighbour.call("other", {"text": "goes on"})) == "goes on"
    for request_id in sent:
        error = (await robot.answer(request_id))["error"]
        assert error["code"] in (-32001, -32002)
        assert error["data"]["executed"] in ("unknown", False)
    assert text_of(await robot.call("other", {"text": "and on"})) == "and on"


async def test_a_call_that_another_version_does_not_understand_has_not_run(
    cluster: StartCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = await cluster(2)
    server = await b.tool_server(tools=[echo()])
    robot = await a.robot()
    await robot.sees("echo")

    def not_understood(executor: Executor, envelope: Envelope) -> None:
        executor._backplane.send(envelope.sender, Envelope("nack", id=envelope.id, reason="unsupported"))

    monkeypatch.setattr(Executor, "on_request", not_understood)
    error = (await robot.call("echo"))["error"]
    of_error = {"reason": "versions differ", "executed": False, "agent_id": "home"}
    assert error["data"] == {**of_error, "call": error["data"]["call"]}
    assert "another version" in error["message"]
    assert server.calls == []


@pytest.mark.settings(call_seconds=0.4)
async def test_one_call_that_can_not_be_ended_does_not_cost_the_others_their_end(
    cluster: StartCluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    [a] = await cluster(1)
    server = await a.tool_server(tools=[held("slow")])
    robots = [await a.robot() for _ in range(3)]
    await robots[0].sees("slow")
    fail, failed = RobotLink.fail, list[str]()

    def fail_or_break(link: RobotLink, *arguments: Any) -> None:
        failed.append(link.connection.id)
        if len(failed) == 1:
            raise ValueError("this one can't be told")
        fail(link, *arguments)

    monkeypatch.setattr(RobotLink, "fail", fail_or_break)
    calls = [(robot, await robot.start_call("slow")) for robot in robots]
    await server.until_called(3)
    for robot, request_id in calls[1:]:
        assert (await robot.answer(request_id))["error"]["data"]["reason"] == "deadline exceeded"
    assert "this one can't be told" in caplog.text
    assert "a tick failed" not in caplog.text
