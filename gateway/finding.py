"""One thing that a check of the installation found."""

from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How bad it is. Only `FAIL` keeps the gateway from working; a `NOTE` is good to know, or could not be checked."""

    OK = "OK"
    NOTE = "NOTE"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found about a subject, and what to do about it; both for people, without secrets."""

    level: Level
    subject: str
    text: str
    cure: str = ""
