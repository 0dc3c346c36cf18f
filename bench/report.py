"""What the bench says: the table of promises, the figures of every target, and all of it as JSON."""

import dataclasses
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gateway
from bench.case import Case, Figures, Promise

_COLUMNS = {
    "cpu_us": "CPU µs",
    "redis_us": "Redis µs",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "calls_per_second": "calls/s",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One promise, and what was found: medians over the rounds.

    The ratio is taken within each round, so that both saw the same machine, and then its median.
    """

    case: str
    title: str
    what: str
    unit: str
    figure: float
    floor: float | None
    ratio: float | None
    limit: float | None

    @property
    def verdict(self) -> str:
        """Whether the promise is kept; a dash where nothing is promised."""
        if self.limit is None:
            return "–"
        return "ok" if (self.figure if self.ratio is None else self.ratio) <= self.limit else "MISSED"

    def cells(self) -> list[str]:
        """Figure, floor, ratio and target, as people read them."""
        unit = f" {self.unit}"
        limit = "–" if self.limit is None else f"≤ {self.limit:g}{unit if self.ratio is None else ' ×'}"
        return [
            number(self.figure) + unit,
            "–" if self.floor is None else number(self.floor) + unit,
            "–" if self.ratio is None else f"{self.ratio:.2f}",
            limit,
        ]


def number(value: float) -> str:
    """Three digits that matter."""
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:.{digits}f}"


def row(case: Case, promise: Promise, rounds: Sequence[Figures]) -> Row:
    figures = [one[promise.figure] for one in rounds]
    floors = [one[promise.floor] for one in rounds] if promise.floor else []
    ratios = [figure / floor for figure, floor in zip(figures, floors, strict=False)]
    return Row(
        case=case.name,
        title=case.title,
        what=promise.what,
        unit=promise.unit,
        figure=statistics.median(figures),
        floor=statistics.median(floors) if floors else None,
        ratio=statistics.median(ratios) if ratios else None,
        limit=promise.limit,
    )


def medians(rounds: Sequence[Figures]) -> Figures:
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


def table(rows: Sequence[Row]) -> str:
    """The promises, for a terminal."""
    lines = [["case", "what", "figure", "floor", "ratio", "target", ""]]
    lines += [[one.case, one.what, *one.cells(), one.verdict] for one in rows]
    return _aligned(lines, left=2)


def targets(found: Mapping[str, Figures]) -> str:
    """Every target that was loaded with calls, for a terminal."""
    return _aligned(_target_lines(found), left=2)


def _target_lines(found: Mapping[str, Figures]) -> list[list[str]]:
    lines = [["case", "target", *_COLUMNS.values()]]
    for case, figures in found.items():
        names = dict.fromkeys(name.partition(".")[0] for name in figures if name.endswith(".p50_ms"))
        for target in names:
            values = (figures.get(f"{target}.{column}") for column in _COLUMNS)
            lines.append([case, target, *("" if value is None else number(value) for value in values)])
    return lines


def markdown(rows: Sequence[Row]) -> str:
    """The promises, for a page."""
    lines = ["| case | what | figure | floor | ratio | target | |", "| --- | --- | ---: | ---: | ---: | ---: | --- |"]
    told = ""
    for one in rows:
        title, told = ("" if one.title == told else one.title), one.title
        verdict = {"ok": "kept", "MISSED": "**missed**"}.get(one.verdict, "")
        lines.append("| " + " | ".join([title, one.what, *one.cells(), verdict]) + " |")
    return "\n".join(lines)


def markdown_targets(found: Mapping[str, Figures]) -> str:
    """Every target that was loaded with calls, for a page."""
    lines = _target_lines(found)
    lines.insert(1, ["---", "---"] + ["---:"] * len(_COLUMNS))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _aligned(lines: Sequence[Sequence[str]], left: int) -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def machine() -> dict[str, str]:
    """Where this was measured."""
    model, memory_kib = "", 0
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            memory_kib = int(line.split()[1])
    return {
        "processor": f"{model or platform.machine()}, {os.cpu_count()} cores",
        "memory": f"{memory_kib / 1024 / 1024:.0f} GiB",
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
    }


def record(
    rows: Sequence[Row], rounds: Mapping[str, Sequence[Figures]], curves: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    """All of it, for `json` files."""
    return {
        "version": gateway.__version__,
        "machine": machine(),
        "seconds": seconds,
        "rows": [dataclasses.asdict(one) for one in rows],
        "medians": {case: medians(every) for case, every in rounds.items()},
        "rounds": rounds,
        "curves": curves,
    }


def rows_of(recorded: Mapping[str, Any]) -> list[Row]:
    """The rows of a record that was read from a file."""
    return [Row(**one) for one in recorded["rows"]]
