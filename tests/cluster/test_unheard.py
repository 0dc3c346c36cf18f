"""Rows that are written while their worker looks elsewhere: every row that says `up` has a connection behind it."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway.backplane.base import BackplaneUnavailable, Change, Dispatch, Verdict
from gateway.backplane.envelope import Envelope
from gateway.backplane.redis.directory import Directory
from gateway.backplane.redis.ledger import Ledger
from gateway.executor import Executor
from tests.cluster.inside import id_of, worker_of
from tests.conftest import StartCluster
from tests.peers.tools import echo, text_of
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.parametrize("cluster", ["redis"], indirect=True),
    pytest.mark.settings(beat_seconds=0.2, lease_seconds=5.0),
]

SERVERS = "mcpgw:servers:{home}"


@pytest.fixture
def unheard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The first admission is committed, but its worker hears that Redis is away. Who that was is noted here."""
    commit, failed = Directory.commit, list[str]()

    async def commit_unheard(self: Directory, agent: str, expected: int, change: Change) -> int | None:
        revision = await commit(self, agent, expected, change)
        if not failed and any(row is not None and row.state == "up" for row in change.rows.values()):
            failed.append(self.worker_id)
            raise BackplaneUnavailable("the reply was lost")
        return revision

    monkeypatch.setattr(Directory, "commit", commit_unheard)
    monkeypatch.setattr("gateway.registrar.RETRY_SECONDS", 0.2)
    return failed


async def test_a_call_that_overtakes_the_news_of_a_registration_runs(
    cluster: StartCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The robot's worker reads the row before the tool server's own worker hears that it was taken."""
    a, b = await cluster(2)
    robot = await a.robot()
    after_commit = Directory._after_commit

    async def list_slowly(self: Directory, *args: Any) -> None:
        if self.worker_id == id_of(b):
            await asyncio.sleep(0.3)
        await after_commit(self, *args)

    monkeypatch.setattr(Directory, "_after_commit", list_slowly)
    server = await b.tool_server("calc", [echo()], is_awaited=False)
    await robot.sees("echo")
    for text in ("first", "second"):
        assert text_of(await robot.call("echo", {"text": text}, seconds=10)) == text
    assert len(server.calls) == 2


async def test_a_connection_that_ends_while_its_row_is_put_back_is_offline(
    cluster: StartCluster, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (a,) = await cluster(1)
    server = await a.tool_server("calc", [echo()], server_id="calc")
    own, is_on_its_way, may_go_on = Directory._own, asyncio.Event(), asyncio.Event()

    async def own_slowly(self: Directory, members: Any) -> None:
        await own(self, members)
        if any(b'"calc"' in member for member in members):
            is_on_its_way.set()
            await may_go_on.wait()

    monkeypatch.setattr(Directory, "_own", own_slowly)
    store.flushall()
    async with asyncio.timeout(5):
        await is_on_its_way.wait()
    await server.vanish()
    await wait_until(lambda: "leave" in str(store.xrange("mcpgw:events")), "its end is under way")
    async with asyncio.timeout(5):
        await worker_of(a)._registrar.settled()  # its end has found no row in the empty store
    may_go_on.set()
    await wait_until(lambda: b'"offline"' in (store.hget(SERVERS, "calc") or b""), "the row is offline")


async def test_an_anonymous_tool_server_whose_admission_was_not_heard_of_stays_one(
    cluster: StartCluster, unheard: list[str]
) -> None:
    (a,) = await cluster(1)
    await a.tool_server("calc", [echo()], is_awaited=False)
    robot = await a.robot()
    await robot.sees("echo")
    await wait_until(lambda: bool(unheard), "the admission went unheard")
    assert text_of(await robot.call("echo", {"text": "x"}, seconds=10)) == "x"
    assert list(await a.servers()) == ["calc"]
    assert await robot.names() == ["echo"]


async def test_a_tool_server_that_left_before_its_admission_was_heard_of_is_offline(
    cluster: StartCluster, store: Any, unheard: list[str]
) -> None:
    (a,) = await cluster(1)
    server = await a.tool_server("calc", [echo()], is_awaited=False)
    await wait_until(lambda: bool(unheard), "the admission went unheard")
    await server.vanish()
    await wait_until(lambda: b'"offline"' in (store.hget(SERVERS, "calc") or b""), "the row is offline")


async def test_the_connection_that_an_unheard_admission_displaced_is_closed_all_the_same(
    cluster: StartCluster, unheard: list[str]
) -> None:
    a, b = await cluster(2)
    unheard.append("not yet")
    old = await a.tool_server("calc", [echo()], server_id="calc")
    unheard.clear()
    new = await b.tool_server("calc", [echo()], server_id="calc", is_awaited=False)
    assert (await old.until_closed()).code == 1000
    assert unheard == [id_of(b)]
    assert new.is_open


async def test_a_list_that_is_read_again_unchanged_changes_nothing_in_the_directory(
    cluster: StartCluster, store: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where the list was cut to the agent's limit, so that it differs from what is registered."""
    (a,) = await cluster(1, tools_per_agent=1)
    server = await a.tool_server("calc", [echo("one"), echo("two")], server_id="calc")
    before = store.get("mcpgw:rev:{home}")
    await server.change_tools([echo("one"), echo("two")])
    await wait_until(lambda: caplog.text.count("tools left out") == 2, "it was decided once more")
    async with asyncio.timeout(5):
        await worker_of(a)._registrar.settled()
    assert store.get("mcpgw:rev:{home}") == before


async def test_a_call_that_may_have_got_lost_on_its_way_is_asked_for_until_it_is_found_out(
    cluster: StartCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its dispatch went into a dying connection, the first question to its owner and the next answer into the void."""
    a, b = await cluster(2)
    server = await b.tool_server("calc", [echo()])
    robot = await a.robot()
    await robot.sees("echo")
    dispatch, on_query, send = Ledger.dispatch, Executor.on_query, Ledger.send
    lost: list[str] = []

    def lose_the_first(ledger: Ledger, call: Dispatch, on_verdict: Callable[[Verdict], None]) -> None:
        if lost:
            dispatch(ledger, call, on_verdict)
        else:
            lost.append("dispatch")
            asyncio.get_running_loop().call_soon(on_verdict, Verdict.UNKNOWN)

    def lose_the_first_question(executor: Executor, envelope: Envelope) -> None:
        if len(lost) > 1:
            on_query(executor, envelope)
        else:
            lost.append("query")

    def lose_the_first_status(ledger: Ledger, worker: str, envelope: Envelope, *more: Any) -> None:
        if envelope.type == "status" and "status" not in lost:
            lost.append("status")
        else:
            send(ledger, worker, envelope, *more)

    monkeypatch.setattr(Ledger, "dispatch", lose_the_first)
    monkeypatch.setattr(Ledger, "send", lose_the_first_status)
    monkeypatch.setattr(Executor, "on_query", lose_the_first_question)
    assert text_of(await robot.call("echo", {"text": "x"}, seconds=8)) == "x"
    assert lost == ["dispatch", "query", "status"]
    assert len(server.calls) == 1


async def test_rows_of_a_worker_of_which_nothing_else_is_left_go_offline(cluster: StartCluster, store: Any) -> None:
    """All workers were dead for an hour: neither the list of workers nor that of its belongings names it any more."""
    (a,) = await cluster(1)
    row = b'{"state":"up","worker":"gone-12345678","conn":"c","since":1,"epoch":1,"name":"old","toolset":""}'
    store.hset(SERVERS, "old", row)
    store.pexpire(SERVERS, 60_000)
    await a.robot()
    await wait_until(lambda: b'"offline"' in (store.hget(SERVERS, "old") or b""), "the row is offline")


async def test_tools_that_change_while_their_row_is_missing_are_listed_all_the_same(
    cluster: StartCluster, store: Any
) -> None:
    (a,) = await cluster(1)
    server = await a.tool_server("calc", [echo()], server_id="calc")
    robot = await a.robot()
    await robot.sees("echo")
    store.hdel(SERVERS, "calc")
    await server.change_tools([echo(), echo("another")])
    await robot.sees("echo", "another")


async def test_tools_that_change_back_while_the_change_is_on_its_way_are_those_of_before(
    cluster: StartCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    (a,) = await cluster(1)
    server = await a.tool_server("calc", [echo()], server_id="calc")
    robot = await a.robot()
    await robot.sees("echo")
    commit, swapped = Directory.commit, list[Change]()

    async def commit_slowly(self: Directory, agent: str, expected: int, change: Change) -> int | None:
        await asyncio.sleep(0.3)
        revision = await commit(self, agent, expected, change)
        swapped.append(change)
        return revision

    monkeypatch.setattr(Directory, "commit", commit_slowly)
    await server.change_tools([echo("other")])
    await server.until_listed(2)
    await server.change_tools([echo()])
    await server.until_listed(3)
    await wait_until(lambda: len(swapped) == 2, "both changes are told")
    await robot.sees("echo", without=["other"])


async def test_a_call_that_ended_because_its_owner_was_lost_is_not_begun_when_that_wakes(
    cluster: StartCluster, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = await cluster(2)
    server = await b.tool_server("calc", [echo()])
    robot = await a.robot()
    await robot.sees("echo")
    monkeypatch.setattr(Executor, "on_request", lambda executor, envelope: None)  # it stands still
    request_id = await robot.start_call("echo", {"text": "x"})
    calls = f"mcpgw:call:{{{id_of(b)}}}:*"
    await wait_until(lambda: len(list(store.scan_iter(calls))) == 1, "the call is on record")
    await worker_of(a).desk.owner_lost(id_of(b))
    answer = await robot.answer(request_id)
    assert answer["error"]["data"]["executed"] == "unknown"
    await wait_until(lambda: not list(store.scan_iter(calls)), "its record is gone")
    monkeypatch.undo()
    await worker_of(b)._executor.recover()
    assert text_of(await robot.call("echo", {"text": "y"}, seconds=8)) == "y"
    assert [call.arguments["text"] for call in server.calls] == ["y"]


@pytest.mark.settings(ghost_seconds=5)
async def test_a_worker_that_waits_for_a_verdict_on_a_ghost_still_leaves_in_order(
    cluster: StartCluster, store: Any
) -> None:
    a, b = await cluster(2)
    ghost = await a.tool_server("calc", [echo()])
    ghost.freeze()
    again = await b.tool_server("calc", [echo()], is_awaited=False)
    await again.until_listed()
    await wait_until(lambda: bool(worker_of(b)._registrar._ghosts._probes), "it is being found out")
    await b.worker.stop()
    assert not store.exists(f"mcpgw:worker:{{{id_of(b)}}}")
    assert store.zscore("mcpgw:workers", id_of(b)) is None


@pytest.mark.settings(ghost_seconds=0.3)
async def test_a_twin_is_not_displaced_because_one_question_about_it_was_lost(
    cluster: StartCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = await cluster(2)
    twin = await a.tool_server("calc", [echo()])
    on_probe, lost = Executor.on_probe, list[Envelope]()

    def lose_the_first(executor: Executor, envelope: Envelope) -> None:
        if lost:
            on_probe(executor, envelope)
        else:
            lost.append(envelope)

    monkeypatch.setattr(Executor, "on_probe", lose_the_first)
    await b.tool_server("calc", [echo()])
    assert twin.is_open
    assert set(await a.servers()) == {"calc", "calc-2"}


async def test_a_worker_that_wakes_in_the_last_step_of_its_burial_is_put_right_at_the_next_beat(
    cluster: StartCluster, store: Any
) -> None:
    """The reaper asked for its lease a moment before it came back, and wrote a moment after all was put back."""
    a, b = await cluster(2)
    await b.tool_server("calc", [echo()], server_id="calc")
    registrar, woken = worker_of(a)._registrar, worker_of(b)._lease
    recovered = list[int]()
    recover = woken._executor.recover

    async def bury_behind_its_back() -> None:
        await recover()
        recovered.append(1)
        if len(recovered) == 1:
            await registrar.bury("home", id_of(b))

    woken._executor.recover = bury_behind_its_back
    store.delete(f"mcpgw:worker:{{{id_of(b)}}}")
    await wait_until(lambda: len(recovered) > 1, "it has looked once more")
    await wait_until(lambda: b'"up"' in store.hget(SERVERS, "calc"), "the row is up")


async def test_a_worker_that_wakes_while_it_is_being_buried_keeps_what_it_has(
    cluster: StartCluster, store: Any
) -> None:
    """Burying thousands of agents takes a while; it must not go on against a worker that has put itself back."""
    a, b = await cluster(2)
    await b.tool_server("calc", [echo()], server_id="calc")
    robot = await b.robot()
    owned = f"mcpgw:owned:{{{id_of(b)}}}"
    await wait_until(lambda: store.scard(owned) == 2, "a tool server and a robot are noted")
    await worker_of(a)._lease._reap(id_of(b))
    assert b'"up"' in store.hget(SERVERS, "calc")
    assert store.hlen("mcpgw:robots:{home}") == 1
    assert store.scard(owned) == 2
    assert text_of(await robot.call("echo", {"text": "x"})) == "x"
