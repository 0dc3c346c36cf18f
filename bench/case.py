"""What a case is: what it starts, what one round of it measures, and what is promised about the figures."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

Figures: TypeAlias = dict[str, float]
"""What one round found, by name: `gateway.cpu_us`, `floor.cpu_us`, …; the word before the dot is the target."""

Round: TypeAlias = Callable[[], Figures]


@dataclass(frozen=True, slots=True)
class Promise:
    """One row of the table. With a floor the limit is one of the ratio, without one of the figure itself.

    Without a limit nothing is promised: the row is there to understand the others.
    """

    what: str
    figure: str
    unit: str
    floor: str = ""
    limit: float | None = None


@dataclass(slots=True)
class Ground:
    """What all cases of a run share: where files go, how long one measurement is, and where progress is told."""

    folder: Path
    seconds: float
    say: Callable[[str], None]
    curves: dict[str, list[float]] = field(default_factory=dict)
    """`case target` → latency in ms at `bench.load.quantiles`, of the last round."""


@dataclass(frozen=True, slots=True)
class Case:
    """A case. `open` starts its servers and load, and yields what measures one round."""

    name: str
    title: str
    promises: tuple[Promise, ...]
    open: Callable[[Ground], AbstractContextManager[Round]]
    is_short: bool = True
    """Whether it belongs to the short run that `make bench` is."""
    rounds_max: int = 1000
