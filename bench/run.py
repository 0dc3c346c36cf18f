"""Measures every case against its floor, in turns, and prints the promises as a table.

The cases are measured one after the other. The servers of a case and of its floor live through all its rounds and are
loaded in turns: what the machine does meanwhile hits both alike.
"""

import argparse
import contextlib
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import orjson

from bench import pages, report
from bench.case import Case, Figures, Ground
from bench.cases import ALL
from bench.report import Row

RESULTS = Path(__file__).parent / "results"
ROUNDS, SECONDS = 3, 1.0
INTERRUPTED = 130


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="What the gateway costs, against bare floors.")
    names = [case.name for case in ALL]
    parser.add_argument("--case", choices=names, action="append", help="only this one; repeatable", metavar="NAME")
    parser.add_argument("--all", action="store_true", help="the long cases too (thousands of connections)")
    parser.add_argument("--list", action="store_true", help="say which cases there are")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"rounds of each case (default {ROUNDS})")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"one measurement (default {SECONDS:g})")
    parser.add_argument("--output", type=Path, default=RESULTS / "latest.json", help="where all numbers go as JSON")
    parser.add_argument("--publish", action="store_true", help="write docs/performance.* and docs/scaling.md from them")
    return parser.parse_args(arguments)


def chosen(options: argparse.Namespace) -> list[Case]:
    """The cases of this run."""
    if options.case:
        return [case for case in ALL if case.name in options.case]
    return [case for case in ALL if case.is_short or options.all]


def measure(case: Case, ground: Ground, rounds: int) -> list[Figures]:
    """All rounds of one case. The latencies of its last round stay in `ground.curves`, under the case's name."""
    ground.say("starting")
    curves, ground.curves = ground.curves, {}
    found = []
    with case.open(ground) as one_round:
        count = min(rounds, case.rounds_max)
        for number in range(count):
            ground.say(f"round {number + 1} of {count}")
            found.append(one_round())
    ground.curves = curves | {f"{case.name} {target}": curve for target, curve in ground.curves.items()}
    return found


def run(options: argparse.Namespace, folder: Path) -> int:
    """Measure, print, and keep the numbers."""
    ground = Ground(folder, options.seconds, say=lambda text: None)
    rows: list[Row] = []
    rounds: dict[str, list[Figures]] = {}
    started = time.monotonic()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for case in chosen(options):

        def say(text: str, name: str = case.name) -> None:
            print(f"{time.monotonic() - started:5.0f} s  {name}: {text}", file=sys.stderr, flush=True)

        ground.say = say
        rounds[case.name] = measure(case, ground, options.rounds)
        rows += [report.row(case, promise, rounds[case.name]) for promise in case.promises]
        record = report.record(rows, rounds, ground.curves, options.seconds)
        options.output.write_bytes(orjson.dumps(record, option=orjson.OPT_INDENT_2))  # a later case may fail
    print(report.targets({case: report.medians(every) for case, every in rounds.items()}) + "\n")
    print(report.table(rows))
    if options.publish:
        pages.publish(record)
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0 whatever the verdicts are, 130 after Ctrl-C."""
    options = _options(arguments)
    if options.list:
        for case in ALL:
            print(f"{case.name:<10} {'' if case.is_short else '(long) '}{case.title}")
        return 0
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with contextlib.ExitStack() as stack:
            return run(options, Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))))
    except KeyboardInterrupt:
        print("interrupted; every process has ended", file=sys.stderr)
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)
