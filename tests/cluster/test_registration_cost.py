"""What a tool server that dials in costs the shared store: thousands redial at once when a worker dies."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from gateway.backplane.keys import Keys
from tests.cluster.inside import id_of
from tests.conftest import StartCluster
from tests.peers.tools import echo
from tests.support.gateway import Gateway
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.parametrize("cluster", ["redis"], indirect=True),
    pytest.mark.settings(beat_seconds=30.0, lease_seconds=120.0),  # what is counted is not of beats
]

CROWD = 20


async def test_a_crowd_of_tool_servers_is_registered_in_few_commands(cluster: StartCluster, store: Any) -> None:
    (a,) = await cluster(1)
    await come(a, store, "first")  # the store has the tools from then on
    before = commands(store)
    await come(a, store, "second")
    spent = commands(store) - before
    # Two commits for each, on one reading; everything else is said of many at once.
    assert spent["hgetall"] == 4 * CROWD
    assert spent["set"] == 2 * CROWD
    assert spent["xadd"] == CROWD
    assert spent.total() <= 40 * CROWD, spent


async def come(gateway: Gateway, store: Any, crowd: str) -> None:
    """Each is another agent's; all have the same tools."""
    names = [f"{crowd}-{number}" for number in range(CROWD)]
    joins = store.xlen(Keys().events) + CROWD
    async with asyncio.TaskGroup() as tasks:
        for name in names:
            tasks.create_task(gateway.tool_server("calc", [echo()], agent=name, server_id="calc", is_awaited=False))
    await wait_until(lambda: store.xlen(Keys().events) == joins, "all have joined")
    assert store.zcard(Keys().agents) == store.scard(Keys().owned(id_of(gateway))) >= CROWD


def commands(store: Any) -> Counter[str]:
    """How often each was executed, those inside of scripts too; without what the test itself asks."""
    own = ("info", "xlen", "zcard", "scard")
    stats = store.info("commandstats").items()
    told = {name.removeprefix("cmdstat_"): said["calls"] for name, said in stats}
    return Counter({name: count for name, count in told.items() if name not in own})
