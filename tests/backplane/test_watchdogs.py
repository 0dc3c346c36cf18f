"""Nothing stays broken without being noticed: silent subscriptions, wrong servers, a link that was away."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from redis.exceptions import RedisError

from gateway.backplane.base import BackplaneUnavailable, Verdict
from gateway.backplane.envelope import Envelope
from gateway.backplane.redis import RedisBackplane, RedisOptions
from tests.backplane.cluster import BOUND_SECONDS, Cluster, Ear, RedisEngine, Seat, seated
from tests.backplane.proxy import Proxy, proxied
from tests.support.redis_server import RedisServer, engines, running
from tests.support.waiting import wait_until

QUICK = RedisOptions(timeout_seconds=0.5, patience_seconds=0.5, ping_seconds=0.1, probe_seconds=0.1)
NO_PROBE = replace(QUICK, probe_seconds=3600.0)
SLOW_PINGS = replace(QUICK, ping_seconds=3600.0, probe_seconds=0.1)


@pytest.fixture
def other_server() -> Iterator[RedisServer]:
    with running(next(iter(engines().values()))) as server:
        yield server


@asynccontextmanager
async def behind_proxy(
    redis_engine: RedisEngine, options: RedisOptions
) -> AsyncGenerator[tuple[Proxy, Seat, Seat], None]:
    """Worker `w` reaches Redis through a proxy, worker `v` directly."""
    async with proxied(redis_engine.server.port) as proxy:
        behind = RedisBackplane(f"redis://127.0.0.1:{proxy.port}", "w", options)
        async with seated(behind, redis_engine.backplane("v")) as (w, v):
            yield proxy, w, v


def _refusals(client: Any) -> int:
    return int(client.info("commandstats").get("cmdstat_publish", {}).get("rejected_calls", 0))


def commands(redis_engine: RedisEngine, name: str) -> int:
    stats = redis_engine.client.info("commandstats")
    return int(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"])


# -- a subscription that is silently dead


async def test_a_subscription_that_gets_no_messages_is_made_anew_though_pings_are_answered(
    redis_engine: RedisEngine,
) -> None:
    async with behind_proxy(redis_engine, QUICK) as (proxy, w, v):
        proxy.deafen()
        await v.send("w", Envelope("probe", id="lost"))
        await wait_until(lambda: w.ear.gaps == 1, "the silence is noticed")
        await v.send("w", Envelope("probe", id="heard"))
        assert (await w.ear.next()).id == "heard"
        assert w.backplane.meters.redis_probe_failures_total.of() == 1


async def test_without_the_probe_nobody_notices(redis_engine: RedisEngine) -> None:
    async with behind_proxy(redis_engine, NO_PROBE) as (proxy, w, v):
        proxy.deafen()
        await v.send("w", Envelope("probe", id="lost"))
        pings = commands(redis_engine, "ping")
        await wait_until(lambda: commands(redis_engine, "ping") > pings + 10, "pings are asked and answered")
        assert (w.ear.gaps, w.ear.ids) == (0, [])


async def test_a_subscription_at_quite_another_server_is_made_anew(
    redis_engine: RedisEngine, other_server: RedisServer
) -> None:
    async with behind_proxy(redis_engine, QUICK) as (proxy, w, v):
        proxy.target_port = other_server.port
        redis_engine.client.client_kill_filter(_type="pubsub")
        with other_server.client() as other:
            await wait_until(lambda: other.pubsub_channels(), "it is subscribed where nobody will call it")
        proxy.target_port = redis_engine.server.port
        await wait_until(lambda: redis_engine.client.pubsub_numsub("mcpgw:in:{w}")[0][1] == 1, "it has come back")
        assert await v.dispatch("w", "1") == [Verdict.OK]
        assert (await w.ear.next()).id == "1"


async def test_the_worker_does_not_hear_its_own_probes(redis_engine: RedisEngine) -> None:
    async with Cluster(RedisEngine("", redis_engine.server, redis_engine.client, QUICK))("w") as (w,):
        before = commands(redis_engine, "publish")
        await wait_until(lambda: commands(redis_engine, "publish") >= before + 3, "it probes itself")
        assert (w.ear.envelopes, w.ear.gaps) == ([], 0)


async def test_a_busy_mailbox_is_not_probed(redis_engine: RedisEngine) -> None:
    busy = RedisBackplane(redis_engine.server.url, "w", replace(QUICK, probe_seconds=0.8))
    async with seated(busy, RedisBackplane(redis_engine.server.url, "v", NO_PROBE)) as (w, v):
        before = commands(redis_engine, "publish")
        for at in range(75):
            await v.send("w", Envelope("probe", id=str(at)))
            await asyncio.sleep(0.02)
        await wait_until(lambda: len(w.ear.ids) == 75, "all have come")
        assert commands(redis_engine, "publish") - before == 75


async def test_a_long_message_on_a_slow_connection_is_life(redis_engine: RedisEngine) -> None:
    async with behind_proxy(redis_engine, QUICK) as (proxy, w, v):
        proxy.pause_seconds = 0.03
        await v.send("w", Envelope("note", id="long", body=b"x" * 4_000_000))
        assert len((await w.ear.next()).body) == 4_000_000
        assert w.ear.gaps == 0


async def test_a_probe_that_can_not_be_published_blames_the_link(own_server: RedisServer) -> None:
    async with seated(RedisBackplane(own_server.url, "w", QUICK)) as (w,):
        with own_server.client() as client:
            client.execute_command("ACL", "SETUSER", "default", "-publish")
            await wait_until(lambda: _refusals(client) > 5, "it is refused")
            client.execute_command("ACL", "SETUSER", "default", "+publish")
        assert w.ear.gaps == 0


# -- a command link that was away


async def test_a_lost_command_link_is_a_gap(redis_engine: RedisEngine) -> None:
    async with Cluster(redis_engine)("v", "w") as (v, w):
        redis_engine.client.client_kill_filter(_type="normal", skipme=True)
        await wait_until(lambda: v.ear.gaps == w.ear.gaps == 1, "both have noticed")


async def test_one_outage_of_both_connections_is_one_gap(own_server: RedisServer) -> None:
    async with seated(RedisBackplane(own_server.url, "w")) as (w,):
        for times in (1, 2):
            own_server.stop()
            await wait_until(lambda: not w.backplane.is_connected, "the loss is noticed")
            own_server.start()
            await wait_until(lambda: w.backplane.is_connected, "it is back")
            assert w.ear.gaps == times


async def test_the_gap_is_told_when_the_mailbox_is_subscribed_again(redis_engine: RedisEngine) -> None:
    async with Cluster(redis_engine)("w") as (w,):
        heard: list[bool] = []
        w.ear.on_gap = lambda: heard.append(w.backplane.is_connected)  # type: ignore[method-assign]
        redis_engine.client.client_kill_filter(_type="pubsub")
        redis_engine.client.client_kill_filter(_type="normal", skipme=True)
        await wait_until(lambda: heard, "a gap is told")
        assert all(heard)


# -- servers that are not the ones to ask


async def test_a_replica_is_refused_with_a_reason(own_server: RedisServer) -> None:
    with own_server.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        backplane = RedisBackplane(own_server.url, "w", QUICK)
        with pytest.raises(BackplaneUnavailable, match="this is a replica"):
            async with backplane.session(Ear()):
                pass
        client.execute_command("REPLICAOF", "NO", "ONE")
        async with seated(backplane) as (w,):
            assert await w.dispatch("w", "1") == [Verdict.OK]


async def test_a_link_to_what_became_a_replica_is_made_anew_and_nothing_is_delivered(own_server: RedisServer) -> None:
    async with seated(RedisBackplane(own_server.url, "v"), RedisBackplane(own_server.url, "w")) as (v, w):
        with own_server.client() as client:
            client.execute_command("REPLICAOF", "127.0.0.1", "1")
            assert await v.dispatch("w", "1", "2") == [Verdict.REFUSED, Verdict.REFUSED]
            await wait_until(lambda: "this is a replica" in v.backplane.trouble, "it has tried to connect anew")
            client.execute_command("REPLICAOF", "NO", "ONE")
        await wait_until(lambda: v.backplane.is_connected, "the link is up again")
        await wait_until(lambda: v.ear.gaps >= 1, "that was a gap")
        assert await v.dispatch("w", "3") == [Verdict.OK]
        assert [(await w.ear.next()).id] == w.ear.ids == ["3"]


async def test_a_replica_without_its_primary_delivers_nothing_and_is_left(own_server: RedisServer) -> None:
    async with seated(RedisBackplane(own_server.url, "v"), RedisBackplane(own_server.url, "w")) as (v, w):
        with own_server.client() as client:
            client.config_set("replica-serve-stale-data", "no")
            client.execute_command("REPLICAOF", "127.0.0.1", "1")
            assert await v.dispatch("w", "1") == [Verdict.REFUSED]
            await wait_until(lambda: not v.backplane.is_connected, "the link is dropped")
            client.execute_command("REPLICAOF", "NO", "ONE")
        await wait_until(lambda: v.backplane.is_connected, "the link is up again")
        assert w.ear.ids == []


async def test_an_answer_that_went_to_a_replica_is_given_again(own_server: RedisServer) -> None:
    async with seated(RedisBackplane(own_server.url, "v"), RedisBackplane(own_server.url, "w")) as (v, w):
        assert await v.dispatch("w", "1") == [Verdict.OK]
        with own_server.client() as client:
            client.execute_command("REPLICAOF", "127.0.0.1", "1")
            w.backplane.answer("v", Envelope("res", id="1", body=b"42"))
            await wait_until(lambda: "this is a replica" in w.backplane.trouble, "it has noticed")
            client.execute_command("REPLICAOF", "NO", "ONE")
        await wait_until(lambda: w.backplane.is_connected, "the link is up again")
        (record,) = await w.backplane.read([("w", "1")])
        assert record is not None
        assert record.state == "answered"
        await wait_until(lambda: {"1"} == set(v.ear.ids), "the answer has come")


async def test_a_server_that_is_loading_delivers_nothing_and_is_used_when_it_has_loaded(
    own_server: RedisServer, other_server: RedisServer
) -> None:
    with other_server.client() as primary, own_server.client() as client:
        with primary.pipeline() as many:
            for at in range(1000):
                many.set(f"k{at}", "x" * 1000, px=600_000)
            many.execute()
        primary.config_set("repl-diskless-sync-delay", "0")
        client.config_set("key-load-delay", "20000")
        client.config_set("loading-process-events-interval-bytes", "1024")
        async with seated(RedisBackplane(own_server.url, "v"), RedisBackplane(own_server.url, "w")) as (v, w):
            client.execute_command("REPLICAOF", "127.0.0.1", str(other_server.port))
            await wait_until(lambda: client.info("persistence")["loading"], "it is loading")
            assert await v.dispatch("w", "1") == [Verdict.REFUSED]
            await wait_until(lambda: not v.backplane.is_connected, "the link is dropped")
            client.config_set("key-load-delay", "0")
            await wait_until(lambda: not client.info("persistence")["loading"], "it has loaded")
            client.execute_command("REPLICAOF", "NO", "ONE")
            await wait_until(lambda: v.backplane.is_connected and w.backplane.is_connected, "it is used again")
            assert w.ear.ids == []


@pytest.mark.parametrize("answer", ["-NOREPLICAS not enough good replicas", "-BUSY running a script"])
async def test_other_refusals_cost_no_connection(own_server: RedisServer, answer: str) -> None:
    async with seated(RedisBackplane(own_server.url, "v"), RedisBackplane(own_server.url, "w")) as (v, w):
        with own_server.client() as client:
            if "NOREPLICAS" in answer:
                client.config_set("min-replicas-to-write", "1")
                assert await v.dispatch("w", "1") == [Verdict.REFUSED]
                client.config_set("min-replicas-to-write", "0")
            else:
                client.config_set("busy-reply-threshold", "50")
                spinning = asyncio.ensure_future(asyncio.to_thread(_spin, own_server))
                await wait_until(lambda: _is_busy(own_server), "a script runs for ever")
                assert await v.dispatch("w", "1") == [Verdict.REFUSED]
                client.execute_command("SCRIPT", "KILL")
                await spinning
        async with asyncio.timeout(BOUND_SECONDS):
            assert await v.dispatch("w", "2") == [Verdict.OK]
        assert [(await w.ear.next()).id] == w.ear.ids == ["2"]
        assert (v.ear.gaps, w.ear.gaps) == (0, 0)


def _spin(server: RedisServer) -> None:
    with server.client() as client, pytest.raises(Exception, match="killed"):
        client.eval("while true do end", 0)


def _is_busy(server: RedisServer) -> bool:
    with server.client() as client:
        try:
            client.get("x")
        except RedisError as error:
            return "BUSY" in str(error)
    return False


async def test_an_ordinary_server_is_no_cluster_and_says_so(redis_engine: RedisEngine) -> None:
    backplane = RedisBackplane(f"redis+cluster://127.0.0.1:{redis_engine.server.port}", "w", QUICK)
    with pytest.raises(BackplaneUnavailable, match="this is an ordinary server"):
        async with backplane.session(Ear()):
            pass


# -- one envelope's trouble


async def test_an_envelope_that_can_not_be_handled_does_not_take_its_neighbours_along(
    redis_engine: RedisEngine,
) -> None:
    async with Cluster(redis_engine)("v", "w") as (v, w):
        hear = w.ear.on_envelope

        def hear_but_one(envelope: Envelope) -> None:
            if envelope.id == "2":
                raise ValueError("bad")
            hear(envelope)

        w.ear.on_envelope = hear_but_one  # type: ignore[method-assign]
        assert await v.dispatch("w", "1", "2", "3") == [Verdict.OK] * 3
        assert [(await w.ear.next()).id for _ in range(2)] == ["1", "3"]


async def test_what_came_before_garbage_is_heard(redis_engine: RedisEngine) -> None:
    async with Cluster(redis_engine)("w") as (w,):
        redis_engine.client.publish("mcpgw:in:{w}", b'{"v":1,"t":"probe","id":"1","len":0}\ngarbage')
        assert (await w.ear.next()).id == "1"
