"""The books of one process, and how it notices that a command beside it has written one."""

import asyncio
from collections.abc import Mapping

from gateway.backplane import entries as texts
from gateway.backplane.base import BOOKS, Edition, Entry
from gateway.backplane.memory_store import MemoryCore

LOOK_SECONDS = 1.0
"""How often the files are looked at: what a command wrote is in force so much later at most."""


class MemoryBooks(MemoryCore):
    """See `gateway.backplane.base.Books`."""

    _timer: asyncio.TimerHandle | None = None

    async def read_book(self, book: str, since: int = 0) -> Edition:
        edition = self._store.shelf.read(book)
        return Edition(edition.version, {}, is_whole=False) if since and since == edition.version else edition

    async def write_entry(self, book: str, name: str, text: bytes, expected: int | None = None) -> int | None:
        texts.tail(name, text)
        with self._store.shelf.changing(book) as content:
            before = texts.from_object(content["entries"].get(name))
            had = before.version if before else 0
            is_there = before is not None and bool(before.text)
            if expected is not None and expected != had and not (expected == 0 and not is_there):
                return None
            version: int = max(content["version"] + 1, had + 1, self.now_ms)
            content["entries"][name] = texts.to_object(Entry(version, text))
            # One that is not open stays so, for those who know what was in it; files are nobody else's.
            if content["version"] or not self.is_shared:
                content["version"] = version
        self._tell_of_book(book)
        return version

    async def restore_book(self, book: str, entries: Mapping[str, Entry]) -> int:
        put: dict[str, Entry] = {}
        with self._store.shelf.changing(book) as content:
            for name, entry in entries.items():
                before = texts.from_object(content["entries"].get(name))
                if before is None or before.version < entry.version:
                    put[name] = entry
                    content["entries"][name] = texts.to_object(entry)
            is_news = bool(put) or not content["version"]
            if is_news:
                newest = max((entry.version for entry in put.values()), default=0)
                content["version"] = max(content["version"] + 1, newest, self.now_ms)
        if is_news:
            self._tell_of_book(book)
        return len(put)

    async def call_for_books(self) -> bool:
        for book in BOOKS:
            self._tell_of_book(book)
        return len(self._store.readers) <= 1

    async def prune_book(self, book: str, entries: Mapping[str, int]) -> None:
        with self._store.shelf.changing(book) as content:
            for name, version in entries.items():
                entry = texts.from_object(content["entries"].get(name))
                if entry is not None and entry.version == version:
                    del content["entries"][name]

    def _tell_of_book(self, book: str) -> None:
        loop = asyncio.get_running_loop()
        for hear in self._store.readers.values():
            loop.call_soon(hear, book)

    def _hear_of_book(self, book: str) -> None:
        if self._listener is not None:
            self._listener.on_book(book)

    # -- looking at the files

    def _begin_to_look(self) -> None:
        self._store.readers[self.worker_id] = self._hear_of_book
        self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def _stop_looking(self) -> None:
        self._store.readers.pop(self.worker_id, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)
        for book in self._store.shelf.changed():
            self._hear_of_book(book)
