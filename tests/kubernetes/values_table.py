"""The table of values in the chart's README, made from values.yaml and its comments."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from tests.kubernetes.chart import CHART

VALUES = CHART / "values.yaml"
README = CHART / "README.md"
BEGIN, END = "<!-- values: made by make golden -->\n", "<!-- end of values -->\n"

_NAME = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Row:
    """One value: its path, its default, and what the comments above it say."""

    path: str
    default: Any
    meaning: str


def rows() -> list[Row]:
    """Every value. A list, an empty map, a map on one line and a map with free keys are one value each."""
    text = VALUES.read_text(encoding="utf-8")
    top = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(top, yaml.MappingNode)
    return list(_rows(top, "", "", text.split("\n")))


def _rows(node: yaml.MappingNode, above: str, said: str, lines: list[str]) -> Iterator[Row]:
    for key, value in node.value:
        path = f"{above}{key.value}"
        meaning = f"{said} {_comment(lines, key.start_mark.line)}".strip()
        said = ""  # what is said of a group stands at its first value
        if isinstance(value, yaml.MappingNode) and not value.flow_style and _has_fixed_keys(value):
            yield from _rows(value, f"{path}.", meaning, lines)
        else:
            yield Row(path, yaml.safe_load(yaml.serialize(value)), meaning)


def _has_fixed_keys(node: yaml.MappingNode) -> bool:
    return all(_NAME.fullmatch(key.value) for key, _ in node.value)


def _comment(lines: list[str], number: int) -> str:
    """The comment that ends in the line above this one."""
    found: list[str] = []
    while number and lines[number - 1].lstrip().startswith("#"):
        number -= 1
        found.insert(0, lines[number].strip().removeprefix("# "))
    return " ".join(found)


def document() -> str:
    """The chart's README with a fresh table."""
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    table = "".join(f"| `{row.path}` | `{_shown(row.default)}` | {row.meaning} |\n" for row in rows())
    return f"{before}{BEGIN}\n| Value | Default | What it is |\n| --- | --- | --- |\n{table}\n{END}{after}"


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
