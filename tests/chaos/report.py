"""What many rounds came to: a line for people while they run, tables for `docs/reliability.md` at the end."""

import re
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from gateway.settings import Settings
from tests.chaos.fleet import SETTINGS
from tests.chaos.nemesis import Round

DOUBLED = ("doubled", "answered twice")
MISDELIVERED = ("misdelivered", "crossed", "invented")
LOST = ("lost", "late")


def table(rounds: Sequence[Round]) -> str:
    """The accounts, a row for each fault."""
    head = (
        "| fault | rounds | calls issued | answered with a result | errors: `false` · `unknown` | lost | doubled "
        "| misdelivered | `false`, but run | other | calls succeed again after (median · max) |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
    )
    return head + "\n".join(_row(name, of_fault) for name, of_fault in _by_fault(rounds)) + "\n" + _total(rounds)


def times(rounds: Sequence[Round]) -> str:
    """How fast calls came to an end that met the fault: of those in flight then, and of those asked later."""
    head = (
        f"Times are those of the harness, where a lease is {SETTINGS.lease_seconds:g} s (in production "
        f"{Settings().lease_seconds:g} s), a beat {SETTINGS.beat_seconds:g} s ({Settings().beat_seconds:g} s), a call "
        f"{SETTINGS.call_seconds:g} s ({Settings().call_seconds:g} s) and a WebSocket ping {SETTINGS.ping_seconds:g} s "
        f"({Settings().ping_seconds:g} s), so that a fault takes seconds.\n\n"
        "| fault | in flight when it struck, last one ended after (median · max of rounds) "
        "| asked afterwards and ended in an error, after (median · max of calls) |\n| --- | ---: | ---: |\n"
    )
    rows = []
    for name, of_fault in _by_fault(rounds):
        in_flight = [played.in_flight_seconds[-1] for played in of_fault if played.in_flight_seconds]
        errors = [seconds for played in of_fault for seconds in played.error_seconds]
        rows.append(f"| {name} | {_spread(in_flight)} | {_spread(errors)} |")
    return head + "\n".join(rows) + "\n"


def violations(rounds: Iterable[Round]) -> int:
    return sum(len(played.verdict.violations) for played in rounds)


def fill(page: Path, name: str, text: str, *, title: str) -> None:
    """Put the text between the page's markers of that name; a page that is not there yet is begun."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    old = page.read_text(encoding="utf-8") if page.exists() else f"# {title}\n"
    if begin not in old:
        old += f"\n{begin}\n{end}\n"
    block = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    page.write_text(block.sub(lambda _: f"{begin}\n\n{text.strip()}\n\n{end}", old), encoding="utf-8")


def _by_fault(rounds: Sequence[Round]) -> list[tuple[str, list[Round]]]:
    names = dict.fromkeys(played.fault for played in rounds)
    return [(name, [played for played in rounds if played.fault == name]) for name in names]


def _counts(rounds: Sequence[Round]) -> Counter[str]:
    return sum((played.counts for played in rounds), Counter())


def _row(name: str, rounds: Sequence[Round]) -> str:
    counts = _counts(rounds)
    broken = Counter(violation.kind for played in rounds for violation in played.verdict.violations)
    lies = broken["ran though refused"]
    known = (sum(broken[kind] for kind in kinds) for kinds in (LOST, DOUBLED, MISDELIVERED))
    lost, doubled, misdelivered = known
    other = sum(broken.values()) - lost - doubled - misdelivered - lies
    healed = [seconds for played in rounds for seconds in played.healed]
    return (
        f"| {name} | {len(rounds)} | {counts['issued']:,} | {counts['result']:,} "
        f"| {counts['error:false']:,} · {counts['error:unknown']:,} | {lost} | {doubled} | {misdelivered} | {lies} "
        f"| {other} | {_spread(healed)} |"
    )


def _total(rounds: Sequence[Round]) -> str:
    counts = _counts(rounds)
    return (
        f"\n{counts['issued']:,} calls in {len(rounds):,} rounds. Besides results and errors: {counts['abandoned']:,} "
        f"calls whose robot was cut off before they were due, {counts['cancelled']:,} that were taken back.\n"
    )


def _spread(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.2f} s · {max(seconds):.2f} s" if seconds else "–"
