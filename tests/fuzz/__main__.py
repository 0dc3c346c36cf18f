"""Fuzz a live worker, and the decoders: `python -m tests.fuzz --cases 100000 --seed 7`.

Half of the cases go to a worker on the memory backplane, half to one on a Redis-compatible server of its own; as many
more go to the decoders in this process. A finding is printed with the command that plays it again, and the smallest
case that shows it is kept under build/fuzz.
"""

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import uvloop

from tests.fuzz import decoders
from tests.fuzz.arena import arena
from tests.fuzz.faults import FAULTS
from tests.fuzz.plays import PLAYS
from tests.fuzz.run import SHOWN, Hunt, Outcome, Plan, keep, play, say
from tests.fuzz.script import load
from tests.support.redis_server import engines, running

KEPT = Path("build") / "fuzz"
BACKPLANES = ("memory", "redis")
DECODER_SLICE = 5000


def main() -> int:
    options = _options().parse_args()
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(2**31)
    say(f"seed {options.seed}")
    if options.decoder is not None:
        decoders.TARGETS[decoders.target_of(options.decoder)](decoders.chance_of(options.seed, options.decoder))
        return 0
    is_clean = options.only == "live" or _decode(options)
    return 0 if (options.only == "decoders" or _attack(options)) and is_clean else 1


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=100_000, help="how many, and as many more for the decoders")
    parser.add_argument("--seed", type=int, help="which ones; a new one each time if none is given")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the number of the first case")
    parser.add_argument("--case", type=int, help="only the case of this number")
    parser.add_argument("--decoder", type=int, help="only the decoders' case of this number, with its traceback")
    parser.add_argument("--replay", type=Path, help="a case that was kept")
    parser.add_argument("--kind", default="", choices=["", *PLAYS], help="only cases of this kind")
    parser.add_argument("--only", default="", choices=["", "live", "decoders"], help="only one of the two parts")
    parser.add_argument("--backplane", default="", choices=["", *BACKPLANES], help="only a worker with this one")
    parser.add_argument("--fault", action="append", default=[], choices=list(FAULTS), help="plant it in the worker")
    return parser


def _decode(options: argparse.Namespace) -> bool:
    if options.case is not None or options.replay is not None:
        return True
    began = time.monotonic()
    for first in range(options.first, options.first + options.cases, DECODER_SLICE):
        count = min(DECODER_SLICE, options.first + options.cases - first)
        found = decoders.run(options.seed, count, first)
        _progress(f"decoders: {first + count}")
        for number, text in found[:SHOWN]:
            say(f"\ndecoders, case {number}: {text}")
            say(f"  replay: python -m tests.fuzz --seed {options.seed} --decoder {number}")
        if found:
            return False
    say(f"decoders: {options.cases} cases, none found wanting, {time.monotonic() - began:.0f} s")
    return True


def _attack(options: argparse.Namespace) -> bool:
    chosen = [options.backplane] if options.backplane else list(BACKPLANES)
    is_clean = True
    for place, backplane in enumerate(chosen):
        share = options.cases // len(chosen)
        with _redis(backplane) as url, tempfile.TemporaryDirectory(prefix="gateway-fuzz-") as folder:
            plan = Plan(options.seed, share, options.first + place * share, options.kind, url, tuple(options.fault))
            plan.say = _progress
            if options.case is not None:
                plan.first, plan.cases = options.case, 1
            is_clean &= _replay(options, plan, Path(folder)) if options.replay else _one(plan, backplane, Path(folder))
    return is_clean


def _one(plan: Plan, backplane: str, folder: Path) -> bool:
    """One run on one backplane; whether nothing was found."""
    outcome = uvloop.run(play(plan, folder))
    say(f"\n{backplane}: {outcome}")
    for found in outcome.found[:SHOWN]:
        say(f"  {found}")
    if outcome.found:
        _hunt(plan, outcome, backplane, folder)
    return not outcome.found


def _hunt(plan: Plan, outcome: Outcome, backplane: str, folder: Path) -> None:
    """Find the case, cut it down and keep it."""
    kind = outcome.found[0].fault.kind
    if kind == "growth":
        say("  growth has no single case: compare kinds with --kind")
        return
    hunt = Hunt(plan, kind, folder)
    found = hunt.one_of(outcome.suspects)
    if found is None:
        numbers = [number for number, _ in outcome.suspects]
        again = f"--seed {plan.seed} --from {numbers[0]} --cases {len(numbers)} --backplane {backplane} --only live"
        say(f"  no case shows it alone; play the slice again: {again}")
        return
    path = keep(hunt.smallest(found), f"seed-{plan.seed}-case-{found[0]}", KEPT)
    planted = "".join(f" --fault '{name}'" for name in plan.faults)
    more = (f" --kind '{plan.kind}'" if plan.kind else "") + planted
    say(f"  case {found[0]} ({found[1].kind}) shows it alone")
    say(f"  replay: python -m tests.fuzz --seed {plan.seed} --case {found[0]} --backplane {backplane}{more}")
    say(f"  minimised: python -m tests.fuzz --replay {path} --backplane {backplane}{planted}")


def _replay(options: argparse.Namespace, plan: Plan, folder: Path) -> bool:
    """Play one kept case; whether it shows nothing."""
    case = load(options.replay.read_bytes())

    async def shown() -> bool:
        async with arena(folder, plan.redis_url, faults=plan.faults) as live:
            found = await live.play([(0, case)]) + await live.settle()
        for entry in found:
            say(f"  {entry}")
        return not found

    return asyncio.run(shown())


@contextlib.contextmanager
def _redis(backplane: str) -> Iterator[str]:
    """The URL of a server for this run; none for the memory backplane."""
    if backplane == "memory":
        yield ""
        return
    with running(next(iter(engines().values()))) as server:
        yield server.url


def _progress(line: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{line[:200]} ")
    else:
        sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
