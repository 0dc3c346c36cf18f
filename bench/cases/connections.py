"""What a connection costs: coming and listing, and being there."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from bench.case import Case, Figures, Ground, Promise, Round
from bench.cpu import cpu_seconds, raise_open_files, resident_bytes
from bench.processes import Generator, Server, generating
from bench.targets import FAST_DIALLERS, agents, robot_urls, start_floor, start_gateway, tool_urls

ROBOTS, TOOL_SERVERS, TOOLS = 5000, 200, 20
PING_SECONDS = 2
IDLE_SECONDS_MIN = 2 * PING_SECONDS


@contextmanager
def joining(ground: Ground, tools: int) -> Iterator[Round]:
    """Robots come to ten agents with so many tools, list them, and go; eight at a time."""
    names = agents(10)
    with ExitStack() as stack:
        floor, gateway = start_floor(stack, ground, "echo"), start_gateway(stack, ground, **FAST_DIALLERS)
        loads: dict[str, Generator] = {}
        for target, server in (("floor", floor), ("gateway", gateway)):
            is_gateway = server is gateway
            plan = {
                "tool_urls": tool_urls(names, [server]) if is_gateway else [],
                "robot_urls": robot_urls(names, [server]),
                "pids": [server.pid],
                "tools": tools if is_gateway else 0,
            }
            loads[target] = stack.enter_context(generating("joins", plan, ground.folder))

        def measure() -> Figures:
            found: Figures = {}
            for target, load in loads.items():
                report = load.ask({"seconds": ground.seconds}, ground.seconds + 30)
                found |= {f"{target}.{name}": value for name, value in report.items()}
            return found

        yield measure


@contextmanager
def idling(ground: Ground) -> Iterator[Round]:
    """Five thousand robots and two hundred tool servers that do nothing, but for a ping every two seconds."""
    raise_open_files(ROBOTS + TOOL_SERVERS + 500)
    with ExitStack() as stack:
        floor = start_floor(stack, ground, "echo", str(PING_SECONDS))
        gateway = start_gateway(stack, ground, **FAST_DIALLERS, GATEWAY_PING_SECONDS=str(PING_SECONDS))
        crowds = {
            "floor": _Crowd(stack, ground, floor, is_echo=True),
            "gateway": _Crowd(stack, ground, gateway, is_echo=False),
        }

        def measure() -> Figures:
            found: Figures = {}
            for target, crowd in crowds.items():
                found |= {f"{target}.{name}": value for name, value in crowd.measure(ground.seconds).items()}
            return found

        yield measure


class _Crowd:
    """The connections of one target."""

    def __init__(self, stack: ExitStack, ground: Ground, server: Server, *, is_echo: bool) -> None:
        before = resident_bytes(server.pid)
        names = agents(TOOL_SERVERS)
        every = [names[number % TOOL_SERVERS] for number in range(ROBOTS)]
        plan = {
            "tool_urls": tool_urls(names, [server]),
            "robot_urls": robot_urls(every, [server]),
            "tools": TOOLS,
            "is_echo": is_echo,
        }
        ground.say(f"connecting {ROBOTS + TOOL_SERVERS} peers")
        self._pid = server.pid
        self._load = stack.enter_context(generating("crowd", plan, ground.folder, ready_seconds=180))
        self._bytes = resident_bytes(server.pid) - before

    def measure(self, seconds: float) -> Figures:
        seconds = max(seconds, IDLE_SECONDS_MIN)
        before, started = cpu_seconds([self._pid]), time.perf_counter()
        time.sleep(seconds)
        used, seconds = cpu_seconds([self._pid]) - before, time.perf_counter() - started
        lost = self._load.ask({"do": "check"}, 30)["lost"]
        if lost:
            raise RuntimeError(f"connections lost: {lost}")
        peers = ROBOTS + TOOL_SERVERS
        return {"kib_per_connection": self._bytes / peers / 1024, "idle_us_per_second": used / seconds / peers * 1e6}


def _join(tools: int, limit: float) -> Case:
    promise = Promise("CPU per robot", "gateway.cpu_us", "µs", "floor.cpu_us", limit)
    title = f"robot connects, initialises, lists {tools} tools, goes"
    return Case(f"join-{tools}", title, (promise,), partial(joining, tools=tools))


CASES = (
    _join(20, 2.5),
    _join(500, 4.0),
    Case(
        "idle",
        f"{ROBOTS} idle robots, {TOOL_SERVERS} tool servers on one worker",
        (
            Promise("memory per connection", "gateway.kib_per_connection", "KiB", "floor.kib_per_connection", 1.6),
            Promise("idle CPU per connection", "gateway.idle_us_per_second", "µs/s", "floor.idle_us_per_second", 1.5),
        ),
        idling,
        is_short=False,
    ),
)
