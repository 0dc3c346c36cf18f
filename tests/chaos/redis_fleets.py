"""Fleets on what stands between workers and Redis: a bad network, Sentinels, a Cluster, a cable that can be pulled."""

import asyncio
import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from gateway import lease
from gateway.backplane.redis import sentinel, subscriber
from gateway.backplane.redis.selfprobe import SelfProbe
from gateway.backplane.redis.sentinel import Answer
from tests.chaos import worker
from tests.chaos.fleet import Fleet, on_own_redis
from tests.chaos.processes import Child, Pipe
from tests.support import netns
from tests.support.redis_cluster import ServerCluster
from tests.support.redis_sentinel import SentinelSet
from tests.support.redis_server import RedisServer, engines
from tests.support.toxics import Toxics

RECONCILE_SECONDS = 3.0
PROGRAM = next(iter(engines().values()))


class Altered(Fleet):
    """Its workers put deleted rows back in seconds, in place of a minute; and `without` protections of the links."""

    def __init__(self, url: str, *, without: str = "", **plan: Any) -> None:
        super().__init__(url, **plan)
        self._without = without
        for one in self.workers:
            one.child = Child(one.name, altered, self.folder)

    def start(self, **options: Any) -> None:
        super().start(unguarded=self._without, **options)


class Proxied(Altered):
    """Each worker reaches the one Redis server through a network of its own."""

    def __init__(self, store: RedisServer, networks: list[Toxics], **plan: Any) -> None:
        super().__init__(store.url, store=store, slots=len(networks), **plan)
        self.networks = networks
        for one, network in zip(self.workers, networks, strict=True):
            one.settings = dataclasses.replace(one.settings, redis_url=f"redis://{network.address}")


class Watched(Altered):
    """On a service that Sentinels watch."""

    def __init__(self, servers: SentinelSet, **plan: Any) -> None:
        super().__init__(servers.url, **plan)
        self.servers = servers

    def clients(self) -> list[Any]:
        return [self.servers.primary.client()]


class Spread(Fleet):
    """On a Redis Cluster."""

    def __init__(self, cluster: ServerCluster, **plan: Any) -> None:
        super().__init__(cluster.url, **plan)
        self.cluster = cluster

    def clients(self) -> list[Any]:
        return [node.client() for node in self.cluster.primaries]


class Wired(Fleet):
    """On a Redis server at the other end of a cable."""

    def __init__(self, store: RedisServer, cable: netns.Cable, **plan: Any) -> None:
        super().__init__(store.url, store=store, **plan)
        self.cable = cable


def altered(pipe: Pipe, unguarded: str = "", **arguments: Any) -> None:
    """The main function of these workers' processes."""
    lease.RECONCILE_SECONDS = RECONCILE_SECONDS
    if unguarded:
        SWITCHES[unguarded]()
    worker.main(pipe, **arguments)


def no_watchdog() -> None:
    """A subscription is believed as long as it does not break."""

    async def rest(self: SelfProbe) -> None:
        await asyncio.Event().wait()

    subscriber._SILENT_PINGS = 10**9
    SelfProbe.run = rest  # type: ignore[method-assign]


def no_poll() -> None:
    """What the Sentinels said first is believed for ever."""
    choose = sentinel.choose

    def once(answers: list[Answer], known: Answer | None, sentinels: int) -> Answer | None:
        return choose(answers, known, sentinels) if known is None else None

    sentinel.choose = once


SWITCHES = {"watchdog": no_watchdog, "Sentinel poll": no_poll}


@contextmanager
def hasty() -> Iterator[Fleet]:
    """On one Redis server; calls are due so soon that a fault of seconds outlasts them."""
    with on_own_redis(PROGRAM, settings={"call_seconds": 1.5}) as fleet:
        yield fleet


@contextmanager
def proxied(without: str = "") -> Iterator[Fleet]:
    with ExitStack() as stack:
        store = RedisServer(PROGRAM)
        stack.callback(store.close)
        store.start()
        networks = [stack.enter_context(Toxics("127.0.0.1", store.port)) for _ in range(3)]
        yield stack.enter_context(Proxied(store, networks, without=without))


@contextmanager
def watched(without: str = "") -> Iterator[Fleet]:
    with SentinelSet(PROGRAM) as servers, Watched(servers, without=without) as fleet:
        yield fleet


@contextmanager
def spread() -> Iterator[Fleet]:
    with ServerCluster(PROGRAM, replicas=1) as cluster, Spread(cluster) as fleet:
        yield fleet


@contextmanager
def wired() -> Iterator[Fleet]:
    """Skips the test, with one line, where there can be no cable."""
    if netns.why_not():
        pytest.skip(netns.why_not())
    with netns.cable() as cable, ExitStack() as stack:
        store = RedisServer(PROGRAM, behind=cable)
        stack.callback(store.close)
        store.start()
        yield stack.enter_context(Wired(store, cable))
