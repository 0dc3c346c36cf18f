"""Loading a target with calls, and what of the report becomes figures."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import orjson

from bench.case import Figures, Ground
from bench.load.quantiles import P50, P99
from bench.processes import ROOT, Generator, Server, generating
from bench.targets import robot_urls, tool_urls

WARM_UP_SECONDS = 0.3
FINISH_SECONDS = 60.0


class Load:
    """Agents, each a robot and a tool server, connected to one target and loading it when told."""

    def __init__(self, target: str, ground: Ground, generator: Generator) -> None:
        self.target = target
        self._ground = ground
        self._generator = generator
        self.may_fail = False
        """Whether a refused call is a figure, not the end of the run."""
        self.loaded_seconds = 0.0
        """Of the last order, warm-up included."""

    def begin(self, seconds: float = 0.0) -> None:
        warm_up, seconds = min(WARM_UP_SECONDS, self._ground.seconds), seconds or self._ground.seconds
        self.loaded_seconds = warm_up + seconds
        self._generator.tell({"warm_up": warm_up, "seconds": seconds})

    def enough(self) -> None:
        """End a measurement before its time."""
        self._generator.tell({})

    def end(self) -> Figures:
        """The figures. Raises RuntimeError if a call failed or a connection was lost: then nothing was measured."""
        report = self._generator.answer(self.loaded_seconds + FINISH_SECONDS)
        if (report["failed"] and not self.may_fail) or report["lost"] or not report["calls"]:
            raise RuntimeError(f"{self.target}: the load failed: {report}")
        return self._figures(report)

    def measure(self, seconds: float = 0.0) -> Figures:
        self.begin(seconds)
        return self.end()

    def _figures(self, report: Mapping[str, Any]) -> Figures:
        quantiles = report["quantiles_ms"]
        self._ground.curves[self.target] = quantiles
        found = {
            **({"cpu_us": report["cpu_us"]} if report["cpu_us"] else {}),
            **({"redis_us": report["others_us"]} if report["others_us"] else {}),
            "p50_ms": quantiles[P50],
            "p99_ms": quantiles[P99],
            "calls_per_second": report["calls_per_second"],
            "failed": float(report["failed_calls"]),
        }
        return {f"{self.target}.{name}": value for name, value in found.items()}


def start_load(
    stack: ExitStack,
    ground: Ground,
    target: str,
    names: Sequence[str],
    servers: tuple[Sequence[Server], Sequence[Server]],
    **plan: Any,
) -> Load:
    """A load of these agents: robots at the first servers, tool servers at the second; the CPU of both counts."""
    robots_at, tools_at = servers
    full = {
        "tool_urls": tool_urls(names, tools_at),
        "robot_urls": robot_urls(names, robots_at),
        "pids": sorted({one.pid for one in (*robots_at, *tools_at)}),
        **plan,
    }
    return Load(target, ground, stack.enter_context(generating("calls", full, ground.folder, ready_seconds=120)))


def alternated(loads: Sequence[Load]) -> Figures:
    """One round: each in its turn."""
    found: Figures = {}
    for load in loads:
        found |= load.measure()
    return found


def redis_ping(url: str, seconds: float) -> float:
    """The median round trip of a PING, in ms."""
    command = [sys.executable, "-m", "bench.floors.ping", url, str(seconds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=seconds + 20)
    p50_ms: float = orjson.loads(done.stdout)["p50_ms"]
    return p50_ms
