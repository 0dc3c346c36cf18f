"""`mcp-gateway drain` and `mcp-gateway kick`: told by a real process with documented rights, done by real workers."""

import signal
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest

from gateway.backplane import rows
from gateway.backplane.base import WorkerRow
from gateway.backplane.keys import agent_tag
from gateway.backplanes import new_worker_id
from tests.cli.command_line import CommandLine
from tests.cli.operators import Operator, grant, refusals
from tests.peers.tools import held, text_of, text_result
from tests.support.gateway import Gateway, Guests
from tests.support.redis_cluster import ServerCluster
from tests.support.redis_server import RedisServer, engines, running
from tests.support.running import RedisCluster, settings
from tests.support.waiting import wait_until

AGENT = "home"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with running(next(iter(engines().values()))) as started:
        grant(started)
        yield started


@pytest.fixture
async def fleet(server: RedisServer) -> AsyncGenerator[RedisCluster]:
    """No worker yet, on an empty Redis."""
    with server.client() as client:
        client.flushall()
    cluster = RedisCluster(settings(redis_url=server.url, beat_seconds=0.1, drain_seconds=10.0))
    try:
        yield cluster
    finally:
        await cluster.stop()


def events(server: RedisServer, kind: str) -> list[dict[str, str]]:
    with server.client(decode_responses=True) as client:
        return [fields for _, fields in client.xrange("mcpgw:events") if fields["kind"] == kind]


async def test_a_drained_worker_is_waited_for_until_it_has_left(
    fleet: RedisCluster, server: RedisServer, guests: Guests, cli: CommandLine
) -> None:
    first, second = [Gateway(await fleet.add_worker(), guests) for _ in range(2)]
    slow = await first.tool_server("slow", [held("slow")], server_id="slow")
    robot = await second.robot(agent=AGENT)
    await robot.sees("slow")
    call_id = await robot.start_call("slow")
    call = await slow.until_called()
    started = await Operator(cli, server.url, "foreman").begin(f"drain {fleet.workers[0].id} --wait")
    await started.until("draining")
    await started.until("left: 1 工具服务器 tool servers")
    await call.answer(text_result("done"))
    assert text_of(await robot.answer(call_id)) == "done"
    assert (await slow.until_closed()).code == 1012
    assert await started.ended() == 0
    assert "has left" in started.text
    assert len(events(server, "drained")) == 1
    await guests.leave()
    assert refusals(server) == []


async def test_the_beginning_of_an_id_is_enough_where_only_one_begins_so(
    fleet: RedisCluster, server: RedisServer, cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = iter(("gw-0-aaaaaaaa", "gw-0-bbbbbbbb", "gw-1-cccccccc"))
    monkeypatch.setattr("gateway.backplanes.new_worker_id", lambda: next(ids, new_worker_id()))
    for _ in range(3):
        await fleet.add_worker()
    foreman = Operator(cli, server.url, "foreman")
    code, text = await foreman.run("drain gw-0")
    assert code == 2
    assert "several workers begin with 'gw-0'" in text
    assert "gw-0-aaaaaaaa" in text
    assert "gw-0-bbbbbbbb" in text
    code, text = await foreman.run("drain nobody")
    assert code == 2
    assert "no living worker is 'nobody'" in text
    assert "gw-1-cccccccc" in text
    code, text = await foreman.run("drain gw-1")
    assert code == 0, text
    assert "gw-1-cccccccc: 正在排空 / draining" in text


async def test_who_may_only_look_can_tell_nobody_to_leave(
    fleet: RedisCluster, server: RedisServer, cli: CommandLine
) -> None:
    worker = await fleet.add_worker()
    code, text = await Operator(cli, server.url, "operator").run(f"drain {worker.id}")
    assert code == 2
    assert "no right to PUBLISH" in text
    assert "docs/redis.md" in text
    assert refusals(server) == ["operator: publish"]
    assert worker.is_running


async def test_a_kicked_tool_server_redials_and_its_return_is_told(
    fleet: RedisCluster, server: RedisServer, guests: Guests, cli: CommandLine
) -> None:
    worker = Gateway(await fleet.add_worker(), guests)
    lamp = await worker.tool_server("Lamp", server_id="lamp")
    command = "kick home lamp --reason bye --wait 20"
    started = await Operator(cli, server.url, "foreman").begin(command)
    closed = await lamp.until_closed(seconds=10)
    assert (closed.code, closed.reason) == (1012, "bye")
    await started.until("已断开 / closed: ")
    assert (await worker.health(AGENT))["mcp_servers"] == {}
    await worker.tool_server("Lamp", server_id="lamp")
    assert await started.ended() == 0
    assert "is back: " in started.text
    [event] = events(server, "kick")
    assert (event["agent"], event["server"], event["reason"]) == (AGENT, "lamp", "bye")
    [left] = [one for one in events(server, "leave") if one["server"] == "lamp"]
    assert "kicked by an operator" in left["cause"]
    await guests.leave()
    assert refusals(server) == []


async def test_a_kick_of_nobody_tells_who_is_there(
    fleet: RedisCluster, server: RedisServer, guests: Guests, cli: CommandLine
) -> None:
    worker = Gateway(await fleet.add_worker(), guests)
    lamp = await worker.tool_server("Lamp", server_id="lamp")
    foreman = Operator(cli, server.url, "foreman")
    code, text = await foreman.run("kick home lamb")
    assert code == 2
    assert "it has: lamp" in text
    code, text = await foreman.run("kick hame lamp")
    assert code == 2
    assert "no such agent" in text
    await lamp.close()
    await worker.until_connected(0)
    code, text = await foreman.run("kick home lamp")
    assert code == 2
    assert "is offline since" in text
    await guests.leave()


async def test_a_worker_that_is_gone_does_not_hear_a_kick(server: RedisServer, cli: CommandLine) -> None:
    with server.client() as client:
        client.flushall()
        row = b'{"state":"up","worker":"gw-9-deadbeef","conn":"gw-9-deadbeef.1","since":1,"epoch":1}'
        client.hset("mcpgw:servers:{home}", "lamp", row)
    code, text = await Operator(cli, server.url, "foreman").run("kick home lamp")
    assert code == 2
    assert "gw-9-deadbeef has not heard it" in text


async def test_an_agent_can_be_named_by_the_hash_that_its_keys_have(
    fleet: RedisCluster, server: RedisServer, guests: Guests, cli: CommandLine
) -> None:
    worker = Gateway(await fleet.add_worker(), guests)
    lamp = await worker.tool_server("Lamp", agent="客厅 的小智", server_id="lamp")
    started = await Operator(cli, server.url, "foreman").begin(f"kick {agent_tag('客厅 的小智')} lamp --wait 20")
    assert (await lamp.until_closed(seconds=10)).code == 1012
    await started.until("已断开 / closed: ")
    await worker.tool_server("Lamp", agent="客厅 的小智", server_id="lamp")
    await started.until("is back: ")
    assert await started.ended() == 0
    await guests.leave()


async def test_nothing_that_is_said_or_sent_can_steer_a_terminal_or_fail_to_be_sent(
    fleet: RedisCluster, server: RedisServer, guests: Guests, cli: CommandLine
) -> None:
    worker = Gateway(await fleet.add_worker(), guests)
    lamp = await worker.tool_server("Lamp", agent=AGENT, server_id="lamp")
    foreman = Operator(cli, server.url, "foreman")
    code, text = await foreman.run("kick home lamp --wait 3 --reason", "a\udcffb" + "c" * 100_000)
    assert code == 0, text
    assert (await lamp.until_closed()).reason.startswith("a?bccc")
    assert all(len(event["reason"]) < 1000 for event in events(server, "kick"))
    lamp = await worker.tool_server("Lamp", agent=AGENT, server_id="lamp")
    await lamp.close(1000, "\x1b[2Jbye")
    await worker.until_connected(0)
    code, text = await foreman.run("kick home lamp")
    assert code == 2
    assert "·[2Jbye" in text
    assert "\x1b" not in text
    await guests.leave()


async def test_waiting_for_a_drain_outlasts_a_redis_that_is_away_and_comes_back_empty(
    own_server: RedisServer, cli: CommandLine
) -> None:
    name = "gw-0-aaaaaaaa"

    def row(tool_servers: int) -> None:
        with own_server.client() as client:
            told: dict[Any, Any] = dict(rows.dump_worker(WorkerRow("host", 1, "1", 1, "draining", 0, tool_servers)))
            client.hset(f"mcpgw:worker:{{{name}}}", mapping=told)
            client.zadd("mcpgw:workers", {name: 1})

    row(2)
    grant(own_server)
    started = await Operator(cli, own_server.url, "foreman").begin(f"drain {name} --wait 120")
    await started.until("left: 2 工具服务器")
    own_server.stop()
    await started.until("无法连接|连不上")
    own_server.start()
    grant(own_server)
    with own_server.client() as client:
        # Its lease is asked for several times while nobody has put it back.
        await wait_until(lambda: client.info("commandstats").get("cmdstat_hscan", {}).get("calls", 0) > 2, "looks")
    row(1)
    await started.until("left: 1 工具服务器")
    with own_server.client() as client:
        client.xadd("mcpgw:events", {"kind": "drained", "worker": name})
        client.delete(f"mcpgw:worker:{{{name}}}")
    assert await started.ended() == 0
    assert started.text.count("has left") == 1


async def test_who_is_interrupted_while_waiting_has_not_seen_it_happen(server: RedisServer, cli: CommandLine) -> None:
    with server.client() as client:
        client.flushall()
        told: dict[Any, Any] = dict(rows.dump_worker(WorkerRow("host", 1, "1", 1, "draining")))
        client.hset("mcpgw:worker:{gw-0-aaaaaaaa}", mapping=told)
        client.zadd("mcpgw:workers", {"gw-0-aaaaaaaa": 1})
    started = await Operator(cli, server.url, "foreman").begin("drain gw-0 --wait")
    await started.until("left: ")
    assert await started.stop(signal.SIGINT) == 130
    assert "Traceback" not in started.text


async def test_in_a_cluster_the_same_commands_do_the_same(guests: Guests, cli: CommandLine) -> None:
    with ServerCluster(next(iter(engines().values())), nodes=2, password="secret") as servers:
        grant(*servers.nodes, password="secret", also="+cluster|slots +cluster|info +spublish")
        cluster = RedisCluster(settings(redis_url=servers.url, beat_seconds=0.1, drain_seconds=10.0))
        try:
            worker = Gateway(await cluster.add_worker(), guests)
            lamp = await worker.tool_server("Lamp", server_id="lamp")
            operator, foreman = Operator(cli, servers.url), Operator(cli, servers.url, "foreman")
            code, text = await operator.run("inspect servers")
            assert code == 0, text
            assert "Lamp 1.0" in text
            code, text = await Operator(cli, servers.url, "doctor").run("doctor --settle 0.1")
            assert "OK    邮箱 mailboxes" in text
            assert "FAIL  " not in text
            code, text = await foreman.run("kick home lamp --wait 1")
            assert code == 0, text
            assert (await lamp.until_closed()).code == 1012
            code, text = await foreman.run(f"drain {cluster.workers[0].id} --wait")
            assert code == 0, text
            assert "has left" in text
            await guests.leave()
        finally:
            await cluster.stop()
