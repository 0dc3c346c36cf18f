"""Half an hour of load with faults drawn at random, and what each worker holds meanwhile: `make soak`.

Theory of operation
-------------------
One worker is never ended: what builds up builds up there. Every few seconds a thread asks each worker for its memory,
tasks and descriptors, and Redis for its connections and keys. At the end the median of the last quarter of the time
is compared with that of the second one: the first is for warming up.
"""

import argparse
import random
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import redis

from tests.chaos import plot, report
from tests.chaos.__main__ import PAGE, LongRun, all_faults, say
from tests.chaos.fleet import Fleet, on_own_redis
from tests.chaos.nemesis import Round
from tests.chaos.processes import Gone

VETERAN = 0
SAMPLE_SECONDS = 5.0
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Measure:
    """Something that must not grow: by at most this share of what it was, and at least so much is nothing."""

    title: str
    tolerance: float
    least: float


MEASURES = {
    "rss_bytes": Measure("memory of a worker, MiB", 0.10, 4.0),
    "tasks": Measure("asyncio tasks of a worker", 0.25, 8.0),
    "descriptors": Measure("file descriptors of a worker", 0.25, 8.0),
    "connections": Measure("connections of Redis", 0.25, 4.0),
    "keys": Measure("keys in Redis", 0.25, 20.0),
}


@dataclass(slots=True)
class Samples:
    """Measure → who → (minutes, value). Filled by a thread of its own."""

    fleet: Fleet
    curves: dict[str, dict[str, list[tuple[float, float]]]] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Sample until it is over."""
        while not self.over.wait(SAMPLE_SECONDS):
            for worker in self.fleet.workers:
                with suppress(Gone):  # it is dead or frozen at the moment
                    for name, value in worker.child.ask("stats", within=1.0).items():
                        self._note(name, worker.name, value / MIB if name == "rss_bytes" else value)
            with suppress(redis.RedisError), self.fleet.store.client() as client:
                self._note("connections", "Redis", len(client.client_list()))
                self._note("keys", "Redis", client.dbsize())

    def _note(self, name: str, who: str, value: float) -> None:
        minutes = (time.monotonic() - self.began) / 60
        self.curves.setdefault(name, {}).setdefault(who, []).append((minutes, value))


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long")
    parser.add_argument("--seed", type=int, default=1, help="which faults, in which order")
    parser.add_argument("--out", default=str(PAGE), help="the page whose block is written, the plot beside it")
    given = parser.parse_args(words)
    with on_own_redis() as fleet:
        fleet.immortal.add(VETERAN)
        samples = Samples(fleet)
        sampler = threading.Thread(target=samples.run, name="samples", daemon=True)
        sampler.start()
        run = LongRun()
        try:
            _faults_at_random(fleet, given.seed, given.minutes * 60, run)
        except KeyboardInterrupt:
            say("stopped")
            return 130
        finally:
            samples.over.set()
            sampler.join(10)
    rows, is_flat = judged(samples)
    page = Path(given.out)
    image = page.with_name("reliability-soak.svg")
    image.write_text(plot.panels({MEASURES[name].title: samples.curves[name] for name in MEASURES}), encoding="utf-8")
    text = f"{_summary(run.rounds, given.minutes)}\n\n![What the workers and Redis held]({image.name})\n\n{rows}"
    report.fill(page, "soak", text, title="Reliability")
    say("\n" + rows)
    return 0 if is_flat and run.is_clean else 1


def _faults_at_random(fleet: Fleet, seed: int, seconds: float, run: LongRun) -> None:
    """Play faults, with a moment of peace between them."""
    faults = [fault for fault in all_faults() if fault.fleet is None]
    chance = random.Random(seed)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        fault, stretch = chance.choice(faults), chance.choice([1.0, 1.0, 1.5, 2.0])
        say(f"{(until - time.monotonic()) / 60:5.1f} minutes left")
        failed = run.failed
        run.play_once(fleet, fault, chance.randrange(10_000), stretch)
        if run.failed > failed:
            _put_right(fleet)


def _put_right(fleet: Fleet) -> None:
    """After a round that could not be played: everybody is there again, for the next one."""
    for worker in fleet.workers:
        worker.child.thaw()
        if not worker.child.is_running:
            worker.start()
    for child in fleet.peers:
        child.thaw()
        if not child.is_running:
            fleet.start_peers(child)


def judged(samples: Samples) -> tuple[str, bool]:
    """The table of what was held early and late, and whether nothing has grown."""
    rows = [
        "| what | whose | second quarter | last quarter | may differ by | flat |",
        "| --- | --- | ---: | ---: | ---: | --- |",
    ]
    is_flat = True
    for name, measure in MEASURES.items():
        for who, points in sorted(samples.curves.get(name, {}).items()):
            if who not in ("Redis", samples.fleet.workers[VETERAN].name):
                continue
            row, is_row_flat = row_of(measure, who, points)
            rows.append(row)
            is_flat &= is_row_flat
    return "\n".join(rows) + "\n", is_flat


def row_of(measure: Measure, who: str, points: Sequence[tuple[float, float]]) -> tuple[str, bool]:
    """One row, and whether it is flat."""
    early, late = quarters(points)
    room = max(measure.least, early * measure.tolerance)
    is_flat = late - early <= room
    verdict = "yes" if is_flat else "**no**"
    return f"| {measure.title} | {who} | {early:.1f} | {late:.1f} | {room:.1f} | {verdict} |", is_flat


def quarters(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The medians of the second and of the last quarter of the time."""
    last = points[-1][0]
    second = [value for minutes, value in points if last / 4 <= minutes < last / 2]
    fourth = [value for minutes, value in points if minutes >= last * 3 / 4]
    return statistics.median(second or [0.0]), statistics.median(fourth)


def _summary(rounds: Sequence[Round], minutes: float) -> str:
    issued = sum(played.counts["issued"] for played in rounds)
    results = sum(played.counts["result"] for played in rounds)
    faults = len({played.fault for played in rounds})
    return (
        f"{minutes:g} minutes, {len(rounds)} faults of {faults} kinds drawn at random, {issued:,} calls, {results:,} "
        f"of them answered with a result, {report.violations(rounds)} broken promises. `worker-0` is never restarted. "
        "Flat: the median of the last quarter is at most that of the second quarter and what it may differ by."
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
