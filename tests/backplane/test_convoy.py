"""What many callers want of one key travels together, and each hears of its own."""

import asyncio
from typing import Any

import pytest

from gateway.backplane.redis.commands import Command, Rejected, Unanswered
from gateway.backplane.redis.convoy import Convoy


class Road:
    """A link that answers when it is told to."""

    def __init__(self) -> None:
        self.sent: list[Command] = []
        self.convoy: Convoy[str] = Convoy(self.sent.append, self.commands)

    def commands(self, items: list[str]) -> list[Command]:
        return [Command(("SADD", "key", *items)), Command(("PEXPIRE", "key", 1))]

    @property
    def loads(self) -> list[tuple[Any, ...]]:
        """What each convoy so far has carried."""
        return [command.args[2:] for command in self.sent if command.args[0] == "SADD"]

    def answer(self, reply: Any = 1) -> None:
        """Both replies to the last convoy."""
        for command in self.sent[-2:]:
            command.on_reply(reply)


@pytest.fixture
def road() -> Road:
    return Road()


async def test_who_comes_while_a_convoy_is_under_way_goes_with_the_next(road: Road) -> None:
    first, second, third = (road.convoy.begin(item) for item in "abc")
    assert road.loads == [("a",)]
    road.answer()
    assert (first.result(), second.done(), third.done()) == (None, False, False)
    assert road.loads == [("a",), ("b", "c")]
    road.answer()
    assert (second.result(), third.result()) == (None, None)
    assert len(road.sent) == 4


async def test_a_convoy_has_arrived_only_with_all_of_its_commands(road: Road) -> None:
    ended = road.convoy.begin("a")
    road.sent[0].on_reply(1)
    assert not ended.done()
    road.sent[1].on_reply(1)
    assert ended.done()


async def test_a_failure_is_told_to_all_of_a_convoy_and_to_nobody_else(road: Road) -> None:
    first, *others = (asyncio.ensure_future(road.convoy.send(item)) for item in "abc")
    await asyncio.sleep(0)
    road.answer()
    road.sent[-2].on_reply(Rejected("full"))
    road.sent[-1].on_reply(Unanswered("lost"))
    await first
    said = await asyncio.gather(*others, return_exceptions=True)
    assert [repr(one) for one in said] == ["Rejected('full')"] * 2
    assert said[0] is not said[1]
    later = road.convoy.begin("d")
    road.answer()
    assert later.result() is None


async def test_a_caller_that_gives_up_takes_nobody_along(road: Road) -> None:
    quitter, other = (asyncio.ensure_future(road.convoy.send(item)) for item in "ab")
    await asyncio.sleep(0)
    quitter.cancel()
    await asyncio.sleep(0)
    road.answer()
    road.answer()
    await other
    assert quitter.cancelled()
    assert road.loads == [("a",), ("b",)]


async def test_a_crowd_is_carried_in_parts_so_that_no_turn_of_the_loop_wakes_all_of_it(road: Road) -> None:
    ended = [road.convoy.begin(str(number)) for number in range(300)]
    while not all(one.done() for one in ended):
        road.answer()
    assert [len(load) for load in road.loads] == [1, 128, 128, 43]


async def test_what_waits_at_the_end_does_not_wait_for_what_is_under_way(road: Road) -> None:
    for item in "abc":
        road.convoy.begin(item)
    road.convoy.hurry()
    assert road.loads == [("a",), ("b", "c")]
    assert len(road.convoy) == 0
