"""A worker that leaves in peace: how its drain begins, and what is left of it at the end (design §8)."""

import asyncio
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from gateway.drain import ROBOTS_SHARE
from gateway.settings import Settings
from tests.cluster.draining import KEYS, assert_nothing_names, kinds, until_ended
from tests.cluster.inside import served
from tests.conftest import StartCluster
from tests.peers.tools import echo, held, text_of
from tests.peers.wire import Peer
from tests.support import http
from tests.support.gateway import Gateway
from tests.support.waiting import wait_until

ADMIN_KEY = "admin-key-of-the-tests"

redis = pytest.mark.parametrize("cluster", ["redis"], indirect=True)
pytestmark = pytest.mark.settings(admin_key=ADMIN_KEY, lease_seconds=6.0)
short = pytest.mark.settings(drain_seconds=2.0)
long = pytest.mark.settings(drain_seconds=60.0)


async def admin(gateway: Gateway, method: str, key: str = ADMIN_KEY) -> http.Response:
    headers = {"Authorization": f"Bearer {key}", "Content-Length": "0"}
    return await gateway.get("/drain", method=method, headers=headers)


# How it begins


@long
@redis
async def test_a_draining_worker_takes_nobody_and_serves_who_is_here(cluster: StartCluster, store: Any) -> None:
    a, b = await cluster(2, beat_seconds=20.0, lease_seconds=60.0)
    near, far = await b.tool_server("near", [echo("near")]), await a.tool_server("far", [echo("far")])
    robot = await b.robot()
    await robot.sees("near", "far")
    served(b).drain()
    ready = await b.get("/readyz")
    assert (ready.status, ready.text) == (503, "not ready: draining\n")
    assert ready.headers["retry-after"]
    for url in (b.call_url(), b.mcp_url()):
        with pytest.raises(InvalidStatus) as refusal:
            await Peer(url).open()
        assert refusal.value.response.status_code == 503
        assert refusal.value.response.headers["Retry-After"]
    for name in ("near", "far"):
        assert text_of(await robot.call(name, {"text": name})) == name
    assert (await b.get("/livez")).status == 200
    assert near.is_open
    assert far.is_open
    key = KEYS.worker(served(b).id)
    await wait_until(lambda: store.hget(key, "state") == b"draining", "its row says so, long before the next beat")
    await wait_until(lambda: b"drain" in kinds(store), "the event is written")


@long
@redis
async def test_without_connections_it_ends_at_once(cluster: StartCluster, store: Any) -> None:
    a, b = await cluster(2)
    served(b).drain()
    await until_ended(b)
    assert_nothing_names(store, served(b).id)
    assert (await a.get("/readyz")).status == 200
    assert kinds(store) == [b"drain", b"drained"]


@redis
async def test_without_a_window_it_ends_at_once_and_in_order(cluster: StartCluster, store: Any) -> None:
    _, b = await cluster(2)
    robot = await b.robot()
    served(b).drain()
    assert (await robot.until_closed()).code == 1012
    await until_ended(b)
    assert_nothing_names(store, served(b).id)


@long
@redis
async def test_the_admin_key_opens_the_drain_over_http(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    robot = await b.robot()
    assert (await admin(b, "GET")).json()["state"] == "up"
    began = await admin(b, "POST")
    assert began.status == 202
    told = began.json()
    assert told | {"seconds_left": 60} == {
        "worker": served(b).id,
        "state": "draining",
        "window_seconds": 60,
        "seconds_left": 60,
        "connections": 1,
        "robots": 1,
        "tool_servers": 0,
        "calls": 0,
    }
    again, progress = await admin(b, "POST"), await admin(b, "GET")
    assert (again.status, progress.status) == (202, 200)
    for answer in (again, progress):
        assert answer.json() | {"seconds_left": 0} == told | {"seconds_left": 0}
    assert (await a.get("/readyz")).status == 200
    await robot.close()
    await until_ended(b)


@redis
async def test_without_the_admin_key_nothing_is_told_and_nothing_begins(cluster: StartCluster) -> None:
    [a] = await cluster(1)
    for headers in ({}, {"Authorization": f"Basic {ADMIN_KEY}"}, {"Authorization": "Bearer wrong"}):
        for method in ("GET", "POST"):
            answer = await a.get("/drain", method=method, headers={**headers, "Content-Length": "0"})
            assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert ADMIN_KEY not in answer.text
    assert (await a.get("/readyz")).status == 200


@pytest.mark.settings(admin_key="")
@redis
async def test_where_no_admin_key_is_set_the_path_does_not_exist(cluster: StartCluster) -> None:
    [a] = await cluster(1)
    for key in ("", "wrong"):
        assert (await admin(a, "POST", key)).status == 404
    assert (await a.get("/readyz")).status == 200


@long
@redis
async def test_an_operator_drains_one_worker_with_a_line_in_redis_cli(cluster: StartCluster, store: Any) -> None:
    a, b = await cluster(2)
    robot = await b.robot()
    for nonsense in ("", "drain", "{", '{"t":"drain"}', '{"t":"drain","w":7}', '{"t":"rain","w":"x"}', "[]"):
        store.publish(KEYS.ctl, nonsense)
    store.publish(KEYS.ctl, f'{{"t":"drain","w":"{served(b).id}"}}')
    key = KEYS.worker(served(b).id)
    await wait_until(lambda: store.hget(key, "state") == b"draining", "the one that was named drains")
    assert (await b.get("/readyz")).status == 503
    assert (await a.get("/readyz")).status == 200
    await robot.close()
    await until_ended(b)


# How it ends


@short
@redis
async def test_at_the_end_of_the_window_everything_that_is_left_is_ended(cluster: StartCluster, store: Any) -> None:
    a, b = await cluster(2)
    server = await b.tool_server("calc", [held("slow")], server_id="calc")
    frozen = await b.robot()
    far = await a.robot()
    await far.sees("slow")
    request_id = await far.start_call("slow")
    await server.until_called()
    frozen.freeze()
    served(b).drain()
    error = (await far.answer(request_id))["error"]
    assert error["data"]["executed"] == "unknown"
    assert (await server.until_closed()).code == 1012
    await until_ended(b)
    assert_nothing_names(store, served(b).id)
    assert (await a.get("/readyz")).status == 200


@long
@redis
async def test_a_second_wish_ends_a_drain_at_once_and_in_order(cluster: StartCluster, store: Any) -> None:
    _, b = await cluster(2)
    server, robot = await b.tool_server("calc"), await b.robot()
    served(b).drain()
    await b.worker.stop()
    for peer in (server, robot):
        assert (await peer.until_closed()).code == 1012
    assert_nothing_names(store, served(b).id)


def test_a_robots_last_call_fits_into_what_is_left_of_the_usual_window() -> None:
    usual = Settings()
    assert usual.drain_seconds * (1 - ROBOTS_SHARE) > usual.call_seconds
    assert usual.drain_seconds * ROBOTS_SHARE >= 120  # conversations idle out by then


# Alone, without Redis


@long
async def test_alone_it_waits_for_the_calls_that_run_and_for_nothing_else(gateway: Gateway) -> None:
    server, robot = await gateway.tool_server(tools=[held("slow"), echo()]), await gateway.robot()
    await robot.sees("slow", "echo")
    request_id = await robot.start_call("slow")
    call = await server.until_called()
    served(gateway).drain()
    assert (await gateway.get("/readyz")).status == 503
    with pytest.raises(InvalidStatus):
        await Peer(gateway.call_url()).open()
    assert text_of(await robot.call("echo", {"text": "meanwhile"})) == "meanwhile"
    await call.answer("done")
    assert text_of(await robot.answer(request_id)) == "done"
    assert (await server.until_closed()).code == 1012
    await until_ended(gateway)


@pytest.mark.settings(drain_seconds=60.0, call_seconds=1.5, call_max_seconds=30.0)
async def test_alone_it_waits_no_longer_than_a_call_may_take(gateway: Gateway) -> None:
    server, robot = await gateway.tool_server(tools=[held("slow")]), await gateway.robot()
    await robot.sees("slow")
    request_id = await robot.start_call("slow")
    call = await server.until_called()
    served(gateway).drain()
    step = 0
    while not robot.answers(request_id):
        step += 1
        await call.progress(step)  # moves the call's deadline, and not the drain's
        await asyncio.sleep(0.05)
        assert step < 200
    data = robot.answers(request_id)[0]["error"]["data"]
    assert (data["reason"], data["executed"], data["agent_id"]) == ("draining", "unknown", "home")
    await until_ended(gateway)


@long
async def test_alone_and_idle_it_ends_at_once(gateway: Gateway) -> None:
    server, robot = await gateway.tool_server(), await gateway.robot()
    served(gateway).drain()
    for peer in (server, robot):
        assert (await peer.until_closed()).code == 1012
    await until_ended(gateway)
