"""`mcp-gateway inspect`: real processes, with the rights that docs/redis.md gives to who only looks."""

import asyncio
import signal
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from datetime import datetime

import orjson
import pytest

from gateway.backplane import rows
from gateway.backplane.keys import agent_tag
from gateway.directory import Row
from gateway.inspecting import Terminal, inspect
from gateway.look import Wish
from gateway.tables import cells
from tests.cli.command_line import CommandLine
from tests.cli.operators import Operator, as_user, grant, refusals
from tests.peers.tool_server import ToolServer
from tests.peers.tools import Call, adder, echo, held, text_result
from tests.support.gateway import Gateway, Guests
from tests.support.redis_server import RedisServer, engines, running
from tests.support.running import RedisCluster, settings
from tests.support.waiting import wait_until

AGENT = "客厅 的小智"
CALLER, TOOLS = 0, 1


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with running(next(iter(engines().values()))) as started:
        grant(started)
        yield started


@dataclass(slots=True)
class Scene:
    """Two workers: a robot on the first waits for a call of the tool server `calc` on the second; `fan` has gone."""

    cluster: RedisCluster
    calc: ToolServer
    call: Call

    @property
    def ids(self) -> list[str]:
        return [worker.id for worker in self.cluster.workers]


@pytest.fixture
async def scene(server: RedisServer, guests: Guests) -> AsyncGenerator[Scene]:
    with server.client() as client:
        client.flushall()
    cluster = RedisCluster(settings(redis_url=server.url, beat_seconds=0.2))
    try:
        first, second = [Gateway(await cluster.add_worker(), guests) for _ in range(2)]
        fan = await second.tool_server("Fan", [echo("blow")], agent=AGENT, server_id="fan")
        await fan.close(1001, "going home")
        await second.until_connected(0, AGENT)
        calc = await second.tool_server("Rechner", [adder("加法"), held("slow")], agent=AGENT, server_id="calc")
        robot = await first.robot(agent=AGENT)
        await robot.sees("slow")
        await robot.start_call("slow")
        call = await calc.until_called()
        with server.client() as client:
            key = f"mcpgw:worker:{{{cluster.workers[TOOLS].id}}}"
            await wait_until(lambda: client.hget(key, "tool_servers") == b"1", "a beat that tells of it")
            await wait_until(lambda: client.exists(f"mcpgw:robots:{{{agent_tag(AGENT)}}}"), "the robot's row")
        yield Scene(cluster, calc, call)
        await guests.leave()
    finally:
        await cluster.stop()


NOUNS = {
    "workers": ("up", "executing", "0.1.0"),
    "agents": (AGENT, "changed"),
    "servers": (AGENT, "calc", "Rechner 1.0", "offline", "ago"),
    "robots": (AGENT, "test-robot 1.0"),
    "calls": (AGENT, "calc", "slow", "sent"),
    "events": ("join", "leave", "fan", "going home"),
}


async def test_every_noun_shows_what_is_there_with_the_documented_rights_of_a_reader(
    scene: Scene, server: RedisServer, cli: CommandLine
) -> None:
    operator = Operator(cli, server.url)
    asked = {noun: f"inspect {noun}" for noun in NOUNS}

    async with asyncio.TaskGroup() as tasks:
        plain = {noun: tasks.create_task(operator.run(command)) for noun, command in asked.items()}
    for noun, words in NOUNS.items():
        code, text = plain[noun].result()
        assert code == 0, text
        assert all(word in text for word in words), f"{noun}: {text}"
    assert all(worker in plain["workers"].result()[1] for worker in scene.ids)
    assert refusals(server) == []


async def look(server: RedisServer, wish: Wish, *, as_json: bool = True) -> str:
    """What is written, by this process: starting one takes longer than looking."""
    written: list[str] = []
    terminal = Terminal(written.append, written.append)
    await inspect(settings(redis_url=as_user(server.url, "operator")), wish, terminal, as_json=as_json, watch_seconds=0)
    return "".join(written)


async def test_for_machines_the_same_is_json_with_iso_times(scene: Scene, server: RedisServer) -> None:
    told = {noun: orjson.loads(await look(server, Wish(noun))) for noun in NOUNS}
    assert {worker["worker"] for worker in told["workers"]["workers"]} == set(scene.ids)
    assert all(worker["listeners"] == 1 for worker in told["workers"]["workers"])
    [agent] = told["agents"]["agents"]
    assert (agent["agent"], agent["up"], agent["offline"], agent["tools"], agent["robots"]) == (AGENT, 1, 1, 2, 1)
    calc = next(one for one in told["servers"]["servers"] if one["server_id"] == "calc")
    assert (calc["state"], calc["worker"]) == ("up", scene.ids[TOOLS])
    assert datetime.fromisoformat(calc["since"]).tzinfo is not None
    [call] = told["calls"]["calls"]
    assert (call["tool"], call["from"], call["worker"]) == ("slow", scene.ids[CALLER], scene.ids[TOOLS])
    assert told["events"]["events"][0]["kind"] == "join"


async def test_one_agent_is_told_with_its_tool_servers_their_tools_and_what_went_wrong(
    scene: Scene, server: RedisServer, cli: CommandLine
) -> None:
    _, text = await Operator(cli, server.url).run("inspect agent", AGENT)
    assert all(word in text for word in (AGENT, "calc", "connected", "加法", "fan", "disconnected", "going home"))
    told = orjson.loads(await look(server, Wish("agent", AGENT)))
    assert told["robots"] == 1
    calc = next(one for one in told["tool_servers"] if one["server_id"] == "calc")
    assert {tool["tool"] for tool in calc["tools"]} == {"加法", "slow"}
    tools = await look(server, Wish("tools", AGENT), as_json=False)
    assert all(word in tools for word in ("加法", "in use", "blow", "for 23 h"))
    assert refusals(server) == []


async def test_what_is_known_is_shown_when_every_worker_is_down(
    scene: Scene, server: RedisServer, cli: CommandLine, guests: Guests
) -> None:
    await guests.leave()
    await scene.cluster.stop()
    _, servers = await Operator(cli, server.url).run("inspect servers")
    assert servers.count("offline") == 2
    assert "workers: 0" in await look(server, Wish("workers"), as_json=False)
    assert (await look(server, Wish("events"), as_json=False)).count("leave") == 2


async def test_a_row_that_a_dead_worker_left_behind_is_called_an_orphan(server: RedisServer, cli: CommandLine) -> None:
    row = Row("up", "gw-9-deadbeef", "gw-9-deadbeef.1", 1, epoch=1, name="Lamp\x1b[2J")
    with server.client() as client:
        client.flushall()
        client.hset("mcpgw:servers:{home}", "lamp", rows.dump(row))
        client.zadd("mcpgw:agents", {"home": 1})
    code, text = await Operator(cli, server.url).run("inspect servers")
    assert code == 0
    assert "orphan" in text
    assert "\x1b" not in text, "what peers call themselves can't steer the terminal"


async def test_watching_looks_again_and_again_until_ctrl_c_ends_it_quietly(
    scene: Scene, server: RedisServer, cli: CommandLine
) -> None:
    operator = Operator(cli, server.url)
    people = await operator.begin("inspect calls --watch 0.1")
    machine = await operator.begin("inspect calls --watch 0.1 --json")
    await people.until("slow", count=2)
    await machine.until('"tool":"slow"', count=2)
    await scene.call.answer(text_result("done"))
    await people.until("calls in flight: 0")
    for started in (people, machine):
        assert await started.stop(signal.SIGINT) == 0
        assert "Traceback" not in started.text
    lines = [orjson.loads(line) for line in machine.text.splitlines()]
    assert len({line["time"] for line in lines}) == len(lines) > 1


async def test_watching_goes_on_after_redis_was_away(own_server: RedisServer, cli: CommandLine) -> None:
    grant(own_server)
    started = await Operator(cli, own_server.url).begin("inspect workers --watch 0.1")
    await started.until("workers: 0")
    own_server.stop()
    await started.until("! .*can't be reached|! .*无法连接")
    own_server.start()
    grant(own_server)
    seen = started.text.count("workers: 0")
    await started.until("workers: 0", count=seen + 1)
    assert await started.stop(signal.SIGINT) == 0


async def test_thousands_of_agents_are_read_and_what_is_left_out_is_said(server: RedisServer, cli: CommandLine) -> None:
    row = rows.dump(Row("up", "gw-0-5b1f09aa", "gw-0-5b1f09aa.1", 1, epoch=1, name="Lamp", tools=1))
    with server.client() as client:
        client.flushall()
        pipeline = client.pipeline(transaction=False)
        for number in range(3000):
            pipeline.zadd("mcpgw:agents", {f"agent-{number}": number + 1})
            pipeline.hset(f"mcpgw:servers:{{agent-{number}}}", "lamp", row)
        pipeline.execute()
    code, text = await Operator(cli, server.url).run("inspect agents --limit 10")
    assert code == 0
    assert "agent-2999" in text
    assert "agent-2989" not in text
    assert "--limit" in text
    told = orjson.loads(await look(server, Wish("agents", limit=5000)))
    assert len(told["agents"]) == 3000
    assert told["truncated"] is False


async def test_a_terminal_is_never_overflown(scene: Scene, server: RedisServer, cli: CommandLine) -> None:
    _, text = await Operator(cli, server.url).run("inspect servers", COLUMNS="60")
    lines = text.splitlines()
    assert max(map(cells, lines[2:])) <= 60
    assert "…" in text


async def test_without_redis_it_says_where_to_look_instead(cli: CommandLine) -> None:
    answer = await asyncio.to_thread(cli.run, "inspect", "workers")
    assert answer.returncode == 2
    assert answer.stdout == ""
    for word in ("GATEWAY_REDIS_URL", "--redis-url", "/mcp_endpoint/health", "/mcp_endpoint/status"):
        assert word in answer.stderr


async def test_an_agent_that_nobody_knows_is_said_to_be_unknown(server: RedisServer, cli: CommandLine) -> None:
    code, text = await Operator(cli, server.url).run("inspect agent nobody")
    assert code == 2
    assert "agent nobody is not known" in text


async def test_a_redis_that_is_away_is_told_with_the_cure_and_without_the_password(cli: CommandLine) -> None:
    with running(next(iter(engines().values()))) as gone:
        url = gone.url
    code, text = await Operator(cli, url).run("inspect workers")
    assert code == 2
    assert "can't be reached" in text
    assert "PASSWORD" not in text


async def test_a_right_that_is_missing_is_named(server: RedisServer, cli: CommandLine) -> None:
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "blind", "reset", "on", ">PASSWORD", "~mcpgw:*", "+@connection")
    code, text = await Operator(cli, server.url, "blind").run("inspect workers")
    assert code == 2
    assert "no right to ZREVRANGE" in text


async def test_the_url_can_be_given_by_hand_and_the_prefix_is_the_gateways(
    server: RedisServer, cli: CommandLine
) -> None:
    with server.client() as client:
        client.flushall()
        client.execute_command("ACL", "SETUSER", "operator", "~other:*")
        client.zadd("other:agents", {"elsewhere": 5})
    url = as_user(server.url, "operator")
    asked = ("inspect", "agents", "--redis-url", url)
    answer = await asyncio.to_thread(cli.run, *asked, GATEWAY_REDIS_PREFIX="other:")
    assert answer.returncode == 0, answer.stderr
    assert "elsewhere" in answer.stdout
