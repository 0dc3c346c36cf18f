"""The lock files of the image: package → version and hashes."""

import re
from dataclasses import dataclass
from pathlib import Path

from tests.project.repository import ROOT

RUN = ROOT / "deploy" / "requirements.lock"
BUILD = ROOT / "deploy" / "requirements-build.lock"

_ENTRY = re.compile(
    r"^([A-Za-z0-9._-]+)==([^ ;\\]+)([^\\\n]*)\\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Locked:
    version: str
    marker: str
    hashes: int


def locked(path: Path) -> dict[str, Locked]:
    """What the file pins, by normalised name."""
    return {
        normal(name): Locked(version, marker.strip(" ;"), hashes.count("--hash="))
        for name, version, marker, hashes in _ENTRY.findall(path.read_text())
    }


def reasons(path: Path) -> dict[str, set[str]]:
    """For whom each package is there, by normalised names."""
    found = re.findall(
        r"^([A-Za-z0-9._-]+)==.*\n(?: +--hash.*\n)+ +# via(.*\n(?: +#   .+\n)*)", path.read_text(), re.MULTILINE
    )
    return {normal(name): {normal(one) for one in re.findall(r"[A-Za-z][A-Za-z0-9._-]*", said)} for name, said in found}


def unread(path: Path) -> str:
    """What of the file is neither an entry nor a comment."""
    return re.sub(r"^\s*(#.*)?\n", "", _ENTRY.sub("", path.read_text()), flags=re.MULTILINE)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
