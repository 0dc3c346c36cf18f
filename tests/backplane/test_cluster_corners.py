"""Corners of a Redis Cluster: two redirections at once, everything moved at once, a node of others that is away.

The nodes never count each other out here: what can be reached is for the test alone to say.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from gateway.backplane.base import BackplaneUnavailable, Change, Dispatch, Verdict
from gateway.backplane.envelope import Envelope, encode
from gateway.backplane.keys import Keys, agent_tag
from gateway.backplane.redis import RedisBackplane, RedisOptions
from gateway.backplane.redis.address import Node
from gateway.backplane.redis.cluster_link import ClusterLink
from gateway.backplane.redis.commands import Command, Unsent
from gateway.backplane.redis.connector import Connector
from gateway.backplane.redis.outbox import Outbox
from gateway.backplane.redis.slots import Slots, slot_of
from gateway.backplane.redis.topology import Topology
from tests.backplane.cluster import BOUND_SECONDS, WORKER_ROW, Ear, seated
from tests.support.redis_cluster import ClusterNode, ServerCluster
from tests.support.redis_server import engines
from tests.support.toxics import Toxics
from tests.support.waiting import wait_until

PROGRAM = next(iter(engines().values()))
KEYS = Keys()
# Of their own accord the workers would look for the slots only after an hour.
ONLY_WHEN_TOLD = RedisOptions(topology_seconds=3600.0)
QUICK = RedisOptions(timeout_seconds=0.5, patience_seconds=0.3)


@pytest.fixture(scope="module")
def spread() -> Iterator[ServerCluster]:
    """Three nodes, each of which goes on without the others."""
    with ServerCluster(PROGRAM, node_timeout_ms=15_000, options=("--cluster-require-full-coverage", "no")) as servers:
        yield servers


@asynccontextmanager
async def connected(
    servers: ServerCluster, home: str, *, timeout_seconds: float = 2.0, patience_seconds: float = 2.0
) -> AsyncGenerator[tuple[ClusterLink, Topology], None]:
    """A link to every node."""
    connector = Connector(servers.url, "test", timeout_seconds)
    topology = Topology(connector, poll_seconds=3600.0)
    link = ClusterLink(connector, topology, home, patience_seconds=patience_seconds)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(link.run())
        await wait_until(link.tried.is_set, "every node has been tried")
        yield link, topology
        running.cancel()


@contextmanager
def frozen(*nodes: ClusterNode) -> Iterator[None]:
    """They don't answer for the length of the block."""
    for node in nodes:
        node.freeze()
    try:
        yield
    finally:
        for node in nodes:
            node.thaw()


@contextmanager
def moving(servers: ServerCluster, slot: int, to: ClusterNode) -> Iterator[None]:
    """The slot is on its way for the length of the block."""
    source = servers.begin_move(slot, to)
    try:
        yield
    finally:
        servers.finish_move(slot, source, to)


def move_at_once(servers: ServerCluster, source: ClusterNode, to: ClusterNode, *keys: str) -> None:
    """The source gives all these slots away in one breath."""
    slots = [servers.slot_of(key) for key in keys]
    for slot in slots:
        servers.begin_move(slot, to)
        while there := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 100):
            source.ask("MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "REPLACE", "KEYS", *there)
    for node in (to, source):
        with node.client() as client, client.pipeline(transaction=True) as together:
            for slot in slots:
                together.execute_command("CLUSTER", "SETSLOT", slot, "NODE", to.id)
            together.execute()
    servers.until_ok()


def another(servers: ServerCluster, *taken: ClusterNode) -> ClusterNode:
    return next(node for node in servers.primaries if node not in taken)


def place(node: ClusterNode) -> Node:
    return Node("127.0.0.1", node.port)


def keys_on(topology: Topology, node: ClusterNode, count: int = 1) -> list[str]:
    """So many keys of different slots that are there."""
    found = {slot_of(key): key for key in (f"k{at}" for at in range(1000)) if topology.slots.of(key) == place(node)}
    return list(found.values())[:count]


async def who_answers(topology: Topology) -> set[Node]:
    """Who says anything when all nodes are asked for the slots."""
    return {node for node, _ in await topology.ask_connected()}


async def nobody() -> list[tuple[Node, Any]]:
    return []


def worker_beside(servers: ServerCluster, *nodes: ClusterNode) -> str:
    """A worker whose keys are on none of these nodes."""
    return next(f"w{at}" for at in range(100) if servers.slot_owner(KEYS.worker(f"w{at}")) not in nodes)


# -- redirections


async def test_commands_sent_elsewhere_for_once_and_for_good_in_one_batch_are_all_answered(
    spread: ServerCluster,
) -> None:
    source, to, *_ = spread.primaries
    async with connected(spread, "home") as (link, topology):
        for_once, for_good = keys_on(topology, source, 2)
        with moving(spread, slot_of(for_once), to):
            with to.client() as client, client.pipeline(transaction=False) as both:
                both.execute_command("ASKING")
                both.set(for_once, "there", px=60_000)
                both.execute()
            await asyncio.to_thread(spread.move_slot, slot_of(for_good), to)
            async with asyncio.timeout(BOUND_SECONDS):
                commands = (Command(("GET", key), is_repeatable=True) for key in (for_once, for_good))
                assert await link.call(*commands) == [b"there", None]


async def test_a_question_to_one_node_is_not_put_to_another_when_slots_move(spread: ServerCluster) -> None:
    async with connected(spread, "home") as (link, topology):
        away = another(spread, spread.slot_owner("SLOTS"))
        others = [node for node in spread.primaries if node is not away]
        (here,), (there,) = keys_on(topology, away), keys_on(topology, others[0])
        with frozen(away):
            link.enqueue(Command(("GET", here), is_repeatable=True))
            await asyncio.sleep(0.05)  # it is written: what comes now waits for its reply
            async with asyncio.TaskGroup() as tasks:
                asking = tasks.create_task(who_answers(topology))
                await asyncio.sleep(0)
                topology.move(slot_of(there), place(others[1]))
            assert asking.result() == {place(node) for node in others}


# -- what one believes of the slots

OLD, NEW, OTHER, THIRD = Node("old", 1), Node("new", 2), Node("other", 3), Node("third", 3)


@pytest.mark.parametrize(
    ("said", "believed"),
    [
        ([(OLD, OLD), (OTHER, NEW), (THIRD, NEW)], NEW),
        ([(OLD, OLD), (OTHER, NEW), (THIRD, OLD)], OLD),
        ([(OLD, OLD), (OTHER, NEW)], OLD),
        ([(OLD, OLD), (OTHER, NEW), (THIRD, NEW), (NEW, NEW)], NEW),
    ],
)
def test_an_old_primary_that_was_cut_off_is_not_believed_against_most_others(
    said: list[tuple[Node, Node]], believed: Node
) -> None:
    slots = Slots()
    slots.take([(node, {(0, 5): owner}) for node, owner in said])
    assert slots.at(3) == believed


# -- subscriptions


async def test_a_worker_whose_channels_all_leave_their_node_at_once_hears_again(spread: ServerCluster) -> None:
    source = spread.slot_owner(KEYS.ctl)
    others = [node for node in spread.primaries if node is not source]
    worker = worker_beside(spread, *others)
    async with seated(
        RedisBackplane(spread.url, worker, ONLY_WHEN_TOLD), RedisBackplane(spread.url, "v", ONLY_WHEN_TOLD)
    ) as (w, v):
        await asyncio.to_thread(move_at_once, spread, source, others[0], KEYS.ctl, KEYS.mailbox(worker))
        await wait_until(lambda: w.ear.gaps >= 1 and w.backplane.is_connected, "it has subscribed again")
        assert await v.send(worker, Envelope("probe", id="1")) == 1
        assert (await w.ear.next()).id == "1"
        await v.backplane.leave()
        await wait_until(lambda: [one.type for one in w.ear.envelopes] == ["probe", "bye"], "both are heard")


# -- what became of a call


async def test_a_call_that_was_written_to_a_lost_connection_is_not_told_as_refused(spread: ServerCluster) -> None:
    home = spread.slot_owner(KEYS.mailbox("w"))
    options = RedisOptions(timeout_seconds=0.5, patience_seconds=1.0)
    async with seated(RedisBackplane(spread.url, "v", options), RedisBackplane(spread.url, "w", options)) as (v, _):
        # In a slot that is on its way, the second try is refused.
        with moving(spread, spread.slot_of(KEYS.mailbox("w")), another(spread, home)):
            async with asyncio.TaskGroup() as tasks:
                with frozen(home):
                    dispatching = tasks.create_task(v.dispatch("w", "1"))
                    await wait_until(lambda: str(home.port) in v.backplane.trouble, "the connection is lost")
            assert dispatching.result() == [Verdict.UNKNOWN]


async def test_a_call_that_was_written_to_a_lost_connection_is_not_told_as_unsent(spread: ServerCluster) -> None:
    first = spread.slot_owner(KEYS.mailbox("w"))
    second = another(spread, first)
    async with connected(spread, KEYS.mailbox("w"), timeout_seconds=0.5, patience_seconds=0.3) as (link, topology):
        topology.ask_connected = nobody  # else the call might wait behind such a question
        outbox = Outbox(link, KEYS, "v", spare_ms=60_000, publish="SPUBLISH")
        (key,) = keys_on(topology, second)
        with frozen(second):
            await wait_until(lambda: is_refused_at_once(link, key), "nothing is expected of the second any more")
            with frozen(first):
                heard: asyncio.Queue[Verdict] = asyncio.Queue()
                envelope = Envelope("req", id="1", agent="a", server="s", tool="t", body=b"{}")
                outbox.dispatch(Dispatch("w", envelope, 60.0), encode(envelope), heard.put_nowait)
                await wait_until(lambda: not link.up.is_set(), "the connection is lost")
                topology.move(slot_of(KEYS.mailbox("w")), place(second))
                async with asyncio.timeout(BOUND_SECONDS):
                    assert await heard.get() is Verdict.UNKNOWN


async def is_refused_at_once(link: ClusterLink, key: str) -> bool:
    try:
        await link.call(Command(("GET", key), is_repeatable=True))
    except BackplaneUnavailable as error:
        return isinstance(error, Unsent)
    return False


# -- sessions


async def test_who_leaves_while_a_node_is_frozen_is_cancelled_as_wanted(spread: ServerCluster) -> None:
    away = spread.slot_owner(KEYS.revision(agent_tag("a")))
    # The link to the node is given up while the session waits for a last word from it.
    backplane = RedisBackplane(spread.url, "w", RedisOptions(timeout_seconds=1.0, patience_seconds=0.05))
    is_open = asyncio.Event()

    async def serve() -> None:
        async with backplane.session(Ear()):
            is_open.set()
            await asyncio.Event().wait()

    serving = asyncio.ensure_future(serve())
    await wait_until(is_open.is_set, "the session is open")
    with frozen(away):
        asking = asyncio.ensure_future(backplane.snapshot("a"))
        await asyncio.sleep(0.4)  # so much sooner than the last word, its link has waited long enough
        serving.cancel()
        await asyncio.wait([serving, asking], timeout=BOUND_SECONDS)
    assert serving.cancelled()
    assert isinstance(asking.exception(), BackplaneUnavailable)


async def test_each_try_to_start_without_a_cluster_is_a_real_one(spread: ServerCluster) -> None:
    async with Toxics("127.0.0.1", spread.nodes[0].port) as seed:
        backplane = RedisBackplane(f"redis+cluster://{seed.address}", "w")
        seed.refuse()
        with pytest.raises(BackplaneUnavailable):
            async with backplane.session(Ear()):
                pass
        seed.heal()
        async with backplane.session(Ear()):
            assert backplane.is_connected


# -- the node of the lists is away


async def test_a_lease_is_renewed_though_the_list_of_workers_is_away(spread: ServerCluster) -> None:
    away = spread.slot_owner(KEYS.workers)
    worker = worker_beside(spread, away)
    home = spread.slot_owner(KEYS.worker(worker))
    async with seated(RedisBackplane(spread.url, worker, QUICK)) as (w,):
        listed = (await w.backplane.beat(WORKER_ROW, 60.0)).workers
        assert worker in listed
        with frozen(away):
            beat = await w.backplane.beat(WORKER_ROW, 600.0)
        assert (beat.fresh, set(beat.workers)) == (False, set(listed))
        assert home.ask("PTTL", KEYS.worker(worker)) > 60_000


async def test_a_change_is_taken_while_the_list_of_agents_is_away_and_listed_when_it_is_back(
    spread: ServerCluster,
) -> None:
    away = spread.slot_owner(KEYS.agents)
    worker = worker_beside(spread, away)
    agent = next(f"a{at}" for at in range(100) if spread.slot_owner(KEYS.revision(agent_tag(f"a{at}"))) is not away)
    async with seated(RedisBackplane(spread.url, worker, QUICK)) as (w,):
        with frozen(away):
            # Known to be away: nothing is written to it that it would find when it is back.
            with pytest.raises(BackplaneUnavailable):
                await w.backplane.overview(limit=1)
            revision = await w.backplane.commit(agent, (await w.snapshot(agent)).revision, Change({"s": w.row()}))
            assert revision is not None
            assert (await w.snapshot(agent)).revision == revision

        async def is_listed() -> bool:
            try:
                await w.backplane.renew([])
            except BackplaneUnavailable:
                return False
            return agent in (await w.backplane.overview(limit=10)).agents

        await wait_until(is_listed, "it is on the list")
        assert away.ask("ZSCORE", KEYS.agents, agent_tag(agent)) == str(revision)


async def test_agents_are_renewed_though_one_waits_to_be_listed(spread: ServerCluster) -> None:
    away = spread.slot_owner(KEYS.agents)
    worker = worker_beside(spread, away)
    agent = next(f"a{at}" for at in range(100) if spread.slot_owner(KEYS.revision(agent_tag(f"a{at}"))) is not away)
    revision = KEYS.revision(agent_tag(agent))
    home = spread.slot_owner(revision)
    async with seated(RedisBackplane(spread.url, worker, QUICK)) as (w,):
        with frozen(away):
            await w.backplane.commit(agent, (await w.snapshot(agent)).revision, Change({"s": w.row()}))
            home.ask("PEXPIRE", revision, 60_000)
            with pytest.raises(BackplaneUnavailable):
                await w.backplane.renew([agent])
            assert home.ask("PTTL", revision) > 60_000
