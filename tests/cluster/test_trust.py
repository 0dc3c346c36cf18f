"""Redis as a trust boundary: what is kept out of it, and what somebody who can read or write it can and can't do."""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from gateway import orders
from gateway.backplane.base import Dispatch, Verdict
from gateway.backplane.envelope import Envelope, encode
from gateway.backplane.keys import Keys
from gateway.backplane.redis.ledger import Ledger
from gateway.backplane.seal import Seal
from tests.cluster.inside import id_of, served, worker_of
from tests.conftest import StartCluster
from tests.peers.robot import Robot
from tests.peers.tool_server import ToolServer
from tests.peers.tools import echo, held, text_of
from tests.support.gateway import Gateway
from tests.support.waiting import wait_until

QUICK = {"beat_seconds": 0.2, "lease_seconds": 2.0}
KEYS = Keys()
KEY = "a-key-of-ours-" * 3
SECRET, ANSWER = "the-argument-7f3a", "the-answer-b91c"

pytestmark = [pytest.mark.parametrize("cluster", ["redis"], indirect=True), pytest.mark.settings(**QUICK)]
bare = pytest.mark.settings(call_records="bare")
signed = pytest.mark.settings(envelope_key=(KEY,))


async def pair(cluster: StartCluster, tool: Any) -> tuple[Gateway, Gateway, ToolServer, Robot]:
    """A robot on one worker, a tool server on the other."""
    a, b = await cluster(2)
    server = await b.tool_server("calc", [tool], server_id="calc")
    robot = await a.robot()
    await robot.sees(tool.name)
    return a, b, server, robot


def everything(store: Any) -> bytes:
    """All that Redis holds, as bytes."""
    found = []
    for key in store.scan_iter(count=1000):
        kind = store.type(key)
        values = {b"hash": store.hgetall, b"string": store.get, b"set": store.smembers}.get(kind)
        found.append(repr((key, values(key) if values else store.dump(key))).encode())
    return b"\n".join(found)


def end_of(answer: dict[str, Any]) -> tuple[str, Any]:
    data = answer["error"]["data"]
    return data["reason"], data["executed"]


# -- what Redis holds of a call


@pytest.mark.parametrize("records", ["full", "bare"])
async def test_redis_holds_arguments_and_answers_only_where_call_records_are_full(
    records: str, cluster: StartCluster, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.executor.RECORD_AFTER_SECONDS", 0.0)
    a, b = await cluster(2, call_records=records)
    server = await b.tool_server("calc", [held("slow")], server_id="calc")
    near, far = await b.robot(), await a.robot()
    for number, robot in enumerate((near, far)):
        await robot.sees("slow")
        await robot.start_call("slow", {"text": SECRET}, id=number)
    await wait_until(lambda: len(list(store.scan_iter("mcpgw:call:*"))) == 2, "both calls are on record")
    during = everything(store)
    for number, robot in enumerate((near, far)):
        await (await server.until_called(number + 1)).answer(ANSWER)
        assert text_of(await robot.answer(number)) == ANSWER
    await wait_until(lambda: b"answered" in everything(store), "the answer is on record")
    after = everything(store)
    is_full = records == "full"
    assert (SECRET.encode() in during, ANSWER.encode() in after) == (is_full, is_full)
    assert b"'slow'" in during, "names of tools stay"


# -- what becomes of calls whose messages get lost, where Redis does not hold them


@bare
async def test_a_request_that_was_not_heard_and_is_not_on_record_is_sent_anew_and_runs_once(
    cluster: StartCluster, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, b, server, robot = await pair(cluster, echo())
    lost = lose(monkeypatch, b, "req")
    call_id = await robot.start_call("echo", {"text": "x"})
    await wait_until(lambda: len(lost) == 1, "its request got lost")
    store.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    assert text_of(await robot.answer(call_id, seconds=8)) == "x"
    assert len(server.calls) == 1


@bare
async def test_an_answer_that_was_not_heard_and_is_not_on_record_ends_the_call_as_unknown(
    cluster: StartCluster, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, _, server, robot = await pair(cluster, held("slow"))
    call_id = await robot.start_call("slow")
    call = await server.until_called()
    lost = lose(monkeypatch, a, "res")
    await call.answer(ANSWER)
    await wait_until(lambda: len(lost) == 1, "its answer got lost")
    store.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    assert end_of(await robot.answer(call_id, seconds=8)) == ("answer lost", "unknown")
    assert len(server.calls) == 1


@bare
async def test_an_answer_that_nobody_listened_to_is_said_again_also_where_it_is_not_on_record(
    cluster: StartCluster, store: Any
) -> None:
    _, _, server, robot = await pair(cluster, held("slow"))
    ends = []
    for number in range(2):
        request_id = await robot.start_call("slow", id=number)
        call = await server.until_called(number + 1)
        store.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        await call.answer(f"answer {number}")
        answer = await robot.answer(request_id, seconds=8)
        ends.append(text_of(answer) if "result" in answer else end_of(answer))
    told = {f"answer {number}" for number in range(2)} | {("answer lost", "unknown")}
    assert set(ends) <= told
    assert len(server.calls) == 2


@bare
@pytest.mark.parametrize("has_left", [True, False])
async def test_a_call_whose_dispatch_may_have_left_runs_once_also_where_it_is_not_on_record(
    has_left: bool, cluster: StartCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, server, robot = await pair(cluster, echo())
    dispatch = Ledger.dispatch
    doubted: list[str] = []

    def doubt_the_first(ledger: Ledger, call: Dispatch, on_verdict: Callable[[Verdict], None]) -> None:
        if doubted:
            dispatch(ledger, call, on_verdict)
            return
        doubted.append(call.envelope.id)
        if has_left:
            dispatch(ledger, call, lambda _: None)
        asyncio.get_running_loop().call_soon(on_verdict, Verdict.UNKNOWN)

    monkeypatch.setattr(Ledger, "dispatch", doubt_the_first)
    assert text_of(await robot.call("echo", {"text": "x"}, seconds=8)) == "x"
    assert len(server.calls) == 1


async def test_workers_with_full_and_with_bare_records_share_a_redis(cluster: StartCluster, store: Any) -> None:
    (a,), (b,) = await cluster(1, call_records="full"), await cluster(1, call_records="bare")
    for here, there in ((a, b), (b, a)):
        server = await there.tool_server("calc", [echo()], server_id=f"calc-{there.port}", agent=f"at-{there.port}")
        robot = await here.robot(agent=f"at-{there.port}")
        await robot.sees("echo")
        store.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        assert text_of(await robot.call("echo", {"text": "x"}, seconds=8)) == "x"
        assert len(server.calls) == 1


def lose(monkeypatch: pytest.MonkeyPatch, gateway: Gateway, kind: str) -> list[str]:
    """The next message of this kind that comes to the worker vanishes, as on a dead subscription."""
    worker = worker_of(gateway)
    lost: list[str] = []
    hear = worker.on_envelope

    def hear_others(envelope: Envelope) -> None:
        if envelope.type == kind and not lost:
            lost.append(envelope.type)
        else:
            hear(envelope)

    monkeypatch.setattr(worker, "on_envelope", hear_others)
    return lost


# -- what a writer in Redis can do


def request_for(store: Any, sender: str, call_id: str = "forged-1", **changes: Any) -> Envelope:
    """A request to home's tool server `calc`, as somebody can write it who reads the directory."""
    row = orjson.loads(store.hget("mcpgw:servers:{home}", "calc"))
    seconds, micros = store.time()
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"text":"forged"}}}'
    envelope = Envelope("req", id=call_id, sender=sender, agent="home", server="calc", tool="echo", body=body)
    envelope.conn, envelope.epoch, envelope.ms = row["conn"], row["epoch"], 9000
    envelope.due = seconds * 1000 + micros // 1000 + 9000
    for name, value in changes.items():
        setattr(envelope, name, value)
    return envelope


def forgeries(gateway: Gateway) -> int:
    return int(worker_of(gateway).meters.forged_total.of())


def put_on_record(store: Any, worker: str, envelope: Envelope, message: bytes) -> None:
    key, inflight = KEYS.call(worker, envelope.id), KEYS.inflight(worker)
    seconds, _ = store.time()
    record = {"state": "sent", "from": envelope.sender, "sent": seconds * 1000, "message": message}
    store.hset(key, mapping=record)
    store.zadd(inflight, {envelope.id: envelope.due})
    store.pexpire(key, 60_000)
    store.pexpire(inflight, 60_000)


async def test_without_a_key_a_writer_has_a_tool_called(cluster: StartCluster, store: Any) -> None:
    """Which is why there is one."""
    a, b, server, _ = await pair(cluster, echo())
    store.publish(KEYS.mailbox(id_of(b)), encode(request_for(store, id_of(a))))
    await server.until_called()


@signed
async def test_with_a_key_a_writer_has_no_tool_called_by_message_or_by_record(
    cluster: StartCluster, store: Any
) -> None:
    a, b, server, robot = await pair(cluster, echo())
    envelope = request_for(store, id_of(a))
    wrong = Seal(["a writer's own key"]).sign(KEYS.mailbox(id_of(b)), encode(envelope))
    for message in (encode(envelope), wrong):
        store.publish(KEYS.mailbox(id_of(b)), message)
    await wait_until(lambda: forgeries(b) == 2, "both were dropped")
    put_on_record(store, id_of(b), envelope, wrong)
    store.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    await wait_until(lambda: forgeries(b) == 3, "its record was dropped, too")
    assert text_of(await robot.call("echo", {"text": "genuine"}, seconds=8)) == "genuine"
    assert [call.arguments["text"] for call in server.calls] == ["genuine"]


@signed
async def test_with_a_key_a_writer_answers_no_call_and_ends_none(cluster: StartCluster, store: Any) -> None:
    a, b, server, robot = await pair(cluster, held("slow"))
    call_id = await robot.start_call("slow")
    call = await server.until_called()
    [record] = store.scan_iter("mcpgw:call:*")
    ledger_id = record.decode().rpartition(":")[2]
    body = b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"forged"}]}}'
    for kind, reason in (("res", ""), ("nack", "lost"), ("status", "unseen"), ("status", "over"), ("note", "")):
        envelope = Envelope(kind, id=ledger_id, sender=id_of(b), reason=reason, body=body if kind == "res" else b"")
        store.publish(KEYS.mailbox(id_of(a)), encode(envelope))
    for kind in ("bye", "drain"):
        store.publish(KEYS.ctl, encode(Envelope(kind, sender=id_of(b), worker=id_of(a))))
    store.publish(KEYS.mailbox(id_of(b)), encode(Envelope("cancel", id=ledger_id, sender=id_of(a))))
    await wait_until(lambda: forgeries(a) == 7 and forgeries(b) == 3, "all were dropped")
    await call.answer(ANSWER)
    assert text_of(await robot.answer(call_id)) == ANSWER
    assert worker_of(a).state == "up"


@signed
async def test_a_genuine_request_that_is_said_again_runs_once_and_nowhere_else(
    cluster: StartCluster, store: Any
) -> None:
    a, b, server, robot = await pair(cluster, echo())
    ear = store.pubsub()
    ear.subscribe(KEYS.mailbox(id_of(b)))
    assert text_of(await robot.call("echo", {"text": "once"})) == "once"
    heard = await wait_until(lambda: next(_messages(ear, b'"t":"req"'), None), "the request was overheard")
    for _ in range(3):
        store.publish(KEYS.mailbox(id_of(b)), heard)
        store.publish(KEYS.mailbox(id_of(a)), heard)
        store.publish(KEYS.ctl, heard)
    await wait_until(lambda: forgeries(a) >= 6, "another worker drops it")
    assert text_of(await robot.call("echo", {"text": "after"})) == "after"
    assert [call.arguments["text"] for call in server.calls] == ["once", "after"]
    ear.close()


def _messages(ear: Any, word: bytes) -> Any:
    while (message := ear.get_message()) is not None:
        if message["type"] == "message" and word in message["data"]:
            yield message["data"]


@signed
async def test_a_record_that_names_another_workers_call_makes_nobody_send_it_twice(
    cluster: StartCluster, store: Any
) -> None:
    """A worker says in good faith, and signed, of a call it finds that it has never seen it."""
    a, _, server, robot = await pair(cluster, held("slow"))
    (c,) = await cluster(1)
    call_id = await robot.start_call("slow")
    call = await server.until_called()
    [record] = store.scan_iter("mcpgw:call:*")
    envelope = request_for(store, id_of(a), record.decode().rpartition(":")[2])
    put_on_record(store, id_of(c), envelope, b"forged")
    ear = store.pubsub()
    ear.subscribe(KEYS.mailbox(id_of(a)))
    store.execute_command("CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "no")
    await wait_until(lambda: not store.exists(KEYS.call(id_of(c), envelope.id)), "the record was dealt with")
    await call.answer(ANSWER)
    assert text_of(await robot.answer(call_id, seconds=8)) == ANSWER
    assert len(server.calls) == 1
    ear.close()


async def test_a_row_that_names_another_agents_connection_leads_nobody_there(cluster: StartCluster, store: Any) -> None:
    a, b = await cluster(2, park_seconds=0.3)
    victim = await b.tool_server("vault", [echo("open")], agent="victim", server_id="vault")
    await b.tool_server("vault", [echo("open")], agent="home", server_id="vault")
    robots = [await gateway.robot(agent="home") for gateway in (a, b)]
    row = store.hget("mcpgw:servers:{victim}", "vault")
    for robot in robots:
        await robot.sees("open")
    store.hset("mcpgw:servers:{home}", "vault", row)
    store.set("mcpgw:rev:{home}", (revision := int(store.get("mcpgw:rev:{home}")) + 1), px=60_000)
    store.publish(KEYS.catalog("home"), revision)  # type: ignore[arg-type]
    stolen = orjson.loads(row)["conn"]
    for gateway in (a, b):
        agent = worker_of(gateway).agents.get("home")
        await wait_until(
            lambda agent=agent: any(row.conn == stolen for row in agent.facts.rows.values()),  # type: ignore[misc]
            "the row is read",
        )
    for robot in robots:
        await robot.call("open", {"text": "stolen"}, seconds=12)
    assert victim.calls == []


# -- keys that come and go


async def test_signing_begins_on_running_workers_and_no_call_fails(cluster: StartCluster) -> None:
    steps: list[tuple[str, ...]] = [(), (KEY, "unsigned"), (KEY,)]
    workers = [(await cluster(1, envelope_key=keys))[0] for keys in steps]
    for before, after in ((workers[0], workers[1]), (workers[1], workers[2])):
        await calls_pass(before, after)
        await calls_pass(after, before)


async def calls_pass(robots: Gateway, servers: Gateway) -> None:
    agent = f"of-{robots.port}-{servers.port}"
    await servers.tool_server("calc", [echo()], agent=agent, server_id="calc")
    robot = await robots.robot(agent=agent)
    await robot.sees("echo")
    assert text_of(await robot.call("echo", {"text": "x"})) == "x"
    assert forgeries(robots) == forgeries(servers) == 0


# -- orders


@signed
async def test_workers_that_sign_obey_orders_that_are_signed(
    cluster: StartCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orders, "HEARD_SECONDS", 0.6)
    a, b, server, _ = await pair(cluster, echo())
    settings = served(a).settings
    said: list[str] = []
    unsigned = settings.__class__(redis_url=settings.redis_url)
    assert not await orders.drain(unsigned, id_of(a), said.append, None)
    assert not await orders.kick(unsigned, "home", "calc", said.append, 0.5)
    assert all("GATEWAY_ENVELOPE_KEY" in line for line in said)
    assert worker_of(a).state == "up"
    assert server.is_open
    assert await orders.kick(settings, "home", "calc", said.append, 0.6)
    assert (await server.until_closed()).code == 1012
    assert await orders.drain(settings, id_of(b), said.append, None)
    assert KEY not in "".join(said)


# -- what it costs who wants none of it


async def test_without_a_key_nothing_is_signed_and_nothing_is_opened(
    cluster: StartCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("somebody signs")

    for name in ("sign", "open"):
        monkeypatch.setattr(Seal, name, never)
    _, _, _, robot = await pair(cluster, echo())
    assert text_of(await robot.call("echo", {"text": "x"})) == "x"
