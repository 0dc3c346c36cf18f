"""The Dockerfile, read as far as it is used: stages of instructions, continued lines joined, comments left out."""

import json
import re
from dataclasses import dataclass, field

from tests.project.repository import ROOT

DOCKERFILE = ROOT / "deploy" / "Dockerfile"


@dataclass(frozen=True, slots=True)
class Stage:
    """What follows a FROM. Instructions are pairs of a name and the rest of the line."""

    base: str
    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [rest for name, rest in self.instructions if name == instruction]

    def last(self, instruction: str) -> str:
        return self.all(instruction)[-1]


def stages() -> list[Stage]:
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found: list[Stage] = []
    for line in filter(str.strip, text.splitlines()):
        name, rest = line.split(maxsplit=1)
        if name == "FROM":
            base, _, alias = rest.partition(" AS ")
            found.append(Stage(base.strip(), alias.strip()))
        else:
            found[-1].instructions.append((name, rest.strip()))
    return found


def command_of(rest: str) -> list[str]:
    """The words of an instruction in exec form, or the shell's; what only a builder understands is left out."""
    rest = re.sub(r"^(--\S+\s+)+", "", rest)
    if not rest.startswith("["):
        return ["/bin/sh", "-c", rest]
    words: list[str] = json.loads(rest)
    return words


def health_command() -> list[str]:
    return command_of(stages()[-1].last("HEALTHCHECK").partition("CMD ")[2])
