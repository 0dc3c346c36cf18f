"""How something is counted: counters, histograms and peaks, and what a metric says of itself.

Counting happens on the way of every call, so it is a plain addition in a dict; nothing is formatted, locked or
allocated before somebody asks.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Literal, TypeAlias

PREFIX = "mcpgw_"
OTHER = "other"

Kind = Literal["counter", "gauge", "histogram"]
Merge = Literal["sum", "max", "min"]
Labels: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `merge` says how the values of several workers become one."""

    name: str
    """Without the prefix."""
    kind: Kind
    help: str
    labels: Mapping[str, Labels] = field(default_factory=dict)
    """Label → its allowed values, in order; an empty tuple: one value for each build, set once."""
    merge: Merge = "sum"
    bounds: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets, inclusive; +Inf comes by itself."""
    shown: tuple[Labels, ...] = ()
    """The series of a counter that are there from the start, with 0, where not all of them can occur."""

    @property
    def full_name(self) -> str:
        return PREFIX + self.name


class Series:
    """One series of a counter, for who counts it on every call: `series.count += 1`."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Counter:
    """How often something has happened, by label values. Every series is there from the start: a rate needs a zero."""

    __slots__ = ("_allowed", "_series")

    def __init__(self, metric: Metric) -> None:
        self._allowed = frozenset(product(*metric.labels.values()))
        self._series = {labels: Series() for labels in metric.shown or sorted(self._allowed)}

    def add(self, *labels: str) -> None:
        """Count one more. An unknown value of the last label is `other` where there is that; else raises KeyError."""
        try:
            self._series[labels].count += 1
        except KeyError:
            self.series(*labels).count += 1

    def series(self, *labels: str) -> Series:
        """The series of these label values, to be counted directly. Raises KeyError as `add` does."""
        known = labels if labels in self._allowed else (*labels[:-1], OTHER)
        if known not in self._allowed:
            raise KeyError(labels)
        return self._series.setdefault(known, Series())

    @property
    def values(self) -> dict[Labels, int]:
        return {labels: series.count for labels, series in self._series.items()}

    def of(self, *labels: str) -> int:
        """How often so far; labels may be left out from the right: then all of theirs together."""
        return sum(count for key, count in self.values.items() if key[: len(labels)] == labels)


class Histogram:
    """How large something was: counts by bucket, and the sum.

    `observe(value)` only notes the value, since that is on the way of every call; `fold` sorts what was noted into
    buckets, whenever somebody reads and at every tick.
    """

    __slots__ = ("_counts", "_noted", "_sum", "bounds", "observe")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._noted: list[float] = []
        self.observe: Callable[[float], None] = self._noted.append

    def fold(self) -> None:
        """Sort what was noted into its buckets. To be called again and again, else the notes grow."""
        for value in self._noted:
            self._counts[bisect_left(self.bounds, value)] += 1
        self._sum += sum(self._noted)
        self._noted.clear()

    def spread(self) -> "Spread":
        """Everything that was observed so far."""
        self.fold()
        return Spread(tuple(self._counts), self._sum)

    @property
    def count(self) -> int:
        return sum(self.spread().counts)


@dataclass(frozen=True, slots=True)
class Spread:
    """A histogram as it was read: one count per bucket (not cumulative), the last one above all bounds."""

    counts: tuple[int, ...]
    sum: float


class Peak:
    """The largest of what was noted within the last so many seconds, to a sixth of that."""

    def __init__(self, seconds: float = 30.0) -> None:
        self._slot_seconds = seconds / 6
        self._slots: dict[int, float] = {}

    def note(self, value: float, now: float) -> None:
        slot = int(now / self._slot_seconds)
        known = self._slots.get(slot)
        if known is None:
            self._slots = {number: peak for number, peak in self._slots.items() if number > slot - 6}
            known = 0.0
        self._slots[slot] = max(known, value)

    def value(self, now: float) -> float:
        oldest = int(now / self._slot_seconds) - 6
        return max((peak for number, peak in self._slots.items() if number > oldest), default=0.0)
