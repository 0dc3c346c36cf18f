"""`mcp-gateway inspect` of a store that is large, or that a hand has written to: what is left out is said."""

import asyncio
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from gateway.backplane import rows
from gateway.backplane.base import RobotRow, WorkerRow
from gateway.directory import Claim, Row
from gateway.inspecting import Terminal, inspect
from gateway.look import Wish
from gateway.operating import CannotOperate
from tests.support.redis_server import RedisServer
from tests.support.running import settings
from tests.support.waiting import wait_until

MANY = 12
WORKER = "gw-0-5b1f09aa"
TOOLSET = "t" * 32


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[Any]:
    with redis_server.client() as client:
        client.flushall()
        yield client


async def look(server: RedisServer, wish: Wish, *, as_json: bool = True) -> str:
    written: list[str] = []
    terminal = Terminal(written.append, written.append)
    await inspect(settings(redis_url=server.url), wish, terminal, as_json=as_json, watch_seconds=0)
    return "".join(written)


async def told(server: RedisServer, wish: Wish) -> dict[str, Any]:
    answer: dict[str, Any] = orjson.loads(await look(server, wish))
    return answer


def plant_many(client: Any) -> None:
    """A dozen of everything; the agents that changed last have a robot each and no tool server."""
    for at in range(MANY):
        name = f"gw-{at}-00000000"
        client.hset(f"mcpgw:worker:{{{name}}}", mapping=rows.dump_worker(WorkerRow("host", 1, "1", 1)))
        client.zadd("mcpgw:workers", {name: at + 1})
        client.zadd("mcpgw:agents", {f"served-{at}": at + 1, f"spoken-{at}": 1000 + at})
        client.hset(f"mcpgw:servers:{{served-{at}}}", "lamp", rows.dump(Row("up", WORKER, f"{WORKER}.{at}", 1)))
        client.hset(f"mcpgw:robots:{{spoken-{at}}}", f"{WORKER}.r{at}", rows.dump(RobotRow(WORKER, "robot", 1)))
        client.hset("mcpgw:names:{served-0}", f"on_{at}", rows.dump(Claim("lamp", "on", 1, 0)))
        client.xadd("mcpgw:events", {"kind": "join", "agent": "served-0" if at == 0 else "other"})
        record = {"state": "sent", "agent": "served-0" if at == MANY - 1 else "other", "tool": "on", "sent": at}
        client.hset(f"mcpgw:call:{{{name}}}:c-{at}", mapping=record)
        client.zadd("mcpgw:inflight:{gw-0-00000000}", {f"c-{at}": at + 1})
        client.hset(f"mcpgw:call:{{gw-0-00000000}}:c-{at}", mapping=record)


NOUNS = ("workers", "agents", "servers", "robots", "tools", "calls", "events")


@pytest.mark.parametrize("noun", NOUNS)
async def test_what_a_limit_leaves_out_is_said_and_nothing_else_is(
    client: Any, redis_server: RedisServer, noun: str
) -> None:
    plant_many(client)
    there = 2 * MANY if noun == "agents" else MANY
    agent = "served-0" if noun == "tools" else ""
    cut = await told(redis_server, Wish(noun, agent, limit=there - 1))
    assert (len(cut[noun]), cut["truncated"]) == (there - 1, True)
    assert "--limit" in await look(redis_server, Wish(noun, agent, limit=there - 1), as_json=False)
    whole = await told(redis_server, Wish(noun, agent, limit=there))
    assert (len(whole[noun]), whole["truncated"]) == (there, False)


@pytest.mark.parametrize("noun", ["calls", "events"])
async def test_one_agents_are_found_behind_any_number_of_others(
    client: Any, redis_server: RedisServer, noun: str
) -> None:
    plant_many(client)
    for _ in range(50):
        client.xadd("mcpgw:events", {"kind": "join", "agent": "other"})
    answer = await told(redis_server, Wish(noun, agent="served-0", limit=1))
    assert [one["agent"] for one in answer[noun]] == ["served-0"]
    assert answer["truncated"] is False


async def test_numbers_that_no_gateway_writes_are_borne(client: Any, redis_server: RedisServer) -> None:
    client.zadd("mcpgw:workers", {WORKER: "inf"})
    client.zadd("mcpgw:agents", {"home": "inf", "other": "-inf"})
    client.zadd(f"mcpgw:inflight:{{{WORKER}}}", {"c-1": "inf"})
    client.hset(f"mcpgw:worker:{{{WORKER}}}", mapping={"pid": "9" * 40, "started_ms": "9" * 400, "beat": "9" * 5000})
    for noun in ("workers", "agents", "servers", "calls"):
        for as_json in (True, False):
            assert await look(redis_server, Wish(noun), as_json=as_json)


@pytest.mark.parametrize("text", [b"{nope", b"7", b"[1, 2]", b"[[]]", b"\xff"])
async def test_a_list_of_tools_that_is_none_leaves_the_names_readable(
    client: Any, redis_server: RedisServer, text: bytes
) -> None:
    client.hset("mcpgw:servers:{home}", "lamp", rows.dump(Row("up", WORKER, f"{WORKER}.1", 1, toolset=TOOLSET)))
    client.hset("mcpgw:names:{home}", "lamp_on", rows.dump(Claim("lamp", "on", 1, 0)))
    client.set(f"mcpgw:toolset:{TOOLSET}", text)
    [tool] = (await told(redis_server, Wish("tools", "home")))["tools"]
    assert (tool["listed_as"], tool["description"]) == ("lamp_on", None)


async def test_a_key_of_the_wrong_type_is_named(client: Any, redis_server: RedisServer) -> None:
    client.set("mcpgw:servers:{home}", "1")
    client.zadd("mcpgw:agents", {"home": 1})
    with pytest.raises(CannotOperate, match=r"WRONGTYPE.*mcpgw:servers:\{home\}"):
        await look(redis_server, Wish("servers"))


async def test_watching_an_agent_goes_on_where_the_store_was_emptied(client: Any, redis_server: RedisServer) -> None:
    def plant() -> None:
        client.hset("mcpgw:servers:{home}", "lamp", rows.dump(Row("up", WORKER, f"{WORKER}.1", 1)))

    plant()
    shown: list[str] = []
    warned: list[str] = []
    watch = inspect(
        settings(redis_url=redis_server.url),
        Wish("agent", "home"),
        Terminal(shown.append, warned.append),
        as_json=True,
        watch_seconds=0.02,
    )
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(watch)
        await wait_until(lambda: shown, "a look")
        client.flushall()
        await wait_until(lambda: warned, "nobody knows it")
        plant()
        seen = len(shown)
        await wait_until(lambda: len(shown) > seen, "it is there again")
        watching.cancel()
    assert "agent home is not known" in warned[0]
