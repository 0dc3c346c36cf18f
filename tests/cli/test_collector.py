"""The garbage collector of a real worker process: no connection that is gone keeps its memory for ever."""

import gc

import pytest

from gateway.collector import CLOSED_MIN, Collector
from tests.support.waiting import wait_until


class Ring:
    """Something that only the garbage collector can free."""

    alive = 0

    def __init__(self) -> None:
        self.itself = self
        Ring.alive += 1

    def __del__(self) -> None:
        Ring.alive -= 1


@pytest.fixture
def counts() -> dict[str, int]:
    return {"open": 0, "closed": 0}


async def test_what_survives_is_not_walked_again_and_what_was_left_behind_goes_when_enough_have_closed(
    counts: dict[str, int],
) -> None:
    collector = Collector(count_open=lambda: counts["open"], count_closed=lambda: counts["closed"])
    collector.install()
    try:
        rings = [Ring() for _ in range(100)]
        gc.collect(1)
        assert gc.get_freeze_count() > 0
        rings.clear()
        gc.collect()
        assert Ring.alive == 100, "frozen: nobody looks at them"
        counts["closed"] = CLOSED_MIN + 1
        gc.collect(1)
        await wait_until(lambda: Ring.alive == 0, "what was left behind is freed")
    finally:
        collector.remove()
        gc.collect()
