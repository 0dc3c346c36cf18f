"""Corners of one server's connections: large replies, wrong servers, nobody there, and Sentinels that lag behind."""

import asyncio
from typing import Any

import pytest

from gateway.backplane.base import Verdict
from gateway.backplane.envelope import Envelope
from gateway.backplane.redis import RedisBackplane
from gateway.backplane.redis.address import Node
from gateway.backplane.redis.commands import Command, Misdirected, Rejected, Unanswered, Unsent
from gateway.backplane.redis.connector import Connector
from gateway.backplane.redis.link import Link
from gateway.backplane.redis.outbox import verdicts
from gateway.backplane.redis.sentinel import Answer, Sentinels, choose
from gateway.backplane.redis.subscriber import Subscriber
from tests.backplane.cluster import BOUND_SECONDS, Seat, seated
from tests.support.ports import own_port
from tests.support.redis_server import RedisServer
from tests.support.toxics import Toxics
from tests.support.waiting import wait_until

TIMEOUT_SECONDS = 0.5
MB = 1_000_000
OLD, NEW = Node("old", 1), Node("new", 1)


# -- commands


async def test_a_large_reply_that_keeps_arriving_slowly_does_not_cost_the_link(own_server: RedisServer) -> None:
    with own_server.client() as client:
        client.set("large", b"x" * 2 * MB, px=60_000)
    async with Toxics("127.0.0.1", own_server.port) as toxics, asyncio.TaskGroup() as tasks:
        link = Link(Connector(f"redis://{toxics.address}", "test", TIMEOUT_SECONDS))
        running = tasks.create_task(link.run())
        await wait_until(link.up.is_set, "the link is up")
        toxics.down.bytes_per_second = 1 * MB  # four times the patience with silence
        async with asyncio.timeout(BOUND_SECONDS):
            (reply,) = await link.call(Command(("GET", "large")))
        assert len(reply) == 2 * MB
        running.cancel()


async def test_what_is_meant_for_one_server_stays_when_the_rest_goes_elsewhere() -> None:
    link = Link(Connector("redis://127.0.0.1:1", "test", TIMEOUT_SECONDS))
    link.expect()
    bound = [Command(words, is_bound=True) for words in (("ASKING",), ("PING",), ("CLUSTER", "SLOTS"))]
    free = [Command(("GET", key)) for key in "abc"]
    for pair in zip(bound, free, strict=True):
        for command in pair:
            link.enqueue(command)
    assert link.take_waiting() == free
    assert link.take_waiting() == []


@pytest.mark.parametrize(
    ("reply", "surely", "unsurely"),
    [
        (Unsent(""), Verdict.UNAVAILABLE, Verdict.UNKNOWN),
        (Rejected(""), Verdict.REFUSED, Verdict.UNKNOWN),
        (Misdirected(""), Verdict.REFUSED, Verdict.UNKNOWN),
        (Unanswered(""), Verdict.UNKNOWN, Verdict.UNKNOWN),
        ([b"refused OOM"], Verdict.REFUSED, Verdict.UNKNOWN),
        ([b"gone"], Verdict.GONE, Verdict.UNKNOWN),
        ([b"dup"], Verdict.DUP, Verdict.OK),
        ([b"ok"], Verdict.OK, Verdict.OK),
    ],
)
def test_what_may_have_been_delivered_before_is_never_told_as_not_delivered(
    reply: Any, surely: Verdict, unsurely: Verdict
) -> None:
    assert verdicts(reply, 1, False) == [surely]
    assert verdicts(reply, 1, True) == [unsurely]


@pytest.mark.parametrize("serves_stale_data", ["yes", "no"])
async def test_a_withdrawal_that_went_to_a_replica_is_done_again(
    own_server: RedisServer, serves_stale_data: str
) -> None:
    with own_server.client() as client:
        client.config_set("replica-serve-stale-data", serves_stale_data)
    async with seated(RedisBackplane(own_server.url, "v"), RedisBackplane(own_server.url, "w")) as (v, w):
        assert await v.dispatch("w", "1") == [Verdict.OK]
        await become_a_replica_for_a_while(own_server, v, lambda: v.backplane.withdraw("w", Envelope("cancel", id="1")))
        await wait_until(lambda: "cancel" in [one.type for one in w.ear.envelopes], "the cancellation is heard")
        assert await v.backplane.read([("w", "1")]) == [None]


async def test_what_a_replica_was_told_to_forget_is_forgotten_by_the_primary(own_server: RedisServer) -> None:
    async with seated(RedisBackplane(own_server.url, "v"), RedisBackplane(own_server.url, "w")) as (v, w):
        assert await v.dispatch("w", "1") == [Verdict.OK]
        await become_a_replica_for_a_while(own_server, w, lambda: w.backplane.forget_local(["1"]))

        async def is_forgotten() -> bool:
            return await w.backplane.read([("w", "1")]) == [None]

        await wait_until(is_forgotten, "the record is gone")


async def become_a_replica_for_a_while(server: RedisServer, seat: Seat, act: Any) -> None:
    """The seat acts towards a replica, notices, and has the primary again."""
    with server.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        act()
        await wait_until(lambda: "this is a replica" in seat.backplane.trouble, "it has noticed")
        client.execute_command("REPLICAOF", "NO", "ONE")
    await wait_until(lambda: seat.backplane.is_connected, "the link is up again")


# -- subscriptions


async def test_requests_do_not_pile_up_while_there_is_nobody_to_ask() -> None:
    connector = Connector(f"redis://127.0.0.1:{own_port()}", "test", TIMEOUT_SECONDS)
    subscriber = Subscriber(connector, ["mailbox"], on_message=lambda _channel, _message: None, on_gap=lambda: None)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(subscriber.run())
        await wait_until(subscriber.tried.is_set, "it has tried to connect")
        for _ in range(1000):
            subscriber.want(b"agent")
            subscriber.discard("agent")
        assert subscriber._requests == []
        running.cancel()


# -- whom to believe


def test_one_sentinel_of_one_does_not_lead_back_to_an_older_primary() -> None:
    assert choose([Answer(OLD, 5, 0.0)], Answer(NEW, 6, 0.0), 1) is None
    assert choose([Answer(OLD, 7, 0.0)], Answer(NEW, 6, 0.0), 1) == Answer(OLD, 7, 0.0)


async def test_a_sentinel_that_was_set_up_anew_is_believed_after_ten_seconds_of_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moves: list[Node] = []
    connector = Connector("redis+sentinel://127.0.0.1:1/main", "test", TIMEOUT_SECONDS)
    sentinels = Sentinels(connector, poll_seconds=0.5, on_moved=moves.append)

    def hear(primary: Node, epoch: int, at: float) -> None:
        with monkeypatch.context() as clock:
            clock.setattr(asyncio.get_running_loop(), "time", lambda: at)
            sentinels._heard(0, Answer(primary, epoch, at))

    hear(NEW, 6, 100.0)
    hear(OLD, 0, 101.0)
    hear(OLD, 0, 109.0)
    hear(NEW, 6, 110.0)
    for at in range(111, 120):
        hear(OLD, 0, float(at))
        assert await sentinels.locate() == NEW
    hear(OLD, 0, 121.0)
    assert await sentinels.locate() == OLD
    assert moves == [OLD]
