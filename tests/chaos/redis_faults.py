"""What happens to Redis, and to what lies between it and the workers.

A fault notes in the logbook from when until when Redis was away (`away`) and for whom; from that its promises are
judged after the round. That workers stay alive and ready is looked at while it lasts.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from tests.chaos.nemesis import Field
from tests.chaos.plan import worker_of
from tests.chaos.redis_faults_promises import (
    ALWAYS,
    NONE_LOST,
    SHORT,
    RedisFault,
    other_workers_are_untouched,
)
from tests.chaos.redis_fleets import Proxied, Spread, Watched, Wired, hasty, proxied, spread, watched, wired

LOADED_KEYS = 60
FULL_PAD_BYTES = 70_000
"""More than the smallest buffer that a subscriber may have."""
FAILOVER_SECONDS, FROZEN_SECONDS, SILENCE_SECONDS = 2.5, 5.0, 5.0
"""Until all works again: after a planned failover, after a promotion, with a subscription that has gone silent."""
NOTICED_SECONDS = 2.0
UNHEALED = "not reached within"


# While it lasts


@contextmanager
def away(field: Field, *workers: str) -> Iterator[None]:
    """Inside the block Redis is away for these workers, or for all; nobody restarts, and nobody may."""
    before = [worker.child.pid for worker in field.fleet.workers]
    since = time.monotonic()
    try:
        yield
    finally:
        field.fleet.note("away", since=since, until=time.monotonic(), workers=workers)
    assert before == [worker.child.pid for worker in field.fleet.workers]


def last(field: Field, seconds: float) -> None:
    """The fault lasts, and every worker stays ready."""
    for _ in field.moments(seconds, every=0.25):
        unready = [worker.name for worker in field.fleet.workers if worker.status("/readyz") != 200]
        assert not unready, f"not ready while Redis is away: {unready}"


def healed_within(field: Field, seconds: float) -> float:
    """Every tool server is reached again from every worker, with the fault still there; after how long."""
    field.heals_from_now()
    found = field.fleet.probe(time.monotonic(), seconds)
    late = sorted(pair for pair, took in found.items() if took is None or took > seconds)
    assert not late, f"{UNHEALED} {seconds} s: {late}"
    return max(took for took in found.values() if took is not None)


@contextmanager
def configured(client: Any, **settings: str) -> Iterator[None]:
    """CONFIG SET for the length of the block."""
    names = {name.replace("_", "-"): value for name, value in settings.items()}
    before = {name: client.config_get(name)[name] for name in names}
    for name, value in names.items():
        client.config_set(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            client.config_set(name, value)


# Redis itself


def restart_empty(field: Field) -> None:
    """It crashes, and comes back without its data."""
    with away(field):
        field.fleet.store.stop()
        last(field, 0.7)
        field.fleet.store.start()


def restart_with_data(field: Field) -> None:
    """It is restarted by an operator and keeps its data."""
    with away(field):
        field.fleet.store.save_and_stop()
        last(field, 0.7)
        field.fleet.store.start()


def load_slowly(field: Field) -> None:
    """It is back, and for a while answers everything with LOADING."""
    store = field.fleet.store
    with store.client() as client:
        for number in range(LOADED_KEYS):
            client.set(f"filler:{number}", "x" * 200, px=60_000)
    with away(field):
        store.save_and_stop()
        store.start("--key-load-delay", "10000", "--loading-process-events-interval-bytes", "1024")
        with store.client() as client:
            while client.info("persistence")["loading"]:
                last(field, 0.1)
            client.delete(*(f"filler:{number}" for number in range(LOADED_KEYS)))


def flush(field: Field) -> None:
    """Somebody types FLUSHALL, and again."""
    with field.fleet.store.client() as client:
        for _ in field.moments(0.8, every=0.4):
            client.flushall()


def kill_subscriptions(field: Field) -> None:
    """Subscriptions are cut again and again."""
    with field.fleet.store.client() as client:
        for _ in field.moments(1.2, every=0.1):
            client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")


def kill_commands(field: Field) -> None:
    """The other connections are cut again and again."""
    with field.fleet.store.client() as client:
        for _ in field.moments(1.2, every=0.15):
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def shrink_buffers(field: Field) -> None:
    """A subscriber may have almost nothing waiting, so every larger message cuts it off."""
    fleet, name = field.fleet, "client_output_buffer_limit_disconnections"
    with fleet.store.client() as client:
        before = client.info("stats")[name]
        with configured(client, client_output_buffer_limit="pubsub 4kb 2kb 1"):
            for _ in field.moments(1.0, every=0.1):
                agent, server = field.someone()
                slot = (fleet.plan.home(agent, server) + 1) % fleet.plan.slots
                fleet.robots[0].ask("call", agent=agent, slot=slot, server=server, pad=FULL_PAD_BYTES)
        assert client.info("stats")[name] > before, "nobody was cut off"


def pause_clients(field: Field) -> None:
    """An operator pauses all clients."""
    with field.fleet.store.client() as client, away(field):
        client.client_pause(int(900 * field.stretch), all=True)
        last(field, 0.9)


def fill_memory(field: Field) -> None:
    """It is full: OOM."""
    with field.fleet.store.client() as client, configured(client, maxmemory="1"), away(field):
        last(field, 0.8)


def turn_into_replica(field: Field) -> None:
    """The primary becomes a replica on the fly: READONLY."""
    with field.fleet.store.client() as client, away(field):
        client.replicaof("127.0.0.1", "1")
        try:
            last(field, 0.8)
        finally:
            client.replicaof("NO", "ONE")


def lose_replicas(field: Field) -> None:
    """It has too few replicas to take writes: NOREPLICAS."""
    with field.fleet.store.client() as client, configured(client, min_replicas_to_write="1"), away(field):
        last(field, 0.8)


def forget_scripts(field: Field) -> None:
    """Somebody flushes the scripts, again and again: NOSCRIPT."""
    with field.fleet.store.client() as client:
        for _ in field.moments(1.0, every=0.1):
            client.script_flush()


def freeze_briefly(field: Field) -> None:
    """It stands still for a while that calls survive."""
    _freeze(field, 1.4)


def freeze_for_long(field: Field) -> None:
    """It stands still for longer than calls live, and then publishes all that it was sent."""
    _freeze(field, 2.6)


def _freeze(field: Field, seconds: float) -> None:
    with away(field):
        field.fleet.store.freeze()
        try:
            last(field, seconds)
        finally:
            field.fleet.store.thaw()


def delete_keys(field: Field) -> None:
    """An operator deletes keys at random: leases, rows, claims, records of calls."""
    with field.fleet.store.client() as client:
        for _ in field.moments(1.0, every=0.1):
            keys = sorted(client.scan_iter("mcpgw:*", count=1000))
            if keys:
                client.delete(*field.random.sample(keys, max(1, len(keys) // 8)))


# The network


def _networks(field: Field) -> Proxied:
    return cast(Proxied, field.fleet)


def cut_one(field: Field) -> None:
    """One worker's link to Redis is dead in silence for longer than its lease."""
    at = field.random.randrange(len(field.fleet.workers))
    network = _networks(field).networks[at]
    with away(field, worker_of(at)):
        network.swallow()
        network.blackhole()
        last(field, field.fleet.settings.lease_seconds * 1.3)
        network.heal()
        network.reset()


def cut_all(field: Field) -> None:
    """No worker reaches Redis: connections are reset, new ones refused."""
    with away(field):
        for network in _networks(field).networks:
            network.refuse()
            network.reset()
        last(field, 1.2)
        for network in _networks(field).networks:
            network.heal()


def hold_all(field: Field) -> None:
    """A switch between workers and Redis is replaced: silence, and then everything arrives late."""
    with away(field):
        for network in _networks(field).networks:
            network.hold()
        last(field, 1.4)
        for network in _networks(field).networks:
            network.heal()


def deafen_one(field: Field) -> None:
    """One worker's connections swallow one direction, for good: answers and messages, or what it says."""
    at, is_deaf = field.random.randrange(len(field.fleet.workers)), field.random.random() < 0.5
    with away(field, worker_of(at)):
        _networks(field).networks[at].deaden(up=not is_deaf, down=is_deaf)
        # The commands' connection is soon made anew, and that alone saves what was called until then.
        last(field, NOTICED_SECONDS)
        took = healed_within(field, SILENCE_SECONDS - NOTICED_SECONDS)
    field.heal_from = time.monotonic() - took - NOTICED_SECONDS


def delay_replies(field: Field) -> None:
    """Replies come after the worker has given up waiting for them."""
    timeout_seconds = field.fleet.settings.redis_timeout_seconds
    with away(field):
        for network in _networks(field).networks:
            network.down.latency_ms = timeout_seconds * 1500
        last(field, 1.6)
        for network in _networks(field).networks:
            network.heal()


def slow_link(field: Field) -> None:
    """Everything is slow, jittery and in small pieces; nothing is lost."""
    for network in _networks(field).networks:
        network.delay(20.0, 40.0)
        network.slice(1400)
    field.hold(1.0)
    for network in _networks(field).networks:
        network.heal()


def reset_often(field: Field) -> None:
    """A firewall resets connections at random."""
    for _ in field.moments(1.2, every=0.1):
        field.random.choice(_networks(field).networks).reset()


def pull_cable(field: Field) -> None:
    """The network interface goes down and comes up: the kernel has nowhere to send to."""
    cable = cast(Wired, field.fleet).cable
    with away(field):
        cable.down()
        try:
            last(field, 2.0)
        finally:
            cable.up()


# Sentinel and Cluster


def fail_over(field: Field) -> None:
    """An operator tells the Sentinels to change the primary."""
    servers = cast(Watched, field.fleet).servers
    servers.settle()  # from the round before
    with away(field):
        servers.failover()
    healed_within(field, FAILOVER_SECONDS)


def freeze_primary(field: Field) -> None:
    """The primary stands still; the Sentinels replace it; it wakes up and must not be believed."""
    servers = cast(Watched, field.fleet).servers
    servers.settle()  # from the round before
    frozen = servers.primary
    with away(field):
        frozen.freeze()
        servers.until_promoted(frozen)
    try:
        took = healed_within(field, FROZEN_SECONDS)
    finally:
        frozen.thaw()
    field.heal_from = time.monotonic() - took


def move_slots(field: Field) -> None:
    """Slots with keys in use move to other nodes, with calls going on."""
    cluster = cast(Spread, field.fleet).cluster
    slots = {cluster.slot_of(f"mcpgw:rev:{{{agent}}}") for agent in field.fleet.plan.agents}
    for node in cluster.primaries:
        slots |= {cluster.slot_of(key) for key in node.ask("KEYS", "mcpgw:in*")}
    for slot in sorted(slots):
        source = cluster.owner(slot)
        others = [node for node in cluster.primaries if node is not source]
        target = field.random.choice(others)
        cluster.begin_move(slot, target)
        field.hold(0.15)
        cluster.finish_move(slot, source, target)


def kill_primary_of_cluster(field: Field) -> None:
    """One of the primaries dies; its replica takes over; it comes back as a replica."""
    cluster = cast(Spread, field.fleet).cluster
    victim = field.random.choice(cluster.primaries)
    with away(field):
        cluster.kill(victim)
        cluster.until_replaced(victim)
    took = healed_within(field, FROZEN_SECONDS)
    cluster.mend()
    field.heal_from = time.monotonic() - took


FAULTS = [
    RedisFault("Redis restarted empty", (6, 7), restart_empty, promises=SHORT),
    RedisFault("Redis restarted with its data", (6,), restart_with_data, promises=SHORT),
    RedisFault("Redis loading", (26,), load_slowly, promises=SHORT),
    RedisFault("FLUSHALL", (7, 30), flush, promises=ALWAYS),
    RedisFault("CLIENT KILL TYPE pubsub", (14,), kill_subscriptions, promises=NONE_LOST),
    RedisFault("CLIENT KILL TYPE normal", (6,), kill_commands, promises=ALWAYS, is_extra=True),
    RedisFault("tiny pubsub output buffer", (14,), shrink_buffers, promises=NONE_LOST),
    RedisFault("CLIENT PAUSE", (9,), pause_clients, promises=SHORT),
    RedisFault("OOM", (26,), fill_memory, promises=SHORT),
    RedisFault("READONLY", (11, 26), turn_into_replica, promises=SHORT),
    RedisFault("NOREPLICAS", (10, 26), lose_replicas, promises=SHORT),
    RedisFault("NOSCRIPT", (26,), forget_scripts, promises=NONE_LOST),
    RedisFault("Redis frozen within deadlines", (9,), freeze_briefly, promises=SHORT),
    RedisFault("keys deleted at random", (30,), delete_keys, fleet=proxied, promises=ALWAYS),
    RedisFault("Redis frozen past deadlines", (9,), freeze_for_long, fleet=hasty, promises=ALWAYS),
    RedisFault(
        "one worker cut from Redis", (12,), cut_one, fleet=proxied, promises=(*ALWAYS, other_workers_are_untouched)
    ),
    RedisFault("all workers cut from Redis", (13,), cut_all, fleet=proxied, promises=SHORT),
    RedisFault("all links held", (13,), hold_all, fleet=proxied, promises=SHORT, is_extra=True),
    RedisFault(
        "link deaf in one direction", (15,), deafen_one, fleet=proxied, promises=(*ALWAYS, other_workers_are_untouched)
    ),
    RedisFault("replies delayed past the timeout", (16,), delay_replies, fleet=proxied, promises=ALWAYS),
    RedisFault("slow link in small pieces", (16,), slow_link, fleet=proxied, promises=NONE_LOST),
    RedisFault("links reset at random", (6,), reset_often, fleet=proxied, promises=ALWAYS, is_extra=True),
    RedisFault("link down (namespace)", (2, 13), pull_cable, fleet=wired, promises=SHORT),
    RedisFault("Sentinel failover, planned", (8,), fail_over, fleet=watched, promises=ALWAYS),
    RedisFault("Sentinel failover, primary frozen", (9,), freeze_primary, fleet=watched, promises=ALWAYS),
    RedisFault("Cluster slots moved", (25,), move_slots, fleet=spread, promises=ALWAYS),
    RedisFault("Cluster primary killed", (25,), kill_primary_of_cluster, fleet=spread, promises=ALWAYS),
]
