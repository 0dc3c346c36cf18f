"""Robots that come, list the tools, and go again; or peers that come, hear one echo, and go again."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

from bench.cpu import cpu_seconds
from bench.load.orders import Orders, run
from bench.load.peers import ToolServer, encoded_list
from bench.load.sockets import Socket, connect

_INITIALIZE = (
    b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},'
    b'"clientInfo":{"name":"bench","version":"1"}}}'
)
_INITIALIZED = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'
_LIST = b'{"jsonrpc":"2.0","id":2,"method":"tools/list","params":{}}'


@dataclass(frozen=True, slots=True)
class Plan:
    """`tools` 0: a peer says one thing and hears it again, as the floor has it. `pids`: whose CPU counts."""

    tool_urls: Sequence[str]
    robot_urls: Sequence[str]
    pids: Sequence[int]
    tools: int
    at_once: int = 8


async def heard(socket: Socket, *texts: bytes) -> bytes:
    """Say these, in one write; return the next thing that is said."""
    answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    socket.hear(lambda text: None if answer.done() else answer.set_result(text))
    for text in texts:
        socket.send(text)
    socket.flush()
    return await answer


async def visit(url: str, tools: int) -> None:
    """Come and go. Raises RuntimeError if the list was not what it must be."""
    socket = await connect(url)
    if tools:
        await heard(socket, _INITIALIZE)
        listed = await heard(socket, _INITIALIZED, _LIST)
        if listed.count(b'"inputSchema"') != tools:
            raise RuntimeError(f"{listed.count(b'inputSchema')} tools of {tools}: {listed[:300]!r}")
    else:
        await heard(socket, _INITIALIZE)
    await socket.leave()


async def measure(plan: Plan, seconds: float) -> dict[str, float]:
    """Visits, `at_once` at a time, for so long."""
    urls, took = cycle(plan.robot_urls), list[float]()
    before, started = cpu_seconds(plan.pids), time.perf_counter()

    async def visitor() -> None:
        while (since := time.perf_counter()) - started < seconds:
            await visit(next(urls), plan.tools)
            took.append(time.perf_counter() - since)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(plan.at_once):
            tasks.create_task(visitor())
    took.sort()
    return {
        "cpu_us": (cpu_seconds(plan.pids) - before) / len(took) * 1e6,
        "p50_ms": took[len(took) // 2] * 1000,
        "p99_ms": took[len(took) * 99 // 100] * 1000,
        "joins_per_second": len(took) / (time.perf_counter() - started),
    }


async def main(orders: Orders) -> None:
    plan = Plan(**await orders.next())
    tool_list = encoded_list(plan.tools)
    tool_servers = [ToolServer(await connect(url), tool_list) for url in plan.tool_urls]
    for one in tool_servers:
        await one.listed.wait()
    await measure(plan, 0.2)
    orders.answer({"connected": len(tool_servers)})
    while (order := await orders.next()) is not None:
        orders.answer(await measure(plan, order["seconds"]))


if __name__ == "__main__":
    run(main)
