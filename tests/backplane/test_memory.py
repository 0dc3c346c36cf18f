"""What only the memory backplane does: time that tests can turn, and giving memory back."""

from gateway.backplane.base import Change, Dispatch, Record, RobotRow
from gateway.backplane.envelope import Envelope
from gateway.backplane.memory import MemoryBackplane, MemoryStore
from gateway.directory import Seen
from tests.backplane.cluster import WORKER_ROW, seated

HOUR_SECONDS = 3600.0


class Clock:
    def __init__(self) -> None:
        self.seconds = 1_000_000.0

    def __call__(self) -> float:
        return self.seconds


async def test_what_nobody_renews_is_gone_after_its_lifetime() -> None:
    clock = Clock()
    async with seated(MemoryBackplane(MemoryStore(clock), "w")) as (w,):
        change = Change({"s": w.row()}, {}, {"s": Seen(1)}, {"d": b"[]"})
        await w.backplane.commit("a", 0, change)
        await w.backplane.put_robots({("a", "c"): RobotRow("w", "", 1)})
        clock.seconds += 26 * HOUR_SECONDS
        snapshot = await w.snapshot("a")
        assert (snapshot.revision, snapshot.rows, snapshot.seen) == (0, {}, {"s": Seen(1)})
        assert await w.backplane.toolsets(["d"]) == {}
        assert (await w.backplane.overview(limit=5)).robots == {}


async def test_what_is_renewed_stays() -> None:
    clock = Clock()
    async with seated(MemoryBackplane(MemoryStore(clock), "w")) as (w,):
        await w.backplane.commit("a", 0, Change({"s": w.row()}, toolsets={"d": b"[]"}))
        await w.backplane.put_robots({("a", "c"): RobotRow("w", "", 1)})
        for _ in range(200):
            clock.seconds += HOUR_SECONDS / 6
            await w.backplane.renew(["a"])
            await w.backplane.put_toolsets({"d": b"[]"})
            await w.beat()
        assert (await w.snapshot("a")).rows == {"s": w.row()}
        assert await w.backplane.toolsets(["d"]) == {"d": b"[]"}
        assert (await w.backplane.overview(limit=5)).robots == {"a": 1}


async def test_memory_is_given_back() -> None:
    clock = Clock()
    store = MemoryStore(clock)
    async with seated(MemoryBackplane(store, "v"), MemoryBackplane(store, "w")) as (v, w):
        for at in range(100):
            await v.backplane.commit(f"a{at}", 0, Change({"s": v.row()}, {}, {"s": Seen(1)}, {f"d{at}": b"[]"}))
            v.backplane.dispatch(Dispatch("w", Envelope("req", id=str(at)), 30.0), lambda verdict: None)
            w.backplane.note_local([Record(f"l{at}", "local", "w", "a", "s", "t", 1)], [w.backplane.now_ms])
            await w.backplane.snapshot(f"unknown{at}")
        await w.backplane.bury("v", await v.backplane.owned("v"))
        clock.seconds += 8 * 24 * HOUR_SECONDS
        await w.backplane.beat(WORKER_ROW, 8)
        assert (store.agents, store.toolsets, list(store.workers)) == ({}, {}, ["w"])
        assert store.workers["w"].calls == {}


async def test_one_worker_alone_shares_with_nobody() -> None:
    assert not MemoryBackplane(MemoryStore(), "w").is_shared
