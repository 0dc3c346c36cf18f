"""How a worker learns what people have decided, keeps it, and gives it back to a store that has forgotten it."""

from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from gateway.backplane.base import BackplaneUnavailable, Edition, Entry
from gateway.backplane.memory import MemoryBackplane, MemoryStore
from gateway.credential import Credential
from gateway.rulebook import PRUNE_SECONDS, REMOVED_MS, SPARE_MS, Rulebook
from gateway.tasks import Tasks
from tests.support.running import settings
from tests.support.waiting import wait_until

BOOK = "revoked"
HOME = Credential("home")


class Broken(MemoryBackplane):
    """One whose store can be taken away."""

    is_away = False
    reads: int = 0

    async def read_book(self, book: str, since: int = 0) -> Edition:
        self.reads += 1
        if self.is_away:
            raise BackplaneUnavailable("away")
        return await super().read_book(book, since)


class Time(Tasks):
    """Tasks whose clock can be turned, and whose pauses turn it."""

    seconds = 0.0

    def now(self) -> float:
        return self.seconds

    async def pause(self, seconds: float) -> None:
        self.seconds += seconds
        await super().pause(0)


@dataclass
class Desk:
    """One worker's rulebook, and what it said."""

    backplane: Broken
    tasks: Time
    said: list[tuple[str, set[str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.book = Rulebook(settings(), self.backplane, self.tasks, self._hear)

    def _hear(self, book: str, names: Collection[str]) -> None:
        self.said.append((book, set(names)))

    def on_book(self, book: str) -> None:
        del book
        self.book.refresh()

    def refuses(self, credential: Credential = HOME) -> bool:
        return self.book.revocations.is_revoked(credential)


@asynccontextmanager
async def desk(store: MemoryStore, name: str = "w", *, is_loaded: bool = True) -> AsyncGenerator[Desk]:
    async with Time() as tasks:
        one = Desk(Broken(store, name, is_shared=True), tasks)
        store.readers[name] = one.on_book
        if is_loaded:
            await one.book.load()
        yield one


async def test_what_was_decided_before_a_worker_began_is_in_force_when_it_opens() -> None:
    store = MemoryStore()
    await MemoryBackplane(store, "x").write_entry(BOOK, "agent:home", b'{"before_ms":5}')
    await MemoryBackplane(store, "x").write_entry("policy", "home", b'{"tools":{"deny":["*"]}}')
    async with desk(store) as w:
        assert w.refuses()
        assert not w.book.policies.of("home").allows("lamp", "on", "lamp_on")
        assert w.book.policies.of("other").allows("lamp", "on", "lamp_on")


async def test_a_worker_that_can_not_read_the_books_does_not_open() -> None:
    async with desk(MemoryStore(), is_loaded=False) as w:
        w.backplane.is_away = True
        with pytest.raises(BackplaneUnavailable):
            await w.book.load()
        assert not w.book.is_loaded


async def test_a_notice_is_enough_and_names_who_is_concerned() -> None:
    store = MemoryStore()
    async with desk(store) as w:
        await w.backplane.write_entry(BOOK, "agent:home", b'{"before_ms":5}')
        await wait_until(w.refuses, "it is known")
        assert w.said == [(BOOK, {"agent:home"})]
        await w.backplane.write_entry(BOOK, "agent:home", b"")
        await wait_until(lambda: not w.refuses(), "it is taken back")


async def test_a_notice_that_was_lost_is_made_up_for_by_a_beat() -> None:
    store = MemoryStore()
    async with desk(store) as w:
        store.readers.clear()
        await w.backplane.write_entry(BOOK, "agent:home", b'{"before_ms":5}')
        w.book.refresh()
        await wait_until(w.refuses, "it is known")


async def test_an_emptied_store_gets_back_what_workers_know_removals_included() -> None:
    store = MemoryStore()
    async with desk(store) as w:
        await w.backplane.write_entry(BOOK, "agent:home", b'{"before_ms":5}')
        await w.backplane.write_entry(BOOK, "agent:off", b"")
        await wait_until(w.refuses, "it is known")
        before = await w.backplane.read_book(BOOK)
        store.clear()
        w.book.refresh()

        async def is_back() -> bool:
            return (await w.backplane.read_book(BOOK)).entries == before.entries

        await wait_until(is_back, "the entries are back")
        assert w.refuses()
        assert len(w.said) <= 2, "nothing has changed for this worker"


async def test_who_begins_with_an_emptied_store_waits_for_those_who_know_the_books() -> None:
    store = MemoryStore()
    async with desk(store, "old") as old, desk(store, "new", is_loaded=False) as new:
        await old.backplane.write_entry(BOOK, "agent:home", b'{"before_ms":5}')
        await wait_until(old.refuses, "it is known")
        store.clear()
        await new.book.load()
        assert new.refuses()
        assert new.book.version(BOOK)


async def test_who_begins_alone_with_an_empty_store_does_not_wait_for_ever() -> None:
    store = MemoryStore()
    store.clear()
    store.readers["of an older version"] = lambda book: None
    async with desk(store) as w:
        assert 3 <= w.tasks.seconds < 10
        assert (await w.backplane.read_book(BOOK)).version


async def test_of_two_memories_the_newer_decision_wins_everywhere_entry_by_entry() -> None:
    """After a failover that lost something each worker knows what another doesn't."""
    store = MemoryStore()
    async with desk(store, "v") as v, desk(store, "w") as w:
        store.readers.clear()
        await v.backplane.write_entry(BOOK, "agent:home", b'{"before_ms":5}')
        v.book.refresh()
        await wait_until(v.refuses, "v knows")
        store.clear()
        await w.backplane.restore_book(BOOK, {})
        await w.backplane.write_entry(BOOK, "agent:home", b"")
        await w.backplane.write_entry(BOOK, "agent:other", b'{"before_ms":7}')
        store.readers.update(v=v.on_book, w=w.on_book)
        for each in (v, w):
            each.book.note_gap()
        other = Credential("other")
        await wait_until(lambda: all(one.refuses(other) and not one.refuses() for one in (v, w)), "all agree")


async def test_a_store_that_a_failover_has_set_back_gets_what_it_lacks() -> None:
    store = MemoryStore()
    async with desk(store) as w:
        await w.backplane.write_entry(BOOK, "agent:home", b'{"before_ms":5}')
        await wait_until(w.refuses, "it is known")
        before = (await w.backplane.read_book(BOOK)).entries
        store.clear()
        await w.backplane.restore_book(BOOK, {"agent:other": Entry(7, b'{"before_ms":5}')})
        w.book.note_gap()

        async def is_whole() -> bool:
            return (await w.backplane.read_book(BOOK)).entries.keys() == before.keys() | {"agent:other"}

        await wait_until(is_whole, "what it lacked is put back")
        assert w.refuses(Credential("other"))


async def test_an_older_entry_in_the_store_changes_nothing_and_is_corrected() -> None:
    store = MemoryStore()
    async with desk(store) as w:
        version = await w.backplane.write_entry(BOOK, "agent:home", b'{"before_ms":5}')
        assert version is not None
        await wait_until(w.refuses, "it is known")
        store.clear()
        await w.backplane.restore_book(BOOK, {"agent:home": Entry(version - 100, b"")})
        w.book.note_gap()

        async def is_corrected() -> bool:
            return (await w.backplane.read_book(BOOK)).entries["agent:home"].version == version

        await wait_until(is_corrected, "the store has the newer one")
        assert w.refuses()


async def test_what_is_known_stays_in_force_while_the_store_is_away() -> None:
    store = MemoryStore()
    async with desk(store) as w:
        await w.backplane.write_entry(BOOK, "agent:home", b'{"before_ms":5}')
        await wait_until(w.refuses, "it is known")
        w.backplane.is_away, reads = True, w.backplane.reads
        w.book.note_gap()
        await wait_until(lambda: w.backplane.reads > reads, "it was tried")
        assert w.refuses()
        w.backplane.is_away = False
        store.clear()
        w.book.refresh()

        async def is_back() -> bool:
            return "agent:home" in (await w.backplane.read_book(BOOK)).entries

        await wait_until(is_back, "all is read after a gap, whenever that is possible again")


async def test_what_has_expired_is_forgotten_by_everybody_and_never_comes_back() -> None:
    clock = [2_000_000_000.0]
    store = MemoryStore(clock=lambda: clock[0])
    async with desk(store) as w:
        now_ms = w.backplane.now_ms
        await w.backplane.write_entry(BOOK, "token:t", b'{"until_ms":%d}' % (now_ms + 1000))
        await w.backplane.write_entry(BOOK, "agent:gone", b"")
        await w.backplane.write_entry(BOOK, "agent:home", b'{"before_ms":5}')
        signed = Credential("home2", "call", token_id="t", issued_ms=1, expires_ms=now_ms + 1000)
        await wait_until(lambda: w.refuses(signed), "it is known")
        whole = (await w.backplane.read_book(BOOK)).entries
        clock[0] += (REMOVED_MS + SPARE_MS) / 1000 + 2
        w.tasks.seconds += PRUNE_SECONDS + 1
        w.book.refresh()

        async def is_pruned() -> bool:
            return set((await w.backplane.read_book(BOOK)).entries) == {"agent:home"}

        await wait_until(is_pruned, "only what matters is left")
        assert not w.refuses(signed)
        await w.backplane.restore_book(BOOK, whole)
        w.book.note_gap()
        await wait_until(lambda: w.book.version(BOOK) > 0 and not w.refuses(signed), "it is not taken over again")


async def test_a_large_book_is_taken_over_in_parts_and_again_if_that_was_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.rulebook.TAKEN_AT_ONCE", 2)
    store = MemoryStore()
    for number in range(5):
        await MemoryBackplane(store, "x").write_entry(BOOK, f"agent:{number}", b'{"before_ms":5}')
    async with desk(store, is_loaded=False) as w:
        hear, w._hear = w._hear, lambda book, names: 1 / 0  # type: ignore[method-assign,assignment]
        w.book._on_change = lambda book, names: w._hear(book, names)
        with pytest.raises(ZeroDivisionError):
            await w.book.load()
        w._hear = hear  # type: ignore[method-assign]
        await w.book.load()
        assert all(w.refuses(Credential(str(number))) for number in range(5))
        assert [len(names) for _, names in w.said] == [2, 1], "the first part was in force already"
