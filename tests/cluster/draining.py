"""What tests of the drain share: a worker that drains, tool servers that move, and what must be left of it in Redis."""

import asyncio
from typing import Any

import orjson

from gateway.backplane.keys import Keys
from tests.cluster.inside import served
from tests.peers.redialler import Redialler
from tests.support.gateway import Gateway
from tests.support.waiting import wait_until

KEYS = Keys()


async def until_ended(gateway: Gateway, seconds: float = 10.0) -> None:
    """Wait until the worker has ended by itself."""
    worker = served(gateway)
    await wait_until(lambda: not worker.is_running, "the drained worker has ended", seconds)
    await worker.ended()


async def until_grace_is_over(gateway: Gateway) -> None:
    window = served(gateway).drain_room.window
    assert window is not None
    clock = asyncio.get_running_loop().time
    await wait_until(lambda: not window.is_grace(clock()), "the grace of the drain is over")


async def until_held(gateway: Gateway) -> None:
    """Wait until half of the window has passed and a busy tool server gets no new call."""
    await wait_until(lambda: any(link.is_leaving for link in served(gateway).tool_links), "new calls are held", 10)


async def redialling(here: Gateway, there: Gateway, **options: Any) -> Redialler:
    """A tool server that is connected here, and whose next dials go there."""
    server = Redialler(here.mcp_url, **options)
    await here.attach(server)
    server.where = there.mcp_url
    return server


def kinds(store: Any) -> list[bytes]:
    """The kinds of all events so far."""
    return [fields[b"kind"] for _, fields in store.xrange(KEYS.events)]


def assert_nothing_names(store: Any, worker: str) -> None:
    """Nothing in Redis says that this worker is alive."""
    assert not store.exists(KEYS.worker(worker))
    assert store.zscore(KEYS.workers, worker) is None
    assert not store.exists(KEYS.owned(worker))
    for key in store.scan_iter("mcpgw:servers:*"):
        for row in map(orjson.loads, store.hvals(key)):
            assert row["worker"] != worker or row["state"] == "offline", row
    for key in store.scan_iter("mcpgw:robots:*"):
        assert all(orjson.loads(row)["worker"] != worker for row in store.hvals(key))
