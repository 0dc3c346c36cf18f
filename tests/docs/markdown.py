"""Markdown as far as these tests need it: sections, fenced blocks, tables, links."""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.project.repository import ROOT

_FENCE = re.compile(r"^( *)```(\w*)$")
_HEADING = re.compile(r"^(#{1,6}) (.+)$")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_COMMENTED = {"sh", "ini", "yaml", "conf"}


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block, without the indentation that a list gives it."""

    language: str
    text: str
    section: str
    """The nearest heading above it."""

    @property
    def bare(self) -> str:
        """The block without comments, which differ between the languages of a document."""
        if self.language not in _COMMENTED:
            return self.text
        return "\n".join(re.sub(r"(^|\s+)#.*$", "", line) for line in self.text.splitlines())

    @property
    def commands(self) -> list[str]:
        return [line for line in self.bare.splitlines() if line.strip()] if self.language == "sh" else []


@dataclass(frozen=True, slots=True)
class Document:
    """One file; everything in the order in which it stands there."""

    path: Path
    headings: list[tuple[int, str]]
    blocks: list[Block]
    tables: list[list[list[str]]]
    """Each table as rows of cells, its head first."""
    prose: str
    """Everything but the fenced blocks."""

    @property
    def links(self) -> list[str]:
        return _LINK.findall(self.prose)

    @property
    def anchors(self) -> set[str]:
        """What a link to a heading of this document may be, by the rules of the usual hosts."""
        return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for _, title in self.headings}

    def table(self, *head: str) -> list[list[str]]:
        """The rows of the one table with this head, without it."""
        [found] = self.tables_headed(*head)
        return found

    def tables_headed(self, *head: str) -> list[list[list[str]]]:
        return [table[1:] for table in self.tables if table[0] == list(head)]

    def blocks_of(self, section: str, language: str = "") -> list[Block]:
        return [block for block in self.blocks if block.section == section and language in ("", block.language)]


def read(name: str) -> Document:
    """A document of the repository."""
    path = ROOT / name
    headings: list[tuple[int, str]] = []
    blocks: list[Block] = []
    prose: list[str] = []
    lines = iter(path.read_text(encoding="utf-8").splitlines())
    for line in lines:
        if fence := _FENCE.match(line):
            text = textwrap.dedent("\n".join(_until_fence(lines, fence[1])))
            blocks.append(Block(fence[2], text, headings[-1][1] if headings else ""))
        elif heading := _HEADING.match(line):
            headings.append((len(heading[1]), heading[2]))
            prose.append(line)
        else:
            prose.append(line)
    return Document(path, headings, blocks, _tables(prose), "\n".join(prose))


def _until_fence(lines: Iterator[str], indentation: str) -> Iterator[str]:
    for line in lines:
        if line == f"{indentation}```":
            return
        yield line
    raise AssertionError("a fenced block has no end")


def _tables(prose: list[str]) -> list[list[list[str]]]:
    tables: list[list[list[str]]] = []
    is_inside = False
    for line in prose:
        is_row = line.lstrip().startswith("|")
        if is_row and not is_inside:
            tables.append([])
        is_inside = is_row
        if is_row and not re.fullmatch(r"[|\-: ]+", line):
            tables[-1].append([cell.strip() for cell in line.strip().strip("|").split("|")])
    return tables


def code_in(cell: str) -> list[str]:
    """Everything in backticks."""
    return re.findall(r"`([^`]+)`", cell)
