"""A Redis Cluster: slots move, nodes die, and only what is there is concerned."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from gateway.backplane.base import BackplaneUnavailable, Change, Verdict
from gateway.backplane.envelope import Envelope
from gateway.backplane.keys import Keys, agent_tag
from gateway.backplane.redis import RedisBackplane, RedisOptions
from gateway.backplane.redis.address import Node
from gateway.backplane.redis.slots import SLOTS, Slots, read_slots, slot_of
from tests.backplane.cluster import Ear, Seat, kept_without_end, seated
from tests.support.redis_cluster import ClusterNode, ServerCluster
from tests.support.redis_server import engines
from tests.support.tls import make_certificate
from tests.support.waiting import wait_until

PROGRAM = next(iter(engines().values()))
MAILBOX = Keys().mailbox("w")
HERE, THERE, OTHER, THIRD = Node("here", 1), Node("there", 2), Node("other", 3), Node("third", 3)
# Of their own accord the workers would look only after an hour.
ONLY_WHEN_TOLD = RedisOptions(topology_seconds=3600.0)


@pytest.fixture(scope="module")
def spread() -> Iterator[ServerCluster]:
    """Three nodes; which of them has which slot does not matter to the tests."""
    with ServerCluster(PROGRAM) as servers:
        yield servers


@asynccontextmanager
async def two_workers(
    servers: ServerCluster, options: RedisOptions | None = None
) -> AsyncGenerator[tuple[Seat, Seat], None]:
    servers.flushall()
    before = [times_asked(node) for node in servers.primaries]
    async with seated(RedisBackplane(servers.url, "v", options), RedisBackplane(servers.url, "w", options)) as (v, w):
        await wait_until(
            lambda: all(times_asked(node) >= at + 2 for node, at in zip(servers.primaries, before, strict=True)),
            "both have asked every node once",
        )
        yield v, w
    for node in servers.primaries:
        with node.client() as client:
            assert kept_without_end(client, Keys().is_durable) == []


def times_asked(node: ClusterNode) -> int:
    """How often a client asked it for the slots, the test's own included."""
    with node.client() as client:
        return int(client.info("commandstats").get("cmdstat_cluster|slots", {"calls": 0})["calls"])


def another(servers: ServerCluster, owner: ClusterNode) -> ClusterNode:
    return next(node for node in servers.primaries if node is not owner)


def agent_on(servers: ServerCluster, node: ClusterNode) -> str:
    """An agent whose keys are there."""
    return next(f"a{at}" for at in range(1000) if servers.slot_owner(f"mcpgw:rev:{{a{at}}}") is node)


async def until_dispatched(v: Seat, w: Seat, name: str, seconds: float = 10.0) -> Counter[Verdict]:
    """Dispatch until a call has arrived; what became of all."""
    verdicts: Counter[Verdict] = Counter()

    async def is_taken() -> bool:
        call_id = f"{name}-{verdicts.total()}"
        (verdict,) = await v.dispatch("w", call_id)
        verdicts[verdict] += 1
        if verdict is Verdict.GONE:
            await w.beat()
        return verdict is Verdict.OK

    await wait_until(is_taken, "calls are taken", seconds)
    await wait_until(lambda: f"{name}-{verdicts.total() - 1}" in w.ear.ids, "it arrives")
    return verdicts


# -- what nodes say


def test_a_view_of_the_slots_is_read_in_both_forms() -> None:
    slots = [[0, 5, [b"10.0.0.1", 7000, b"id", []], [b"10.0.0.2", 7000, b"id", []]], [6, 9, [b"", 7001, b"id"]]]
    shards = [
        [b"slots", [0, 5], b"nodes", [_member(b"10.0.0.2", 7000, b"replica"), _member(b"10.0.0.1", 7000, b"master")]],
        [b"slots", [6, 9], b"nodes", [_member(b"", 7001, b"master")]],
        [b"slots", [], b"nodes", [_member(b"10.0.0.9", 7000, b"master")]],
    ]
    expected = {(0, 5): Node("10.0.0.1", 7000), (6, 9): Node("asked", 7001)}
    assert read_slots(slots, Node("asked", 1)) == read_slots(shards, Node("asked", 1)) == expected


def _member(host: bytes, port: int, role: bytes) -> list[object]:
    return [b"id", b"x", b"port", port, b"ip", host, b"endpoint", host, b"role", role, b"health", b"online"]


@pytest.mark.parametrize("reply", [None, b"OK", 3, [b"x"], [[1]], [[b"slots"]], [[0, 5, [b"h"]]]])
def test_what_is_no_view_is_refused(reply: object) -> None:
    with pytest.raises(ValueError, match="no list of slots"):
        read_slots(reply, HERE)


@pytest.mark.parametrize(
    ("said", "believed"),
    [
        ([], None),
        ([(OTHER, {})], None),
        ([(OTHER, {(0, 5): HERE})], HERE),
        ([(OTHER, {(0, 5): HERE}), (THERE, {(0, 5): THERE}), (HERE, {(0, 5): THERE})], THERE),
        ([(OTHER, {(0, 5): HERE}), (THERE, {(0, 5): THERE})], THERE),
        ([(HERE, {(0, 5): HERE}), (OTHER, {(0, 5): THERE}), (THERE, {(0, 5): THERE})], THERE),
        ([(OTHER, {(0, 5): HERE}), (THIRD, {(0, 5): THERE}), (Node("fourth", 4), {(0, 5): THERE})], THERE),
        ([(OTHER, {(6, 9): OTHER}), (THERE, {(0, 5): THERE, (6, 9): OTHER})], THERE),
    ],
)
def test_who_says_that_a_slot_is_its_own_is_believed_then_the_majority(
    said: list[tuple[Node, dict[tuple[int, int], Node]]], believed: Node | None
) -> None:
    slots = Slots()
    assert slots.take(said) is (believed is not None)
    assert slots.at(3) == believed


def test_slots_change_one_by_one_or_all() -> None:
    slots = Slots()
    assert slots.take([(HERE, {(0, SLOTS - 1): HERE})])
    assert not slots.take([(HERE, {(0, 99): HERE, (100, SLOTS - 1): HERE})])
    assert slots.move(7, THERE)
    assert not slots.move(7, THERE)
    assert (slots.at(6), slots.at(7), slots.nodes) == (HERE, THERE, {HERE, THERE})
    assert slot_of("mcpgw:in:{w}") == slot_of(b"mcpgw:worker:{w}")


# -- slots that move


async def test_a_moved_slot_takes_its_subscription_along(spread: ServerCluster) -> None:
    async with two_workers(spread, ONLY_WHEN_TOLD) as (v, w):
        owner = spread.slot_owner(MAILBOX)
        await asyncio.to_thread(spread.move_slot, spread.slot_of(MAILBOX), another(spread, owner))
        verdicts = await until_dispatched(v, w, "moved")
        assert set(verdicts) <= {Verdict.OK, Verdict.NOSUB}
        await wait_until(lambda: w.ear.gaps >= 1, "that was a gap for who was subscribed")
        assert not await w.beat()
        assert v.ear.gaps == 0


async def test_a_moved_slot_of_an_agent_is_followed(spread: ServerCluster) -> None:
    async with two_workers(spread, ONLY_WHEN_TOLD) as (v, w):
        await w.backplane.watch("a")
        first = await v.backplane.commit("a", 0, Change({"s": v.row()}))
        assert first is not None
        channel = "mcpgw:catalog:{a}"
        to = another(spread, spread.slot_owner(channel))
        await asyncio.to_thread(spread.move_slot, spread.slot_of(channel), to)
        await wait_until(lambda: to.ask("PUBSUB", "SHARDNUMSUB", channel)[1] == 1, "it is subscribed there")
        await wait_until(lambda: w.ear.gaps >= 1, "that was a gap")
        second = await v.backplane.commit("a", first, Change({"s": None}))
        await wait_until(lambda: w.ear.catalogs == [("a", first), ("a", second)], "the change is heard from there")


@contextmanager
def moving(servers: ServerCluster, key: str) -> Iterator[None]:
    """The key's slot is on its way for the length of the block; what is not at its old place is at its new one."""
    slot = servers.slot_of(key)
    to = another(servers, servers.owner(slot))
    source = servers.begin_move(slot, to)
    try:
        yield
    finally:
        servers.finish_move(slot, source, to)


async def test_what_is_not_at_the_old_place_is_asked_for_at_the_new_one(spread: ServerCluster) -> None:
    async with two_workers(spread) as (v, w):
        with moving(spread, "mcpgw:toolset:d"):
            await v.backplane.put_toolsets({"d": b"[]"})
            assert await w.backplane.toolsets(["d", "e"]) == {"d": b"[]"}
        assert await w.backplane.toolsets(["d"]) == {"d": b"[]"}


async def test_calls_during_a_move_are_refused_and_not_delivered(spread: ServerCluster) -> None:
    async with two_workers(spread, RedisOptions(patience_seconds=0.3)) as (v, w):
        with moving(spread, MAILBOX):
            # The lease is at the old place, the record would be at the new one: no script can do both.
            assert await v.dispatch("w", "1") == [Verdict.REFUSED]
        assert await until_dispatched(v, w, "after")
        assert "1" not in w.ear.ids


async def test_a_call_waits_for_a_move_that_ends_soon(spread: ServerCluster) -> None:
    async with two_workers(spread, RedisOptions(patience_seconds=10.0)) as (v, w):
        with moving(spread, Keys().revision(agent_tag("a"))):
            committing = asyncio.ensure_future(v.backplane.commit("a", 0, Change({"s": v.row()})))
            await asyncio.sleep(0.2)
            assert not committing.done()
        revision = await committing
        assert (await w.snapshot("a")).revision == revision


# -- nodes that are lost


async def test_a_lost_node_concerns_only_its_own_slots(spread: ServerCluster) -> None:
    options = RedisOptions(timeout_seconds=0.5, patience_seconds=0.3)
    async with two_workers(spread, options) as (v, _):
        home = spread.slot_owner(MAILBOX)
        lost = next(node for node in spread.primaries if node not in (home, spread.slot_owner(Keys().worker("v"))))
        here, there = agent_on(spread, home), agent_on(spread, lost)
        lost.freeze()
        try:
            with pytest.raises(BackplaneUnavailable, match=str(lost.port)):
                await v.snapshot(there)
            assert (await v.snapshot(here)).revision == 0
            assert await v.dispatch("w", "1") == [Verdict.OK]
            assert v.backplane.is_connected
            assert str(lost.port) in v.backplane.trouble
        finally:
            lost.thaw()
        spread.until_ok()

        async def is_back() -> bool:
            try:
                return (await v.snapshot(there)).revision == 0
            except BackplaneUnavailable:
                return False

        await wait_until(is_back, "it is back", 10.0)
        await wait_until(lambda: v.ear.gaps >= 1, "that was a gap")
        await wait_until(lambda: not v.backplane.trouble, "nothing is wrong any more")


async def test_a_killed_node_is_followed_by_its_replica() -> None:
    with ServerCluster(PROGRAM, nodes=3, replicas=1) as servers:
        async with two_workers(servers) as (v, w):
            await w.backplane.watch("a")
            gaps = w.ear.gaps
            servers.kill(servers.slot_owner(MAILBOX))
            await until_dispatched(v, w, "after")
            await wait_until(lambda: w.ear.gaps > gaps, "that was a gap")
            assert w.ear.gaps <= 4
            revision = await v.backplane.commit("a", (await v.snapshot("a")).revision, Change({"s": v.row()}))
            await wait_until(partial(_has_heard, w, revision), "what was watched is watched")


def _has_heard(seat: Seat, revision: int | None) -> bool:
    return ("a", revision) in seat.ear.catalogs


async def test_what_waits_for_a_dead_or_frozen_node_goes_to_its_replica() -> None:
    # Nothing but the other nodes' word tells of a frozen one.
    options = RedisOptions(timeout_seconds=60.0, patience_seconds=60.0, ping_seconds=60.0, topology_seconds=0.2)
    with ServerCluster(PROGRAM, nodes=3, replicas=1, node_timeout_ms=500) as servers:
        async with two_workers(servers, options) as (v, w):
            dead = servers.slot_owner("mcpgw:rev:{a}")
            frozen = next(node for node in servers.primaries if node is not dead)
            agent = agent_on(servers, frozen)
            servers.kill(dead)
            revision = await v.backplane.commit("a", 0, Change({"s": v.row()}))
            assert (await w.snapshot("a")).revision == revision
            await asyncio.to_thread(servers.until_ok)
            frozen.freeze()
            async with asyncio.timeout(30.0):
                assert (await v.snapshot(agent)).revision == 0
            frozen.thaw()


async def test_one_node_is_enough_to_find_the_others(spread: ServerCluster) -> None:
    port = spread.nodes[0].port
    spread.flushall()
    url = f"redis+cluster://127.0.0.1:1,127.0.0.1:{port}"
    async with seated(RedisBackplane(url, "v"), RedisBackplane(spread.url, "w")) as (v, _):
        assert await v.dispatch("w", "1") == [Verdict.OK]
        async with asyncio.TaskGroup() as tasks:
            for at in range(50):
                tasks.create_task(v.snapshot(f"a{at}"))


async def test_each_node_has_one_connection_and_another_where_something_is_heard(spread: ServerCluster) -> None:
    async with seated(RedisBackplane(spread.url, "w")):
        heard_at = {spread.slot_owner(MAILBOX), spread.slot_owner(Keys().ctl)}
        for node in spread.primaries:
            names = ["mcpgw:w:cmd", "mcpgw:w:sub"] if node in heard_at else ["mcpgw:w:cmd"]
            await wait_until(partial(_has_clients, node, names), f"exactly these: {names}")
    for node in spread.primaries:
        await wait_until(partial(_has_clients, node, []), "none is left")


def _has_clients(node: ClusterNode, names: list[str]) -> bool:
    with node.client() as client:
        return sorted(row["name"] for row in client.client_list() if row["name"].startswith("mcpgw")) == names


async def test_a_silent_subscription_in_a_cluster_is_found(spread: ServerCluster) -> None:
    async with two_workers(spread, replace(ONLY_WHEN_TOLD, probe_seconds=0.1)) as (v, w):
        with spread.slot_owner(MAILBOX).client() as client:
            client.client_kill_filter(_type="pubsub")
        await wait_until(lambda: w.ear.gaps >= 1, "the loss is noticed")
        assert await v.send("w", Envelope("probe", id="1")) == 1
        assert (await w.ear.next()).id == "1"


async def test_nobody_who_can_be_asked_is_told(spread: ServerCluster) -> None:
    with pytest.raises(BackplaneUnavailable, match=r"127\.0\.0\.1:1"):
        async with RedisBackplane("redis+cluster://127.0.0.1:1", "w").session(Ear()):
            pass
    with pytest.raises(BackplaneUnavailable, match="this is a Cluster"):
        async with RedisBackplane(f"redis://127.0.0.1:{spread.nodes[0].port}", "w").session(Ear()):
            pass


# -- TLS, passwords, rights

RIGHTS = "~mcpgw:* &mcpgw:* -@all +@read +@write +@pubsub +@scripting +@connection +time -@dangerous +cluster|slots"


async def test_passwords_and_tls_are_for_every_node(tmp_path: Path) -> None:
    with ServerCluster(PROGRAM, password="pw/redis", tls=make_certificate(tmp_path)) as own:
        async with two_workers(own) as (v, w):
            owner = own.slot_owner(MAILBOX)
            await asyncio.to_thread(own.move_slot, own.slot_of(MAILBOX), another(own, owner))
            await until_dispatched(v, w, "by-TLS")
        wrong = own.url.replace("pw%2Fredis", "pw-wrong")
        with pytest.raises(BackplaneUnavailable, match=r"(?i)password") as refused:
            async with RedisBackplane(wrong, "w").session(Ear()):
                pass
        assert "pw-" not in str(refused.value)


async def test_the_documented_rights_suffice_in_a_cluster(spread: ServerCluster) -> None:
    spread.flushall()
    for node in spread.nodes:
        with node.client() as client:
            client.execute_command(f"ACL SETUSER gateway reset on >pw {RIGHTS}")
    url = spread.url.replace("redis+cluster://", "redis+cluster://gateway:pw@")
    async with seated(RedisBackplane(url, "v"), RedisBackplane(url, "w")) as (v, w):
        await w.backplane.watch("a")
        revision = await v.backplane.commit("a", 0, Change({"s": v.row()}, toolsets={"d": b"[]"}))
        await wait_until(lambda: w.ear.catalogs == [("a", revision)], "the change is heard")
        assert await v.dispatch("w", "1") == [Verdict.OK]
        w.backplane.answer("v", Envelope("res", id="1"))
        assert (await v.ear.next()).id == "1"
        with moving(spread, "mcpgw:toolset:e"):
            await v.backplane.put_toolsets({"e": b"[]"})
        await v.backplane.leave()
        await wait_until(lambda: w.ear.envelopes and w.ear.envelopes[-1].type == "bye", "the farewell is heard")
