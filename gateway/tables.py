"""Tables for a terminal: columns aligned also where characters are two cells wide, lines cut so that they fit.

What peers have written is shown as text: a control character, which could move the cursor, becomes `·`.
"""

import unicodedata
from collections.abc import Collection, Sequence
from typing import Any

import orjson

GAP = "  "
CUT = "…"
_LEAST_CELLS = 6
"""No column is made narrower than that."""
_LEAST_ID_CELLS = 16
_CHARS_MAX = 500
"""Of one item: what peers write can have megabytes, and whole columns are as wide as their widest item."""


def as_json(value: Any) -> str:
    """The same for machines, indented, with its last line ended."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


def cells(text: str) -> int:
    """How many cells of a terminal the text takes."""
    return sum(_cells_of(char) for char in text)


def _cells_of(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1


def printable(text: str) -> str:
    """The text on one line, without anything that a terminal would obey."""
    return "".join(char if char.isprintable() or char == "\u200d" else "·" for char in text)


def cut(text: str, width: int) -> str:
    """The text within so many cells; `…` at the end of what was longer."""
    if cells(text) <= width:
        return text
    kept, used = [], cells(CUT)
    for char in text:
        used += _cells_of(char)
        if used > width:
            break
        kept.append(char)
    return "".join(kept) + CUT


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], width: int = 0, loose: Collection[str] = ()) -> str:
    """The table as lines, without spaces at their ends. With a `width` no line is longer.

    `loose` are columns of free text, which give way first. Columns of numbers stand to the right.
    """
    texts = [[_shown(str(item)) for item in row] for row in rows]
    is_number = [bool(rows) and all(type(row[at]) is int for row in rows) for at in range(len(columns))]
    widths = [max(cells(line[at]) for line in (columns, *texts)) for at in range(len(columns))]
    widths = _fitted(widths, width, [cells(name) for name in columns], [name in loose for name in columns])
    lines = []
    for line in (columns, *texts):
        padded = (
            _pad(cut(text, size), size, to_the_right=right)
            for text, size, right in zip(line, widths, is_number, strict=True)
        )
        whole = GAP.join(padded).rstrip()
        lines.append(cut(whole, width) if width else whole)
    return "\n".join(lines)


def _shown(text: str) -> str:
    return printable(text if len(text) <= _CHARS_MAX else text[:_CHARS_MAX] + CUT)


def _pad(text: str, width: int, *, to_the_right: bool) -> str:
    space = " " * (width - cells(text))
    return space + text if to_the_right else text + space


def _fitted(widths: list[int], total: int, heads: Sequence[int], loose: Sequence[bool]) -> list[int]:
    """First loose columns give way, then the others, the widest first; ids stay long enough to be told apart."""
    fitted, room = list(widths), total - len(GAP) * (len(widths) - 1)
    for is_loose, cells_least in ((True, _LEAST_CELLS), (False, _LEAST_ID_CELLS)):
        least = [max(head, cells_least) for head in heads]
        while total and sum(fitted) > room:
            give = [at for at, size in enumerate(fitted) if loose[at] is is_loose and size > least[at]]
            if not give:
                break
            fitted[max(give, key=fitted.__getitem__)] -= 1
    return fitted
