"""One thing that a check of the installation found."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How bad it is. Only `FAIL` keeps the gateway from working; a `NOTE` is good to know.

    `UNKNOWN` is neither good nor bad: a right to look is missing, and the cure is the command that grants it.
    """

    OK = "OK"
    NOTE = "NOTE"
    UNKNOWN = "UNKNOWN"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found about a subject, and what to do about it; both for people, without secrets."""

    level: Level
    subject: str
    text: str
    cure: str = ""


def is_well(findings: Sequence[Finding]) -> bool:
    """True if nothing is known to be worse than a note."""
    return all(one.level in (Level.OK, Level.NOTE, Level.UNKNOWN) for one in findings)


def as_lines(findings: Sequence[Finding]) -> list[str]:
    """One line for each finding, its cure below it."""
    lines = []
    for one in findings:
        lines.append(f"{one.level.value:<5} {one.subject}: {one.text}")
        if one.cure:
            lines.append(f"      → {one.cure}")
    return lines


def as_data(findings: Sequence[Finding]) -> list[dict[str, str]]:
    """The findings for a machine."""
    return [{"level": one.level.value, "subject": one.subject, "text": one.text, "cure": one.cure} for one in findings]
