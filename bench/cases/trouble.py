"""Big results beside small calls, the start of a worker, and the death of one."""

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import orjson
import redis

from bench.case import Case, Figures, Ground, Promise, Round
from bench.cases.loading import start_load
from bench.cpu import cpu_seconds, raise_open_files
from bench.processes import Store, generating, redis_server
from bench.targets import FAST_DIALLERS, agents, start_floor, start_gateway, tool_urls

BIG_BYTES = 500 * 1024
BIG_CALLS_PER_SECOND = 20
FLEET, FLEET_TOOLS = 10_000, 5
SMALL_CALLS_PER_SECOND = 200
LISTED_SECONDS = 30


@contextmanager
def beside_big_results(ground: Ground) -> Iterator[Round]:
    """Ten robots with one small call in flight each; then the same beside 20 results of 500 KiB in a second."""
    with ExitStack() as stack:
        worker = [start_gateway(stack, ground)]
        small = start_load(stack, ground, "small", agents(10), (worker, worker), in_flight=1, pids=[])
        big = start_load(
            *(stack, ground, "big", agents(1, first=10), (worker, worker)),
            calls_per_second=BIG_CALLS_PER_SECOND,
            result_bytes=BIG_BYTES,
            pids=[],
        )

        def measure() -> Figures:
            small.target = "alone"
            found = small.measure()
            small.target = "beside"
            big.begin(ground.seconds + 1)
            found |= small.measure()
            return found | big.end()

        yield measure


@contextmanager
def starting(ground: Ground) -> Iterator[Round]:
    """From the start of the process until `/readyz` says yes; the floor from its start until it listens."""

    def measure() -> Figures:
        found: Figures = {}
        with ExitStack() as stack:
            started = time.perf_counter()
            start_floor(stack, ground, "relay")
            found["floor.seconds"] = time.perf_counter() - started
        with ExitStack() as stack:
            started = time.perf_counter()
            start_gateway(stack, ground)
            found["gateway.seconds"] = time.perf_counter() - started
        return found

    yield measure


@contextmanager
def redialling(ground: Ground) -> Iterator[Round]:
    """Three workers; a fleet of tool servers is on the first, which is killed. Small calls go on, on the others."""
    raise_open_files(FLEET + 1000)
    rounds = iter(range(1000))

    def measure() -> Figures:
        with ExitStack() as stack:
            return _death(stack, ground, f"fleet{next(rounds)}")

    yield measure


def _death(stack: ExitStack, ground: Ground, prefix: str) -> Figures:
    store = stack.enter_context(redis_server())
    victim = start_gateway(stack, ground, store.url, **FAST_DIALLERS)
    others = [start_gateway(stack, ground, store.url) for _ in range(2)]
    names = [f"{prefix}-{number}" for number in range(FLEET)]
    place = (stack, ground, "alone", agents(10), (others, others))
    small = start_load(*place, calls_per_second=SMALL_CALLS_PER_SECOND, pids=[])
    plan = {
        "tool_urls": tool_urls(names, [victim]),
        "robot_urls": [],
        "tools": FLEET_TOOLS,
        "redial_urls": tool_urls(names, others),
    }
    ground.say(f"connecting {FLEET} tool servers to one of three workers")
    fleet = stack.enter_context(generating("crowd", plan, ground.folder, ready_seconds=180))
    _wait_until_listed(store, names, "", deadline_seconds=60)
    found = small.measure(max(ground.seconds, 3.0)) | _in_redis(store)
    pids = [one.pid for one in others]
    dead = _worker_of(store, names[0])
    before, redis_before, commands_before = cpu_seconds(pids), cpu_seconds([store.pid]), _commands(store)
    small.target, small.may_fail = "redial", True
    small.begin(120)
    ground.say("killing the worker")
    victim.process.send_signal(signal.SIGKILL)
    started = time.perf_counter()
    report = fleet.ask({"do": "redial"}, 120)
    _wait_until_listed(store, names, dead, deadline_seconds=60)
    listed_seconds = time.perf_counter() - started
    used, redis_used = cpu_seconds(pids) - before, cpu_seconds([store.pid]) - redis_before
    commands = _commands(store) - commands_before
    small.enough()
    found |= small.end()
    return found | {
        "redial.seconds": listed_seconds,
        "redial.dials": float(report["dials"]),
        "redial.gateway_us_per_tool_server": used / FLEET * 1e6,
        "redial.redis_us_per_tool_server": redis_used / FLEET * 1e6,
        "redial.redis_commands_per_tool_server": commands / FLEET,
    }


def _in_redis(store: Store) -> Figures:
    """What the fleet is to Redis."""
    with redis.Redis.from_url(store.url) as client:
        used, clients = client.info("memory")["used_memory"], client.info("clients")["connected_clients"]
    return {"redis.kib_per_tool_server": used / FLEET / 1024, "redis.connections_per_worker": (clients - 1) / 3}


def _commands(store: Store) -> int:
    with redis.Redis.from_url(store.url) as client:
        return int(client.info("stats")["total_commands_processed"])


def _worker_of(store: Store, agent: str) -> str:
    with redis.Redis.from_url(store.url) as client:
        (row,) = client.hvals(f"mcpgw:servers:{{{agent}}}")
    return str(orjson.loads(row)["worker"])


def _wait_until_listed(store: Store, names: list[str], dead: str, deadline_seconds: float) -> None:
    """Until the row of every agent's tool server says that it is up, and not at the dead worker."""
    missing, deadline = names, time.monotonic() + deadline_seconds
    with redis.Redis.from_url(store.url) as client:
        while True:
            missing = [name for name in missing if not _is_listed(client, name, dead)]
            if not missing:
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"{len(missing)} tool servers are not listed: {missing[:3]}")
            time.sleep(0.1)


def _is_listed(client: redis.Redis, agent: str, dead: str) -> bool:
    rows = [orjson.loads(row) for row in client.hvals(f"mcpgw:servers:{{{agent}}}")]
    return any(row["state"] == "up" and row["worker"] != dead for row in rows)


CASES = (
    Case(
        "big",
        "500 KiB results beside small calls",
        (Promise("p99 of the small calls", "beside.p99_ms", "ms", "alone.p99_ms", 3.0),),
        beside_big_results,
    ),
    Case(
        "start",
        "start of a worker until ready, memory backplane",
        (Promise("time", "gateway.seconds", "s", limit=1.0), Promise("time of the bare relay", "floor.seconds", "s")),
        starting,
    ),
    Case(
        "redial",
        f"{FLEET} tool servers redial after a worker's death",
        (
            Promise("until all are listed", "redial.seconds", "s", limit=float(LISTED_SECONDS)),
            Promise("p99 of small calls elsewhere", "redial.p99_ms", "ms", "alone.p99_ms", 5.0),
        ),
        redialling,
        is_short=False,
        rounds_max=1,
    ),
)
