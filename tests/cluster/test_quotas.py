"""Limits that all workers share, seen by the peers: on memory and on Redis."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from gateway.shares import Limit
from tests.cluster.inside import worker_of
from tests.conftest import StartCluster
from tests.peers.robot import Robot
from tests.peers.tools import echo, text_of
from tests.peers.wire import Message
from tests.support.gateway import AGENT, Gateway
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

QUICK = {"beat_seconds": 0.1, "lease_seconds": 2.0, "redis_timeout_seconds": 0.5}
PER_SECOND = 20


async def bang(robot: Robot, calls: int, name: str = "echo") -> list[Message]:
    """So many calls as fast as they are answered; the answers."""
    return [await robot.call(name, {"text": "x"}) for _ in range(calls)]


def refused(answers: Sequence[Message]) -> list[Any]:
    errors = [answer["error"] for answer in answers if "error" in answer]
    assert {error["data"]["reason"] for error in errors} <= {"quota"}
    return errors


async def pair_that_knows_itself(cluster: StartCluster) -> tuple[Gateway, Gateway]:
    """Two workers, each of which has seen the other."""
    a, b = await cluster(2)
    await wait_until(lambda: all("1/2" in repr(worker_of(one).quotas) for one in (a, b)), "they know of each other")
    return a, b


@pytest.mark.settings(calls_per_second=PER_SECOND, **QUICK)
async def test_all_workers_together_let_an_agent_call_as_often_as_its_limit_says(cluster: StartCluster) -> None:
    a, b = await pair_that_knows_itself(cluster)
    await a.tool_server()
    robots = [await a.robot(), await b.robot()]
    for robot in robots:
        await robot.sees("echo")
    for robot in robots:
        await bang(robot, 80)
    began = time.monotonic()
    answers: list[Message] = []
    while time.monotonic() < began + 1.5:
        for robot in robots:
            answers += await bang(robot, 1)
        await asyncio.sleep(0.005)
    errors = refused(answers)
    # What could be had at once is spent. Two workers that did not share would let twice the limit through.
    assert 1 <= len(answers) - len(errors) <= 1.5 * PER_SECOND * (time.monotonic() - began) + 5
    assert all(error["code"] == -32004 and error["data"]["executed"] is False for error in errors)
    assert all(0 < error["data"]["retry_after_ms"] <= 2000 for error in errors)
    neighbour = await b.robot(agent="neighbour")
    assert (await neighbour.call("echo"))["error"]["data"]["reason"] == "no tool server connected"


@pytest.mark.settings(calls_per_second=PER_SECOND, **QUICK)
async def test_who_comes_back_when_he_was_told_to_is_let_in(cluster: StartCluster) -> None:
    a, _ = await pair_that_knows_itself(cluster)
    await a.tool_server()
    robot = await a.robot()
    await robot.sees("echo")
    await bang(robot, 80)
    for _ in range(20):
        answer = await robot.call("echo", {"text": "again"})
        if "result" in answer:
            break
        await asyncio.sleep(answer["error"]["data"]["retry_after_ms"] / 1000)
    assert text_of(answer) == "again"


@pytest.mark.settings(calls_per_second=100_000, server_calls_per_second=5, **QUICK)
async def test_one_tool_server_that_is_called_too_often_leaves_the_others_alone(cluster: StartCluster) -> None:
    a, b = await pair_that_knows_itself(cluster)
    await a.tool_server("lamp", [echo("light")], server_id="lamp")
    await a.tool_server("bell", [echo("ring")], server_id="bell")
    robot = await b.robot()
    await robot.sees("light", "ring")
    errors = refused(await bang(robot, 40, "light"))
    assert errors
    assert all("GATEWAY_SERVER_CALLS_PER_SECOND=5" in error["message"] for error in errors)
    assert "result" in await robot.call("ring")


@pytest.mark.settings(**QUICK)
async def test_an_agents_own_limit_is_in_force_everywhere_as_soon_as_it_is_written(cluster: StartCluster) -> None:
    a, b = await pair_that_knows_itself(cluster)
    await a.tool_server()
    robot = await b.robot()
    await robot.sees("echo")
    assert not refused(await bang(robot, 30))
    await worker_of(a).backplane.write_entry("policy", AGENT, b'{"limits":{"calls_per_second":1}}')
    await wait_until(lambda: is_limited(robot), "the limit is in force", seconds=2)
    errors = refused(await bang(robot, 10))
    assert all("GATEWAY_CALLS_PER_SECOND=1 " in error["message"] for error in errors)


async def is_limited(robot: Robot) -> bool:
    return bool(refused(await bang(robot, 6)))


@pytest.mark.settings(robots_per_agent=3, **QUICK)
async def test_an_agents_robots_are_counted_on_all_workers(cluster: StartCluster) -> None:
    a, b = await pair_that_knows_itself(cluster)
    robots = [await a.robot(), await a.robot(), await b.robot()]
    await wait_until(lambda: rows_of(a, 3), "all three are known")
    assert await turned_away(b.call_url()) in (503, 1013)
    await robots[0].close()
    await wait_until(lambda: rows_of(a, 2), "one has gone")
    await wait_until(lambda: may_enter(b), "there is room again")
    assert robots[1].is_open
    assert robots[2].is_open


@pytest.mark.settings(robots_per_agent=1, **QUICK)
async def test_a_robot_that_came_in_while_nobody_knew_of_the_other_is_sent_away(cluster: StartCluster) -> None:
    a, b = await pair_that_knows_itself(cluster)
    first = await a.robot()
    await wait_until(lambda: rows_of(a, 1), "the first is known")
    assert await turned_away(b.call_url()) == 1013
    assert "result" in await first.ping()


async def knock(url: str, **headers: str) -> int:
    """The status of a robot's handshake."""
    robot = Robot(url, additional_headers=headers)
    try:
        await robot.open()
    except InvalidStatus as refusal:
        response = refusal.response
        assert response.status_code == 401 or 0 < int(response.headers["Retry-After"]) <= 60
        return response.status_code
    finally:
        await robot.close()
    return 101


async def turned_away(url: str) -> int:
    """The status with which a robot is refused, or the code with which it is closed right after."""
    robot = Robot(url)
    try:
        await robot.open()
        return (await robot.until_closed()).code
    except InvalidStatus as refusal:
        return refusal.response.status_code


async def may_enter(gateway: Gateway) -> bool:
    """Whether a robot comes in, and stays."""
    robot = Robot(gateway.call_url())
    try:
        await robot.open()
        return "result" in await robot.ping()
    except InvalidStatus:
        return False
    finally:
        await robot.close()


async def rows_of(gateway: Gateway, count: int) -> bool:
    overview = await worker_of(gateway).backplane.overview(limit=10)
    return bool(overview.robots.get(AGENT) == count)


PER_MINUTE = 12
"""A source may then dial in so often at once, and nobody waits for more."""
SLOW = Limit(PER_MINUTE, 60.0)


@pytest.mark.settings(agent_handshakes_per_minute=PER_MINUTE, **QUICK)
async def test_all_workers_together_let_an_agent_dial_in_as_often_as_its_limit_says(cluster: StartCluster) -> None:
    a, b = await pair_that_knows_itself(cluster)
    began = time.monotonic()
    answers = [await knock(gateway.call_url()) for _ in range(20) for gateway in (a, b)]
    most = SLOW.per_second * (time.monotonic() - began) + SLOW.burst + 2 * SLOW.spare_units(2) + 1
    assert set(answers) == {101, 429}
    assert PER_MINUTE / 2 <= answers.count(101) <= most
    assert await knock(a.call_url("another")) == 101


@pytest.mark.settings(source_handshakes_per_minute=PER_MINUTE, trusted_proxies=("127.0.0.1",), **QUICK)
async def test_a_source_that_knocks_too_often_is_refused_everywhere_and_uses_up_nothing_of_an_agent(
    cluster: StartCluster,
) -> None:
    a, b = await pair_that_knows_itself(cluster)
    loud, other = {"X-Forwarded-For": "2001:db8:1:2::7"}, {"X-Forwarded-For": "2001:db8:1:3::7"}
    began = time.monotonic()
    bad = [
        await knock(gateway.url("/mcp_endpoint/call/", token="bad"), **loud) for _ in range(20) for gateway in (a, b)
    ]
    most = SLOW.per_second * (time.monotonic() - began) + SLOW.burst + 2 * SLOW.spare_units(2) + 1
    assert set(bad) == {401, 429}
    assert PER_MINUTE / 2 <= bad.count(401) <= most
    assert await knock(a.call_url(), **loud) == 429, "also with a good token"
    assert await knock(a.call_url(), **{"X-Forwarded-For": "2001:db8:1:2::8"}) == 429, (
        "its neighbours are the same source"
    )
    assert await knock(a.call_url(), **other) == await knock(b.call_url(), **other) == 101


async def test_an_agent_that_calls_now_and_then_costs_no_command(
    pair: tuple[Gateway, Gateway], own_server: RedisServer
) -> None:
    a, b = pair
    await a.tool_server()
    robot = await b.robot()
    await robot.sees("echo")
    assert not refused(await bang(robot, 20))
    with own_server.client() as client:
        assert list(client.scan_iter("mcpgw:rate:*")) == []


@pytest.mark.settings(calls_per_second=PER_SECOND, park_seconds=1.0, **QUICK)
async def test_without_redis_a_worker_limits_by_itself_and_then_shares_again(
    pair: tuple[Gateway, Gateway], own_server: RedisServer
) -> None:
    a, _ = pair
    await a.tool_server()
    robot = await a.robot()
    await robot.sees("echo")
    own_server.stop()
    began = time.monotonic()
    answers: list[Message] = []
    while len(answers) < 100 or not refused(answers):
        answers += await bang(robot, 50)
    limit, seconds = Limit(PER_SECOND), time.monotonic() - began
    let_in = len(answers) - len(refused(answers))
    assert 1 <= let_in <= limit.units * seconds + 2 * limit.burst + 2 * limit.spare_units(2)
    own_server.start()
    with own_server.client() as client:
        await wait_until(lambda: asks_again(robot, client), "it shares its limit again", seconds=20)


async def asks_again(robot: Robot, client: Any) -> bool:
    await bang(robot, 20)
    return bool(client.exists(f"mcpgw:rate:{{{AGENT}}}"))
