"""The counters tell the truth: each moves for the right reason, and by one."""

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from gateway import logs
from gateway.backplane.envelope import Envelope
from gateway.counting import Spread
from gateway.meters import METRICS, STATES, Meters, Reading
from tests.cluster.inside import id_of, served, worker_of
from tests.conftest import StartCluster
from tests.peers.tools import answering, echo, failing, held, reporting, text_of
from tests.peers.wire import Peer
from tests.support.gateway import Gateway, Guests
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

on_memory = pytest.mark.parametrize("cluster", ["memory"], indirect=True)
on_redis = pytest.mark.parametrize("cluster", ["redis"], indirect=True)


def meters_of(gateway: Gateway) -> Meters:
    meters: Meters = worker_of(gateway).meters
    return meters


def reading_of(gateway: Gateway) -> Reading:
    reading: Reading = worker_of(gateway).read_meters()
    return reading


def moved(meters: Meters) -> dict[tuple[str, ...], int]:
    """The ends of calls that were counted."""
    return {labels: count for labels, count in meters.calls_total.values.items() if count}


async def until(meters: Meters, name: str, count: int, *labels: str) -> None:
    counter = getattr(meters, name)
    await wait_until(lambda: counter.of(*labels) >= count, f"{name} of {labels} is {count}")
    assert counter.of(*labels) == count


# What is


async def test_every_gauge_is_told_and_is_what_it_says(gateway: Gateway) -> None:
    server, robot = await gateway.tool_server(tools=[held("slow"), echo()]), await gateway.robot()
    await robot.sees("slow", "echo")
    await robot.start_call("slow")
    await server.until_called()
    reading = reading_of(gateway)
    for name, metric in METRICS.items():
        if metric.kind == "gauge" and name not in ("workers", "memory_limit_bytes"):
            assert reading[name], f"{name} is missing"
    assert reading["connections"] == {("tool_server",): 1, ("robot",): 1}
    assert reading["calls_in_flight"] == {("robot",): 1, ("tool_server",): 1}
    assert reading["worker_state"] == {(state,): float(state == "up") for state in STATES}
    singles = ("ready", "agents", "catalog_tools", "calls_overdue", "calls_parked", "redis_connected")
    assert {name: reading[name][()] for name in singles} == {
        "ready": 1,
        "agents": 1,
        "catalog_tools": 2,
        "calls_overdue": 0,
        "calls_parked": 0,
        "redis_connected": 1,
    }
    assert reading["connections_limit"][()] == gateway.settings.connections


async def test_a_call_that_nothing_ends_is_overdue(gateway: Gateway) -> None:
    server, robot = await gateway.tool_server(tools=[held("slow")]), await gateway.robot()
    await robot.sees("slow")
    await robot.start_call("slow")
    await server.until_called()
    [link] = worker_of(gateway).hub.robots.values()
    [call] = link.calls
    call.deadline = worker_of(gateway).now() - 10.0  # its place among the deadlines stays where it was
    assert reading_of(gateway)["calls_overdue"][()] == 1


@on_memory
@pytest.mark.settings(drain_seconds=30.0, drain_grace_seconds=20.0)
async def test_a_drain_tells_how_far_it_is(cluster: StartCluster) -> None:
    a, _ = await cluster(2)
    await a.robot()
    assert reading_of(a)["drain_connections"][()] == reading_of(a)["drain_seconds_left"][()] == 0
    served(a).drain()
    reading = reading_of(a)
    assert reading["worker_state"]["draining",] == reading["drain_connections"][()] == 1
    assert reading["ready"][()] == 0
    left = reading["drain_seconds_left"][()]
    assert not isinstance(left, Spread)
    assert 0 < left <= 30


# Connections


async def test_connections_are_counted_as_they_come_and_go(gateway: Gateway) -> None:
    meters = meters_of(gateway)
    robot = await gateway.robot()
    await gateway.tool_server()
    await robot.close()
    assert meters.connections_opened_total.of("robot") == meters.connections_opened_total.of("tool_server") == 1
    await until(meters, "connections_closed_total", 1, "robot", "1000")
    await until(meters, "tool_server_handshakes_total", 1, "ready")
    assert meters.tool_server_handshake_seconds.count == 1


async def dialled(gateway: Gateway, guests: Guests) -> Peer:
    """Somebody who has come as a tool server and says nothing."""
    silent = Peer(gateway.mcp_url())
    guests.add(silent)
    await silent.open()
    return silent


async def test_a_tool_server_that_leaves_during_its_handshake_is_counted_so(gateway: Gateway, guests: Guests) -> None:
    silent = await dialled(gateway, guests)
    await silent.close()
    await until(meters_of(gateway), "tool_server_handshakes_total", 1, "left")


@pytest.mark.settings(handshake_seconds=0.2)
async def test_a_tool_server_that_says_nothing_has_failed_its_handshake(gateway: Gateway, guests: Guests) -> None:
    await dialled(gateway, guests)
    await until(meters_of(gateway), "tool_server_handshakes_total", 1, "failed")


@pytest.mark.settings(header_bytes=2048)
async def test_what_is_refused_before_the_application_is_counted_by_cause(gateway: Gateway) -> None:
    async def say(text: bytes) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(text)
        await asyncio.wait_for(reader.read(), 5)
        writer.close()

    await say(b"nonsense\r\n\r\n")
    await say(b"GET / HTTP/1.1\r\nx: " + b"y" * 4096 + b"\r\n\r\n")
    for cause in ("bad_request", "head_too_large"):
        await until(meters_of(gateway), "handshakes_refused_total", 1, cause)


async def test_a_handshake_without_a_token_is_counted(gateway: Gateway) -> None:
    for path in ("/mcp_endpoint/mcp/", "/mcp_endpoint/call/?token=x"):
        await gateway.get(path, headers={"Connection": "Upgrade", "Upgrade": "websocket"} | HANDSHAKE)
    await until(meters_of(gateway), "handshakes_refused_total", 1, "no_token")
    await until(meters_of(gateway), "handshakes_refused_total", 1, "bad_token")


HANDSHAKE = {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}


@on_memory
async def test_a_takeover_is_counted_once(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    await a.tool_server(server_id="lamp")
    await b.tool_server(server_id="lamp", is_awaited=False)
    await until(meters_of(b), "takeovers_total", 1)
    assert meters_of(a).takeovers_total.of() == 0


@pytest.mark.settings(outbox_bytes=64 * 1024)
async def test_a_peer_that_does_not_read_is_counted_as_slow(gateway: Gateway) -> None:
    await gateway.tool_server(tools=[echo()])
    robot = await gateway.robot()
    await robot.sees("echo")
    robot.freeze()
    for number in range(60):
        await robot.start_call("echo", {"text": "x" * 200_000}, id=f"big {number}")
    await until(meters_of(gateway), "slow_peers_total", 1)


# Calls


async def test_each_end_of_a_call_has_its_word(gateway: Gateway) -> None:
    tools = [
        echo(),
        failing("broken", -32000, "no"),
        held("slow"),
        answering("wrong", {"isError": True, "content": []}),
    ]
    server, robot = await gateway.tool_server(tools=tools), await gateway.robot()
    await robot.sees("echo", "broken", "slow", "wrong")
    for name in ("echo", "broken", "wrong", "nothing"):
        await robot.call(name)
    await robot.start_call("slow", id="given up")
    await server.until_called(4)
    await robot.cancel("given up")
    await robot.start_call("slow", id="left behind")
    await server.until_called(5)
    await robot.close()
    meters = meters_of(gateway)
    await until(meters, "calls_total", 1, "robot_gone")
    assert moved(meters) == {
        ("result", "true", "local"): 1,
        ("rpc_error", "true", "local"): 1,
        ("tool_error", "true", "local"): 1,
        ("unknown_tool", "false", "none"): 1,
        ("cancelled", "unknown", "local"): 1,
        ("robot_gone", "unknown", "local"): 1,
    }
    assert meters.local_call_seconds.count == 5


async def test_a_call_without_a_tool_server_is_counted_as_such(gateway: Gateway) -> None:
    robot = await gateway.robot()
    await robot.call("any")
    assert moved(meters_of(gateway)) == {("no_tool_server", "false", "none"): 1}


@pytest.mark.settings(call_seconds=0.3)
async def test_a_deadline_is_counted_as_timed_out(gateway: Gateway) -> None:
    await gateway.tool_server(tools=[held("slow")])
    robot = await gateway.robot()
    await robot.sees("slow")
    await robot.call("slow")
    assert moved(meters_of(gateway)) == {("timed_out", "unknown", "local"): 1}


@pytest.mark.settings(calls_per_second=1.0)
async def test_a_call_beyond_a_limit_is_counted_as_over_quota(gateway: Gateway) -> None:
    await gateway.tool_server()
    robot = await gateway.robot()
    await robot.sees("echo")
    await robot.call("echo")
    await robot.call("echo")
    assert meters_of(gateway).calls_total.of("over_quota", "false", "none") == 1


async def test_a_parked_call_is_counted_with_its_wait(gateway: Gateway) -> None:
    server, robot = await gateway.tool_server(server_id="lamp"), await gateway.robot()
    await robot.sees("echo")
    await server.close()
    await gateway.until_connected(0)
    request_id = await robot.start_call("echo", {"text": "x"})
    meters = meters_of(gateway)
    await until(meters, "calls_parked_total", 1)
    assert reading_of(gateway)["calls_parked"][()] == 1
    await gateway.tool_server(server_id="lamp", is_awaited=False)
    assert text_of(await robot.answer(request_id)) == "x"
    assert meters.park_seconds.count == meters.calls_parked_total.of() == 1


async def test_progress_is_counted(gateway: Gateway) -> None:
    await gateway.tool_server(tools=[reporting("works", [1, 2, 3])])
    robot = await gateway.robot()
    await robot.sees("works")
    await robot.call("works", _meta={"progressToken": "bar"})
    assert meters_of(gateway).progress_total.of() == 3


# Between workers


async def test_a_call_of_another_worker_is_counted_on_both(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    await b.tool_server(tools=[echo()])
    robot = await a.robot()
    await robot.sees("echo")
    await robot.call("echo")
    await until(meters_of(a), "dispatches_total", 1, "ok")
    assert moved(meters_of(a)) == {("result", "true", "remote"): 1}
    assert moved(meters_of(b)) == {}
    assert (meters_of(a).remote_call_seconds.count, meters_of(b).mailbox_lag_seconds.count) == (1, 1)


@on_memory
async def test_a_dispatch_that_nobody_hears_and_one_without_a_lease_are_counted(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    await b.tool_server(tools=[echo()])
    robot = await a.robot()
    await robot.sees("echo")
    worker_of(b).backplane._deafen()
    await robot.call("echo")
    assert meters_of(a).dispatches_total.of("nosub") == 5
    assert moved(meters_of(a)) == {("worker_unreachable", "false", "remote"): 1}


@on_memory
async def test_a_call_that_comes_back_is_counted_by_its_reason(cluster: StartCluster) -> None:
    a, b = await cluster(1) + await cluster(1, calls_per_connection=1)
    server = await b.tool_server(tools=[held("slow")])
    robot = await a.robot()
    await robot.sees("slow")
    await robot.start_call("slow")
    await server.until_called()
    await robot.call("slow")
    assert meters_of(a).nacks_total.of("busy") == meters_of(a).calls_total.of("overloaded", "false", "remote") == 1


@on_redis
@pytest.mark.settings(beat_seconds=0.2)
async def test_what_a_gap_took_and_the_ledger_gave_back_is_counted(cluster: StartCluster, store: Any) -> None:
    a, b = await cluster(2)
    server = await b.tool_server(tools=[held("slow")])
    robot = await a.robot()
    await robot.sees("slow")
    request_id = await robot.start_call("slow")
    call = await server.until_called()
    deaf = worker_of(a)
    on_envelope, deaf.on_envelope = deaf.on_envelope, lambda envelope: None
    await call.answer("late")
    await wait_until(lambda: store.hget(record_of(store, b), "state") == b"answered", "the answer is on record")
    deaf.on_envelope = on_envelope
    store.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    assert text_of(await robot.answer(request_id)) == "late"
    for meters in (meters_of(a), meters_of(b)):
        await until(meters, "redis_reconnects_total", 1, "subscriber")
        await until(meters, "gaps_total", 1)
    assert meters_of(a).calls_recovered_total.of("robot") == 1


def record_of(store: Any, owner: Gateway) -> str:
    [key] = store.keys(f"mcpgw:call:{{{id_of(owner)}}}:*")
    return str(key.decode())


@on_redis
async def test_a_call_that_was_not_heard_and_is_found_in_the_ledger_is_counted(
    cluster: StartCluster, store: Any
) -> None:
    a, b = await cluster(2)
    await b.tool_server(tools=[echo()])
    robot = await a.robot()
    await robot.sees("echo")
    deaf = worker_of(b)
    on_envelope, deaf.on_envelope = deaf.on_envelope, lambda envelope: None
    request_id = await robot.start_call("echo", {"text": "found"})
    await until(meters_of(a), "dispatches_total", 1, "ok")
    deaf.on_envelope = on_envelope
    deaf.on_gap()
    assert text_of(await robot.answer(request_id)) == "found"
    assert meters_of(b).calls_recovered_total.of("tool_server") == 1


@on_redis
async def test_a_lost_command_connection_is_a_reconnect(cluster: StartCluster, store: Any) -> None:
    (a,) = await cluster(1)
    store.client_kill_filter(_type="normal", skipme=True)
    await until(meters_of(a), "redis_reconnects_total", 1, "commands")


@pytest.mark.settings(beat_seconds=0.2, redis_timeout_seconds=0.5)
async def test_commands_that_fail_are_counted_by_how(pair: tuple[Gateway, Gateway], own_server: RedisServer) -> None:
    a, _ = pair
    own_server.stop()
    await until_more(meters_of(a), "unsent")
    assert reading_of(a)["redis_connected"][()] == 0


async def until_more(meters: Meters, kind: str) -> None:
    await wait_until(lambda: meters.redis_command_errors_total.of(kind) > 0, f"commands are {kind}", seconds=10)


@on_redis
async def test_a_refused_command_is_counted_as_refused(cluster: StartCluster, store: Any) -> None:
    (a,) = await cluster(1)
    store.set("mcpgw:servers:{home}", "no hash")
    store.pexpire("mcpgw:servers:{home}", 60_000)
    await gateway_reads(a)
    await until_more(meters_of(a), "refused")
    store.delete("mcpgw:servers:{home}")


async def gateway_reads(gateway: Gateway) -> None:
    await gateway.robot(is_ready=False)


@on_redis
@pytest.mark.settings(beat_seconds=0.2, lease_seconds=1.0)
async def test_a_burial_is_counted_by_who_did_it(cluster: StartCluster, store: Any) -> None:
    (a,) = await cluster(1)
    dead = "gone-12345678"
    store.sadd(f"mcpgw:owned:{{{dead}}}", b'["robot","home","r"]')
    store.pexpire(f"mcpgw:owned:{{{dead}}}", 60_000)
    store.zadd("mcpgw:workers", {dead: 1})
    await until(meters_of(a), "workers_reaped_total", 1)


@on_memory
async def test_a_catalog_that_says_something_else_is_counted(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    robot = await a.robot()
    await robot.list_tools()
    before = meters_of(a).catalog_changes_total.of()
    await b.tool_server(tools=[echo()])
    await robot.sees("echo")
    assert meters_of(a).catalog_changes_total.of() == before + 1
    assert meters_of(b).catalog_changes_total.of() == 0, "no robot there wants one"


@on_memory
async def test_a_message_of_another_version_is_counted_as_not_understood(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    server = await b.tool_server(tools=[held("slow")])
    robot = await a.robot()
    await robot.sees("slow")
    await robot.start_call("slow")
    await server.until_called()
    [call_id] = list(worker_of(b)._executor._jobs)
    worker_of(a).on_envelope(Envelope("nack", id=call_id, sender=id_of(b), reason="of tomorrow"))
    assert meters_of(a).nacks_total.of("other") == 1


# The process


async def test_a_loop_that_was_held_up_shows_it(gateway: Gateway) -> None:
    lag = meters_of(gateway).loop_lag_seconds
    worker_of(gateway)._note_lag(0.4, worker_of(gateway).now())
    assert lag.spread().sum >= 0.4
    assert reading_of(gateway)["loop_lag_max_seconds"][()] >= 0.4  # type: ignore[operator]
    before = lag.count
    await wait_until(lambda: lag.count > before, "the clock is measured all the time")


@pytest.fixture
def untouched_root() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers = root.handlers[:]
    yield root
    root.handlers[:] = handlers


def test_log_records_are_counted_by_level(untouched_root: logging.Logger) -> None:
    counter = Meters().log_records_total
    logs.bind("w", counter)
    logging.getLogger("gateway.test").warning("one")
    logging.getLogger("uvicorn.error").error("two")
    assert {level: count for (level,), count in counter.values.items() if count} == {"warning": 1, "error": 1}
