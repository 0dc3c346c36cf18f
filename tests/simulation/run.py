"""One run: everything that happens in it follows from its seed."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.simulation import checker
from tests.simulation.loop import Process
from tests.simulation.nemesis import Nemesis
from tests.simulation.node import SETTINGS
from tests.simulation.virtual import machine
from tests.simulation.world import World

SCENARIOS: tuple[tuple[str, ...], ...] = (
    ("links",),
    ("redis", "links"),
    ("workers", "peers"),
    ("links", "redis", "workers", "peers"),
    ("redis", "peers"),
    ("drain",),
)
STRICT = (("links",), ("drain",))
"""Where no call may be lost: its result comes, or it has certainly not been run."""
FAULT_SECONDS = 6.5
HEAL_SECONDS = SETTINGS.call_seconds + checker.ANSWER_SPARE_SECONDS + 1.0
PROBE_SECONDS = 1.5


@dataclass(slots=True)
class Outcome:
    """What became of a run. `violations` is empty where every promise was kept."""

    seed: int
    kinds: tuple[str, ...]
    violations: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    digest: int = 0
    """Of all that went over the network."""
    seconds: float = 0.0
    """In virtual time."""
    calls: int = 0
    results: int = 0


def run(seed: int, *, kinds: tuple[str, ...] | None = None, is_traced: bool = False) -> Outcome:
    """Run the seed's scenario to its end and judge it."""
    kinds = kinds or SCENARIOS[seed % len(SCENARIOS)]
    world = World(seed, is_traced=is_traced)
    return judged(world, Outcome(seed, kinds), lambda: Scenario(world, Random(f"{seed} scenario"), kinds).play())


def judged(world: World, outcome: Outcome, play: Callable[[], Coroutine[Any, Any, list[str]]]) -> Outcome:
    """Let the play run in its world to the end; the outcome, filled in."""
    with machine(world.loop, outcome.seed), _listening(world) as errors:
        try:
            outcome.violations += world.loop.run_for(play(), Process(world.loop, "scenario"))
        except Exception as error:  # noqa: BLE001 - whatever ends a run early is a finding
            outcome.violations.append(f"the run ended with {error!r}")
        outcome.violations += [*errors, *world.loop.problems]
        outcome.digest, outcome.seconds = world.net.digest, world.loop.time() - 1000
        requests = world.journal.requests.values()
        outcome.calls = len(requests)
        outcome.results = sum("result" in answer for request in requests for _, answer in request.answers)
        world.close()
    outcome.lines = world.journal.lines
    return outcome


class Scenario:
    """The course of a run: a cluster comes up, works under faults, heals, and is looked at."""

    def __init__(self, world: World, random: Random, kinds: tuple[str, ...]) -> None:
        self.world, self.random, self.kinds = world, random, kinds
        world.net.weather.fragment = random.choice((0.0, 0.0, 0.2))
        self.nemesis = Nemesis(world, Random(random.random()), kinds)

    async def play(self) -> list[str]:
        """What was found wrong."""
        world = self.world
        for _ in range(self.random.choice((2, 2, 3))):
            world.start_node()
        await asyncio.sleep(0.5)
        world.add_device("calc", "calc")
        world.add_device("lamp", self.random.choice(("", "lamp")))
        for _ in range(2):
            world.add_robot()
        await asyncio.sleep(1.0)
        await self._work(FAULT_SECONDS)
        self.nemesis.heal()
        await asyncio.sleep(HEAL_SECONDS)
        found = checker.check_calls(world, is_strict=self.kinds in STRICT) + checker.check_rest(world)
        found += checker.check_nodes(node for node in world.past_nodes if not node.process.is_dead)
        return found or await self._probe()

    async def _work(self, seconds: float) -> None:
        """Calls and faults, at random."""
        world, random = self.world, self.random
        end = world.loop.time() + seconds
        pause = random.choice((0.3, 0.8, 1.5))
        next_fault = world.loop.time() + pause * random.random()
        while world.loop.time() < end:
            await asyncio.sleep(0.15 * random.random())
            robot = random.choice(world.robots)
            if robot.tools:
                robot.call(random.choices(robot.tools, weights=[0.15 if "never" in t else 1 for t in robot.tools])[0])
            if random.random() < 0.04:
                robot.cancel_one()
            if world.loop.time() >= next_fault:
                next_fault += 2 * pause * random.random()
                self.nemesis.strike()

    async def _probe(self) -> list[str]:
        """A call to every tool server through every worker."""
        world = self.world
        robots = [(node, world.new_robot(node)) for node in world.nodes]
        for _, robot in robots:
            world.outside.soon(robot.dial)
        await asyncio.sleep(PROBE_SECONDS / 2)
        asked = {
            # A tool server without a server_id may have become another one, with names of its own.
            (node, device): [robot.call(name) for name in robot.tools if name.split("__")[-1] == f"{device.name}_fast"]
            for node, robot in robots
            for device in world.devices
        }
        await asyncio.sleep(PROBE_SECONDS / 2)
        return [
            f"after everything had healed, {device.name} did not answer through {node.process.name}: {requests}"
            for (node, device), requests in asked.items()
            if not any(one is not None and one.answers and "result" in one.answers[0][1] for one in requests)
        ]


class _Errors(logging.Handler):
    def __init__(self, world: World, lines: list[str]) -> None:
        super().__init__()
        self._world, self._lines = world, lines

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        self._world.journal.note(record.levelname.lower(), text)
        if record.levelno >= logging.ERROR and not text.startswith("not ready:"):
            self._lines.append(f"logged: {text}")


@contextmanager
def _listening(world: World) -> Iterator[list[str]]:
    """Whatever the gateway logs as an error."""
    lines: list[str] = []
    handler = _Errors(world, lines)
    logger = logging.getLogger("gateway")
    level = logger.level
    logger.setLevel(logging.INFO if world.journal.is_traced else logging.ERROR)
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
