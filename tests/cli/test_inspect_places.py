"""`mcp-gateway inspect` wherever Redis may be: on a Unix socket, behind Sentinels and TLS, in a Cluster that moves."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import orjson
import pytest

from gateway.backplane.redis import address as addresses
from gateway.backplane.redis import probe_topology
from gateway.backplane.redis.address import Node
from gateway.backplane.redis.probe_server import Server
from gateway.backplane.redis.reading import reading
from gateway.backplane.redis.window import Window
from gateway.inspecting import Terminal, inspect
from gateway.look import Wish
from gateway.operating import CannotOperate
from tests.cli.operators import as_user, grant
from tests.support.redis_cluster import ServerCluster
from tests.support.redis_sentinel import SentinelSet
from tests.support.redis_server import RedisServer, engines
from tests.support.running import settings
from tests.support.tls import make_certificate

PROGRAM = next(iter(engines().values()))


async def seen(url: str) -> list[str]:
    """The agents that are shown."""
    written: list[str] = []
    terminal = Terminal(written.append, written.append)
    wish = Wish("agents")
    await inspect(settings(redis_url=url), wish, terminal, as_json=True, watch_seconds=0)
    return [agent["agent"] for agent in orjson.loads("".join(written))["agents"]]


def put(execute: Callable[..., object]) -> None:
    execute("ZADD", "mcpgw:agents", "1", "somebody")


async def test_on_a_unix_socket(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.flushall()
        put(client.execute_command)
    assert await seen(redis_server.unix_url) == ["somebody"]


async def test_behind_sentinels_and_tls_with_a_user_of_ones_own(tmp_path: Path) -> None:
    with SentinelSet(PROGRAM, tls=make_certificate(tmp_path)) as servers:
        grant(*servers.servers)
        with servers.primary.client() as client:
            put(client.execute_command)
        assert await seen(as_user(servers.url, "operator")) == ["somebody"]


@pytest.mark.parametrize(
    ("scheme", "tail", "words"),
    [
        ("redis+sentinel", "/mymaster", ("no Sentinel knows a primary", "this is no Sentinel", "26379")),
        ("redis+cluster", "", ("no node can be reached", "username-password", "percent-encode")),
    ],
)
async def test_what_none_of_several_servers_can_do_is_told_with_what_each_has_said(
    redis_server: RedisServer, scheme: str, tail: str, words: tuple[str, ...]
) -> None:
    user = "" if tail else "nobody:secret@"
    with pytest.raises(CannotOperate) as caught:
        await seen(f"{scheme}://{user}{redis_server.address}{tail}")
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "secret" not in str(caught.value)


async def test_in_a_cluster_with_tls_also_where_a_slot_moves(tmp_path: Path) -> None:
    with ServerCluster(PROGRAM, nodes=2, tls=make_certificate(tmp_path)) as servers:
        grant(*servers.nodes, also="+cluster|slots +cluster|info")
        owner = servers.slot_owner("mcpgw:agents")
        put(owner.ask)
        other = next(node for node in servers.nodes if node is not owner)
        url = as_user(servers.url, "operator")
        async with reading(url, 2.0) as reader:
            window = Window(reader, "mcpgw:")
            assert [agent.id for agent in await window.agents(10)] == ["somebody"]
            await asyncio.to_thread(servers.move_slot, servers.slot_of("mcpgw:agents"), other)
            assert [agent.id for agent in await window.agents(10)] == ["somebody"]


async def test_the_url_of_another_kind_of_redis_is_named_with_the_right_one(redis_server: RedisServer) -> None:
    with pytest.raises(CannotOperate, match="use redis://"):
        await seen(redis_server.url.replace("redis://", "redis+cluster://"))


async def test_a_sentinel_that_was_cut_off_leads_nobody_to_the_old_primary() -> None:
    address = addresses.parse("redis+sentinel://a,b,c/mymaster")
    old, new = Node("old", 6379), Node("new", 6379)
    land = probe_topology.Landscape()
    async with AsyncExitStack() as stack:
        words = [
            probe_topology._Word(Server(address, node, 1.0, is_sentinel=True), primary=primary, epoch=epoch)
            for node, primary, epoch in zip(address.nodes, (old, old, new), (4, 4, 5), strict=True)
        ]
        probe_topology._name_servers(land, words, address, 1.0, stack)
    assert [str(member.server.node) for member in land.members if member.is_primary] == ["new:6379"]
