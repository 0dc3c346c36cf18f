"""The long run: `make chaos ARGS="--seconds 60 --seeds 3 --fault NAME --out docs/reliability.md"`."""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.chaos import report
from tests.chaos.checker import Violation
from tests.chaos.faults import FAULTS
from tests.chaos.fleet import ROOT, Fleet, on_own_redis
from tests.chaos.nemesis import Fault, Round, play, replay
from tests.chaos.processes import Gone
from tests.chaos.redis_faults import FAULTS as REDIS_FAULTS
from tests.chaos.redis_faults_promises import broken_promises

PAGE = ROOT / "docs" / "reliability.md"


def all_faults() -> list[Fault]:
    """Those of processes, then those of Redis."""
    return [*FAULTS, *REDIS_FAULTS]


@dataclass(slots=True)
class LongRun:
    """Many rounds, and what could not be played."""

    rounds: list[Round] = field(default_factory=list)
    failed: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    """Fault → why this machine can't play it."""

    @property
    def is_clean(self) -> bool:
        return not self.failed and not report.violations(self.rounds)

    def play_long(self, fault: Fault, given: argparse.Namespace) -> None:
        """Rounds with one seed after the other, on one fleet as long as none fails on it."""
        until = time.monotonic() + given.seconds
        seed: int = given.seed
        while seed < given.seed + given.seeds or time.monotonic() < until:
            try:
                with (fault.fleet or on_own_redis)() as fleet:
                    while seed < given.seed + given.seeds or time.monotonic() < until:
                        seed += 1
                        if not self.play_once(fleet, fault, seed - 1, given.stretch):
                            break
            except pytest.skip.Exception as reason:
                say(f"{fault.name}: skipped: {reason}")
                self.skipped[fault.name] = str(reason)
                return
            except (AssertionError, Gone) as error:
                say(f"{fault.name}: no fleet for it: {error}")
                self.failed += 1
                return

    def play_once(self, fleet: Fleet, fault: Fault, seed: int, stretch: float) -> bool:
        """Whether the round left nothing to complain of; told to who watches."""
        try:
            played = play(fleet, fault, seed, stretch)
        except (AssertionError, Gone) as error:
            self.failed += 1
            say(f"{fault.name} seed {seed}: not played to its end: {error}")
            _keep(fleet, fault, seed, stretch)
            return False
        broken = broken_promises(fault, fleet)
        played.verdict.violations.extend(Violation("promise", 0, text) for text in broken)
        self.rounds.append(played)
        say(str(played))
        if played.verdict.violations:
            _keep(fleet, fault, seed, stretch)
        return not played.verdict.violations

    def text(self) -> str:
        """The tables."""
        skipped = "".join(f"\n{name}: not played, {reason}\n" for name, reason in self.skipped.items())
        failed = f"\n**{self.failed} rounds could not be played to their end.**\n" if self.failed else ""
        return f"{report.table(self.rounds)}{skipped}{failed}\n{report.times(self.rounds)}"


def main(words: Sequence[str]) -> int:
    given = _arguments(words)
    faults = [fault for fault in all_faults() if given.fault in fault.name]
    if not faults:
        say(f"no fault is named {given.fault!r}: " + ", ".join(fault.name for fault in all_faults()))
        return 2
    run = LongRun()
    try:
        for fault in faults:
            run.play_long(fault, given)
    except KeyboardInterrupt:
        say("stopped")
        return 130
    say("\n" + run.text())
    if given.out or not given.fault:
        report.fill(Path(given.out) if given.out else PAGE, "chaos", run.text(), title="Reliability")
    return 0 if run.is_clean else 1


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="at least so long for each fault")
    parser.add_argument("--seeds", type=int, default=3, help="at least so many rounds of each fault, each another seed")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--stretch", type=float, default=2.0, help="how much longer faults last than in make test")
    parser.add_argument("--fault", default="", help="only faults that have this in their name")
    parser.add_argument("--out", default="", help="the page whose tables are written (all faults: docs/reliability.md)")
    return parser.parse_args(words)


def _keep(fleet: Fleet, fault: Fault, seed: int, stretch: float) -> None:
    say(f"    logs: {fleet.keep(f'{fault.name}-{seed}')}\n    again: {replay(fault.name, seed, stretch)}")


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
