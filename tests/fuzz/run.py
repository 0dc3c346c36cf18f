"""A run: so many cases in slices, what they have shown, and of the first finding the smallest case that shows it.

What a case itself shows (an answer that no document names, a request without one, a connection held) is known by its
number. What only the worker shows (its end, a traceback, something left over, an innocent's call) is one of the slice
that was played last: the slice is halved on fresh workers until one case is left. Then its steps are cut down.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from tests.fuzz.arena import BOUND_SECONDS, Arena, Found, arena
from tests.fuzz.plays import case_of
from tests.fuzz.script import Case, minimised

SLICE = 400
WARM_SHARE = 0.1
SHOWN = 6
PROBES_MAX = 40
Numbered: TypeAlias = tuple[int, Case]


@dataclass(slots=True)
class Plan:
    """What is to be played."""

    seed: int
    cases: int
    first: int = 0
    kind: str = ""
    redis_url: str = ""
    faults: tuple[str, ...] = ()
    bound_seconds: float = BOUND_SECONDS
    say: Callable[[str], None] = lambda line: None

    def numbered(self, first: int, count: int) -> list[Numbered]:
        return [(number, case_of(self.seed, number, self.kind)) for number in range(first, first + count)]


@dataclass(slots=True)
class Outcome:
    """What a run has shown."""

    played: int = 0
    seconds: float = 0.0
    calls: int = 0
    slowest_seconds: float = 0.0
    found: list[Found] = field(default_factory=list)
    suspects: list[Numbered] = field(default_factory=list)
    """The cases one of which has brought the finding about."""
    first: dict[str, int] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        done = (
            f"{self.played} cases in {self.seconds:.0f} s; {self.calls} innocent calls, "
            f"the slowest {self.slowest_seconds:.2f} s"
        )
        return "; ".join([done, *(f"{name} {self.first.get(name, 0)} → {held}" for name, held in self.last.items())])


async def play(plan: Plan, folder: Path) -> Outcome:
    """Play until everything is played, or something is found."""
    outcome, began = Outcome(), time.monotonic()
    async with arena(folder, plan.redis_url, faults=plan.faults, bound_seconds=plan.bound_seconds) as live:
        outcome.first = live.base
        while outcome.played < plan.cases and not outcome.found:
            count = min(SLICE, plan.cases - outcome.played)
            cases = plan.numbered(plan.first + outcome.played, count)
            outcome.found = await live.play(cases) + await live.settle()
            outcome.played += count
            outcome.suspects = _suspects(cases, outcome.found)
            if not live.warm and outcome.played >= plan.cases * WARM_SHARE and not outcome.found:
                await live.is_warm()
            _note(outcome, live, began)
            plan.say(f"{plan.first + outcome.played} / {plan.first + plan.cases}  {outcome}")
        if not outcome.found:
            outcome.found = await live.grown()
            outcome.last = await live.stats()
    return outcome


def _note(outcome: Outcome, live: Arena, began: float) -> None:
    outcome.seconds = time.monotonic() - began
    outcome.calls = sum(pair.calls for pair in live.innocents)
    outcome.slowest_seconds = max(pair.slowest_seconds for pair in live.innocents)


def _suspects(cases: Sequence[Numbered], found: Sequence[Found]) -> list[Numbered]:
    """The case that has shown the first finding; all of them if only the worker has shown it."""
    if not found:
        return []
    number = found[0].case
    return [entry for entry in cases if entry[0] == number] if number is not None else list(cases)


# The smallest case


class Hunt:
    """Looks for the smallest case that still shows a finding of this kind, each try on a fresh worker."""

    def __init__(self, plan: Plan, kind: str, folder: Path) -> None:
        self._plan = plan
        self._kind = kind
        self._folder = folder
        self.probes = 0

    def shows(self, cases: Sequence[Numbered]) -> bool:
        self.probes += 1
        return asyncio.run(self._shows(cases))

    async def _shows(self, cases: Sequence[Numbered]) -> bool:
        plan = self._plan
        async with arena(self._folder, plan.redis_url, faults=plan.faults, bound_seconds=plan.bound_seconds) as live:
            found = await live.play(cases) + await live.settle()
        return any(entry.fault.kind == self._kind for entry in found)

    def one_of(self, cases: list[Numbered]) -> Numbered | None:
        """The one case among these that shows it alone; None if none does."""
        while len(cases) > 1:
            middle = len(cases) // 2
            halves = [half for half in (cases[:middle], cases[middle:]) if self.shows(half)]
            if not halves or self.probes > PROBES_MAX:
                return None
            cases = halves[0]
        return cases[0] if cases and self.shows(cases) else None

    def smallest(self, found: Numbered) -> Case:
        """What is left of a case that shows it."""
        number, case = found
        return minimised(case, lambda smaller: self.shows([(number, smaller)]), PROBES_MAX)


def keep(case: Case, name: str, folder: Path) -> Path:
    """Write the case down; the path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_bytes(case.dump())
    return path


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
