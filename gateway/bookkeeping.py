"""How a command reads and writes what people decide: in Redis, or in the files of a gateway without it.

Theory of operation
-------------------
A command takes a seat at the backplane like a worker, but never beats: nobody counts on it, and it leaves nothing
behind. Without Redis it works on the files in the data directory. A gateway that runs beside it notices within a
second; one that is started later reads them.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

from gateway import chronicle
from gateway.audit import Audit, operator
from gateway.backplane.base import BOOKS, Backplane, BackplaneUnavailable, Change, Edition, Entry, Snapshot
from gateway.backplane.entries import from_object, to_object
from gateway.backplane.envelope import Envelope
from gateway.backplanes import make_backplane
from gateway.operating import CannotOperate
from gateway.settings import Settings


class Bookkeeper:
    """The books, as a command has them. What it writes is told to the audit, and to the operators' event log."""

    def __init__(self, settings: Settings, backplane: Backplane) -> None:
        self.backplane = backplane
        self._audit = Audit(settings, backplane)

    @property
    def now_ms(self) -> int:
        """The store's time, as well as it is known."""
        return self.backplane.now_ms

    async def read_book(self, book: str) -> Edition:
        """Return the whole book."""
        return await self.backplane.read_book(book)

    async def write_entry(self, book: str, name: str, text: bytes, expected: int | None = None) -> int | None:
        """As `Books.write_entry`; None where somebody else was faster."""
        version = await self.backplane.write_entry(book, name, text, expected)
        if version is not None:
            what = "set" if text else "removed"
            await self._audit.change(book, name, what, operator(), version)
            fields = {"book": book, "name": name, "what": what, "version": version}
            await chronicle.tell(self.backplane, "decision", fields)
        return version

    async def snapshot(self, agent: str) -> Snapshot:
        """As `Directory.snapshot`."""
        return await self.backplane.snapshot(agent)

    async def commit(self, agent: str, expected: int, change: Change) -> int | None:
        """As `Directory.commit`."""
        return await self.backplane.commit(agent, expected, change)

    async def tell(self, book: str, name: str, what: str) -> None:
        """Tell the audit of a change that was made otherwise."""
        await self._audit.change(book, name, what, operator())

    async def export(self) -> dict[str, dict[str, object]]:
        """Return everything that stands in the books, removals included, as JSON has it."""
        editions = {book: await self.read_book(book) for book in BOOKS}
        return {
            book: {name: to_object(entry) for name, entry in sorted(edition.entries.items())}
            for book, edition in editions.items()
        }

    async def restore(self, books: Mapping[str, Mapping[str, object]]) -> int:
        """Put back what `export` gave, as far as nothing newer stands there; return how many entries were.

        Raises ValueError for what is no such thing.
        """
        count = 0
        for book, entries in checked(books).items():
            count += await self.backplane.restore_book(book, entries)
            await self._audit.change(book, "", "imported", operator())
        return count


def checked(books: object) -> dict[str, dict[str, Entry]]:
    """Return the entries of an export. Raises ValueError."""
    if not isinstance(books, Mapping) or not set(books) <= set(BOOKS):
        raise ValueError("不是导出的内容 / this is no export of the books")
    found: dict[str, dict[str, Entry]] = {}
    for book, entries in books.items():
        read = (
            {name: from_object(text) for name, text in entries.items()} if isinstance(entries, Mapping) else {"": None}
        )
        if None in read.values() or "" in read:
            raise ValueError(f"{book} 里有读不懂的条目 / there are unreadable entries in {book}")
        found[book] = {name: entry for name, entry in read.items() if entry is not None}
    return found


class _Deaf:
    """A command listens to nobody."""

    def on_envelope(self, envelope: Envelope) -> None: ...

    def on_catalog(self, agent: str, revision: int) -> None: ...

    def on_book(self, book: str) -> None: ...

    def on_gap(self) -> None: ...


@asynccontextmanager
async def opened(settings: Settings) -> AsyncGenerator[Bookkeeper]:
    """`async with`: the books. Raises CannotOperate where they can't be reached or read, also from inside."""
    try:
        backplane = make_backplane(settings)
    except ValueError as error:  # the URL
        raise CannotOperate(str(error)) from None
    try:
        async with backplane.session(_Deaf()):
            yield Bookkeeper(settings, backplane)
    except BackplaneUnavailable as error:
        raise CannotOperate(str(error)) from None
