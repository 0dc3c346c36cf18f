"""What an operator wants to see, and what was seen at one moment: tables for people, values for machines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway import tables
from gateway.ages import iso

_LOOSE = frozenset({"calls itself", "cause", "client", "description", "last error", "more", "note", "what"})
"""Columns of free text."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants to see."""

    noun: str
    id: str = ""
    """The agent, where the noun is about one."""
    agent: str = ""
    """Only what belongs to this agent."""
    limit: int = 100
    grace_seconds: float = 30.0
    pins: str = "off"
    """The mode where the agent's policy does not say."""


@dataclass(frozen=True, slots=True)
class Table:
    """One table of a look."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    title: str = ""


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen at one moment."""

    title: str
    now_ms: int
    data: Mapping[str, Any]
    """All of it, for machines."""
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    """What is not as it should be, or not complete."""
    lead: Sequence[str] = ()
    """What to say before the tables."""
    remarks: Sequence[str] = ()
    """What to say after them."""

    def as_text(self, width: int) -> str:
        """The tables, within a terminal of this width (0: as wide as they are)."""
        parts = [tables.printable(line) for line in (f"{self.title} · {iso(self.now_ms)}", *self.lead)]
        for one in self.tables:
            parts += ["", *([tables.printable(one.title)] if one.title else [])]
            parts.append(tables.table(one.columns, one.rows, width, _LOOSE) if one.rows else "（无）/ (none)")
        parts += ["", *map(tables.printable, self.remarks)] if self.remarks else []
        return "\n".join([*parts, *(f"! {tables.printable(note)}" for note in self.notes)]) + "\n"


def cut_note(is_cut: bool) -> list[str]:
    """What to say where not everything is shown."""
    return ["还有更多，用 --limit / there are more: --limit"] if is_cut else []
