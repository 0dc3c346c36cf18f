"""An agent's policy on running workers: in the list, in every call, at once, and on whichever worker somebody is."""

from dataclasses import replace
from typing import Any

import orjson
import pytest

from gateway.backplane.base import Change
from gateway.backplane.envelope import Envelope
from gateway.bookkeeping import opened
from gateway.catalog import Bounds
from gateway.directory import Row
from gateway.executor import Executor
from gateway.inspection import look
from gateway.look import Wish
from gateway.operating import window_into
from tests.cluster.inside import worker_of
from tests.conftest import StartCluster
from tests.peers.robot import Robot
from tests.peers.tool_server import ToolServer
from tests.peers.tools import echo, held, text_of, text_result
from tests.peers.wire import Message
from tests.support.gateway import AGENT, Gateway
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until


async def decide(gateway: Gateway, agent: str = AGENT, **fields: Any) -> None:
    """Write the agent's policy, as the command does; without fields it is taken back."""
    text = orjson.dumps(fields) if fields else b""
    assert await worker_of(gateway).backplane.write_entry("policy", agent, text) is not None


async def deny(gateway: Gateway, *globs: str) -> None:
    await decide(gateway, tools={"deny": list(globs)})


def refused(answer: Message) -> bool:
    error = answer["error"]
    assert error["code"] == -32004, error
    assert error["data"]["reason"] == "not allowed"
    assert error["data"]["executed"] is False
    return True


async def test_a_forbidden_tool_is_neither_listed_nor_called_on_any_worker_until_it_is_allowed_again(
    cluster: StartCluster,
) -> None:
    a, b = await cluster(2)
    server = await b.tool_server("lamp", [echo("hear"), echo("see")])
    robots = [await a.robot(), await b.robot()]
    for robot in robots:
        await robot.sees("hear", "see")

    await deny(a, "see")

    for robot in robots:
        await robot.until_received("notifications/tools/list_changed")
        assert await robot.names() == ["hear"]
        for name in ("see", "lamp__see"):
            assert refused(await robot.call(name, {"text": "x"}))
        assert text_of(await robot.call("hear", {"text": "still"})) == "still"
    assert [call.tool for call in server.calls] == ["hear", "hear"]

    await decide(b)

    for robot in robots:
        await robot.sees("see")
        assert text_of(await robot.call("see", {"text": "again"})) == "again"


async def test_a_policy_is_its_agents_alone_and_the_default_is_everybodys(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    for agent in ("home", "office"):
        await a.tool_server("lamp", agent=agent)
    home, office = await a.robot(agent="home"), await b.robot(agent="office")
    await office.sees("echo")

    await deny(b, "echo")

    await home.sees(without=["echo"])
    assert text_of(await office.call("echo", {"text": "mine"})) == "mine"

    await decide(a, "*", tools={"deny": ["*"]})

    await office.sees(without=["echo"])
    assert refused(await office.call("echo", {"text": "x"}))

    await decide(a, "office", tools={"deny": []})

    await office.sees("echo")


async def test_a_forbidden_tool_server_stays_connected_is_hidden_and_its_status_says_so(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    await decide(a, servers={"deny": ["ev*"]})
    await wait_until(lambda: not worker_of(b).agents.policies.of(AGENT).allows_server("evil"), "it has got about")
    good, evil = await a.tool_server("good"), await b.tool_server("evil", [echo("shout")])
    robot = await a.robot()
    assert await robot.names() == ["echo"]
    assert refused(await robot.call("shout", {"text": "x"}))
    assert refused(await robot.call("evil__shout", {"text": "x"}))
    assert good.is_open
    assert evil.is_open
    assert evil.calls == []

    told = (await b.get(f"/mcp_endpoint/status?{b.call_url().partition('?')[2]}")).json()

    by_id = {server["server_id"]: server for server in told["tool_servers"]}
    assert (by_id["good"]["listed"], by_id["evil"]["listed"]) == (True, False)
    assert by_id["evil"]["verdict"]["code"] == "not_allowed"
    assert "servers.deny: ev*" in by_id["evil"]["tools"][0]["why"]
    assert told["verdict"]["code"] == "ok"


async def test_a_parked_call_is_refused_when_its_tool_is_forbidden_meanwhile(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    server = await b.tool_server("lamp", server_id="lamp")
    robot = await a.robot()
    await robot.sees("echo")
    await server.close()
    await a.until_connected(0)
    parked = await robot.start_call("lamp__echo", {"text": "x"})
    await wait_until(lambda: worker_of(a).desk.parked_calls == 1, "the call waits for its tool server")

    await deny(b, "lamp/*")

    assert refused(await robot.answer(parked))
    again = await b.tool_server("lamp", server_id="lamp")
    assert refused(await robot.call("echo", {"text": "x"}))
    assert again.calls == []


async def test_a_call_that_has_waited_longer_than_its_tool_may_take_by_now_ends_unsent(gateway: Gateway) -> None:
    server = await gateway.tool_server("lamp", server_id="lamp")
    robot = await gateway.robot()
    await robot.sees("echo")
    await server.close()
    await gateway.until_connected(0)
    request_id = await robot.start_call("echo", {"text": "x"})
    desk, agent = worker_of(gateway).desk, worker_of(gateway).agents.get(AGENT)
    [call] = await wait_until(lambda: list(desk._parked), "the call waits for its tool server")
    agent.catalog = replace(agent.catalog, bounds={call.route: Bounds(timeout_seconds=0.001)})
    desk.place_again(call)
    assert call.is_done, "at once, and not when somebody next looks at deadlines"
    data = (await robot.answer(request_id))["error"]["data"]
    assert (data["reason"], data["executed"]) == ("deadline exceeded", False)


async def test_a_tool_may_be_given_more_time_than_other_tools_on_any_worker(cluster: StartCluster) -> None:
    a, b = await cluster(2, call_seconds=0.3)
    server = await b.tool_server("lamp", [held("slow"), held("never")])
    await decide(a, timeouts={"slow": 60})
    robots = [await a.robot(), await b.robot()]
    for gateway, robot in zip((a, b), robots, strict=True):
        agent = worker_of(gateway).agents.get(AGENT)
        await robot.sees("slow")
        await wait_until(lambda agent=agent: bool(agent.catalog.bounds), "the timeout has got about")  # type: ignore[misc]
        request_id = await robot.start_call("slow")
        slow_call = await server.until_called(len(server.calls) + 1)
        error = (await robot.call("never"))["error"]
        assert error["data"]["reason"] == "deadline exceeded", "so much time has passed"
        await slow_call.answer(text_result("late, and in time"))
        assert text_of(await robot.answer(request_id)) == "late, and in time"


async def test_a_call_that_may_take_longer_than_others_is_not_run_twice_for_as_long(
    cluster: StartCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its id is remembered until its own deadline: a message that comes again in the meantime is no new call."""
    monkeypatch.setattr("gateway.executor.SEEN_SPARE_SECONDS", 0.0)
    requests: list[Envelope] = []
    on_request = Executor.on_request

    def noted(executor: Executor, envelope: Envelope) -> None:
        requests.append(envelope)
        on_request(executor, envelope)

    monkeypatch.setattr(Executor, "on_request", noted)
    a, b = await cluster(2, call_seconds=0.3)
    server = await b.tool_server("lamp", [echo("slow"), held("never")])
    await decide(a, timeouts={"slow": 60})
    robot = await a.robot()
    await robot.sees("slow")
    await wait_until(lambda: bool(worker_of(a).agents.get(AGENT).catalog.bounds), "the timeout has got about")
    await robot.call("slow", {"text": "once"})
    for _ in range(2):
        assert "error" in await robot.call("never"), "so much time has passed"
    worker_of(b)._executor.on_request(requests[0])
    await robot.call("slow", {"text": "twice"})
    assert [call.arguments["text"] for call in server.calls if call.tool == "slow"] == ["once", "twice"]


@pytest.fixture
async def slow(cluster: StartCluster) -> tuple[ToolServer, list[Robot]]:
    """A tool server whose tool never answers, and a robot here and there; its tool may take a moment only."""
    a, b = await cluster(2)
    server = await b.tool_server("lamp", [held("slow")])
    robots = [await a.robot(), await b.robot()]
    for robot in robots:
        await robot.sees("slow")
    await decide(a, timeouts={"lamp/slow": 0.3})
    for gateway in (a, b):
        agent = worker_of(gateway).agents.get(AGENT)
        await wait_until(lambda agent=agent: bool(agent.catalog.bounds), "the timeout has got about")  # type: ignore[misc]
    return server, robots


async def test_a_tools_own_timeout_ends_its_calls_at_both_workers(slow: tuple[ToolServer, list[Robot]]) -> None:
    server, robots = slow
    for number, robot in enumerate(robots):
        error = (await robot.call("slow"))["error"]
        assert (error["code"], error["data"]["reason"]) == (-32002, "deadline exceeded")
        assert "0.3" in error["message"]
        await server.until_cancelled(server.calls[number])


async def test_no_tool_may_take_longer_than_a_xiaozhi_server_waits_or_than_any_call(cluster: StartCluster) -> None:
    [a] = await cluster(1, call_max_seconds=60.0)
    server = await a.tool_server("lamp", [held("slow")])
    await decide(a, timeouts={"*": 3600})
    patient, xiaozhi = await a.robot(), await a.xiaozhi()
    agent = worker_of(a).agents.get(AGENT)
    await wait_until(lambda: bool(agent.catalog.bounds), "the timeout has got about")
    await patient.start_call("slow")
    await server.until_called(1)
    await xiaozhi.send({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "slow"}})
    await server.until_called(2)
    calls = [call for robot in worker_of(a).hub.robots.values() for call in robot.calls]
    assert {call.is_extendable: round(call.deadline - call.started, 3) for call in calls} == {True: 60.0, False: 27.0}


async def test_a_tools_own_result_cap_cuts_its_results_with_a_notice(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    await b.tool_server("lamp", [echo("long"), echo("free")])
    robots = [await a.robot(), await b.robot()]
    for robot in robots:
        await robot.sees("long")
    await decide(a, result_bytes={"long": 5000})
    for gateway, robot in zip((a, b), robots, strict=True):
        agent = worker_of(gateway).agents.get(AGENT)
        await wait_until(lambda agent=agent: bool(agent.catalog.bounds), "the cap has got about")  # type: ignore[misc]
        text = text_of(await robot.call("long", {"text": "é" * 20_000}))
        assert "limit 5000" in text
        assert len(text.encode()) < 5000
        assert text_of(await robot.call("free", {"text": "é" * 20_000})) == "é" * 20_000


async def test_tools_of_one_name_are_told_apart_as_the_policy_says(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    await a.tool_server("one")
    await b.tool_server("two")
    robot = await a.robot()
    await robot.sees("echo", "two__echo")
    await decide(b, duplicates="hide")
    await robot.sees("echo", without=["two__echo"])
    assert text_of(await robot.call("two__echo", {"text": "hidden is not forbidden"})) == "hidden is not forbidden"
    await decide(b, duplicates="prefix_all")
    await robot.sees("one__echo", "two__echo", without=["echo"])
    assert text_of(await robot.call("echo", {"text": "a name that it remembers"})) == "a name that it remembers"


async def test_a_xiaozhi_server_is_pushed_the_list_that_a_new_policy_leaves(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    await b.tool_server("lamp", [echo("hear"), echo("see")])
    robot = await a.xiaozhi()
    await robot.until(lambda: set(robot.tools) == {"hear", "see"}, "it has both tools")
    await deny(b, "see")
    await robot.until(lambda: robot.refreshes == 2, "it was pushed a list")
    assert [tool["name"] for tool in robot.messages[-1]["result"]["tools"]] == ["hear"]
    with pytest.raises(RuntimeError, match="策略不允许"):  # it goes on offering the tool until its conversation ends
        await robot.call_tool("see", {"text": "x"})


async def test_a_robot_that_comes_after_the_change_finds_the_new_policy(cluster: StartCluster) -> None:
    """Its worker looked after the agent before, for a robot that has left."""
    a, b = await cluster(2)
    await a.tool_server("lamp")
    first = await b.robot()
    await first.sees("echo")
    await first.close()
    await wait_until(lambda: not worker_of(b).hub.robots, "nobody is left")
    await deny(a, "*")
    await wait_until(lambda: not worker_of(b).agents.policies.of(AGENT).allows("lamp", "echo"), "it has got about")
    assert await (await b.robot()).names() == []


async def test_a_row_in_the_store_that_names_another_agents_connection_brings_nothing_to_it(
    cluster: StartCluster,
) -> None:
    """Whoever writes into the store could say that the neighbour's lock is a tool server of this agent."""
    [a] = await cluster(1)
    victim = await a.tool_server("lock", [echo("open")], agent="neighbour")
    own = await a.tool_server("lamp", [echo("open")])
    robot = await a.robot()
    await robot.sees("open")
    worker = worker_of(a)
    [link] = worker.agents.get("neighbour").tool_servers.values()
    snapshot = await worker.backplane.snapshot(AGENT)
    forged: Row = link.row
    rows = {**snapshot.rows, "lamp": forged}
    assert await worker.backplane.commit(AGENT, snapshot.revision, Change(rows=rows)) is not None
    await wait_until(lambda: worker.agents.get(AGENT).catalog.rows["lamp"] == forged, "the forged row has been read")
    error = (await robot.call("open", {"text": "sesame"}))["error"]
    assert error["data"]["executed"] is False
    assert victim.calls == own.calls == []


async def test_an_operator_is_told_which_rule_keeps_a_tool_server_from_robots(pair: tuple[Gateway, Gateway]) -> None:
    a, b = pair
    await a.tool_server("evil")
    await decide(b, servers={"deny": ["ev*"]})
    async with window_into(a.settings) as window:
        seen = await look(window, Wish("agent", AGENT))
    assert seen is not None
    [told] = seen.data["tool_servers"]
    assert (told["verdict"]["code"], told["listed"]) == ("not_allowed", False)
    assert "servers.deny: ev*" in seen.as_text(200)


async def test_losing_redis_allows_nothing_that_was_forbidden(
    pair: tuple[Gateway, Gateway], own_server: RedisServer
) -> None:
    a, b = pair
    server = await b.tool_server("lamp", [echo("hear"), echo("see")])
    robots = [await a.robot(), await b.robot()]
    await deny(a, "see")
    for robot in robots:
        await robot.sees("hear", without=["see"])

    own_server.stop()

    assert refused(await robots[1].call("see", {"text": "away"})), "also of what needs no Redis"
    own_server.start()  # empty: nothing was kept on disk
    with own_server.client() as client:
        await wait_until(lambda: client.exists("mcpgw:policy"), "it has been put back", seconds=20)
    for robot in robots:
        await robot.sees("hear", without=["see"], seconds=20)
        assert refused(await robot.call("see", {"text": "back"}, seconds=20))
    assert server.calls == []


async def test_what_a_command_decides_is_in_the_operators_event_log(pair: tuple[Gateway, Gateway]) -> None:
    a, _ = pair
    async with opened(a.settings) as books:
        version = await books.write_entry("policy", AGENT, b'{"pins":"warn"}')
        await books.write_entry("policy", AGENT, b"")
    async with window_into(a.settings) as window:
        told = [one for one in await window.events(10) if one.kind == "decision"]
    assert [(one.field("book"), one.field("name"), one.field("what")) for one in told] == [
        ("policy", AGENT, "removed"),
        ("policy", AGENT, "set"),
    ]
    assert told[1].field("version") == str(version)
