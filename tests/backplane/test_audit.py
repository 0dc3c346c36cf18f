"""The audit's stream: capped in number and in time, on every backplane."""

import orjson

from gateway.backplane.keys import Keys
from tests.backplane.cluster import Cluster, MemoryEngine, RedisEngine

DAY_SECONDS = 86_400.0


def records(numbers: range) -> list[bytes]:
    return [orjson.dumps({"record": "call", "n": number}) for number in numbers]


def kept(engine: RedisEngine) -> list[int]:
    entries = engine.client.xrange(Keys().audit)
    return [orjson.loads(fields[b"record"])["n"] for _, fields in entries]


async def test_records_are_kept_in_order_and_end_by_themselves(redis_engine: RedisEngine) -> None:
    async with Cluster(redis_engine)("w") as (w,):
        await w.backplane.note_audit(records(range(3)), 1000, DAY_SECONDS)
        await w.backplane.note_audit(records(range(3, 5)), 1000, DAY_SECONDS)
    assert kept(redis_engine) == [0, 1, 2, 3, 4]
    assert DAY_SECONDS * 1000 - 60_000 < redis_engine.client.pttl(Keys().audit) <= DAY_SECONDS * 1000


async def test_the_oldest_go_first_where_there_are_too_many(redis_engine: RedisEngine) -> None:
    async with Cluster(redis_engine)("w") as (w,):
        for start in range(0, 3000, 500):
            await w.backplane.note_audit(records(range(start, start + 500)), 1000, DAY_SECONDS)
    left = kept(redis_engine)
    assert left[-1] == 2999
    assert 1000 <= len(left) <= 1200, "about as many: Redis cuts whole nodes of its tree"


async def test_all_records_that_are_too_old_go_with_the_next_one(redis_engine: RedisEngine) -> None:
    client, key = redis_engine.client, Keys().audit
    seconds, _ = client.time()
    for at in range(300):
        client.xadd(key, {"record": b'{"n":%d}' % -at}, id=f"{(seconds - 2 * int(DAY_SECONDS)) * 1000}-{at + 1}")
    client.expire(key, 60)
    async with Cluster(redis_engine)("w") as (w,):
        await w.backplane.note_audit(records(range(1, 2)), 1000, DAY_SECONDS)
    assert kept(redis_engine) == [1]


async def test_the_memory_backplane_keeps_the_same_bounds() -> None:
    engine = MemoryEngine()
    now = 1_700_000_000.0
    engine.store.clock = lambda: now
    async with Cluster(engine)("w") as (w,):
        await w.backplane.note_audit(records(range(10)), 5, DAY_SECONDS)
        assert [orjson.loads(text)["n"] for _, text in engine.store.audit] == [5, 6, 7, 8, 9]
        now += DAY_SECONDS + 1
        await w.backplane.note_audit(records(range(10, 11)), 5, DAY_SECONDS)
        assert [orjson.loads(text)["n"] for _, text in engine.store.audit] == [10]
