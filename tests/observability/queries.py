"""PromQL as far as these tests need it: which series a query selects, by which labels and values."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.project.repository import ROOT

RULES = ROOT / "deploy/observability/alerts.yaml"
TARGET_LABELS = frozenset({"namespace", "job", "pod", "instance"})
"""What Prometheus itself adds, from the target."""

_GROUPING = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_RANGE = re.compile(r"\[[^\]]*\]")
_SERIES = re.compile(r"(?<![\w.$:])([a-zA-Z_:][\w:]*)\s*(\(|\{[^}]*\})?")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_WORDS = frozenset({"and", "or", "unless", "offset", "bool"})


@dataclass(frozen=True, slots=True)
class Series:
    """One selector of a query."""

    metric: str
    matched: tuple[tuple[str, frozenset[str]], ...]
    """(label, values that are spelled out); none for those of the dashboard's variables."""


def selected(query: str) -> Iterator[Series]:
    """Every selector in a query."""
    for metric, tail in _SERIES.findall(_GROUPING.sub(" ", _RANGE.sub("", query))):
        if tail != "(" and metric not in _WORDS:
            matched = ((label, _spelled(operator, value)) for label, operator, value in _MATCHER.findall(tail))
            yield Series(metric, tuple(matched))


def grouped_by(query: str) -> set[str]:
    """Every label that a query aggregates by or matches on."""
    return {label.strip() for _, labels in _GROUPING.findall(query) for label in labels.split(",")} - {""}


def _spelled(operator: str, value: str) -> frozenset[str]:
    if "$" in value:
        return frozenset()
    return frozenset(value.split("|") if "~" in operator else [value])
