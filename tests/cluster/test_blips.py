"""Redis blinks: a subscription, a message or all of it is gone for a moment; nobody draws the wrong conclusion."""

import asyncio
from typing import Any

import pytest

from gateway.agents import Agents
from gateway.backplane.base import BackplaneUnavailable, Beat, Change, Snapshot, Tell
from gateway.backplane.envelope import Envelope
from gateway.backplane.memory import MemoryBackplane, MemoryStore
from gateway.backplane.redis.connector import Connector
from gateway.backplane.redis.directory import Directory
from gateway.backplane.redis.ledger import Ledger
from gateway.backplane.redis.membership import Membership
from gateway.calls import Call
from gateway.courier import NOSUB_TRIES, Courier
from gateway.directory import Row
from gateway.executor import Executor
from gateway.mailroom import Mailroom
from gateway.tasks import Tasks
from gateway.tools import digest
from gateway.worker import Worker
from tests.cluster.inside import id_of, is_connected, worker_of
from tests.peers.tools import echo, held, text_of
from tests.support.gateway import AGENT, Gateway
from tests.support.redis_server import RedisServer
from tests.support.running import settings
from tests.support.waiting import wait_until

SETTINGS = {"beat_seconds": 0.2, "lease_seconds": 6.0, "redis_timeout_seconds": 1.0, "call_seconds": 6.0}

pytestmark = pytest.mark.settings(**SETTINGS)


@pytest.fixture
def gaps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The workers that were told of a gap, in order."""
    on_gap, told = Worker.on_gap, list[str]()

    def note(worker: Worker) -> None:
        told.append(worker.backplane.worker_id)
        on_gap(worker)

    monkeypatch.setattr(Worker, "on_gap", note)
    return told


def keep_deaf(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Once the worker's subscription is lost, it does not get another one before the event is set."""
    connect, may_hear, name = Connector.connect, asyncio.Event(), f"mcpgw:{id_of(gateway)}"

    async def connect_later(connector: Connector, role: str, *args: Any, **options: Any) -> Any:
        if role == "sub" and connector._client_name == name:
            await may_hear.wait()
        return await connect(connector, role, *args, **options)

    monkeypatch.setattr(Connector, "connect", connect_later)
    return may_hear


def kill_subscription(server: RedisServer, gateway: Gateway) -> None:
    with server.client() as client:
        for entry in client.client_list(_type="pubsub"):
            if entry["name"].startswith(f"mcpgw:{id_of(gateway)}"):
                client.client_kill_filter(_id=entry["id"])


async def test_a_tool_of_another_worker_is_not_unknown_to_a_robot_that_dials_in_at_a_blip(
    pair: tuple[Gateway, Gateway], own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker has tool servers of the agent's own to show, and has not read yet what others have."""
    a, b = pair
    await a.tool_server("here", [echo("near")])
    await b.tool_server("there", [echo("far")])
    may_hear = keep_deaf(a, monkeypatch)
    kill_subscription(own_server, a)
    await wait_until(lambda: not is_connected(a), "the blip is noticed")
    robot = await a.robot()
    request_id = await robot.start_call("far", {"text": "x"})
    agent = worker_of(a).agents.get(AGENT)
    await wait_until(lambda: agent.waiting or robot.answers(request_id), "the call waits")
    may_hear.set()
    assert text_of(await robot.answer(request_id)) == "x"


async def test_a_call_waits_for_its_worker_to_find_a_redis_that_was_restarted_with_its_data(
    pair: tuple[Gateway, Gateway], own_server: RedisServer, monkeypatch: pytest.MonkeyPatch, gaps: list[str]
) -> None:
    """The caller is back first. That nobody listens in the other mailbox does not mean yet that nobody is there."""
    a, b = pair
    server = await b.tool_server("there", [echo("far")])
    robot = await a.robot()
    await robot.sees("far")
    on_nosub, unheard = Courier._on_nosub, list[Call]()

    def note(courier: Courier, call: Call, sender: Any) -> None:
        unheard.append(call)
        on_nosub(courier, call, sender)

    monkeypatch.setattr(Courier, "_on_nosub", note)
    may_hear = keep_deaf(b, monkeypatch)
    own_server.restart(keeps_data=True)
    await wait_until(lambda: id_of(a) in gaps, "the caller is back")
    request_id = await robot.start_call("far", {"text": "x"})
    most = NOSUB_TRIES + 3
    await wait_until(lambda: len(unheard) >= most or robot.answers(request_id), "the call has been tried often enough")
    may_hear.set()
    assert text_of(await robot.answer(request_id)) == "x"
    assert len(server.calls) == 1


async def test_a_refusal_that_died_with_its_hearers_subscription_is_found_again_by_asking(
    pair: tuple[Gateway, Gateway], own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis counted the dying connection as a receiver, and there is no record to read a refusal from."""
    a, b = pair
    server = await b.tool_server("calc", [echo()])
    robot = await a.robot()
    await robot.sees("echo")
    run, on_nack = Executor._run, Courier._on_nack
    refused, lost = list[str](), list[str]()

    def refuse_the_first(executor: Executor, envelope: Envelope) -> str | None:
        if refused:
            return run(executor, envelope)
        refused.append(envelope.id)
        return "early"

    def lose_the_first(courier: Courier, call: Call, reason: str, sender: Any) -> None:
        if lost:
            on_nack(courier, call, reason, sender)
        else:
            lost.append(reason)

    monkeypatch.setattr(Executor, "_run", refuse_the_first)
    monkeypatch.setattr(Courier, "_on_nack", lose_the_first)
    request_id = await robot.start_call("echo", {"text": "x"})
    await wait_until(lambda: bool(lost), "the refusal is lost")
    kill_subscription(own_server, a)
    assert text_of(await robot.answer(request_id, seconds=8)) == "x"
    assert len(server.calls) == 1


async def test_an_answer_that_could_not_be_written_down_and_was_not_heard_is_found_by_asking(
    pair: tuple[Gateway, Gateway], own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record still says that the call is under way; only the worker that ran it knows better."""
    a, b = pair
    server = await b.tool_server("there", [held("far")])
    robot = await a.robot()
    await robot.sees("far")
    request_id = await robot.start_call("far")
    call = await server.until_called()
    answer, lost = Ledger.answer, list[str]()

    def lose_the_first(ledger: Ledger, to: str, envelope: Envelope, *, on_unheard: Tell) -> None:
        if lost:
            answer(ledger, to, envelope, on_unheard=on_unheard)
        else:
            lost.append(envelope.id)
            on_unheard()

    monkeypatch.setattr(Ledger, "answer", lose_the_first)
    await call.answer("not lost")
    await wait_until(lambda: bool(lost), "the answer is lost")
    kill_subscription(own_server, a)
    assert text_of(await robot.answer(request_id, seconds=8)) == "not lost"
    assert len(server.calls) == 1


@pytest.mark.settings(grace_seconds=0.5)
async def test_a_tool_server_that_came_and_went_in_an_outage_leaves_no_tools_behind_its_grace(
    pair: tuple[Gateway, Gateway], own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = pair
    await b.tool_server("there", [echo("far")])
    robot = await a.robot()
    await robot.sees("far")
    own_server.stop()
    await wait_until(lambda: not is_connected(a), "the outage is noticed")
    fresh = await a.tool_server("fresh", [echo("fleeting")], is_awaited=False)
    await robot.sees("fleeting", "far")
    monkeypatch.setattr(worker_of(a).agents, "_make_do", lambda agent: None)  # it looks again when Redis is back
    await fresh.vanish()
    await wait_until(lambda: not worker_of(a).hub.tool_servers, "its connection has gone")
    own_server.start()
    await wait_until(lambda: is_connected(a) and is_connected(b), "both are back")
    await robot.sees("far", without=["fleeting"])


@pytest.mark.settings(grace_seconds=0.5)
async def test_a_tool_server_that_left_an_emptied_redis_leaves_no_tools_behind_its_grace(
    pair: tuple[Gateway, Gateway], own_server: RedisServer
) -> None:
    """Its worker knows best that the connection is no more; what others had is believed for a while."""
    a, b = pair
    await b.tool_server("there", [echo("far")])
    server = await a.tool_server("here", [echo("near")])
    robot = await a.robot()
    await robot.sees("near", "far")
    worker_of(a)._lease.stop()  # the row is not put back before the connection ends
    with own_server.client() as client:
        client.flushall()
    await server.vanish()
    await wait_until(lambda: not worker_of(a).hub.tool_servers, "its connection has gone")
    worker_of(a)._lease._is_stopped = False
    await robot.sees("far", without=["near"])


async def test_calls_wait_for_a_tool_server_that_redials_after_redis_was_emptied(
    pair: tuple[Gateway, Gateway], own_server: RedisServer
) -> None:
    """It dropped before its row could be put back: it counts as offline, not as never having been."""
    a, _ = pair
    server = await a.tool_server("here", [echo("near")])
    robot = await a.robot()
    await robot.sees("near")
    worker_of(a)._lease.stop()
    with own_server.client() as client:
        client.flushall()
    await server.vanish()
    await wait_until(lambda: not worker_of(a).hub.tool_servers, "its connection has gone")
    worker_of(a)._lease._is_stopped = False
    request_id = await robot.start_call("near", {"text": "x"})
    await wait_until(lambda: bool(worker_of(a).desk._parked), "the call waits for it")
    await a.tool_server("here", [echo("near")], is_awaited=False)
    assert text_of(await robot.answer(request_id)) == "x"


async def test_an_agent_that_has_only_robots_is_not_read_at_every_beat(
    pair: tuple[Gateway, Gateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, _ = pair
    await a.robot()
    snapshot, read = Directory.snapshot, list[str]()

    async def noted(directory: Directory, agent: str) -> Snapshot:
        read.append(agent)
        return await snapshot(directory, agent)

    beats = worker_of(a)._lease.beats
    await wait_until(lambda: worker_of(a)._lease.beats > beats + 2, "it has become known")
    monkeypatch.setattr(Directory, "snapshot", noted)
    beats = worker_of(a)._lease.beats
    await wait_until(lambda: worker_of(a)._lease.beats > beats + 5, "some beats have passed")
    assert read == []


async def test_a_connection_that_was_replaced_unheard_does_not_count_while_redis_is_away(
    pair: tuple[Gateway, Gateway], own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker still holds it, and has read that another one has its place."""
    a, b = pair
    await a.tool_server("calc", [echo("old")], server_id="calc")
    robot = await a.robot()
    await robot.sees("old")
    monkeypatch.setattr(Mailroom, "_on_kick", lambda mailroom, envelope: None)  # the news is lost
    await b.tool_server("calc", [echo("new")], server_id="calc", is_awaited=False)
    await robot.sees("new", without=["old"])
    assert worker_of(a).hub.tool_servers
    own_server.stop()
    await wait_until(lambda: not is_connected(a), "the outage is noticed")
    await a.tool_server("other", [echo("another")], is_awaited=False)
    await robot.sees("another")
    assert sorted(await robot.names()) == ["another", "new"]


@pytest.mark.settings(lease_seconds=1.0)
async def test_a_worker_whose_beats_are_slow_every_time_still_finds_out_who_is_dead(
    pair: tuple[Gateway, Gateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first slow beat may mean that Redis was away, and that others need time to come back; one more does not."""
    monkeypatch.setattr("gateway.lease.RECONNECT_SECONDS", 0.5)
    a, b = pair
    server = await b.tool_server("calc", [held("slow")])
    robot = await a.robot()
    await robot.sees("slow")
    request_id = await robot.start_call("slow")
    await server.until_called()
    beat, dead, slow_beats = Membership.beat, id_of(b), list[Beat]()

    async def beat_slowly(membership: Membership, *args: Any) -> Beat:
        if membership.worker_id == dead:
            await asyncio.Event().wait()
        await asyncio.sleep(2 * SETTINGS["beat_seconds"])
        slow_beats.append(await beat(membership, *args))
        return slow_beats[-1]

    monkeypatch.setattr(Membership, "beat", beat_slowly)
    error = (await robot.answer(request_id, seconds=8))["error"]
    assert error["data"]["reason"] == "worker lost"
    assert len(slow_beats) > 1


async def test_facts_that_redis_has_forgotten_are_not_read_at_every_beat() -> None:
    """Thousands of agents may have them, of a worker that comes back with its rows soon, or never."""
    store, reads, nobody = MemoryStore(), list[str](), lambda agent: None

    class Counted(MemoryBackplane):
        async def snapshot(self, agent: str) -> Snapshot:
            reads.append(agent)
            return await super().snapshot(agent)

    backplane, tasks = Counted(store, "here", is_shared=True), Tasks()
    agents = Agents(settings(), backplane, tasks, on_catalog=nobody, on_trouble=nobody)
    row = Row("up", "elsewhere", "c1", since=1, epoch=1, name="calc", toolset=digest(b"[]"), tools=1)
    await backplane.commit(AGENT, 0, Change({"calc": row}, toolsets={row.toolset: b"[]"}))
    agent = agents.enter(AGENT)
    robot: Any = object()
    agent.robots["r"] = robot
    async with tasks:
        agents.attend(agent)
        await wait_until(lambda: not agent.is_loading, "the facts are read")
        store.agents.clear()
        agents.refresh_all()
        await wait_until(lambda: not agent.is_loading, "they are forgotten, and remembered here")
        assert list(agent.catalog.rows) == ["calc"]
        reads.clear()
        for _ in range(3):
            agents.refresh_stale()
            await wait_until(lambda: not agent.is_loading, "nothing is being read")
        assert reads == []


async def test_facts_that_could_not_be_read_are_read_at_the_next_beat_although_nobody_says_so() -> None:
    store, is_away, nobody = MemoryStore(), True, lambda agent: None

    class Blinking(MemoryBackplane):
        async def snapshot(self, agent: str) -> Snapshot:
            if is_away:
                raise BackplaneUnavailable("away")
            return await super().snapshot(agent)

    backplane, tasks = Blinking(store, "here", is_shared=True), Tasks()
    agents = Agents(settings(), backplane, tasks, on_catalog=nobody, on_trouble=nobody)
    agent = agents.enter(AGENT)
    robot: Any = object()
    agent.robots["r"] = robot
    async with tasks:
        agents.attend(agent)
        await wait_until(lambda: not agent.is_loading, "it could not be read")
        assert not agent.is_current
        is_away = False
        agents.refresh_stale()
        await wait_until(lambda: not agent.is_loading, "it has been read")
        assert agent.is_current
        agents.refresh_stale()
        assert not agents._unsettled, "there is no reason to look at it any more"
