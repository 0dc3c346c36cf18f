"""A primary that Sentinels name: it changes, freezes, and Sentinels themselves go away or are wrong."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.backplane.base import BackplaneUnavailable, Change, Verdict
from gateway.backplane.redis import RedisBackplane, RedisOptions
from gateway.backplane.redis.address import Node
from gateway.backplane.redis.sentinel import Answer, choose
from tests.backplane.cluster import Ear, Seat, seated
from tests.support.redis_sentinel import SentinelSet
from tests.support.redis_server import RedisServer, engines
from tests.support.tls import make_certificate
from tests.support.waiting import wait_until

PROGRAM = next(iter(engines().values()))
OLD, NEW = Node("old", 1), Node("new", 1)
AFTER_PROMOTION_SECONDS = 5.0


@pytest.fixture(scope="module")
def watched() -> Iterator[SentinelSet]:
    """Three Sentinels; whoever takes something away brings it back."""
    with SentinelSet(PROGRAM, sentinels=3) as servers:
        yield servers


@asynccontextmanager
async def two_workers(
    watched: SentinelSet, options: RedisOptions | None = None
) -> AsyncGenerator[tuple[Seat, Seat], None]:
    with watched.primary.client() as client:
        client.flushall()
    async with seated(RedisBackplane(watched.url, "v", options), RedisBackplane(watched.url, "w", options)) as (v, w):
        yield v, w


async def until_dispatched(v: Seat, w: Seat, primary: RedisServer, name: str) -> Counter[Verdict]:
    """Dispatch until a call is on record at that primary, and has arrived; what became of the others."""
    verdicts: Counter[Verdict] = Counter()

    async def is_on_record() -> bool:
        await beat_if_possible(w)
        call_id = f"{name}-{verdicts.total()}"
        (verdict,) = await v.dispatch("w", call_id)
        verdicts[verdict] += 1
        with primary.client() as client:
            if verdict is not Verdict.OK or not client.exists(f"mcpgw:call:{{w}}:{call_id}"):
                return False
        await wait_until(lambda: call_id in w.ear.ids, "it arrives")
        return True

    await wait_until(is_on_record, "calls go by the new primary", AFTER_PROMOTION_SECONDS)
    return verdicts


async def beat_if_possible(seat: Seat) -> None:
    try:
        await seat.beat()
    except BackplaneUnavailable:
        return


# -- whom to believe


@pytest.mark.parametrize(
    ("answers", "known", "believed"),
    [
        ([], None, None),
        ([(OLD, 1)], None, OLD),
        ([(OLD, 1), (NEW, 2)], None, NEW),
        ([(OLD, 1), (OLD, 1), (NEW, 1)], None, OLD),
        ([(NEW, 2), (OLD, 1), (OLD, 1)], (OLD, 1), NEW),
        ([(OLD, 1)], (NEW, 2), NEW),
        ([], (NEW, 2), NEW),
        ([(OLD, 1), (NEW, 2)], (NEW, 2), NEW),
        ([(OLD, 0), (OLD, 0)], (NEW, 2), OLD),
        ([(OLD, 1), (NEW, 1)], (NEW, 1), NEW),
        ([(OLD, 1), (OLD, 1), (NEW, 1)], (NEW, 1), OLD),
    ],
)
def test_the_newest_configuration_wins_then_the_majority(
    answers: list[tuple[Node, int]], known: tuple[Node, int] | None, believed: Node | None
) -> None:
    before = None if known is None else Answer(*known, at=0.0)
    after = choose([Answer(*answer, at=1.0) for answer in answers], before, 3) or before
    assert (None if after is None else after.primary) == believed


# -- failovers


async def test_calls_go_on_after_a_planned_failover(watched: SentinelSet) -> None:
    async with two_workers(watched) as (v, w):
        await v.backplane.watch("a")
        promoted = await asyncio.to_thread(watched.failover)
        await until_dispatched(v, w, promoted, "planned")
        assert 1 <= v.ear.gaps <= 2
        assert 1 <= w.ear.gaps <= 2
        revision = await w.backplane.commit("a", (await w.snapshot("a")).revision, Change({"s": w.row()}))
        await wait_until(lambda: ("a", revision) in v.ear.catalogs, "what was watched is watched there")
    await asyncio.to_thread(watched.settle)


async def test_calls_go_on_after_the_primary_froze(watched: SentinelSet) -> None:
    # The Sentinels' word is enough: nothing else would notice within minutes.
    options = RedisOptions(timeout_seconds=60.0, patience_seconds=60.0, ping_seconds=60.0, probe_seconds=60.0)
    async with two_workers(watched, options) as (v, w):
        frozen = watched.freeze_primary()
        promoted = await asyncio.to_thread(watched.until_promoted, frozen)
        await until_dispatched(v, w, promoted, "frozen")
        frozen.thaw()
        await asyncio.to_thread(watched.settle)
        with promoted.client() as client:
            assert {row["name"] for row in client.client_list() if row["name"].startswith("mcpgw:")} == {
                f"mcpgw:{worker}:{role}" for worker in "vw" for role in ("cmd", "sub")
            }


async def test_what_was_asked_for_while_the_primary_died_is_done_by_the_next(watched: SentinelSet) -> None:
    with SentinelSet(PROGRAM, down_after_ms=300) as own:
        options = RedisOptions(patience_seconds=10.0)
        async with seated(RedisBackplane(own.url, "w", options)) as (w,):
            own.kill_primary()
            revision = await w.backplane.commit("a", 0, Change({"s": w.row()}))
            assert revision is not None
            with own.primary.client() as client:
                assert client.get("mcpgw:rev:{a}") == str(revision).encode()


async def test_sentinels_that_are_gone_harm_nobody_who_is_connected(watched: SentinelSet) -> None:
    async with two_workers(watched) as (v, w):
        for sentinel in watched.sentinels:
            sentinel.freeze()
        assert await v.dispatch("w", "1") == [Verdict.OK]
        assert v.backplane.is_connected
        for sentinel in watched.sentinels:
            sentinel.thaw()
        assert (v.ear.gaps, w.ear.gaps) == (0, 0)


async def test_one_sentinel_that_is_frozen_delays_no_start_and_no_failover(watched: SentinelSet) -> None:
    watched.settle()
    frozen = watched.sentinels[2]
    frozen.freeze()
    try:
        async with two_workers(watched) as (v, w):
            watched.ask(watched.sentinels[0], "FAILOVER", "main")
            old = watched.primary
            promoted = await asyncio.to_thread(watched.until_promoted, old)
            await until_dispatched(v, w, promoted, "with-two")
    finally:
        frozen.thaw()
    await asyncio.to_thread(watched.settle)


# -- who can't be had


async def test_a_service_that_nobody_knows_is_told(watched: SentinelSet) -> None:
    backplane = RedisBackplane(watched.url.replace("/main", "/other"), "w")
    with pytest.raises(BackplaneUnavailable, match="knows no service other"):
        async with backplane.session(Ear()):
            pass


async def test_a_server_taken_for_a_sentinel_is_told(watched: SentinelSet) -> None:
    with pytest.raises(BackplaneUnavailable, match=r"redis://"):
        async with RedisBackplane(f"redis+sentinel://127.0.0.1:{watched.primary.port}/main", "w").session(Ear()):
            pass
    with pytest.raises(BackplaneUnavailable, match="this is a Sentinel"):
        async with RedisBackplane(f"redis://127.0.0.1:{watched.sentinels[0].port}", "w").session(Ear()):
            pass


# -- TLS and passwords


async def test_passwords_and_tls_are_for_redis_and_sentinels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tls = make_certificate(tmp_path)
    with SentinelSet(PROGRAM, password="pw-redis", sentinel_password="pw-sentinel", tls=tls) as own:
        async with seated(RedisBackplane(own.url, "v"), RedisBackplane(own.url, "w")) as (v, w):
            promoted = await asyncio.to_thread(own.failover)
            await until_dispatched(v, w, promoted, "by-TLS")
        wrong = own.url.replace("pw-sentinel", "pw-wrong")
        with pytest.raises(BackplaneUnavailable, match=r"(?i)sentinel .*(password|auth)") as refused:
            async with RedisBackplane(wrong, "w").session(Ear()):
                pass
    assert "pw-" not in f"{refused.value} {caplog.text}"
