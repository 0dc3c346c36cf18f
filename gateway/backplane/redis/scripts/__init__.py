"""The Lua scripts, one change of several keys each; every file's header names its slots."""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

NAMES = (
    "announce",
    "answer",
    "audit",
    "beat",
    "commit",
    "dispatch",
    "event",
    "note",
    "prune",
    "prune_book",
    "read_book",
    "restore_book",
    "snapshot",
    "take",
    "withdraw",
    "write_book",
)


@dataclass(frozen=True, slots=True)
class Script:
    """One script: its text, and the digest by which Redis knows it once it was loaded."""

    name: str
    text: bytes
    digest: str


@cache
def load(name: str) -> Script:
    """The script of that name."""
    text = files(__package__).joinpath(f"{name}.lua").read_bytes()
    return Script(name, text, hashlib.sha1(text, usedforsecurity=False).hexdigest())
