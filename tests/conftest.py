"""Fixtures of every test that talks to a running gateway: one worker, or several on one backplane."""

import asyncio
import gc
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import uvloop

from gateway.backplane.keys import Keys
from tests.backplane.cluster import kept_without_end
from tests.cli.command_line import CommandLine
from tests.support.gateway import Gateway, Guests
from tests.support.redis_server import RedisServer, empty, engines, running
from tests.support.running import Cluster, MemoryCluster, RedisCluster, settings

StartCluster: TypeAlias = Callable[..., Awaitable[list[Gateway]]]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "settings(**changes): start this test's gateway with other settings")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is collected stays to the end: the collector of garbage need not look at all of it again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


LONG = ("tests/simulation/test_simulation.py", "tests/edge/test_image.py", "tests/cluster/test_drain_processes.py")
"""What takes long: it comes first, since whoever began with it last would leave the others idle at the end."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deal the long tests out: every process has its share of them at the beginning of its own part of the list."""
    count = getattr(config, "workerinput", {}).get("workercount", 1)
    long = [item for item in items if item.nodeid.startswith(LONG)]
    short = [item for item in items if not item.nodeid.startswith(LONG)]
    size = -(-len(items) // count)
    items[:] = []
    for number in range(count):
        first = long[number::count]
        room = max(0, size - len(first))
        items += first + short[:room]
        del short[:room]
    items += short


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop of the tests is the one that the gateway runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def guests() -> Guests:
    """The peers of the test; they leave before the gateway is stopped."""
    return Guests()


def settings_of(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The settings that the test's markers name."""
    changes: dict[str, Any] = {}
    for marker in reversed(list(request.node.iter_markers("settings"))):
        changes |= marker.kwargs
    return changes


@asynccontextmanager
async def _serving(cluster: Cluster, guests: Guests) -> AsyncGenerator[StartCluster]:
    """A function that starts workers; at the end the guests leave, then the workers stop."""

    async def start(count: int = 2, **changes: Any) -> list[Gateway]:
        return [Gateway(await cluster.add_worker(**changes), guests) for _ in range(count)]

    try:
        yield start
        await guests.leave()
    finally:
        await cluster.stop()


@pytest.fixture
async def gateway(request: pytest.FixtureRequest, guests: Guests) -> AsyncGenerator[Gateway]:
    """One worker on the memory backplane: what a home has."""
    cluster = MemoryCluster(settings(**settings_of(request)), is_shared=False)
    async with _serving(cluster, guests) as start:
        [gateway] = await start(1)
        yield gateway


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One Redis-compatible server for all tests of this process; each starts with it empty."""
    with running(next(iter(engines().values()))) as server:
        yield server


@pytest.fixture
def store(redis_server: RedisServer) -> Iterator[Any]:
    """The operator's look into Redis."""
    with redis_server.client() as client:
        yield client


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """One that the test may stop, freeze and start again."""
    with running(next(iter(engines().values()))) as server:
        yield server


@pytest.fixture
async def pair(
    request: pytest.FixtureRequest, own_server: RedisServer, guests: Guests
) -> AsyncGenerator[tuple[Gateway, Gateway]]:
    """Two workers on a Redis of their own."""
    async with _serving(RedisCluster(settings(**settings_of(request), redis_url=own_server.url)), guests) as start:
        a, b = await start(2)
        yield a, b


@pytest.fixture
async def cli(tmp_path: Path, guests: Guests, redis_server: RedisServer) -> AsyncGenerator[CommandLine]:
    """A command line in an empty directory, with an empty Redis; what it started is stopped."""
    with redis_server.client() as client:
        empty(client)
    cli = CommandLine(tmp_path)
    try:
        yield cli
        await guests.leave()
    finally:
        await cli.stop_all()


@pytest.fixture(params=["memory", "redis"])
async def cluster(request: pytest.FixtureRequest, guests: Guests) -> AsyncGenerator[StartCluster]:
    """A function that starts so many workers on one backplane: `a, b = await cluster(2)`."""
    changes = settings_of(request)
    if request.param == "memory":
        async with _serving(MemoryCluster(settings(**changes)), guests) as start:
            yield start
        return
    server: RedisServer = request.getfixturevalue("redis_server")
    with server.client() as client:
        empty(client)
        async with _serving(RedisCluster(settings(**changes, redis_url=server.url)), guests) as start:
            yield start
        assert kept_without_end(client, Keys().is_durable) == [], "keys without a time to live were left"
