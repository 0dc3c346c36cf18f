"""Writes the pages in `docs/` from measured numbers: what stands between two markers is generated, the rest is prose.

A run of some cases only replaces the rows of those.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from bench import capacity, plots, report
from bench.cases import ALL
from gateway.settings import Settings

DOCS = Path(__file__).resolve().parents[1] / "docs"
NUMBERS = DOCS / "performance.json"
CURVES = (
    ("call", "one worker, 16 in flight × 10 agents"),
    ("call-1", "one worker, 1 in flight × 10 agents"),
    ("remote", "two workers, 16 in flight × 10 agents"),
    ("remote-1", "two workers, one caller at a time"),
)


def publish(record: Mapping[str, Any], docs: Path = DOCS) -> None:
    """Keep the numbers and write everything that is made from them."""
    numbers = docs / NUMBERS.name
    merged = _merged(orjson.loads(numbers.read_bytes()) if numbers.exists() else {}, record)
    numbers.write_bytes(orjson.dumps(merged, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    rows = report.rows_of(merged)
    (docs / "performance-promises.svg").write_text(plots.promises(rows))
    if all(f"{case} gateway" in record["curves"] for case, _ in CURVES):
        (docs / "performance-latency.svg").write_text(plots.latencies(record["curves"], CURVES))
    for name in ("performance.md", "scaling.md"):
        page = docs / name
        page.write_text(filled(page.read_text(), blocks(merged)))


def blocks(numbers: Mapping[str, Any]) -> dict[str, str]:
    """The generated parts of the pages, by the name of their marker."""
    given, costs = capacity.Assumptions(), capacity.Costs.of(numbers["medians"])
    machine = "\n".join(f"- {name}: {value}" for name, value in numbers["machine"].items())
    return {
        "promises": report.markdown(report.rows_of(numbers)),
        "targets": report.markdown_targets(numbers["medians"]),
        "machine": machine,
        "fleets": capacity.fleets(given, costs),
        "limits": capacity.limits(given, costs),
        "inputs": capacity.inputs(given, costs),
        "letin": f"{Settings().tool_handshakes_per_second:,}",
        "cell": f"{capacity.cell_devices(given, costs):,}",
    }


def filled(page: str, parts: Mapping[str, str]) -> str:
    """The page with each `<!-- name -->…<!-- /name -->` filled anew."""

    def fill(match: re.Match[str]) -> str:
        name, gap = match[1], "\n\n" if "\n" in match[2] else ""
        return f"<!-- {name} -->{gap}{parts[name]}{gap}<!-- /{name} -->"

    return re.sub(r"<!-- (\w+) -->(.*?)<!-- /\1 -->", fill, page, flags=re.DOTALL)


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    order = [case.name for case in ALL]
    is_new = set(new["medians"])
    rows = [row for row in old.get("rows", []) if row["case"] not in is_new] + list(new["rows"])
    merged = {name: value for name, value in new.items() if name != "curves"}
    for part in ("medians", "rounds"):
        every = {**old.get(part, {}), **new[part]}
        merged[part] = {name: every[name] for name in order if name in every}
    merged["rows"] = sorted(rows, key=lambda row: order.index(row["case"]))
    return merged
