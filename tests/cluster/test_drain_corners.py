"""A drain meets what is rare: a list that waits, a call that has waited before, a Redis that is away."""

import asyncio

import pytest

from gateway.backplane.envelope import Envelope
from gateway.executor import Executor
from tests.cluster.draining import redialling, until_ended, until_grace_is_over
from tests.cluster.inside import served, worker_of
from tests.conftest import StartCluster
from tests.peers.tool_server import ToolServer
from tests.peers.tools import echo, text_of
from tests.support.gateway import Gateway
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.settings(drain_seconds=60.0, lease_seconds=6.0)


@pytest.mark.settings(list_wait_seconds=1.0)
async def test_a_robot_that_waits_for_its_list_is_closed_behind_it(
    cluster: StartCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list waits a while for a tool server that is in its handshake, on whichever worker."""
    monkeypatch.setattr("gateway.drain.ROBOTS_SHARE", 0.0)
    monkeypatch.setattr("gateway.drain.ROBOTS_SPREAD_SHARE", 0.0)
    a, b = await cluster(2)
    robot = await b.robot()
    server = ToolServer(a.mcp_url(), name="slow", tools=[echo()])
    server.answers_initialize = False
    await a.attach(server, is_awaited=False)
    await wait_until(lambda: worker_of(b).agents.get("home").present_rows, "the handshake is known on both workers")
    request_id = await robot.start("tools/list")
    await wait_until(lambda: any(link._line for link in worker_of(b).hub.robots.values()), "the list waits")
    served(b).drain()
    closed = await robot.until_closed()
    assert ["result" in answer for answer in robot.answers(request_id)] == [True]
    assert closed.code == 1012
    await until_ended(b)


@pytest.mark.settings(park_seconds=1.0)
async def test_a_call_that_has_waited_once_and_comes_back_unsent_may_wait_as_long_again(
    cluster: StartCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waited for its tool server, was held by a worker that drains, and has now to wait for the next redial."""
    a, b = await cluster(2)
    first = await b.tool_server("calc", [echo()], server_id="calc")
    robot = await a.robot()
    await robot.sees("echo")
    on_request, being_held = Executor.on_request, list[tuple[Executor, Envelope]]()

    def hold_the_first(executor: Executor, envelope: Envelope) -> None:
        if being_held:
            on_request(executor, envelope)
        else:
            being_held.append((executor, envelope))

    monkeypatch.setattr(Executor, "on_request", hold_the_first)
    await first.vanish()
    await wait_until(lambda: a_state(a) == "offline", "its tool server is gone")
    request_id = await robot.start_call("echo", {"text": "x"})
    [call] = await wait_until(lambda: list(worker_of(a).desk._parked), "the call waits")
    second = await b.tool_server("calc", [echo()], server_id="calc")
    await wait_until(lambda: being_held, "it is at the other worker")
    await second.vanish()
    await wait_until(lambda: a_state(a) == "offline", "its tool server is gone once more")
    waited_until, clock = call.parked_until, asyncio.get_running_loop().time
    await wait_until(lambda: clock() > waited_until, "the time that it could wait is over")
    on_request(*being_held[0])
    await wait_until(lambda: call in worker_of(a).desk._parked or call.is_done, "it has come back unsent")
    assert call.parked_until > waited_until
    await b.tool_server("calc", [echo()], server_id="calc")
    assert text_of(await robot.answer(request_id)) == "x"


def a_state(gateway: Gateway) -> str:
    """The state of the tool server in the catalog that this worker goes by."""
    return str(worker_of(gateway).agents.get("home").catalog.rows["calc"].state)


@pytest.mark.settings(
    drain_seconds=60.0, beat_seconds=0.2, lease_seconds=2.0, redis_timeout_seconds=0.5, park_seconds=0.5
)
async def test_a_drain_while_redis_is_away_leaves_robots_the_tool_servers_beside_them(
    pair: tuple[Gateway, Gateway], own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What redials elsewhere can't be reached from here then. From four fifths of the window the robots leave, too."""
    monkeypatch.setattr("gateway.drain.TOOL_SERVERS_SHARE", 0.0)
    monkeypatch.setattr("gateway.drain.TOOL_SERVERS_SPREAD_SHARE", 0.0)
    monkeypatch.setattr("gateway.drain.ROBOTS_SPREAD_SHARE", 0.0)
    a, b = pair
    server = await redialling(a, b, name="calc", tools=[echo()])
    robot = await a.robot()
    await robot.sees("echo")
    own_server.stop()
    await wait_until(lambda: not worker_of(a).backplane.is_connected, "the outage is noticed")
    served(a).drain()
    await until_grace_is_over(a)
    for number in range(20):
        assert text_of(await robot.call("echo", {"text": str(number)})) == str(number)
        await asyncio.sleep(0.01)
    assert server.codes == []
    monkeypatch.setattr("gateway.drain.ROBOTS_SHARE", 0.0)
    assert (await robot.until_closed()).code == 1012
    await wait_until(lambda: server.codes == [1012], "the tool server leaves as well")
    await until_ended(a)
