"""Where the memory backplane keeps the books: in files, which outlive the process, and which commands can write."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateway.backplane import entries as texts
from gateway.backplane.base import BOOKS, BackplaneUnavailable, Edition
from gateway.backplane.durable_files import DurableFile


class Shelf:
    """All books of one store: in its memory, or with a directory in one file each (`policy.json`, `revoked.json`)."""

    def __init__(self, directory: Path | None, now_ms: int) -> None:
        self._files = {book: DurableFile(directory / f"{book}.json") for book in BOOKS} if directory else {}
        # A book in memory is open from the start: there is nothing that this process could have forgotten.
        self._kept: dict[str, dict[str, Any]] = {book: {"version": now_ms, "entries": {}} for book in BOOKS}

    def clear(self) -> None:
        """Forget everything that is only in memory."""
        self._kept = {}

    def changed(self) -> list[str]:
        """Return the books whose files somebody else has changed, or that can't be looked at."""
        return [book for book, file in self._files.items() if _differs(file)]

    def read(self, book: str) -> Edition:
        """Return the whole book. Raises BackplaneUnavailable."""
        return _edition(self._files[book].read() if self._files else self._kept.get(book, {}))

    @contextmanager
    def changing(self, book: str) -> Iterator[dict[str, Any]]:
        """Give the book's content to be changed: `version`, and `entries` by name. Raises BackplaneUnavailable."""
        if self._files:
            with self._files[book].changing() as content:
                yield _repaired(content)
        else:
            yield _repaired(self._kept.setdefault(book, {}))


def _differs(file: DurableFile) -> bool:
    try:
        return file.has_changed()
    except BackplaneUnavailable:
        return True  # whoever reads it is told why it can't be


def _edition(content: Mapping[str, Any]) -> Edition:
    content = _repaired(dict(content))
    read = {name: texts.from_object(text) for name, text in content["entries"].items()}
    return Edition(content["version"], {name: entry for name, entry in read.items() if entry is not None})


def _repaired(content: dict[str, Any]) -> dict[str, Any]:
    """The content with both of its fields, of the right types."""
    if type(content.get("version")) is not int:
        content["version"] = 0
    if not isinstance(content.get("entries"), dict):
        content["entries"] = {}
    return content
