"""Run seeds: `python -m tests.simulation --runs 10000 --from 0`, and again one that failed: `--seed 4711 --trace`.

The hashes of strings must not differ from run to run, so the command starts itself anew with PYTHONHASHSEED=0 where
that is not set.
"""

import argparse
import gc
import os
import sys
import time
from dataclasses import dataclass

from tests.simulation import directory_model
from tests.simulation.run import Outcome, run
from tests.simulation.sabotage import SABOTAGES, sabotage

SHOWN = 12
"""So many violations of a run are printed."""
COLLECT_RUNS = 5


def main() -> int:
    if os.environ.get("PYTHONHASHSEED") != "0":
        again = [sys.executable, "-m", "tests.simulation", *sys.argv[1:]]
        os.execve(sys.executable, again, {**os.environ, "PYTHONHASHSEED": "0"})
    options = _options().parse_args()
    gc.disable()  # a collection is due between runs, where nothing can be timed by it
    gc.freeze()  # and looks at what the runs have left, not at all that was imported
    with sabotage(options.without):
        if options.seed is not None:
            return _one(options)
        return _many(options)


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation", description="Simulate the cluster under faults that follow from a seed."
    )
    parser.add_argument("--runs", type=int, default=1000, help="how many seeds")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first seed")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--trace", action="store_true", help="with --seed: print everything that happens")
    parser.add_argument("--model", action="store_true", help="the directory alone, many more runs a second")
    parser.add_argument("--kinds", type=lambda text: tuple(text.split(",")), help="only these kinds of faults")
    parser.add_argument("--without", default="", choices=["", *SABOTAGES], help="switch a protection off")
    parser.add_argument("--keep-going", action="store_true", help="do not end at the first violation")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser


def _run(options: argparse.Namespace, seed: int) -> Outcome:
    if options.model:
        return directory_model.run(seed, is_traced=options.trace)
    return run(seed, kinds=options.kinds, is_traced=options.trace)


def _one(options: argparse.Namespace) -> int:
    outcome = _run(options, options.seed)
    for line in outcome.lines:
        _say(line)
    _report(outcome, options)
    _say(
        f"seed {outcome.seed} ({'+'.join(outcome.kinds)}): {outcome.seconds:.1f} virtual seconds, {outcome.calls} calls"
    )
    _say(f"digest {outcome.digest:08x}")
    return int(bool(outcome.violations))


@dataclass(slots=True)
class Sum:
    """What became of all runs."""

    runs: int = 0
    failed: int = 0
    calls: int = 0
    results: int = 0
    digest: int = 0

    def add(self, outcome: Outcome) -> None:
        self.runs += 1
        self.failed += bool(outcome.violations)
        self.calls += outcome.calls
        self.results += outcome.results
        self.digest ^= outcome.digest

    def __str__(self) -> str:
        return f"{self.runs} runs, {self.failed} failed, {self.calls} calls, {self.results} results"


def _many(options: argparse.Namespace) -> int:
    started = time.perf_counter()
    total = Sum()
    try:
        for seed in range(options.first, options.first + options.runs):
            if total.runs % COLLECT_RUNS == 0:
                gc.collect()
                _progress(total, options)
            outcome = _run(options, seed)
            total.add(outcome)
            _report(outcome, options)
            if total.failed and not options.keep_going:
                break
    except KeyboardInterrupt:
        _say("\ninterrupted")
    _say(f"{total}, {time.perf_counter() - started:.1f} s")
    _say(f"digest {total.digest:08x}")
    return int(bool(total.failed))


def _progress(total: Sum, options: argparse.Namespace) -> None:
    if not options.quiet and sys.stderr.isatty():
        sys.stderr.write(f"\r{total} ")
        sys.stderr.flush()


def _report(outcome: Outcome, options: argparse.Namespace) -> None:
    if not outcome.violations:
        return
    _say(f"seed {outcome.seed} ({'+'.join(outcome.kinds)}) failed:")
    for violation in outcome.violations[:SHOWN]:
        _say(f"  {violation}")
    named = (("without", options.without), ("kinds", ",".join(options.kinds or ())))
    more = "".join(f" --{name} {value}" for name, value in named if value) + " --model" * options.model
    _say(f"  replay: python -m tests.simulation --seed {outcome.seed} --trace{more}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
