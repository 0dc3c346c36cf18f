"""The floor of a message between workers: one PING at a time to Redis. Prints p50 and p99 in ms as JSON."""

import sys
import time

import orjson
import uvloop
from redis.asyncio import Redis


async def ping(url: str, seconds: float) -> list[float]:
    took_ms: list[float] = []
    async with Redis.from_url(url, protocol=2, max_connections=1) as client:
        await client.ping()
        end = time.perf_counter() + seconds
        while (started := time.perf_counter()) < end:
            await client.ping()
            took_ms.append((time.perf_counter() - started) * 1000)
    return sorted(took_ms)


if __name__ == "__main__":
    took = uvloop.run(ping(sys.argv[1], float(sys.argv[2])))
    print(orjson.dumps({"p50_ms": took[len(took) // 2], "p99_ms": took[len(took) * 99 // 100]}).decode())
