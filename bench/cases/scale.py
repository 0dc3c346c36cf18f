"""Whether a call costs the same with more agents, more tools, more workers."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from bench.case import Case, Figures, Ground, Promise, Round
from bench.cases.loading import alternated, start_load
from bench.cpu import raise_open_files
from bench.processes import redis_server
from bench.targets import FAST_CALLERS, FAST_DIALLERS, agents, start_floor, start_gateway

FEW, MANY = 10, 5000
PACE = 4000  # calls in a second, over all agents
PING_PERIOD_SECONDS = 20.0  # the default: a measurement this long has one ping of every connection in it
FLAT = 1.15


@contextmanager
def more_agents(ground: Ground) -> Iterator[Round]:
    """The same calls per second from 10 agents and from 5,000, each on a worker of its own; and on bare relays."""
    raise_open_files(2 * MANY + 500)
    loads = []
    with ExitStack() as stack:
        for count, size in ((FEW, "few"), (MANY, "many")):
            ground.say(f"connecting {2 * count} peers twice")
            for target in ("floor", "gateway"):
                is_floor = target == "floor"
                server = [
                    start_floor(stack, ground, "relay") if is_floor else start_gateway(stack, ground, **FAST_DIALLERS)
                ]
                place = (stack, ground, f"{target}-{size}", agents(count), (server, server))
                loads.append(start_load(*place, calls_per_second=PACE))

        def measure() -> Figures:
            found: Figures = {}
            for load in loads:
                is_many = load.target.endswith("many")
                found |= load.measure(PING_PERIOD_SECONDS if is_many else 2 * ground.seconds)
            return found

        yield measure


@contextmanager
def more_tools(ground: Ground) -> Iterator[Round]:
    """Ten agents whose tool server has ten tools, and a thousand; the calls go round all of them."""
    with ExitStack() as stack:
        loads = []
        for tools, size in ((10, "few"), (1000, "many")):
            worker = [start_gateway(stack, ground, **FAST_CALLERS)]
            place = (stack, ground, f"gateway-{size}", agents(10), (worker, worker))
            loads.append(start_load(*place, in_flight=16, tools=tools))
        yield partial(alternated, loads)


@contextmanager
def more_workers(ground: Ground) -> Iterator[Round]:
    """The same agents on one worker, and split over two; both with Redis, which local calls don't wait for."""
    with ExitStack() as stack:
        store = stack.enter_context(redis_server())
        loads = []
        for count, size in ((1, "one"), (2, "two")):
            prefix = {"GATEWAY_REDIS_PREFIX": f"{size}:"}
            workers = [start_gateway(stack, ground, store.url, **FAST_CALLERS, **prefix) for _ in range(count)]
            place = (stack, ground, f"gateway-{size}", agents(10), (workers, workers))
            loads.append(start_load(*place, in_flight=16, others=[store.pid]))
        yield partial(alternated, loads)


CASES = (
    Case(
        "agents",
        f"agents from {FEW} to {MANY} on one worker, {PACE} calls/s in all",
        (
            Promise("CPU per call", "gateway-many.cpu_us", "µs", "gateway-few.cpu_us", FLAT),
            Promise("CPU per call of the bare relay", "floor-many.cpu_us", "µs", "floor-few.cpu_us"),
        ),
        more_agents,
        is_short=False,
        rounds_max=3,
    ),
    Case(
        "tools",
        "tools per agent from 10 to 1000",
        (Promise("CPU per call", "gateway-many.cpu_us", "µs", "gateway-few.cpu_us", FLAT),),
        more_tools,
    ),
    Case(
        "split",
        "workers 1 → 2, same load split by agent",
        (Promise("CPU per call", "gateway-two.cpu_us", "µs", "gateway-one.cpu_us", FLAT),),
        more_workers,
    ),
)
