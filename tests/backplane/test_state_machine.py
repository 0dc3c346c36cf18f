"""Workers do whatever comes to mind, on both backplanes, and a plain model says what must come of it."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gateway.backplane.base import Change, Entry, Verdict
from gateway.backplane.envelope import Envelope
from gateway.directory import Row
from tests.backplane.cluster import Engine, MemoryEngine, RedisEngine, Seat
from tests.support.redis_server import engines, running

Result = TypeVar("Result")

WORKERS = ("u", "v", "w")
CALLS = ("1", "2")
WORKER = st.sampled_from(WORKERS)
AGENT = st.sampled_from(["a", "智"])
SERVER = st.sampled_from(["s", "t"])
CALL = st.sampled_from(CALLS)
NAME = st.sampled_from(["token:x", "agent:智"])
BOOK = "revoked"
SETTINGS = settings(
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


class Room:
    """An event loop in which three workers live, entered step by step from plain functions."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.seats: dict[str, Seat] = {}
        self._runner = asyncio.Runner()
        self._ready, self._over = asyncio.Event(), asyncio.Event()
        self._life: asyncio.Task[None] | None = None

    def run(self, step: Coroutine[Any, Any, Result]) -> Result:
        return self._runner.run(self._bounded(step))

    async def _bounded(self, step: Coroutine[Any, Any, Result]) -> Result:
        async with asyncio.timeout(10):
            return await step

    def open(self) -> None:
        self.run(self._open())

    async def _open(self) -> None:
        self._life = asyncio.ensure_future(self._live())
        await self._ready.wait()

    async def _live(self) -> None:
        async with AsyncExitStack() as stack:
            for worker in WORKERS:
                seat = self.seats[worker] = Seat(self.engine.backplane(worker))
                await stack.enter_async_context(seat.backplane.session(seat.ear))
            self._ready.set()
            await self._over.wait()

    def close(self) -> None:
        self.run(self._close())
        self._runner.close()

    async def _close(self) -> None:
        self._over.set()
        if self._life is not None:
            await self._life


@dataclass(slots=True)
class Model:
    """What must be true, said as plainly as possible."""

    leases: set[str] = field(default_factory=set)
    rows: dict[str, dict[str, Row]] = field(default_factory=dict)
    revisions: dict[str, int] = field(default_factory=dict)
    records: dict[tuple[str, str], str] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)
    known: list[dict[str, Entry]] = field(default_factory=list)
    """What workers have read of the book, some time ago."""
    mail: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: {worker: [] for worker in WORKERS})

    def forget(self) -> None:
        self.leases.clear()
        self.rows.clear()
        self.revisions.clear()
        self.records.clear()
        self.entries.clear()


class Workers(RuleBasedStateMachine):
    room: ClassVar[Room]
    conns: ClassVar[Iterator[int]] = count(1)

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.room.engine.lose_everything()
        self.room.run(self._clear_mailboxes())

    async def _clear_mailboxes(self) -> None:
        """An example that failed may have left something."""
        for worker, seat in self.room.seats.items():
            first = f"first-{next(self.conns)}"
            await seat.send(worker, Envelope("probe", id=first))
            while (await seat.ear.next()).id != first:
                pass

    def seat(self, worker: str) -> Seat:
        return self.room.seats[worker]

    # -- leases

    @initialize(workers=st.lists(WORKER, unique=True))
    def start(self, workers: list[str]) -> None:
        for worker in workers:
            self.beat(worker)

    @rule(worker=WORKER)
    def beat(self, worker: str) -> None:
        was_fresh = self.room.run(self.seat(worker).beat())
        assert was_fresh == (worker not in self.model.leases)
        self.model.leases.add(worker)

    @rule(worker=WORKER)
    def expire(self, worker: str) -> None:
        self.room.engine.drop_lease(worker)
        self.model.leases.discard(worker)

    @rule()
    @precondition(lambda self: len(self.model.records) > 2)
    def lose_everything(self) -> None:
        self.room.engine.lose_everything()
        self.model.forget()

    # -- the directory

    @rule(worker=WORKER, agent=AGENT, server=SERVER)
    def register(self, worker: str, agent: str, server: str) -> None:
        """A new connection; whoever had the identity before is taken over."""
        self._put(worker, agent, server, Row("up", worker, f"c{next(self.conns)}", since=1))

    @rule(worker=WORKER, agent=AGENT, server=SERVER)
    def unregister(self, worker: str, agent: str, server: str) -> None:
        row = self.model.rows.get(agent, {}).get(server)
        if row is not None and row.worker == worker:
            self._unregister(worker, agent, server, row.conn)

    @rule(worker=WORKER, agent=AGENT, server=SERVER)
    def unregister_late(self, worker: str, agent: str, server: str) -> None:
        """A connection that is not the identity's any more cleans up: nothing may change."""
        self._unregister(worker, agent, server, "of long ago")

    def _unregister(self, worker: str, agent: str, server: str, conn: str) -> None:
        snapshot = self.room.run(self.seat(worker).snapshot(agent))
        row = snapshot.rows.get(server)
        if row is not None and row.conn == conn:
            self._put(worker, agent, server, replace(row, state="offline", offline_since=snapshot.now_ms))

    def _put(self, worker: str, agent: str, server: str, row: Row) -> None:
        expected = self.model.revisions.get(agent, 0)
        revision = self.room.run(self.seat(worker).backplane.commit(agent, expected, Change({server: row})))
        assert revision is not None
        assert revision > expected
        self.model.revisions[agent] = revision
        self.model.rows.setdefault(agent, {})[server] = row

    @rule(worker=WORKER, agent=AGENT, server=SERVER, behind=st.integers(1, 3))
    def commit_on_an_old_revision(self, worker: str, agent: str, server: str, behind: int) -> None:
        expected = self.model.revisions.get(agent, 0) - behind
        row = Row("up", worker, "never", since=1)
        assert self.room.run(self.seat(worker).backplane.commit(agent, expected, Change({server: row}))) is None

    @rule(worker=WORKER, dead=WORKER)
    def reap(self, worker: str, dead: str) -> None:
        """Clean up after a worker without a lease, by compare-and-change."""
        reaper = self.seat(worker).backplane
        if self.room.run(reaper.alive([dead])):
            assert dead in self.model.leases
            return
        assert dead not in self.model.leases
        owned = self.room.run(reaper.owned(dead))
        for _, agent, server in owned:
            row = self.model.rows.get(agent, {}).get(server)
            if row is not None and row.worker == dead and row.state == "up":
                self._put(worker, agent, server, replace(row, state="offline"))
        self.room.run(reaper.bury(dead, owned))
        assert not [row for rows in self.model.rows.values() for row in rows.values() if _is_up_at(row, dead)]
        assert dead not in self.room.run(reaper.overview(limit=1)).workers

    # -- the books

    @rule(
        worker=WORKER,
        name=NAME,
        text=st.sampled_from([b"", b'{"n":1}', b'{"n":"\xe6\x99\xba"}']),
        is_wished=st.booleans(),
    )
    def decide(self, worker: str, name: str, text: bytes, is_wished: bool) -> None:
        before = self.model.entries.get(name, Entry(0, b""))
        expected = before.version if is_wished else None
        version = self.room.run(self.seat(worker).backplane.write_entry(BOOK, name, text, expected))
        assert version is not None
        assert version > before.version
        self.model.entries[name] = Entry(version, text)

    @rule(worker=WORKER, name=NAME, behind=st.integers(1, 3))
    def decide_on_an_old_entry(self, worker: str, name: str, behind: int) -> None:
        before = self.model.entries.get(name, Entry(0, b""))
        expected = max(before.version - behind, 1)
        assert self.room.run(self.seat(worker).backplane.write_entry(BOOK, name, b"{}", expected)) is None

    @rule()
    def remember(self) -> None:
        self.model.known.append(dict(self.model.entries))

    @rule(worker=WORKER, data=st.data())
    @precondition(lambda self: self.model.known)
    def put_back(self, worker: str, data: st.DataObject) -> None:
        """From some worker's memory, new or old: the newest of each stays."""
        memory = data.draw(st.sampled_from(self.model.known))
        newer = {
            name: entry
            for name, entry in memory.items()
            if entry.version > self.model.entries.get(name, Entry(0, b"")).version
        }
        assert self.room.run(self.seat(worker).backplane.restore_book(BOOK, memory)) == len(newer)
        self.model.entries |= newer
        assert self.room.run(self.seat(worker).backplane.read_book(BOOK)).version > 0

    @rule(worker=WORKER, reader=WORKER, name=NAME)
    def follow(self, worker: str, reader: str, name: str) -> None:
        """Who has read the book learns of what comes then, and of nothing less."""
        since = self.room.run(self.seat(reader).backplane.read_book(BOOK)).version
        self.decide(worker, name, b'{"n":2}', is_wished=False)
        edition = self.room.run(self.seat(reader).backplane.read_book(BOOK, since))
        assert edition.entries[name] == self.model.entries[name]

    @invariant()
    def the_book_is_that_of_the_model(self) -> None:
        assert self.room.run(self.seat("v").backplane.read_book(BOOK)).entries == self.model.entries

    # -- calls

    @rule(sender=WORKER, worker=WORKER, call=CALL, is_late=st.booleans())
    def dispatch(self, sender: str, worker: str, call: str, is_late: bool) -> None:
        expected = Verdict.OK
        if worker not in self.model.leases:
            expected = Verdict.GONE
        elif (worker, call) in self.model.records:
            expected = Verdict.DUP
        elif is_late:
            expected = Verdict.LATE
        assert self.room.run(self.seat(sender).dispatch(worker, call, due=1 if is_late else 0)) == [expected]
        if expected is Verdict.OK:
            self.model.records[worker, call] = "sent"
            self.model.mail[worker].append(("req", call))
            self._collect(worker)

    @rule(sender=WORKER, worker=WORKER)
    def dispatch_all_in_one_turn(self, sender: str, worker: str) -> None:
        calls = ["1", "2", "1"]
        verdicts = self.room.run(self.seat(sender).dispatch(worker, *calls))
        for call, verdict in zip(calls, verdicts, strict=True):
            if worker not in self.model.leases:
                assert verdict is Verdict.GONE
            elif (worker, call) in self.model.records:
                assert verdict is Verdict.DUP
            else:
                assert verdict is Verdict.OK
                self.model.records[worker, call] = "sent"
                self.model.mail[worker].append(("req", call))
        self._collect(worker)

    @rule(worker=WORKER, sender=WORKER, call=CALL)
    def answer(self, worker: str, sender: str, call: str) -> None:
        self._say(lambda: self.seat(worker).backplane.answer(sender, Envelope("res", id=call)))
        self.model.mail[sender].append(("res", call))
        self._collect(sender)
        if (worker, call) in self.model.records:
            self.model.records[worker, call] = "answered"

    @rule(worker=WORKER, sender=WORKER, call=CALL)
    def withdraw(self, worker: str, sender: str, call: str) -> None:
        self._say(lambda: self.seat(sender).backplane.withdraw(worker, Envelope("cancel", id=call)))
        self.model.mail[worker].append(("cancel", call))
        self._collect(worker)
        self.model.records.pop((worker, call), None)

    @rule(worker=WORKER, sender=WORKER, call=CALL)
    def drop(self, worker: str, sender: str, call: str) -> None:
        self._say(lambda: self.seat(worker).backplane.drop(call, sender, Envelope("nack", id=call)))
        self.model.mail[sender].append(("nack", call))
        self._collect(sender)
        self.model.records.pop((worker, call), None)

    def _say(self, what: Any) -> None:
        async def say() -> None:
            what()

        self.room.run(say())

    def _collect(self, worker: str) -> None:
        """Everything that was to arrive there has arrived, once and in order."""
        expected = self.model.mail[worker]

        async def read() -> None:
            ear = self.seat(worker).ear
            while expected:
                envelope = await ear.next()
                assert (envelope.type, envelope.id) == expected.pop(0)

        self.room.run(read())

    # -- what must hold after every step

    @invariant()
    def everybody_sees_what_the_model_has(self) -> None:
        for agent in ("a", "智"):
            snapshot = self.room.run(self.seat("u").snapshot(agent))
            assert snapshot.revision == self.model.revisions.get(agent, 0)
            assert _stated(snapshot.rows) == _stated(self.model.rows.get(agent, {}))

    @invariant()
    def the_records_are_those_of_the_model(self) -> None:
        asked = [(worker, call) for worker in WORKERS for call in CALLS]
        records = self.room.run(self.seat("w").backplane.read(asked))
        found = {of: record.state for of, record in zip(asked, records, strict=True) if record is not None}
        assert found == self.model.records

    @invariant()
    def every_live_row_is_owned_by_its_worker(self) -> None:
        for worker in WORKERS:
            owned = self.room.run(self.seat("v").backplane.owned(worker))
            for agent, rows in self.model.rows.items():
                for server, row in rows.items():
                    assert not _is_up_at(row, worker) or ("server", agent, server) in owned

    def teardown(self) -> None:
        """Nothing more than expected ever arrives."""

        async def say_last_word() -> None:
            for worker, seat in self.room.seats.items():
                await seat.send(worker, Envelope("probe", id="last"))
                last = await seat.ear.next()
                assert last.type == "probe", f"{worker} heard something that nobody sent: {last}"

        self.room.run(say_last_word())


def _is_up_at(row: Row, worker: str) -> bool:
    return row.worker == worker and row.state == "up"


def _stated(rows: Any) -> dict[str, tuple[str, str, str]]:
    return {server: (row.worker, row.conn, row.state) for server, row in rows.items()}


@contextmanager
def room_on(name: str) -> Iterator[Room]:
    if name == "memory":
        yield Room(MemoryEngine())
        return
    with running(engines()[name]) as server, server.client() as client:
        yield Room(RedisEngine(name, server, client))


@pytest.mark.parametrize("name", ["memory", *engines()])
def test_the_backplane_behaves_as_the_model(name: str) -> None:
    with room_on(name) as room:
        room.open()
        try:
            machine = type("WorkersOn", (Workers,), {"room": room})
            run_state_machine_as_test(machine, settings=SETTINGS)
        finally:
            room.close()
