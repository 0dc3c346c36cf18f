"""Peers that dial, read what they are answered, and go; accepted or refused, nothing else happens."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

from bench.cpu import cpu_seconds
from bench.load.orders import Orders, run


@dataclass(frozen=True, slots=True)
class Plan:
    """Name of a kind of knock → what such peers send, in turns, and the status that they must get."""

    port: int
    heads: Mapping[str, Sequence[str]]
    statuses: Mapping[str, int]
    pids: Sequence[int]
    at_once: int = 8


async def knock(port: int, head: bytes) -> int:
    """Dial, and leave once there is an answer; return its status."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head)
        answer = await reader.readuntil(b"\r\n\r\n")
        return int(answer.split(b" ", 2)[1])
    finally:
        writer.transport.abort()


async def measure(plan: Plan, name: str, seconds: float) -> dict[str, float]:
    """Knocks of one kind, `at_once` at a time, for so long."""
    heads, count = cycle([head.encode() for head in plan.heads[name]]), 0
    before, started = cpu_seconds(plan.pids), time.perf_counter()

    async def visitor() -> None:
        nonlocal count
        while time.perf_counter() - started < seconds:
            status = await knock(plan.port, next(heads))
            if status != plan.statuses[name]:
                raise RuntimeError(f"{name}: {status} instead of {plan.statuses[name]}")
            count += 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(plan.at_once):
            tasks.create_task(visitor())
    await asyncio.sleep(0.1)  # the last of them are still on their way out
    used = cpu_seconds(plan.pids) - before
    return {"cpu_us": used / count * 1e6, "knocks_per_second": count / (time.perf_counter() - started)}


async def main(orders: Orders) -> None:
    plan = Plan(**await orders.next())
    for name in plan.heads:
        await measure(plan, name, 0.2)
    orders.answer({"kinds": len(plan.heads)})
    while (order := await orders.next()) is not None:
        orders.answer(await measure(plan, order["name"], order["seconds"]))


if __name__ == "__main__":
    run(main)
