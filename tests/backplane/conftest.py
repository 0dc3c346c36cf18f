"""Engines for the backplane's tests, each server started once; no test may leave a key without a time to live."""

from collections.abc import Iterator

import pytest

from gateway.backplane.keys import Keys
from tests.backplane.cluster import Cluster, Engine, ManyEngine, MemoryEngine, RedisEngine, kept_without_end
from tests.support.redis_cluster import ServerCluster
from tests.support.redis_sentinel import SentinelSet
from tests.support.redis_server import RedisServer, engines, running

PROGRAMS = engines()


@pytest.fixture(scope="session")
def servers() -> Iterator[dict[str, RedisServer]]:
    """The servers that have been started so far, by engine name."""
    started: dict[str, RedisServer] = {}
    yield started
    for server in started.values():
        server.close()


def _server(servers: dict[str, RedisServer], name: str) -> RedisServer:
    if name not in servers:
        servers[name] = RedisServer(PROGRAMS[name])
        servers[name].start()
    return servers[name]


@pytest.fixture(params=list(PROGRAMS))
def redis_engine(request: pytest.FixtureRequest, servers: dict[str, RedisServer]) -> Iterator[RedisEngine]:
    """An empty Redis-compatible server, on every engine that is here."""
    server = _server(servers, request.param)
    with server.client() as client:
        client.flushall()
        yield RedisEngine(request.param, server, client)
        assert kept_without_end(client, Keys().is_durable) == [], "keys without a time to live were left"


@pytest.fixture(scope="package")
def watched_set() -> Iterator[SentinelSet]:
    """A primary with its replica and Sentinel, for tests that leave them as they are. Even idle they cost time."""
    with SentinelSet(next(iter(PROGRAMS.values()))) as servers:
        yield servers


@pytest.fixture(scope="package")
def server_cluster() -> Iterator[ServerCluster]:
    """A Redis Cluster, for tests that leave it as it is. Even idle it costs time."""
    with ServerCluster(next(iter(PROGRAMS.values()))) as servers:
        yield servers


def _many(request: pytest.FixtureRequest) -> ManyEngine:
    if request.param == "sentinel":
        watched: SentinelSet = request.getfixturevalue("watched_set")
        primary = watched.servers[0]
        return ManyEngine("sentinel", watched.url, lambda: [primary], lambda _key: primary)
    spread: ServerCluster = request.getfixturevalue("server_cluster")
    return ManyEngine("cluster", spread.url, lambda: spread.nodes, spread.slot_owner)


@pytest.fixture(params=["memory", *PROGRAMS, "sentinel", "cluster"])
def engine(request: pytest.FixtureRequest, servers: dict[str, RedisServer]) -> Iterator[Engine]:
    """An empty store, of every kind."""
    if request.param == "memory":
        yield MemoryEngine()
        return
    if request.param in ("sentinel", "cluster"):
        many = _many(request)
        many.lose_everything()
        yield many
        assert many.kept_without_end() == [], "keys without a time to live were left"
        return
    server = _server(servers, request.param)
    with server.client() as client:
        client.flushall()
        yield RedisEngine(request.param, server, client)
        assert kept_without_end(client, Keys().is_durable) == [], "keys without a time to live were left"


@pytest.fixture
def cluster(engine: Engine) -> Cluster:
    return Cluster(engine)


@pytest.fixture
def redis_cluster(redis_engine: RedisEngine) -> Cluster:
    return Cluster(redis_engine)


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """A server of the test's own, to be stopped, frozen or filled at will."""
    with running(next(iter(PROGRAMS.values()))) as server:
        yield server
        if server.is_running:
            server.thaw()
            with server.client() as client:
                assert kept_without_end(client, Keys().is_durable) == [], "keys without a time to live were left"
