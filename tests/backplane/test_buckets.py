"""The buckets of limits, on memory and on every Redis-compatible server that is here."""

import asyncio
from typing import Any

import pytest

from gateway.backplane.base import Asked, Backplane, Bucket, Taken
from gateway.backplane.keys import Keys
from tests.backplane.cluster import Cluster, RedisEngine, seated

HOUR = 3600.0
CALLS = Bucket("calls", 100, 100 / HOUR)
OF_SERVER = Bucket("calls:lamp", 10, 10 / HOUR)


async def take(backplane: Backplane, want: int, *buckets: Bucket, debt: int = 0, of: str = "a") -> Taken:
    """What one question brings; `of` with a dot in it is a source."""
    answer: asyncio.Future[Taken | None] = asyncio.get_running_loop().create_future()
    backplane.take_ahead(Asked("." in of, of, buckets, want, debt), answer.set_result)
    assert not answer.done(), "called back from inside"
    async with asyncio.timeout(5):
        taken = await answer
    assert taken is not None
    return taken


async def test_workers_draw_on_one_bucket_and_each_leaves_half_of_it_to_others(cluster: Cluster) -> None:
    async with cluster("v", "w") as (v, w):
        units = [(await take(seat.backplane, 40, CALLS)).units for seat in (v, w, v, w, v, w, v, w, v, w)]
        assert units[:4] == [40, 30, 15, 8]
        assert sum(units) == 100
        empty = await take(v.backplane, 40, CALLS)
        assert empty.units == 0
        assert 30 < empty.wait_seconds <= HOUR / 100
        assert (await take(v.backplane, 40, CALLS, of="another")).units == 40


async def test_of_two_buckets_units_come_from_both_or_from_neither(cluster: Cluster) -> None:
    async with cluster("w") as (w,):
        assert (await take(w.backplane, 20, OF_SERVER, CALLS)).units == 5, "half of the narrower one"
        assert (await take(w.backplane, 0, OF_SERVER, debt=5)).units == 0
        assert (await take(w.backplane, 20, OF_SERVER, CALLS)).units == 0
        assert (await take(w.backplane, 48, CALLS)).units == 48, "the other one has lost five, and no more"
        assert (await take(w.backplane, 48, CALLS)).units == 24


async def test_what_was_spent_already_is_taken_even_where_nothing_is_left(cluster: Cluster) -> None:
    async with cluster("w") as (w,):
        assert (await take(w.backplane, 50, CALLS, debt=120)).units == 0
        waiting = await take(w.backplane, 1, CALLS)
        assert HOUR / 100 * 20 < waiting.wait_seconds <= HOUR / 100 * 21


async def test_a_bucket_fills_again(cluster: Cluster) -> None:
    async with cluster("w") as (w,):
        quick = Bucket("calls", 1000, 20_000)
        assert (await take(w.backplane, 300, quick, debt=1000)).units == 0
        async with asyncio.timeout(5):
            while (await take(w.backplane, 300, quick)).units < 300:
                await asyncio.sleep(0.05)


async def test_a_source_has_a_bucket_of_its_own(cluster: Cluster) -> None:
    async with cluster("w") as (w,):
        assert (await take(w.backplane, 10, CALLS, of="192.0.2.1")).units == 10
        assert (await take(w.backplane, 10, CALLS, of="192.0.2.2", debt=99)).units == 1
        assert (await take(w.backplane, 10, CALLS)).units == 10


async def test_a_store_that_is_away_gives_nothing_and_says_so(redis_engine: RedisEngine) -> None:
    answers: list[Any] = []
    w = redis_engine.backplane("w")
    w.take_ahead(Asked(False, "a", (CALLS,), 10), answers.append)
    async with asyncio.timeout(5):
        while not answers:
            await asyncio.sleep(0.005)
    assert answers == [None]


async def test_questions_of_one_turn_travel_together_and_their_keys_go_by_themselves(
    redis_engine: RedisEngine,
) -> None:
    async with seated(redis_engine.backplane("w")) as [w]:
        await take(w.backplane, 1, CALLS)  # the script is known from here on
        before = redis_engine.client.info("stats")["total_reads_processed"]
        async with asyncio.TaskGroup() as tasks:
            for number in range(50):
                tasks.create_task(take(w.backplane, 1, CALLS, of=f"agent-{number}"))
        assert redis_engine.client.info("stats")["total_reads_processed"] - before < 25
        assert 0 < redis_engine.client.pttl(Keys().rate("agent-7")) <= 6 * 60_000  # type: ignore[arg-type]
        await take(w.backplane, 1, CALLS, of="2001:db8::.1")
        assert 0 < redis_engine.client.pttl(Keys().source("2001:db8::.1")) <= 6 * 60_000


async def test_names_that_a_peer_makes_up_do_not_stay(redis_engine: RedisEngine) -> None:
    async with seated(redis_engine.backplane("w")) as [w]:
        for number in range(300):
            await take(w.backplane, 1, Bucket(f"calls:{number}", 1, 1000), CALLS)
        assert redis_engine.client.hlen(Keys().rate("a")) < 100  # type: ignore[arg-type]


@pytest.mark.parametrize("kept", [b"9" * 17, b"nonsense"])
async def test_a_bucket_from_a_clock_that_is_ahead_or_from_nobody_is_no_lock(
    redis_engine: RedisEngine, kept: bytes
) -> None:
    async with seated(redis_engine.backplane("w")) as [w]:
        redis_engine.client.hset(Keys().rate("a"), "calls", kept)  # type: ignore[arg-type]
        redis_engine.client.pexpire(Keys().rate("a"), 60_000)  # type: ignore[arg-type]
        taken = await take(w.backplane, 1, CALLS)
        assert taken.units == 1 or taken.wait_seconds <= 5 * HOUR
