"""What people have decided, as this worker knows it: policies and revocations, kept up to date and kept.

Theory of operation
-------------------
The books are read before the worker opens: one that can't read them is not ready, since it would not know whom to
refuse. After that they are read again when a change is told, at every beat (their versions are compared), and whole
after a gap, when the store may be another one.

A worker never forgets an entry unless a newer one takes its place. What the store lacks, or has in an older version,
is put back into it: after a failover, and when it lost everything. A book that nobody has opened (`version` 0) is
either that of a new deployment, or was emptied. A worker that begins with such a book waits as long as any other that
lives needs to put its entries back; only then does it open the book itself.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from gateway import revocations
from gateway.backplane.base import BOOKS, Backplane, BackplaneUnavailable, Entry
from gateway.pace import sliced
from gateway.policies import Policies
from gateway.revocations import Revocations
from gateway.settings import Settings
from gateway.tasks import Tasks

logger = logging.getLogger(__name__)

REFOUND_SECONDS = 3.0
"""Within so long every worker has found a store that is back (`lease.RECONNECT_SECONDS`), and put the books back."""
LOOK_SECONDS = 0.1
PRUNE_SECONDS = 60.0
SPARE_MS = 3_600_000
"""How long an entry is kept beyond its end, so that no two clocks disagree about it."""
REMOVED_MS = 90 * 24 * 3_600_000
"""How long it is remembered that an entry was removed: no worker that lives has been without the store for so long."""
UNREAD_LOG_SECONDS = 30.0
TAKEN_AT_ONCE = 1000
"""Entries that are looked at within one turn of the loop: there may be a hundred thousand."""


@dataclass(slots=True)
class _Book:
    """One book as it was read last."""

    version: int = 0
    entries: dict[str, Entry] = field(default_factory=dict)
    is_whole_due: bool = True


class Rulebook:
    """The books of this worker. `on_change` is told the book and the names, after the two rooms below know."""

    def __init__(
        self,
        settings: Settings,
        backplane: Backplane,
        tasks: Tasks,
        on_change: Callable[[str, Collection[str]], None],
    ) -> None:
        self.revocations = Revocations()
        self.policies = Policies()
        self.is_loaded = False
        self._settings, self._backplane, self._tasks, self._on_change = settings, backplane, tasks, on_change
        self._books = {book: _Book() for book in BOOKS}
        self._is_reading = False
        self._read_again = False
        self._told_at = self._pruned_at = -PRUNE_SECONDS

    def __repr__(self) -> str:
        counts = ", ".join(f"{book}: {len(kept.entries)}" for book, kept in self._books.items())
        return f"<Rulebook [{counts}]>"

    def version(self, book: str) -> int:
        """The version at which this worker has read the book."""
        return self._books[book].version

    async def load(self) -> None:
        """Read all books for the first time. Raises BackplaneUnavailable.

        Takes up to some seconds where the store has never seen the books, or has lost them.
        """
        if self.is_loaded:
            return
        seconds = max(REFOUND_SECONDS, self._settings.beat_seconds + 1)
        until = self._tasks.now() + seconds
        is_told = False
        while True:
            for book in BOOKS:
                await self._read(book)
            is_open = all(kept.version for kept in self._books.values())
            if is_open or not self._backplane.is_shared or self._tasks.now() >= until:
                break
            if await self._backplane.call_for_books():
                break
            if not is_told:
                is_told = True
                text = "the store has no books: waiting for workers that know them"
                logger.info(text, extra={"event": "books_awaited", "seconds": seconds})
            await self._tasks.pause(LOOK_SECONDS)
        self.is_loaded = True
        for book in BOOKS:
            await self._put_back(book, {})

    def refresh(self) -> None:
        """Look whether something has changed, in the background."""
        self._read_again = True
        if self.is_loaded and not self._is_reading:
            self._is_reading = True
            self._tasks.spawn(self._refresh(), "books")

    def note_gap(self) -> None:
        """The store may be another one: read everything."""
        for kept in self._books.values():
            kept.is_whole_due = True
        self.refresh()

    async def _refresh(self) -> None:
        try:
            while self._read_again:
                self._read_again = False
                for book in BOOKS:
                    await self._put_back(book, await self._read(book))
            if self._tasks.now() - self._pruned_at >= PRUNE_SECONDS:
                self._pruned_at = self._tasks.now()
                for book in BOOKS:
                    await self._prune(book)
        except BackplaneUnavailable as error:  # the next beat looks again; what is known stays in force
            if self._tasks.now() - self._told_at >= UNREAD_LOG_SECONDS:
                self._told_at = self._tasks.now()
                text = "the books can't be read; what is known of them stays in force"
                logger.warning(text, extra={"event": "books_unread", "cause": str(error)})
        finally:
            self._is_reading = False

    async def _read(self, book: str) -> dict[str, Entry]:
        """Read what is new; return what the store should have and has not."""
        kept = self._books[book]
        is_whole_due, kept.is_whole_due = kept.is_whole_due, False
        try:
            edition = await self._backplane.read_book(book, 0 if is_whole_due else kept.version)
        except BackplaneUnavailable:
            kept.is_whole_due = is_whole_due or kept.is_whole_due
            raise
        kept.version = edition.version
        behind: dict[str, Entry] = {}
        try:
            for part in sliced(edition.entries.items(), TAKEN_AT_ONCE):
                behind |= self._take(book, part)
                await self._tasks.pause(0)
        except BaseException:
            kept.is_whole_due = True
            raise
        if edition.is_whole:
            behind |= {name: entry for name, entry in kept.entries.items() if name not in edition.entries}
        now_ms = self._backplane.now_ms
        return {name: entry for name, entry in behind.items() if not _is_over(name, entry, now_ms)}

    def _take(self, book: str, entries: Iterable[tuple[str, Entry]]) -> dict[str, Entry]:
        """Take over what is newer; return what is older than what is known here."""
        kept, now_ms = self._books[book], self._backplane.now_ms
        changed: dict[str, Entry] = {}
        behind: dict[str, Entry] = {}
        for name, entry in entries:
            mine = kept.entries.get(name)
            if mine is not None and mine.version > entry.version:
                behind[name] = mine
            elif mine != entry and not _is_over(name, entry, now_ms):
                changed[name] = entry
        if changed:
            kept.entries |= changed
            self._apply(book, changed)
        return behind

    def _apply(self, book: str, changed: Mapping[str, Entry | None]) -> None:
        for name, entry in changed.items():
            text = (entry.text or None) if entry is not None else None
            try:
                (self.revocations if book == revocations.BOOK else self.policies).put(name, text)
            except Exception:
                # One entry that can't be taken over must not keep the others from being in force.
                where = {"event": "entry_failed", "book": book, "entry": name}
                logger.exception("a decision can't be taken over", extra=where)
        fields = {"event": "book_changed", "book": book, "version": self._books[book].version, "entries": len(changed)}
        logger.info("decisions taken over", extra=fields)
        self._on_change(book, changed.keys())

    async def _put_back(self, book: str, entries: Mapping[str, Entry]) -> None:
        """Give the store what it lacks. A book that is not open is opened, with all that is known."""
        kept = self._books[book]
        if not kept.version:
            entries = kept.entries
            if not entries and not self._backplane.is_shared:
                return
        elif not entries:
            return
        count = await self._backplane.restore_book(book, entries)
        if count:
            text = "the store had forgotten decisions; they are put back"
            logger.warning(text, extra={"event": "book_restored", "book": book, "entries": count})

    async def _prune(self, book: str) -> None:
        """Forget what no longer matters, here and in the store."""
        kept, now_ms = self._books[book], self._backplane.now_ms
        over = {name: entry for name, entry in kept.entries.items() if _is_over(name, entry, now_ms)}
        if not over:
            return
        for name, entry in over.items():
            del kept.entries[name]
            if book == revocations.BOOK and entry.text:
                self.revocations.put(name, None)
        await self._backplane.prune_book(book, {name: entry.version for name, entry in over.items()})


def _is_over(name: str, entry: Entry, now_ms: int) -> bool:
    """Whether nobody needs the entry any more."""
    if not entry.text:
        return entry.version < now_ms - REMOVED_MS
    return revocations.until_ms(name, entry.text) < now_ms - SPARE_MS
