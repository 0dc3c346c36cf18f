"""What a call costs: on one worker, and across two."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial

import redis

from bench.case import Case, Figures, Ground, Promise, Round
from bench.cases.loading import Load, alternated, redis_ping, start_load
from bench.processes import redis_server
from bench.targets import FAST_CALLERS, agents, start_floor, start_gateway

CPU = partial(Promise, "CPU per call", "gateway.cpu_us", "µs", "floor.cpu_us")
P50 = partial(Promise, "p50", "gateway.p50_ms", "ms", "floor.p50_ms")
_COUNTERS = ("total_commands_processed", "total_net_input_bytes", "total_net_output_bytes")


@contextmanager
def one_worker(ground: Ground, in_flight: int) -> Iterator[Round]:
    """Robot and tool server of each agent on the same worker; memory backplane."""
    with ExitStack() as stack:
        floor = [start_floor(stack, ground, "relay")]
        worker = [start_gateway(stack, ground, **FAST_CALLERS)]
        loads = [
            start_load(stack, ground, target, agents(10), (servers, servers), in_flight=in_flight)
            for target, servers in (("floor", floor), ("gateway", worker))
        ]
        yield partial(alternated, loads)


@contextmanager
def two_workers(ground: Ground, in_flight: int, callers: int) -> Iterator[Round]:
    """Robots on worker A, tool servers on worker B; Redis between."""
    with ExitStack() as stack:
        store = stack.enter_context(redis_server())
        relays = [start_floor(stack, ground, "relay_redis", me, peer, store.url) for me, peer in ("ab", "ba")]
        workers = [start_gateway(stack, ground, store.url, **FAST_CALLERS) for _ in range(2)]
        floor, gateway = (
            start_load(
                *(stack, ground, target, agents(callers), (servers[:1], servers[1:])),
                in_flight=in_flight,
                others=[store.pid],
            )
            for target, servers in (("floor", relays), ("gateway", workers))
        )

        def measure() -> Figures:
            found = floor.measure() | _watched(gateway, store.url)
            return found | {"ping.p50_ms": redis_ping(store.url, min(0.5, ground.seconds))}

        yield measure


def _watched(load: Load, url: str) -> Figures:
    """The load's figures, and what Redis counted for each of its calls; the warm-up's calls are in both."""
    with redis.Redis.from_url(url) as client:
        before = client.info("stats")
        load.begin()
        found = load.end()
        after = client.info("stats")
    calls = max(1.0, found["gateway.calls_per_second"] * load.loaded_seconds)
    return found | {f"gateway.{name}_per_call": (after[name] - before[name]) / calls for name in _COUNTERS}


def _one(in_flight: int) -> Callable[[Ground], AbstractContextManager[Round]]:
    return partial(one_worker, in_flight=in_flight)


CASES = (
    Case("call", "call, one worker, 16 in flight × 10 agents", (CPU(limit=1.5), P50()), _one(16)),
    Case("call-1", "call, one worker, 1 in flight × 10 agents", (CPU(limit=1.6), P50(limit=1.5)), _one(1)),
    Case(
        "remote",
        "call across two workers, 16 in flight × 10 agents",
        (CPU(limit=1.5), Promise("Redis's CPU per call", "gateway.redis_us", "µs", "floor.redis_us", 8.0), P50()),
        partial(two_workers, in_flight=16, callers=10),
    ),
    Case(
        "remote-1",
        "call across two workers, one caller at a time",
        (P50(limit=2.0), CPU(), Promise("p50, in Redis PING round trips", "gateway.p50_ms", "ms", "ping.p50_ms")),
        partial(two_workers, in_flight=1, callers=1),
    ),
)
