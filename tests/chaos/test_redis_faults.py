"""A short round of every fault of Redis and of the way to it: nothing is lost, and each fault's own promises hold."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from itertools import zip_longest

import pytest

from tests.chaos.fleet import Fleet, on_own_redis
from tests.chaos.nemesis import Fault, play, replay
from tests.chaos.processes import Gone
from tests.chaos.redis_faults import FAULTS
from tests.chaos.redis_faults_promises import broken_promises
from tests.chaos.redis_fleets import wired

SEED = 1

PLAYED = [fault for fault in FAULTS if not fault.is_extra]
PLAIN = [fault for fault in PLAYED if fault.fleet is None]
SPECIAL = [fault for fault in PLAYED if fault.fleet not in (None, wired)]
# Two at a time, as rounds mostly wait; alone what may be skipped. Neighbours need the same fleet.
TURNS = [tuple(fault for fault in turn if fault) for turn in zip_longest(PLAIN, SPECIAL)]
TURNS += [(fault,) for fault in PLAYED if fault.fleet is wired]


class Lane:
    """Plays one round after the other, on one fleet as long as that fits and nothing has gone wrong on it.

    In one thread, since a server ends with the thread that has started it.
    """

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="lane")
        self._stack = ExitStack()
        self._fleet: Fleet | None = None
        self._factory: Callable[[], AbstractContextManager[Fleet]] | None = None

    def play(self, fault: Fault, seed: int) -> str:
        """What was broken, with the command that shows it again."""
        factory = fault.fleet or on_own_redis
        if self._fleet is None or factory is not self._factory:
            self.close()
            self._fleet, self._factory = self._stack.enter_context(factory()), factory
        try:
            played = play(self._fleet, fault, seed)
            broken = [*map(str, played.verdict.violations), *broken_promises(fault, self._fleet)]
            assert played.counts["result"] > 0, "no call ran before or after it"
            trouble = "\n".join([str(played), *broken]) if broken else ""
        except (AssertionError, Gone) as error:
            trouble = f"{fault.name}: {error}"
        if trouble:
            self.close()
            trouble += f"\nagain: {replay(fault.name, seed)}"
        return trouble

    def close(self) -> None:
        self._fleet = None
        self._stack.close()


@pytest.fixture(scope="module")
def lanes() -> Iterator[list[Lane]]:
    both = [Lane(), Lane()]
    yield both
    for lane in both:
        lane.thread.submit(lane.close).result()
        lane.thread.shutdown()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("turn", TURNS, ids=[" and ".join(fault.name for fault in turn) for turn in TURNS])
def test_nothing_is_lost_while(turn: Sequence[Fault], lanes: list[Lane]) -> None:
    rounds = [
        lanes[fault.fleet is not None].thread.submit(lanes[fault.fleet is not None].play, fault, SEED) for fault in turn
    ]
    troubles = [trouble for played in rounds if (trouble := played.result())]
    assert troubles == [], "\n".join(troubles)
