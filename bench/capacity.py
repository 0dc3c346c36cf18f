"""What a fleet needs: workers, Redis and hand-over times for a number of devices, from what the bench has measured.

    python -m bench.capacity                                   # the three fleets of docs/scaling.md
    python -m bench.capacity --devices 250000 --talking-share 0.05

Theory of operation
-------------------
A fleet is its assumptions (`Assumptions`, all of them inputs) times measured costs (`Costs`, from
`docs/performance.json`). Everything grows with the devices, except what every worker reads of all others at each beat:
that grows with workers × changes. So a fleet is judged by limits, each a share of what there is, and the limit that is
reached with the fewest devices is where the design breaks first.
"""

import argparse
import dataclasses
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from gateway.settings import Settings

MEASURED = Path(__file__).resolve().parents[1] / "docs" / "performance.json"
FLEETS = (10_000, 1_000_000, 100_000_000)
DAY_SECONDS = 86_400
MEASURED_PING_SECONDS, PING_SECONDS = 2, 20  # the bench's and the default


def _given(default: float, reason: str) -> Any:
    return field(default=default, metadata={"reason": reason})


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What can't be measured here."""

    tool_servers: float = _given(1.0, "tool servers per device, connected day and night")
    talking_share: float = _given(0.02, "devices in a conversation in the busiest minute")
    conversation_seconds: float = _given(120.0, "length of a conversation; each is one robot's connection")
    calls: float = _given(3.0, "tool calls in a conversation")
    redials_per_day: float = _given(
        4.0, "how often a tool server's connection is made anew: networks, bridges, deploys"
    )
    worker_share: float = _given(0.5, "how much of a worker's core is planned for; the rest is for a neighbour's death")
    worker_connections: float = _given(10_000.0, "connections planned for one worker; half of GATEWAY_CONNECTIONS")
    tool_handshakes: float = _given(float(Settings().tool_handshakes_per_second), "let in by one worker per second")
    worker_base_mib: float = _given(45.0, "memory of a worker without connections")
    redis_share: float = _given(0.5, "how much of one Redis core is planned for")
    redis_gib: float = _given(64.0, "memory of one Redis primary")
    redis_clients: float = _given(10_000.0, "connections to one Redis; its default `maxclients`")
    listed_us: float = _given(0.5, "Redis' CPU for one entry of a list that workers read whole at each beat")
    listed_bytes: float = _given(60.0, "size of such an entry")
    robot_redis_us: float = _given(20.0, "Redis' CPU for the row of one robot that comes and goes")
    robot_redis_commands: float = _given(4.0, "Redis commands for it")
    beat_seconds: float = _given(2.0, "GATEWAY_BEAT_SECONDS")
    overlap_seconds: float = _given(10.0, "how far back a beat looks for changed agents")


@dataclass(frozen=True, slots=True)
class Costs:
    """What was measured."""

    local_call_us: float
    remote_call_us: float
    remote_redis_us: float
    remote_redis_commands: float
    remote_redis_bytes: float
    robot_us: float
    connection_kib: float
    connection_us_per_second: float
    redial_us: float
    redial_redis_us: float
    redial_redis_commands: float
    tool_server_redis_kib: float
    worker_redis_connections: float

    @classmethod
    def of(cls, found: Mapping[str, Mapping[str, float]]) -> "Costs":
        """The costs in the medians of the cases."""
        remote, redial = found["remote"], found["redial"]
        idle = found["idle"]["gateway.idle_us_per_second"] * MEASURED_PING_SECONDS / PING_SECONDS
        sent, received = (remote[f"gateway.total_net_{way}put_bytes_per_call"] for way in ("in", "out"))
        return cls(
            local_call_us=found["call-1"]["gateway.cpu_us"],
            remote_call_us=remote["gateway.cpu_us"],
            remote_redis_us=remote["gateway.redis_us"],
            remote_redis_commands=remote["gateway.total_commands_processed_per_call"],
            remote_redis_bytes=sent + received,
            robot_us=found["join-20"]["gateway.cpu_us"],
            connection_kib=found["idle"]["gateway.kib_per_connection"],
            connection_us_per_second=idle,
            redial_us=redial["redial.gateway_us_per_tool_server"],
            redial_redis_us=redial["redial.redis_us_per_tool_server"],
            redial_redis_commands=redial["redial.redis_commands_per_tool_server"],
            tool_server_redis_kib=redial["redis.kib_per_tool_server"],
            worker_redis_connections=redial["redis.connections_per_worker"],
        )


@dataclass(frozen=True, slots=True)
class Need:
    """What so many devices need, if they share one Redis (a primary, or a Cluster)."""

    devices: int
    connections: float
    calls_per_second: float
    robots_per_second: float
    redials_per_second: float
    workers: int
    worker_cpu: float
    worker_mib: float
    redis_commands_per_second: float
    redis_mib_per_second: float
    redis_cpu: float
    """Cores, for what a Cluster can spread: every key of an agent or a worker has its own slot."""
    redis_list_cpu: float
    """Cores, for the lists of all agents and all workers: one key each, so one core each."""
    redis_gib: float
    redis_connections: float
    handover_seconds: float
    """One worker dies: its tool servers are listed again, as fast as the others let them in and their CPU allows."""


def need(devices: int, given: Assumptions, costs: Costs) -> Need:
    """What so many devices need."""
    tool_servers, talking = devices * given.tool_servers, devices * given.talking_share
    robots = talking / given.conversation_seconds
    calls, redials = robots * given.calls, tool_servers * given.redials_per_day / DAY_SECONDS
    connections = tool_servers + talking
    upkeep = connections * costs.connection_us_per_second + robots * costs.robot_us + redials * costs.redial_us
    workers = 2
    for _ in range(8):  # more workers, more calls between them; this settles at once
        elsewhere = 1 - 1 / workers
        cpu = (upkeep + calls * _mean(costs.local_call_us, costs.remote_call_us, elsewhere)) / 1e6
        wanted = max(connections / given.worker_connections, cpu / given.worker_share)
        workers = max(2, math.ceil(wanted))
    remote = calls * elsewhere
    beats = workers / given.beat_seconds
    listed = beats * (workers + redials * (given.beat_seconds + given.overlap_seconds))
    spare = min(given.tool_handshakes, (1 - given.worker_share) * 1e6 / costs.redial_us) * (workers - 1)
    spread_us = remote * costs.remote_redis_us + robots * given.robot_redis_us + redials * costs.redial_redis_us
    commands = remote * costs.remote_redis_commands + robots * given.robot_redis_commands
    return Need(
        devices=devices,
        connections=connections,
        calls_per_second=calls,
        robots_per_second=robots,
        redials_per_second=redials,
        workers=workers,
        worker_cpu=cpu / workers,
        worker_mib=given.worker_base_mib + connections / workers * costs.connection_kib / 1024,
        redis_commands_per_second=commands + redials * costs.redial_redis_commands + 4 * beats,
        redis_mib_per_second=(remote * costs.remote_redis_bytes + listed * given.listed_bytes) / 2**20,
        redis_cpu=spread_us / 1e6,
        redis_list_cpu=listed * given.listed_us / 1e6,
        redis_gib=tool_servers * costs.tool_server_redis_kib / 2**20,
        redis_connections=workers * costs.worker_redis_connections,
        handover_seconds=tool_servers / workers / spare,
    )


def _mean(here: float, elsewhere: float, share_elsewhere: float) -> float:
    return here * (1 - share_elsewhere) + elsewhere * share_elsewhere


@dataclass(frozen=True, slots=True)
class Limit:
    """Something that ends. `used` says which share of it a need takes."""

    what: str
    then: str
    used: Callable[[Need, Assumptions], float]


PRIMARY = (
    Limit(
        "CPU of one Redis primary",
        "Redis Cluster: every key of an agent or a worker has its slot, mailboxes are sharded channels",
        lambda need, given: (need.redis_cpu + need.redis_list_cpu) / given.redis_share,
    ),
    Limit(
        "memory of one Redis primary",
        "Redis Cluster, or a larger machine",
        lambda need, given: need.redis_gib / given.redis_gib,
    ),
)
ANY = (
    Limit(
        "what all workers read of each other and of changed agents at each beat",
        "cells; or beats that read only what the worker holds",
        lambda need, given: need.redis_list_cpu / given.redis_share,
    ),
    Limit(
        "connections of workers to one Redis",
        "a higher `maxclients`; in a Cluster every worker is connected to every primary, so cells",
        lambda need, given: need.redis_connections / given.redis_clients,
    ),
)


def reach(limit: Limit, given: Assumptions, costs: Costs) -> int:
    """The most devices, to two digits, before the limit is reached."""
    low, high = 100.0, 1e12
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if limit.used(need(int(middle), given, costs), given) <= 1 else (low, middle)
    digits = 10 ** (math.floor(math.log10(low)) - 1)
    return int(low // digits * digits)


def cell_devices(given: Assumptions, costs: Costs) -> int:
    """How many devices one cell should have: half of what its lists bear, to one digit."""
    half = min(reach(limit, given, costs) for limit in ANY) / 2
    digits = 10 ** math.floor(math.log10(half))
    return int(half // digits * digits)


def shape(one: Need, given: Assumptions) -> str:
    """How Redis must look for this need."""
    if all(limit.used(one, given) <= 1 for limit in (*PRIMARY, *ANY)):
        return "one primary and its replica"
    primaries = max(one.redis_cpu / given.redis_share, one.redis_gib / given.redis_gib)
    return f"a Cluster of {max(3, math.ceil(primaries))} primaries"


def fleets(given: Assumptions, costs: Costs, sizes: Sequence[int] = FLEETS) -> str:
    """The fleets side by side, as a table. What no single Redis bears is told as cells."""
    most = cell_devices(given, costs)
    cells = [max(1, math.ceil(devices / most)) if _is_too_much(devices, given, costs) else 1 for devices in sizes]
    needs = [need(math.ceil(devices / count), given, costs) for devices, count in zip(sizes, cells, strict=True)]
    totals = list(zip(cells, needs, strict=True))
    rows: list[tuple[str, list[str]]] = [
        ("devices", [_count(devices) for devices in sizes]),
        ("cells", [_count(count) for count in cells]),
        ("connections", [_count(count * one.connections) for count, one in totals]),
        ("calls/s", [_count(count * one.calls_per_second) for count, one in totals]),
        ("robots that come, per second", [_count(count * one.robots_per_second) for count, one in totals]),
        ("tool servers that redial, per second", [_count(count * one.redials_per_second) for count, one in totals]),
        ("workers (one core each)", [_count(count * one.workers) for count, one in totals]),
        ("CPU of a worker", [f"{one.worker_cpu:.0%}" for one in needs]),
        ("memory of a worker", [f"{_count(one.worker_mib)} MiB" for one in needs]),
        ("*of one cell:* Redis commands/s", [_count(one.redis_commands_per_second) for one in needs]),
        ("Redis traffic", [f"{_small(one.redis_mib_per_second)} MiB/s" for one in needs]),
        ("Redis CPU, cores", [_small(one.redis_cpu + one.redis_list_cpu) for one in needs]),
        ("– of that, lists that can't be split", [_small(one.redis_list_cpu) for one in needs]),
        ("Redis memory", [f"{_small(one.redis_gib)} GiB" for one in needs]),
        ("connections to Redis", [_count(one.redis_connections) for one in needs]),
        ("Redis", [shape(one, given) for one in needs]),
        ("a worker dies: all listed again after", [f"{max(1.0, one.handover_seconds):.0f} s" for one in needs]),
    ]
    lines = ["|" + " |" * (len(sizes) + 1), "| --- |" + " ---: |" * len(sizes)]
    return "\n".join(lines + [f"| {name} | {' | '.join(row)} |" for name, row in rows])


def _is_too_much(devices: int, given: Assumptions, costs: Costs) -> bool:
    return any(limit.used(need(devices, given, costs), given) > 1 for limit in ANY)


def limits(given: Assumptions, costs: Costs) -> str:
    """What ends first, as a table."""
    ends = sorted(((reach(limit, given, costs), limit) for limit in (*PRIMARY, *ANY)), key=lambda pair: pair[0])
    lines = ["| ends at | what | what comes then |", "| ---: | --- | --- |"]
    return "\n".join(lines + [f"| {_count(devices)} devices | {one.what} | {one.then} |" for devices, one in ends])


def inputs(given: Assumptions, costs: Costs) -> str:
    """Assumptions and costs, as tables."""
    lines = ["| assumption | value | |", "| --- | ---: | --- |"]
    for one in dataclasses.fields(given):
        option = "--" + one.name.replace("_", "-")
        lines.append(f"| `{option}` | {getattr(given, one.name):g} | {one.metadata['reason']} |")
    lines += ["", "| measured | value |", "| --- | ---: |"]
    lines += [f"| {one.name.replace('_', ' ')} | {getattr(costs, one.name):.3g} |" for one in dataclasses.fields(costs)]
    return "\n".join(lines)


def _small(value: float) -> str:
    return "< 0.01" if value < 0.01 else f"{value:.2g}"


def _count(value: float) -> str:
    """A number that people can read: three digits that matter, thousands apart."""
    if value and value < 10:
        return f"{value:.2g}"
    digits = max(0, math.floor(math.log10(value)) - 2) if value else 0
    return f"{round(value / 10**digits) * 10**digits:,}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the model for other assumptions."""
    parser = argparse.ArgumentParser(prog="python -m bench.capacity", description="What a fleet needs.")
    parser.add_argument("--devices", type=float, action="append", help="size of the fleet; repeatable")
    for one in dataclasses.fields(Assumptions):
        parser.add_argument("--" + one.name.replace("_", "-"), type=float, help=one.metadata["reason"])
    options = parser.parse_args(arguments)
    changed = {name: value for name, value in vars(options).items() if name != "devices" and value is not None}
    given, costs = (
        dataclasses.replace(Assumptions(), **changed),
        Costs.of(orjson.loads(MEASURED.read_bytes())["medians"]),
    )
    sizes = [int(devices) for devices in options.devices] if options.devices else FLEETS
    print(f"{fleets(given, costs, sizes)}\n\n{limits(given, costs)}\n\n{inputs(given, costs)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
