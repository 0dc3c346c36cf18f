"""Redis stops answering under running workers: local calls go on, remote ones end clearly, and all comes back."""

import pytest

from tests.cluster.inside import is_connected, worker_of
from tests.peers.robot import Robot
from tests.peers.tools import echo, held, text_of
from tests.support.gateway import Gateway, Guests
from tests.support.redis_server import RedisServer
from tests.support.running import RedisCluster, settings
from tests.support.waiting import wait_until

SHORT = {"beat_seconds": 0.2, "lease_seconds": 2.0, "redis_timeout_seconds": 0.5, "park_seconds": 1.0}

pytestmark = pytest.mark.settings(**SHORT)


async def test_local_calls_need_no_redis_and_remote_ones_say_that_it_is_away(
    pair: tuple[Gateway, Gateway], own_server: RedisServer
) -> None:
    a, b = pair
    here = await a.tool_server("here", [echo("near")])
    there = await b.tool_server("there", [echo("far")])
    robot = await a.robot()
    await robot.sees("near", "far")

    own_server.stop()

    for number in range(3):
        assert text_of(await robot.call("near", {"text": str(number)})) == str(number)
    error = (await robot.call("far", {"text": "x"}, seconds=10))["error"]
    assert error["data"]["executed"] in (False, "unknown")
    assert (await a.get("/livez")).status == (await a.get("/readyz")).status == 200
    late = await a.robot()
    assert await late.names() == ["near", "far"], "the list is served from the last catalog"

    own_server.start()  # empty: nothing was kept on disk

    await wait_until(lambda: _runs(robot), "remote calls run again", seconds=20)
    assert here.is_open
    assert there.is_open
    assert len({call.arguments["text"] for call in here.calls}) == 3


async def _runs(robot: Robot, name: str = "far") -> bool:
    return "result" in await robot.call(name, {"text": "again"}, seconds=20)


async def test_a_frozen_redis_thaws_without_running_anything_late(
    pair: tuple[Gateway, Gateway], own_server: RedisServer
) -> None:
    a, b = pair
    there = await b.tool_server("there", [echo("far")])
    robot = await a.robot()
    await robot.sees("far")
    own_server.freeze()
    request_id = await robot.start_call("far", {"text": "frozen"})
    answer = await robot.answer(request_id, seconds=20)
    own_server.thaw()
    await wait_until(lambda: _runs(robot), "remote calls run again", seconds=20)
    if "error" in answer and answer["error"]["data"]["executed"] is False:
        assert "frozen" not in {call.arguments["text"] for call in there.calls}


async def test_a_worker_started_without_redis_waits_and_says_why(own_server: RedisServer, guests: Guests) -> None:
    own_server.stop()
    cluster = RedisCluster(settings(redis_url=own_server.url, **SHORT))
    try:
        gateway = Gateway(await cluster.add_worker(is_awaited=False), guests)
        response = await gateway.get("/readyz")
        assert response.status == 503
        assert "retry-after" in response.headers
        await wait_until(lambda: _tells_of_redis(gateway), "it says that Redis is missing")
        assert str(own_server.port) not in (await gateway.get("/readyz")).text, "where Redis is concerns no stranger"
        assert (await gateway.get("/livez")).status == 200
        own_server.start()
        await wait_until(lambda: _is_ready(gateway), "the worker is ready", seconds=20)
        await gateway.tool_server(tools=[echo()])
        await guests.leave()
    finally:
        await cluster.stop()


async def _tells_of_redis(gateway: Gateway) -> bool:
    return "Redis" in (await gateway.get("/readyz")).text


async def _is_ready(gateway: Gateway) -> bool:
    return (await gateway.get("/readyz")).status == 200


async def test_an_answer_given_while_redis_is_away_arrives_when_it_is_back(
    pair: tuple[Gateway, Gateway], own_server: RedisServer
) -> None:
    """The tool has run: its caller learns the result, although the record of the call is lost as well."""
    a, b = pair
    there = await b.tool_server("there", [held("far")])
    robot = await a.robot()
    await robot.sees("far")
    request_id = await robot.start_call("far")
    call = await there.until_called()
    own_server.stop()
    await wait_until(lambda: not is_connected(b), "the outage is noticed")
    await call.answer("not lost")
    await wait_until(lambda: worker_of(b).backplane._link.refusal is not None, "commands wait for Redis no longer")
    own_server.start()
    assert text_of(await robot.answer(request_id, seconds=20)) == "not lost"


async def test_an_answer_given_to_a_dying_redis_arrives_when_it_is_back(
    pair: tuple[Gateway, Gateway], own_server: RedisServer
) -> None:
    """It was written to a connection that still seemed to work, and stayed away for longer than commands wait."""
    a, b = pair
    there = await b.tool_server("there", [held("far")])
    robot = await a.robot()
    await robot.sees("far")
    request_id = await robot.start_call("far")
    call = await there.until_called()
    own_server.freeze()
    assert is_connected(b)
    await call.answer("not lost")
    await wait_until(lambda: worker_of(b).backplane._link.refusal is not None, "commands wait no longer", seconds=10)
    own_server.stop()
    own_server.start()
    assert text_of(await robot.answer(request_id, seconds=20)) == "not lost"
    assert len(there.calls) == 1


async def test_who_finds_redis_back_first_does_not_judge_those_who_still_look_for_it(
    pair: tuple[Gateway, Gateway], own_server: RedisServer
) -> None:
    a, b = pair
    there = await b.tool_server("there", [held("far")])
    robot = await a.robot()
    await robot.sees("far")
    request_id = await robot.start_call("far")
    call = await there.until_called()
    own_server.stop()
    lease_of_a, lease_of_b = worker_of(a)._lease, worker_of(b)._lease
    await wait_until(lambda: lease_of_a._has_failed, "a beat has failed", seconds=10)
    lease_of_b.stop()  # it still waits for its next try
    own_server.start()
    await wait_until(lambda: lease_of_a.age_seconds < 0.2, "the first is back", seconds=20)
    beats = lease_of_a.beats
    await wait_until(lambda: lease_of_a.beats > beats + 3, "it has looked around more than once", seconds=20)
    lease_of_b._is_stopped = False
    await wait_until(lambda: lease_of_b.age_seconds < 0.2, "the second is back", seconds=20)
    await call.answer("not lost")
    assert text_of(await robot.answer(request_id, seconds=20)) == "not lost"


async def test_robots_that_come_and_go_while_redis_is_away_leave_nothing_to_do(
    pair: tuple[Gateway, Gateway], own_server: RedisServer
) -> None:
    a, _ = pair
    own_server.stop()
    await wait_until(lambda: not is_connected(a), "the outage is noticed")
    for _ in range(5):
        await (await a.robot()).close()
    await wait_until(lambda: not worker_of(a).hub.robots, "all have left")
    assert not worker_of(a)._reception._rows


async def test_tool_servers_that_come_and_go_while_redis_is_away_leave_nothing_to_do(
    pair: tuple[Gateway, Gateway], own_server: RedisServer
) -> None:
    a, _ = pair
    own_server.stop()
    await wait_until(lambda: not is_connected(a), "the outage is noticed")
    for _ in range(5):
        await (await a.tool_server(tools=[echo()], is_awaited=False)).close()
    await wait_until(lambda: not worker_of(a)._registrar._turns, "nothing is left to be told", seconds=10)


async def test_robots_that_come_while_redis_is_away_are_served_by_tool_servers_of_the_same_worker(
    pair: tuple[Gateway, Gateway], own_server: RedisServer
) -> None:
    """Its worker has never read the agent's facts: nobody there wanted them."""
    a, _ = pair
    server = await a.tool_server("here", [echo("near")])
    own_server.stop()
    await wait_until(lambda: not is_connected(a), "the outage is noticed")
    robot = await a.robot()
    assert await robot.names() == ["near"]
    assert text_of(await robot.call("near", {"text": "x"})) == "x"
    own_server.start()
    await wait_until(lambda: is_connected(a), "Redis is back", seconds=20)
    assert text_of(await robot.call("near", {"text": "y"})) == "y"
    assert server.is_open


async def test_a_tool_server_that_dials_in_while_redis_is_away_serves_its_worker_and_then_all(
    pair: tuple[Gateway, Gateway], own_server: RedisServer
) -> None:
    a, b = pair
    await a.tool_server("old", [echo("same")])
    near, far = await a.robot(), await b.robot()
    await near.sees("same")
    await far.sees("same")

    own_server.stop()

    await wait_until(lambda: not is_connected(a), "the outage is noticed")
    server = await a.tool_server("new", [echo("same"), echo("more")], is_awaited=False)
    await near.sees("same", "more", "new__same")
    assert text_of(await near.call("more", {"text": "x"})) == "x"
    assert text_of(await near.call("new__same", {"text": "y"})) == "y"

    own_server.start()

    await far.sees("same", "more", "new__same", seconds=20)
    await wait_until(lambda: _runs(far, "more"), "it can be called from the other worker", seconds=20)
    assert await near.names() == await far.names()
    assert server.is_open


async def test_a_tool_server_that_leaves_while_redis_is_away_is_offline_for_its_worker(
    pair: tuple[Gateway, Gateway], own_server: RedisServer
) -> None:
    """A call of it waits for it to redial, and ends unsent."""
    a, _ = pair
    own_server.stop()
    await wait_until(lambda: not is_connected(a), "the outage is noticed")
    server = await a.tool_server("brief", [echo("near")], is_awaited=False)
    robot = await a.robot()
    await robot.sees("near")
    await server.vanish()
    error = (await robot.call("near", seconds=10))["error"]
    assert error["code"] == -32001
    assert error["data"]["executed"] is False
    again = await a.tool_server("brief", [echo("near")], is_awaited=False)
    await again.until_listed()
    await wait_until(lambda: _runs(robot, "near"), "it is back")
