"""The link to Redis: bounded, in order, and one command's trouble stays its own."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.backplane.redis.commands import Command, Rejected, Unanswered, Unsent
from gateway.backplane.redis.connector import Connector
from gateway.backplane.redis.link import Link
from tests.backplane.cluster import RedisEngine
from tests.backplane.proxy import proxied
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until


@asynccontextmanager
async def running_link(url: str, **bounds: Any) -> AsyncGenerator[Link, None]:
    link = Link(Connector(url, "test", timeout_seconds=0.5), patience_seconds=0.2, **bounds)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(link.run())
        await wait_until(link.up.is_set, "the link is up")
        yield link
        task.cancel()


async def test_replies_belong_to_their_commands(redis_engine: RedisEngine) -> None:
    async with running_link(redis_engine.server.url) as link:
        async with asyncio.TaskGroup() as tasks:
            calls = [tasks.create_task(link.call(Command(("ECHO", str(at))))) for at in range(3000)]
        assert [call.result() for call in calls] == [[str(at).encode()] for at in range(3000)]


async def test_an_error_is_of_its_command_only(redis_engine: RedisEngine) -> None:
    async with running_link(redis_engine.server.url) as link:
        async with asyncio.TaskGroup() as tasks:
            good = tasks.create_task(link.call(Command(("ECHO", "1"))))
            bad = tasks.create_task(_failure(link, Command(("NONSENSE",))))
            also_good = tasks.create_task(link.call(Command(("ECHO", "2"))))
        assert (good.result(), also_good.result()) == ([b"1"], [b"2"])
        assert isinstance(bad.result(), Rejected)


async def test_a_listener_that_fails_harms_nobody_else(redis_engine: RedisEngine) -> None:
    async with running_link(redis_engine.server.url) as link:
        link.enqueue(Command(("ECHO", "1"), _fail))
        assert await link.call(Command(("ECHO", "2"))) == [b"2"]


async def test_too_many_commands_are_refused_at_once(own_server: RedisServer) -> None:
    async with running_link(own_server.url, most_commands=10) as link:
        own_server.freeze()
        failures: list[Any] = []
        for _ in range(15):
            link.enqueue(Command(("ECHO", "x"), failures.append))
        await asyncio.sleep(0)
        assert [type(failure) for failure in failures] == [Unsent] * 5
        own_server.thaw()
        await wait_until(lambda: len(failures) == 15, "the others are answered")


async def test_too_many_bytes_are_refused_at_once(own_server: RedisServer) -> None:
    async with running_link(own_server.url, most_bytes=100_000) as link:
        own_server.freeze()
        failures: list[Any] = []
        for _ in range(15):
            link.enqueue(Command(("ECHO", b"x" * 20_000), failures.append))
        await asyncio.sleep(0)
        assert [type(failure) for failure in failures] == [Unsent] * 10
        own_server.thaw()


async def test_a_command_that_kills_the_connection_is_not_repeated_for_ever(redis_engine: RedisEngine) -> None:
    async with proxied(redis_engine.server.port) as proxy, running_link(f"redis://127.0.0.1:{proxy.port}") as link:
        proxy.poison = b"poison"
        assert isinstance(await _failure(link, Command(("ECHO", "poison"), is_repeatable=True)), Unanswered)
        assert proxy.cuts == 3
        await wait_until(link.up.is_set, "the link is up again")
        assert await link.call(Command(("ECHO", "1"))) == [b"1"]


async def test_an_idle_link_notices_that_it_was_closed(redis_engine: RedisEngine) -> None:
    async with proxied(redis_engine.server.port) as proxy, running_link(f"redis://127.0.0.1:{proxy.port}") as link:
        proxy.cut()
        await wait_until(lambda: not link.up.is_set(), "the loss is noticed, though nothing was asked")
        await wait_until(link.up.is_set, "the link is up again")
        assert await link.call(Command(("ECHO", "1"))) == [b"1"]


async def test_a_caller_that_gives_up_costs_no_connection(redis_engine: RedisEngine) -> None:
    async with running_link(redis_engine.server.url) as link:
        before = redis_engine.client.info("stats")["total_connections_received"]
        for _ in range(20):
            calling = asyncio.ensure_future(link.call(Command(("ECHO", "1"))))
            await asyncio.sleep(0)
            calling.cancel()
        assert await link.call(Command(("ECHO", "2"))) == [b"2"]
        assert redis_engine.client.info("stats")["total_connections_received"] == before


async def test_whoever_waits_when_the_link_is_closed_is_told(own_server: RedisServer) -> None:
    async with running_link(own_server.url) as link:
        own_server.freeze()
        written = asyncio.ensure_future(_failure(link, Command(("ECHO", "1"))))
        await asyncio.sleep(0.05)
        waiting = asyncio.ensure_future(_failure(link, Command(("ECHO", "2"))))
        await asyncio.sleep(0)
    assert isinstance(await written, Unanswered)
    assert isinstance(await waiting, Unsent)


def _fail(reply: Any) -> None:
    raise ValueError(reply)


async def _failure(link: Link, command: Command) -> BaseException:
    with pytest.raises((Rejected, Unanswered, Unsent)) as caught:
        await link.call(command)
    return caught.value
