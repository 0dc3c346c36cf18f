"""What workers do when messages, leases or all of Redis go missing (design §7): nothing is lost, nothing runs twice."""

from typing import Any

import orjson
import pytest

from gateway.backplane.base import Record
from gateway.backplane.envelope import Envelope, decode, encode
from gateway.backplane.keys import Keys
from gateway.backplane.redis.ledger import Ledger
from tests.cluster.inside import id_of
from tests.conftest import StartCluster
from tests.peers.tools import echo, held, text_of
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.parametrize("cluster", ["redis"], indirect=True),
    pytest.mark.settings(beat_seconds=0.2, lease_seconds=2.0),
]

KEYS = Keys()


async def test_an_answer_published_to_a_deaf_worker_still_arrives(cluster: StartCluster, store: Any) -> None:
    """Its subscription is killed again and again while the tool server answers: the record tells what was missed."""
    a, b = await cluster(2)
    server = await b.tool_server(tools=[held("slow")])
    robot = await a.robot()
    await robot.sees("slow")
    for number in range(5):
        request_id = await robot.start_call("slow", id=number)
        call = await server.until_called(number + 1)
        store.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        await call.answer(f"answer {number}")
        assert text_of(await robot.answer(request_id)) == f"answer {number}"


async def test_calls_published_to_a_deaf_worker_run_once(cluster: StartCluster, store: Any) -> None:
    a, b = await cluster(2)
    server = await b.tool_server(tools=[echo()])
    robot = await a.robot()
    await robot.sees("echo")
    for number in range(20):
        request_id = await robot.start_call("echo", {"text": str(number)}, id=number)
        store.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        answer = await robot.answer(request_id, seconds=10)
        # Nobody may have listened at that moment: then the call is certain not to have run.
        assert "result" in answer or answer["error"]["data"]["executed"] is False
    texts = [call.arguments["text"] for call in server.calls]
    assert len(texts) == len(set(texts))
    assert text_of(await robot.call("echo", {"text": "after"}, seconds=10)) == "after"


async def test_an_emptied_redis_is_filled_again_and_calls_end_in_their_results(
    cluster: StartCluster, store: Any
) -> None:
    a, b = await cluster(2)
    server = await b.tool_server("calc", [held("slow"), echo()])
    robot = await a.robot()
    await robot.sees("slow", "echo")
    request_id = await robot.start_call("slow")
    call = await server.until_called()

    store.flushall()

    await wait_until(lambda: store.hexists("mcpgw:servers:{home}", "calc"), "the row is back")
    await call.answer("not lost")
    assert text_of(await robot.answer(request_id)) == "not lost"
    assert text_of(await robot.call("echo", {"text": "on"}, seconds=10)) == "on"
    assert server.is_open


async def test_an_emptied_redis_takes_no_tool_off_any_list(cluster: StartCluster, store: Any) -> None:
    """Until its rows are back, what was last known is believed; calls wait for the workers to say that they live."""
    a, b = await cluster(2)
    await a.tool_server("near", [echo("near")])
    await b.tool_server("far", [echo("far")])
    robots = [await a.robot(), await b.robot()]
    for robot in robots:
        await robot.sees("near", "far")

    store.flushall()

    for name in ("far", "near") * 5:
        for robot in robots:
            assert text_of(await robot.call(name, {"text": "x"}, seconds=10)) == "x"
            assert sorted(await robot.names()) == ["far", "near"]


async def test_a_deleted_row_takes_no_tool_off_any_list(cluster: StartCluster, store: Any) -> None:
    a, b = await cluster(2)
    await b.tool_server("far", [echo("far")])
    robot = await a.robot()
    await robot.sees("far")
    store.delete("mcpgw:servers:{home}", "mcpgw:names:{home}", "mcpgw:rev:{home}")
    await b.tool_server("other", [echo("more")])
    await robot.sees("far", "more")
    assert text_of(await robot.call("far", {"text": "x"}, seconds=10)) == "x"


async def test_a_deleted_row_is_put_back_with_its_epoch(
    cluster: StartCluster, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.lease.RECONCILE_SECONDS", 0.4)
    (a,) = await cluster(1)
    server = await a.tool_server("calc", [echo()], server_id="calc")
    before = store.hget("mcpgw:servers:{home}", "calc")
    store.hdel("mcpgw:servers:{home}", "calc")
    store.delete("mcpgw:names:{home}")
    await wait_until(lambda: store.hget("mcpgw:servers:{home}", "calc") == before, "the row is back as it was")
    await wait_until(lambda: store.hexists("mcpgw:names:{home}", "echo"), "its name is back")
    assert server.is_open


async def test_a_lost_lease_heals_within_a_beat(cluster: StartCluster, store: Any) -> None:
    a, b = await cluster(2)
    server = await b.tool_server("calc", [echo()])
    robot = await a.robot()
    await robot.sees("echo")
    store.delete(KEYS.worker(id_of(b)))
    await wait_until(lambda: store.exists(KEYS.worker(id_of(b))), "the lease is back")
    assert text_of(await robot.call("echo", {"text": "x"}, seconds=10)) == "x"
    assert server.is_open


async def test_what_a_dead_worker_left_behind_is_cleaned_up(cluster: StartCluster, store: Any) -> None:
    """Planted by hand: rows, a robot and a list of belongings of a worker that has no lease."""
    (a,) = await cluster(1)
    dead = "gone-12345678"
    row = (
        b'{"state":"up","worker":"%s","conn":"c","since":1,"epoch":1,"name":"old","version":"1","toolset":"",'
        b'"tools":0}' % dead.encode()
    )
    store.hset("mcpgw:servers:{home}", "old", row)
    store.pexpire("mcpgw:servers:{home}", 60_000)
    store.hset("mcpgw:robots:{home}", "r", b'{"worker":"%s","client":"x","since":1}' % dead.encode())
    store.pexpire("mcpgw:robots:{home}", 60_000)
    store.sadd(KEYS.owned(dead), b'["server","home","old"]', b'["robot","home","r"]')
    store.pexpire(KEYS.owned(dead), 60_000)
    store.zadd(KEYS.workers, {dead: 1})
    await wait_until(lambda: b'"offline"' in (store.hget("mcpgw:servers:{home}", "old") or b""), "the row is offline")
    await wait_until(lambda: not store.hexists("mcpgw:robots:{home}", "r"), "the robot's row is gone")
    await wait_until(lambda: store.zscore(KEYS.workers, dead) is None, "the worker is off the list")
    assert not store.exists(KEYS.owned(dead))
    assert (await a.get("/readyz")).status == 200


async def test_a_worker_that_could_not_renew_runs_no_call_for_others(
    cluster: StartCluster, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others may take it for dead: it sends the call back instead of acting as the owner (fencing)."""
    a, b = await cluster(2)
    server = await b.tool_server("calc", [echo()])
    robot = await a.robot()
    await robot.sees("echo")
    monkeypatch.setattr("gateway.lease.Lease.is_fenced", property(lambda lease: True))
    answer = await robot.call("echo", {"text": "x"}, seconds=10)
    assert answer["error"]["data"]["executed"] is False
    assert server.calls == []
    monkeypatch.undo()
    await wait_until(lambda: _runs(robot), "calls run again", seconds=10)


async def _runs(robot: Any) -> bool:
    return "result" in await robot.call("echo", {"text": "x"}, seconds=10)


async def test_an_unknown_envelope_is_answered_not_dropped(cluster: StartCluster, store: Any) -> None:
    (a,) = await cluster(1)
    ear = store.pubsub()
    ear.subscribe("mcpgw:in:{w-of-tomorrow}")
    await wait_until(lambda: ear.get_message() is not None, "subscribed")
    for envelope in (
        Envelope("dance", id="1", sender="w-of-tomorrow"),
        Envelope("req", id="2", sender="w-of-tomorrow", version=99),
    ):
        store.publish(KEYS.mailbox(id_of(a)), encode(envelope))
        message = await wait_until(ear.get_message, "an answer")
        [answer] = decode(message["data"])
        assert (answer.type, answer.id, answer.reason) == ("nack", envelope.id, "unsupported")
    ear.close()


async def test_a_call_of_another_version_that_was_refused_is_not_run_later(cluster: StartCluster, store: Any) -> None:
    """Its caller has been told that it did not run; recovery must not find its record and begin it."""
    (a,) = await cluster(1)
    server = await a.tool_server("calc", [echo()], server_id="calc")
    row = orjson.loads(store.hget("mcpgw:servers:{home}", "calc"))
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"text":"refused"}}}'
    request = Envelope(
        "req", id="1", sender="w-of-tomorrow", agent="home", server="calc", version=99, ms=9000, body=body
    )
    request.conn, request.epoch, request.tool = row["conn"], row["epoch"], "echo"
    record, inflight = KEYS.call(id_of(a), "1"), KEYS.inflight(id_of(a))
    with store.pipeline() as dispatch:
        dispatch.hset(record, mapping={"state": "sent", "from": "w-of-tomorrow", "message": encode(request)})
        dispatch.zadd(inflight, {"1": 1})
        dispatch.pexpire(record, 60_000)
        dispatch.pexpire(inflight, 60_000)
        dispatch.publish(KEYS.mailbox(id_of(a)), encode(request))
        dispatch.execute()
    await wait_until(lambda: not store.exists(record), "its record is gone")
    store.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    robot = await a.robot()
    assert text_of(await robot.call("echo", {"text": "after"})) == "after"
    assert [call.arguments["text"] for call in server.calls] == ["after"]


async def test_garbage_in_the_mailbox_harms_nobody(cluster: StartCluster, store: Any) -> None:
    a, b = await cluster(2)
    await b.tool_server(tools=[echo()])
    robot = await a.robot()
    await robot.sees("echo")
    for garbage in (
        b"",
        b"x",
        b"{}\n",
        b'{"v":1,"t":"req","len":-5}\n',
        b'{"v":1,"t":"res","len":99}\nshort',
        b"\xff\n",
    ):
        for gateway in (a, b):
            store.publish(KEYS.mailbox(id_of(gateway)), garbage)
    assert text_of(await robot.call("echo", {"text": "x"})) == "x"


async def test_a_duplicate_request_runs_once(cluster: StartCluster, store: Any) -> None:
    """The same envelope published twice, as a link that repeats itself might do."""
    a, b = await cluster(2)
    server = await b.tool_server(tools=[held("slow")])
    robot = await a.robot()
    await robot.sees("slow")
    request_id = await robot.start_call("slow")
    call = await server.until_called()
    [record] = store.scan_iter("mcpgw:call:*")
    store.publish(KEYS.mailbox(id_of(b)), store.hget(record, "message"))
    await call.answer("once")
    assert text_of(await robot.answer(request_id)) == "once"
    await robot.ping()
    assert len(server.calls) == 1


async def test_a_running_call_is_not_run_again_however_many_came_after_it(
    cluster: StartCluster, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record waits for the answer, and recovery reads it, when its id is no longer among those last seen."""
    monkeypatch.setattr("gateway.executor.SEEN_MAX", 2)
    a, b = await cluster(2)
    server = await b.tool_server(tools=[held("slow"), echo()])
    robot = await a.robot()
    await robot.sees("slow")
    request_id = await robot.start_call("slow")
    call = await server.until_called()
    for _ in range(4):
        await robot.call("echo")
    pending, recovered = Ledger.pending, set[str]()

    async def noted(ledger: Ledger) -> list[Record]:
        records = await pending(ledger)
        recovered.add(ledger.worker_id)
        return records

    monkeypatch.setattr(Ledger, "pending", noted)
    store.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    await wait_until(lambda: id_of(b) in recovered, "it has read what was published meanwhile")
    await robot.call("echo", seconds=10)
    await call.answer("once")
    assert text_of(await robot.answer(request_id)) == "once"
    assert [call.tool for call in server.calls].count("slow") == 1


async def test_a_failing_beat_of_any_kind_does_not_end_the_beating(
    cluster: StartCluster, store: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that beats no more would be a zombie: it begins a new session and puts itself right."""
    monkeypatch.setattr("gateway.worker.CONNECT_RETRY_SECONDS", 0.05)
    a, b = await cluster(2)
    server = await b.tool_server(tools=[echo()])
    robot = await a.robot()
    await robot.sees("echo")
    with monkeypatch.context() as broken:
        broken.setattr("gateway.lease.Lease._upkeep", None)
        await wait_until(lambda: "the session with the backplane failed" in caplog.text, "a beat has failed")
    before = store.hget(KEYS.worker(id_of(b)), "beat")
    await wait_until(lambda: store.hget(KEYS.worker(id_of(b)), "beat") not in (None, before), "it beats again")
    await wait_until(lambda: _runs(robot), "calls run again", seconds=10)
    await wait_until(lambda: store.pubsub_channels("mcpgw:catalog:*"), "catalogs are watched again")
    assert server.is_open


@pytest.mark.settings(beat_seconds=0.02)
async def test_a_stopped_worker_leaves_nothing_that_names_it_as_alive(cluster: StartCluster, store: Any) -> None:
    """Also where a peer neither reads nor answers the close."""
    a, b = await cluster(2)
    server = await b.tool_server("calc", [echo()], server_id="calc")
    robot = await b.robot()
    server.freeze()
    robot.freeze()
    stopped = id_of(b)
    await b.worker.stop()
    assert not store.exists(KEYS.worker(stopped))
    assert store.zscore(KEYS.workers, stopped) is None
    assert b'"offline"' in store.hget("mcpgw:servers:{home}", "calc")
    assert not store.exists("mcpgw:robots:{home}")
    assert not store.exists(KEYS.owned(stopped))
    assert (await a.get("/readyz")).status == 200
