"""Two workers on one Redis that have seen real traffic: what alerts and dashboard are held against."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from tests.peers.tools import adder, held, text_of
from tests.support import http
from tests.support.gateway import Gateway, Guests
from tests.support.ports import own_port
from tests.support.redis_server import RedisServer
from tests.support.running import RedisCluster, settings

AGENT = "my-agent"


@dataclass(frozen=True, slots=True)
class Scraped:
    """The samples of one `/metrics`: metric → the label sets that it has."""

    series: dict[str, list[dict[str, str]]]

    def values(self, metric: str, label: str) -> set[str]:
        return {labels[label] for labels in self.series[metric] if label in labels}


@dataclass(frozen=True, slots=True)
class Scene:
    """The workers, and their admin ports."""

    cluster: RedisCluster
    robots_worker: Gateway
    tools_worker: Gateway
    ports: tuple[int, int]

    async def text(self) -> str:
        return (await http.get(self.ports[0], "/metrics")).text

    async def scraped(self) -> Scraped:
        """What the robots' worker says."""
        series: dict[str, list[dict[str, str]]] = {}
        for family in text_string_to_metric_families(await self.text()):
            for sample in family.samples:
                series.setdefault(sample.name, []).append(sample.labels)
        return Scraped(series)


@asynccontextmanager
async def playing(server: RedisServer, guests: Guests) -> AsyncGenerator[Scene]:
    """Two workers, and what has happened on them; they end with the block."""
    cluster = RedisCluster(settings(redis_url=server.url, beat_seconds=0.1))
    ports = own_port(), own_port()
    try:
        here, there = [Gateway(await cluster.add_worker(admin_port=port), guests) for port in ports]
        await _play(here, there)
        yield Scene(cluster, here, there, ports)
        await guests.leave()
    finally:
        await cluster.stop()


async def _play(here: Gateway, there: Gateway) -> None:
    """One local call, one to the other worker, one that waits."""
    await here.tool_server("Here", [adder("here")], agent=AGENT, server_id="here")
    far = await there.tool_server("There", [adder("there"), held("slow")], agent=AGENT, server_id="there")
    robot = await here.robot(agent=AGENT)
    await robot.sees("here", "there", "slow")
    for tool in ("here", "there"):
        assert text_of(await robot.call(tool, {"a": 1, "b": 2})) == "3"
    await robot.start_call("slow")
    await far.until_called()
