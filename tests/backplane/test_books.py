"""What the books promise, on memory and on every Redis-compatible server that is here."""

from contextlib import AsyncExitStack

import pytest

from gateway.backplane.base import BOOKS, Backplane, Entry
from gateway.credential import Credential
from gateway.rulebook import Rulebook
from gateway.tasks import Tasks
from tests.backplane.cluster import Cluster, Ear, Engine, Seat
from tests.support.running import settings
from tests.support.waiting import wait_until

BOOK = "revoked"
LONG_AGO_MS = 1_000


async def opened(*seats: Seat) -> None:
    """Open the books, as the first worker of a deployment does; everybody has heard of it."""
    closed = [book for book in BOOKS if not (await seats[0].backplane.read_book(book)).version]
    for book in closed:
        await seats[0].backplane.restore_book(book, {})
    await wait_until(lambda: all(len(seat.ear.books) == len(closed) for seat in seats), "all have heard")
    for seat in seats:
        seat.ear.books.clear()


async def test_a_book_that_nobody_has_opened_has_version_zero(cluster: Cluster) -> None:
    cluster.engine.lose_everything()
    async with cluster("w") as (w,):
        edition = await w.backplane.read_book(BOOK)
        assert (edition.version, edition.entries, edition.is_whole) == (0, {}, True)


async def test_what_was_written_is_read_by_everybody_and_everybody_is_told(cluster: Cluster) -> None:
    async with cluster("v", "w") as (v, w):
        await opened(v, w)
        version = await v.backplane.write_entry(BOOK, "agent:智能 体", b'{"before_ms":5,"reason":"\xe4\xb8\xa2"}')
        assert version is not None
        edition = await w.backplane.read_book(BOOK)
        assert edition.version == version
        assert edition.entries == {"agent:智能 体": Entry(version, '{"before_ms":5,"reason":"丢"}'.encode())}
        await wait_until(lambda: BOOK in v.ear.books and BOOK in w.ear.books, "both are told")
        assert (await w.backplane.read_book("policy")).entries == {}


async def test_versions_only_grow_and_are_times_of_the_store(cluster: Cluster) -> None:
    async with cluster("w") as (w,):
        await opened(w)
        before = (await w.snapshot("a")).now_ms
        versions = [await w.backplane.write_entry(BOOK, "token:x", b"{}") for _ in range(5)]
        known = [version for version in versions if version is not None]
        assert known == sorted(set(known))
        assert len(known) == 5
        assert before <= known[0]


async def test_who_has_a_version_gets_only_what_came_after_it(cluster: Cluster) -> None:
    async with cluster("v", "w") as (v, w):
        await opened(v)
        await v.backplane.write_entry(BOOK, "token:a", b"{}")
        since = await v.backplane.write_entry(BOOK, "token:b", b"{}")
        assert since is not None
        nothing = await w.backplane.read_book(BOOK, since)
        assert (nothing.version, nothing.entries, nothing.is_whole) == (since, {}, False)
        third = await v.backplane.write_entry(BOOK, "token:c", b"{}")
        later = await w.backplane.read_book(BOOK, since)
        assert later.version == third
        assert set(later.entries) == ({"token:a", "token:b", "token:c"} if later.is_whole else {"token:c"})


async def test_who_comes_with_a_version_of_another_history_reads_everything(cluster: Cluster) -> None:
    async with cluster("w") as (w,):
        await opened(w)
        await w.backplane.write_entry(BOOK, "token:a", b"{}")
        version = await w.backplane.write_entry(BOOK, "token:b", b"{}")
        assert version is not None
        for foreign in (LONG_AGO_MS, version + 5, version * 2):
            edition = await w.backplane.read_book(BOOK, foreign)
            assert edition.is_whole, foreign
            assert set(edition.entries) == {"token:a", "token:b"}


async def test_what_was_taken_back_is_remembered_as_that(cluster: Cluster) -> None:
    async with cluster("w") as (w,):
        await opened(w)
        await w.backplane.write_entry(BOOK, "agent:a", b'{"before_ms":5}')
        version = await w.backplane.write_entry(BOOK, "agent:a", b"")
        assert version is not None
        assert (await w.backplane.read_book(BOOK)).entries == {"agent:a": Entry(version, b"")}


async def test_a_decision_that_rests_on_an_older_one_is_not_taken(cluster: Cluster) -> None:
    async with cluster("v", "w") as (v, w):
        await opened(v)
        first = await v.backplane.write_entry(BOOK, "a", b'{"n":1}', expected=0)
        assert first is not None
        assert await w.backplane.write_entry(BOOK, "a", b'{"n":2}', expected=0) is None
        assert await w.backplane.write_entry(BOOK, "a", b'{"n":2}', expected=first - 1) is None
        assert (await w.backplane.read_book(BOOK)).entries == {"a": Entry(first, b'{"n":1}')}
        second = await w.backplane.write_entry(BOOK, "a", b"", expected=first)
        assert second is not None
        assert await v.backplane.write_entry(BOOK, "a", b'{"n":3}', expected=0) is not None, "a removed one is none"


async def test_what_is_no_entry_is_not_written(cluster: Cluster) -> None:
    async with cluster("w") as (w,):
        await opened(w)
        for name, text in (("a", b"[]"), ("a", b'{"version":9}'), ("", b"{}")):
            with pytest.raises(ValueError, match="an entry"):
                await w.backplane.write_entry(BOOK, name, text)
        assert (await w.backplane.read_book(BOOK)).entries == {}


async def test_an_emptied_store_gets_its_book_back_as_it_was(cluster: Cluster) -> None:
    async with cluster("v", "w") as (v, w):
        await opened(v, w)
        await v.backplane.write_entry(BOOK, "agent:a", b'{"before_ms":5}')
        await v.backplane.write_entry(BOOK, "agent:b", b"")
        before = await v.backplane.read_book(BOOK)
        cluster.engine.lose_everything()
        assert (await v.backplane.read_book(BOOK, before.version)).version == 0
        w.ear.books.clear()
        assert await v.backplane.restore_book(BOOK, before.entries) == 2
        after = await w.backplane.read_book(BOOK)
        assert (after.entries, after.version >= before.version) == (before.entries, True)
        await wait_until(lambda: BOOK in w.ear.books, "the others are told")


async def test_no_older_decision_ever_takes_the_place_of_a_newer_one(cluster: Cluster) -> None:
    async with cluster("v", "w") as (v, w):
        await opened(v)
        removed = await v.backplane.write_entry(BOOK, "agent:a", b"")
        assert removed is not None
        known = await v.backplane.read_book(BOOK)
        stale = {"agent:a": Entry(removed - 1, b'{"before_ms":5}'), "agent:b": Entry(7, b"{}")}
        assert await w.backplane.restore_book(BOOK, stale) == 1
        edition = await v.backplane.read_book(BOOK, known.version)
        assert edition.version > known.version, "who knew the book before learns of what has come in"
        assert edition.entries["agent:b"] == Entry(7, b"{}")
        assert (await v.backplane.read_book(BOOK)).entries["agent:a"] == Entry(removed, b"")


async def test_of_what_workers_with_different_memories_put_back_the_newest_stays(cluster: Cluster) -> None:
    cluster.engine.lose_everything()
    async with cluster("v", "w") as (v, w):
        await v.backplane.restore_book(BOOK, {"a": Entry(100, b'{"n":1}'), "b": Entry(90, b'{"n":1}')})
        await w.backplane.restore_book(BOOK, {"a": Entry(80, b'{"n":2}'), "b": Entry(95, b'{"n":2}')})
        entries = (await v.backplane.read_book(BOOK)).entries
        assert entries == {"a": Entry(100, b'{"n":1}'), "b": Entry(95, b'{"n":2}')}


async def test_what_is_written_into_an_emptied_store_does_not_open_its_book(cluster: Cluster) -> None:
    """Else who starts now would take the one new entry for all that there is."""
    cluster.engine.lose_everything()
    async with cluster("w") as (w,):
        first = await w.backplane.write_entry(BOOK, "token:a", b"{}")
        second = await w.backplane.write_entry(BOOK, "token:a", b"")
        assert first is not None
        assert second is not None
        assert second > first
        edition = await w.backplane.read_book(BOOK)
        assert (edition.version, edition.entries) == (0, {"token:a": Entry(second, b"")})
        assert await w.backplane.restore_book(BOOK, {"token:a": Entry(first, b"{}")}) == 0
        edition = await w.backplane.read_book(BOOK)
        assert (edition.version > 0, edition.entries) == (True, {"token:a": Entry(second, b"")})


async def test_a_large_book_is_open_only_once_all_of_it_is_back(cluster: Cluster) -> None:
    cluster.engine.lose_everything()
    entries = {f"token:{at}": Entry(1000 + at, b"{}") for at in range(1500)}
    async with cluster("w") as (w,):
        assert await w.backplane.restore_book(BOOK, entries) == 1500
        edition = await w.backplane.read_book(BOOK)
        assert edition.entries == entries
        assert edition.version >= 2499


async def test_only_what_is_still_the_same_is_struck_out(cluster: Cluster) -> None:
    async with cluster("w") as (w,):
        await opened(w)
        versions = {name: await w.backplane.write_entry(BOOK, name, b"{}") for name in ("a", "b")}
        known = {name: version for name, version in versions.items() if version is not None}
        newer = await w.backplane.write_entry(BOOK, "b", b'{"n":2}')
        assert newer is not None
        await w.backplane.prune_book(BOOK, {**known, "c": 5})
        assert (await w.backplane.read_book(BOOK)).entries == {"b": Entry(newer, b'{"n":2}')}


class Reader(Ear):
    """A worker's ear with a rulebook behind it."""

    def __init__(self, backplane: Backplane, tasks: Tasks) -> None:
        super().__init__()
        self.rulebook = Rulebook(settings(), backplane, tasks, lambda book, names: None)

    def on_book(self, book: str) -> None:
        super().on_book(book)
        self.rulebook.refresh()

    def on_gap(self) -> None:
        super().on_gap()
        self.rulebook.note_gap()

    def refuses(self) -> bool:
        return self.rulebook.revocations.is_revoked(Credential("home"))


async def test_a_worker_that_begins_with_a_store_that_lost_everything_knows_what_the_others_knew(
    engine: Engine,
) -> None:
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(Tasks())
        readers: dict[str, Reader] = {}
        for name in ("old", "other", "new"):
            if name == "new":
                engine.lose_everything()
            backplane = engine.backplane(name)
            reader = readers[name] = Reader(backplane, tasks)
            await stack.enter_async_context(backplane.session(reader))
            if name == "old":
                for book in BOOKS:
                    await backplane.restore_book(book, {})
            await reader.rulebook.load()
            if name == "old":
                await backplane.write_entry(BOOK, "agent:home", b'{"before_ms":5}')
                await backplane.write_entry("policy", "home", b'{"tools":{"deny":["off"]}}')
                await wait_until(reader.refuses, "it is in force")
        assert all(reader.refuses() for reader in readers.values())
        assert not readers["new"].rulebook.policies.of("home").allows("lamp", "off", "lamp_off")
        assert set((await backplane.read_book(BOOK)).entries) == {"agent:home"}


async def test_others_that_listen_may_know_the_books(cluster: Cluster) -> None:
    async with cluster("v", "w") as (v, w):
        assert not await v.backplane.call_for_books()
        await wait_until(lambda: w.ear.books, "they are asked")


async def test_workers_that_begin_together_with_a_store_that_nobody_has_used_need_not_wait_for_each_other(
    redis_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.backplane.redis.books._RECONNECT_SECONDS", -1)  # the server is up for long

    async def nobody_knows(*seats: Seat) -> bool:
        return all([await seat.backplane.call_for_books() for seat in seats])

    async with redis_cluster("v", "w") as (v, w):
        await wait_until(lambda: nobody_knows(v, w), "each has heard that the other waits as well")
        async with redis_cluster("old") as (old,):
            assert not await nobody_knows(v), "this one may know the books"
            await wait_until(lambda: old.ear.books, "it is asked")


async def test_a_large_book_is_read_in_parts_and_whole(redis_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.backplane.redis.books._READ_AT_ONCE", 2)
    entries = {f"token:{number}": Entry(LONG_AGO_MS + number, b"{}") for number in range(5)}
    async with redis_cluster("w") as (w,):
        assert await w.backplane.restore_book(BOOK, entries) == 5
        assert (await w.backplane.read_book(BOOK)).entries == entries
