"""One round: load, a fault, its end, all calls settled, and the verdict on everything that was seen.

A fault is a function that gets a `Field`: it does the harm, lasts, and puts right what somebody would put right in
production (start the process again, mend the link). Everything else has to heal by itself.
"""

import random
import shlex
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from gateway.backplane.keys import Keys
from tests.backplane.cluster import kept_without_end
from tests.chaos.checker import Books, Verdict, Violation, check
from tests.chaos.fleet import Fleet, Worker
from tests.chaos.logbook import Entry

WARM_SECONDS = 0.4
TAIL_SECONDS = 0.3
HEAL_SECONDS = 20.0
"""Nothing of the table may take longer, on however busy a machine."""


@dataclass(slots=True)
class Field:
    """What a fault can reach: the fleet, chance (from the seed), and how long faults last."""

    fleet: Fleet
    random: random.Random
    stretch: float = 1.0
    """1 in the short run; larger where there is time."""
    struck_at: float | None = None
    """From when calls were met by the fault; its begin unless it says otherwise."""
    heal_from: float | None = None
    """From when healing is timed; the fault's end unless it says otherwise."""

    def hold(self, seconds: float) -> None:
        """The fault lasts."""
        time.sleep(seconds * self.stretch)

    def moments(self, seconds: float, every: float) -> Iterator[None]:
        """As `hold`, with something to do every so often."""
        end = time.monotonic() + seconds * self.stretch
        while time.monotonic() < end:
            yield
            time.sleep(every)

    def worker(self) -> Worker:
        """Any worker."""
        return self.random.choice(self.fleet.workers)

    @property
    def mortals(self) -> list[Worker]:
        """Those whose process may end."""
        return [one for one in self.fleet.workers if one.slot not in self.fleet.immortal]

    def victim(self) -> Worker:
        """Any of these."""
        return self.random.choice(self.mortals)

    def someone(self) -> tuple[str, str]:
        """Any tool server: agent and name."""
        plan = self.fleet.plan
        return self.random.choice(plan.agents), self.random.choice(plan.servers)

    def someone_of_the_first(self) -> tuple[str, str]:
        """Any tool server of the first process of them."""
        plan = self.fleet.plan
        return self.random.choice(plan.agents), self.random.choice(plan.servers[:-1])

    def strikes_now(self) -> None:
        self.struck_at = time.monotonic()

    def heals_from_now(self) -> None:
        self.heal_from = time.monotonic()


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that happens in production."""

    name: str
    rows: tuple[int, ...]
    """Of the table of faults, `redis-scaling.md` §4."""
    strike: Callable[[Field], None]
    calls_per_second: float = 60.0
    slow_seconds: float = 0.6
    """The longest calls."""
    stay_seconds: float = 4.0
    """How long robots' conversations last."""
    results_due: bool = False
    """No call may end in an error."""
    fleet: Callable[[], AbstractContextManager[Fleet]] | None = None
    """What it has to be played on, if not a fleet on one Redis server."""


@dataclass(frozen=True, slots=True)
class Round:
    """What came of one fault with one seed."""

    fault: str
    seed: int
    verdict: Verdict
    heal_seconds: Mapping[str, float | None]
    """After how long each tool server was reached again from each worker."""
    in_flight_seconds: Sequence[float]
    """How long the calls that were in flight when it struck took to end from then."""
    error_seconds: Sequence[float]
    """How long calls that were asked after it struck took to end in an error."""
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def counts(self) -> Counter[str]:
        return self.verdict.counts

    @property
    def healed(self) -> list[float]:
        return sorted(seconds for seconds in self.heal_seconds.values() if seconds is not None)

    def __str__(self) -> str:
        counts = " ".join(f"{name}={number}" for name, number in sorted(self.counts.items()))
        heal = f"{statistics.median(self.healed):.2f}/{self.healed[-1]:.2f} s" if self.healed else "never"
        reasons = ", ".join(f"{number}× {reason}" for reason, number in self.reasons.most_common(6))
        broken = "".join(f"\n    {violation}" for violation in self.verdict.violations[:8])
        return f"{self.fault:40} seed {self.seed:<6} {counts} · healed {heal} · {reasons or 'no errors'}{broken}"


def replay(fault: str, seed: int, stretch: float = 1.0) -> str:
    """The command that does it again."""
    words = f"--fault {shlex.quote(fault)} --seed {seed} --seeds 1 --seconds 0 --stretch {stretch:g}"
    return f"make chaos ARGS={shlex.quote(words)}"


def play(fleet: Fleet, fault: Fault, seed: int, stretch: float = 1.0) -> Round:
    """One round. Raises AssertionError or Gone if it could not be played to its end."""
    stage = Field(fleet, random.Random(f"{fault.name} {seed}"), stretch)
    fleet.spread()
    known = [*fleet.last_entries, *fleet.logbook.read_on()]
    old = set(check(known, until=time.monotonic()).violations)
    began = time.monotonic()
    for robots in fleet.robots:
        rate = fault.calls_per_second / len(fleet.robots)
        robots.ask("load", rate=rate, slow_seconds=fault.slow_seconds, stay_seconds=fault.stay_seconds)
    time.sleep(WARM_SECONDS)
    stage.strikes_now()
    fault.strike(stage)
    heal_from = stage.heal_from or time.monotonic()
    heal = fleet.probe(heal_from, HEAL_SECONDS)
    time.sleep(TAIL_SECONDS)
    until = fleet.quiet()
    fleet.last_entries = fleet.logbook.read_on()
    entries = [*known, *fleet.last_entries]
    verdict = check(entries, since=began, until=until, results_due=fault.results_due)
    verdict.violations[:] = [violation for violation in verdict.violations if violation not in old]
    _judge_cluster(fleet, heal, verdict.violations)
    ends, struck = list(_ends(entries, began)), stage.struck_at or began
    return Round(
        fault=fault.name,
        seed=seed,
        verdict=verdict,
        heal_seconds=heal,
        in_flight_seconds=sorted(answer["at"] - struck for ask, answer in ends if ask["at"] < struck <= answer["at"]),
        error_seconds=sorted(
            answer["at"] - ask["at"] for ask, answer in ends if ask["at"] >= struck and answer["outcome"] == "error"
        ),
        reasons=Counter(answer["reason"] for _, answer in ends if answer["outcome"] == "error"),
    )


def _ends(entries: Sequence[Entry], since: float) -> Iterator[tuple[Entry, Entry]]:
    for fate in Books(entries).fates.values():
        if fate.ask is not None and fate.answers and fate.ask["at"] >= since:
            yield fate.ask, fate.answers[0]


def _judge_cluster(fleet: Fleet, heal: Mapping[str, float | None], violations: list[Violation]) -> None:
    """What no call shows: pairs that never came back, workers that are gone, keys that stay for ever."""
    violations += [Violation("not healed", 0, pair) for pair, seconds in heal.items() if seconds is None]
    for worker in fleet.workers:
        if not worker.child.is_running or worker.status("/livez") != 200:
            violations.append(Violation("worker dead", 0, f"{worker.name}\n{worker.child.last_words()}"))
    violations += [Violation("traceback", 0, text) for text in fleet.tracebacks()]
    for client in fleet.clients():
        with client:
            kept = kept_without_end(client, Keys().is_durable)
        violations += [Violation("kept for ever", 0, key) for key in kept]
