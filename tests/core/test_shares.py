"""Workers that share a limit: together they let through what the limit says, whoever asks when."""

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backplane.base import Asked, Bucket
from gateway.backplane.memory_buckets import take
from gateway.shares import LATE_SECONDS, QUIET_PART, Limit, Purse, Share


@dataclass
class Crowd:
    """Some workers, their store, and what they have let through; answers take a while."""

    limits: tuple[Limit, ...]
    workers: int
    delay_seconds: float = 0.002
    is_away: bool = False
    now: float = 1000.0
    seed: int = 0
    questions: int = 0
    taken_at: list[tuple[float, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self.full_at: dict[str, float] = {}
        self._answers: list[tuple[float, Share, int, float]] = []
        part = QUIET_PART / self.workers
        self.purses = [[Purse(limit, part, self.now) for limit in self.limits] for _ in range(self.workers)]
        self.shares = [Share(own[0], own[1] if len(own) > 1 else None, self._on_low) for own in self.purses]

    def _on_low(self, share: Share, now: float) -> None:
        self.questions += 1
        if self.is_away:
            share.fail(1.0, now)
            return
        ask = share.ask(now)
        shared = [limit.shared for limit in self.limits]
        buckets = tuple(Bucket(str(at), limit.burst, limit.per_second) for at, limit in enumerate(shared))
        taken = take(self.full_at, Asked(False, "a", buckets, ask.want, ask.debt), now)
        wait = max(self._chance.uniform(0.05, 0.15), self._chance.uniform(1, 2) * taken.wait_seconds)
        self._answers.append((now + self.delay_seconds, share, taken.units, wait))

    def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        while due := [answer for answer in self._answers if answer[0] <= until]:
            first = min(due, key=lambda answer: answer[0])
            self._answers.remove(first)
            self.now = first[0]
            first[1].answer(first[2], first[3], self.now)
        self.now = until

    def want(self, worker: int, units: int) -> int:
        """So many units at once; how many there were."""
        got = 0
        while got < units and self.shares[worker].take(self.now) is None:
            got += 1
        self.taken_at += [(self.now, worker)] * got
        return got

    def most_above(self, limit: Limit) -> float:
        """By how much more than limit × time was let through, in whatever stretch of time was worst."""
        worst = level = 0.0
        last = self.now
        for at, _ in sorted(self.taken_at):
            level = max(0.0, level - (at - last) * limit.per_second) + 1 if worst else 1.0
            last = at
            worst = max(worst, level)
        return worst


LIMITS = st.sampled_from([Limit(1), Limit(5), Limit(30), Limit(400), Limit(60, 60.0), Limit(6000, 60.0)])
STEPS = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([1, 3, 40, 900]), st.sampled_from([0.0, 0.001, 0.02, 0.3, 2.0, 30.0])),
    max_size=60,
)


@given(limit=LIMITS, workers=st.integers(1, 4), delay=st.sampled_from([0.0005, 0.03, 0.2]), steps=STEPS)
def test_whoever_asks_when_all_together_get_no_more_than_the_limit_and_what_is_spare(
    limit: Limit, workers: int, delay: float, steps: list[tuple[int, int, float]]
) -> None:
    crowd = Crowd((limit,), workers, delay)
    for worker, units, pause in steps:
        crowd.want(worker % workers, units)
        crowd.pass_time(pause)
    assert crowd.most_above(limit) <= limit.burst + workers * limit.spare_units(workers) + 1


@given(steps=STEPS, workers=st.integers(1, 3))
def test_of_two_limits_the_narrower_holds_too_and_neither_is_spent_alone(
    steps: list[tuple[int, int, float]], workers: int
) -> None:
    narrow, wide = Limit(30), Limit(400)
    crowd = Crowd((narrow, wide), workers)
    for worker, units, pause in steps:
        crowd.want(worker % workers, units)
        crowd.pass_time(pause)
    assert crowd.most_above(narrow) <= narrow.burst + workers * narrow.spare_units(workers) + 1
    spent = [(at - crowd.now) for at in crowd.full_at.values()]
    assert all(seconds <= 5 for seconds in spent)
    # What the wide bucket lost is what the narrow one lost, or has grown back.
    assert crowd.full_at.get("rate a 1", 0.0) <= crowd.full_at.get("rate a 0", 0.0)


@pytest.mark.parametrize("limit", [Limit(5), Limit(100), Limit(2000), Limit(6000, 60.0)], ids=str)
@pytest.mark.parametrize("workers", [1, 3, 8])
def test_one_worker_with_all_the_demand_gets_nearly_all_of_the_limit(limit: Limit, workers: int) -> None:
    crowd = Crowd((limit,), workers)
    crowd.want(0, 10 * int(limit.burst))
    crowd.pass_time(2 * limit.window_seconds)
    before = len(crowd.taken_at)
    seconds = 20.0
    for _ in range(1000):
        crowd.want(0, int(limit.per_second * 0.04) + 1)
        crowd.pass_time(0.02)
    assert len(crowd.taken_at) - before >= 0.9 * limit.per_second * seconds


@pytest.mark.parametrize("limit", [Limit(5), Limit(2000)], ids=str)
def test_nobody_starves_beside_a_worker_that_always_asks(limit: Limit) -> None:
    crowd = Crowd((limit,), 3)
    got = [0, 0, 0]
    for step in range(3000):
        got[0] += crowd.want(0, int(limit.units) + 1)
        if step % 5 == 0:
            got[1] += crowd.want(1, 1 + int(limit.units / 10))
            got[2] += crowd.want(2, 1 + int(limit.units / 10))
        crowd.pass_time(0.01)
    assert sum(got) >= 0.9 * limit.per_second * 30
    assert min(got) >= sum(got) / 10, got


def test_a_quiet_agent_asks_the_store_nothing() -> None:
    crowd = Crowd((Limit(2000),), 3)
    for _ in range(1000):
        assert crowd.want(1, 8) == 8
        crowd.pass_time(0.5)
    assert crowd.questions == 0


def test_a_crowd_is_let_in_before_the_answer_is_here_and_paid_for_afterwards() -> None:
    limit = Limit(2000)
    crowd = Crowd((limit,), 3)
    let_in = crowd.want(0, 2000)
    assert let_in >= 500
    crowd.pass_time(0.01)
    assert crowd.want(0, 1) == 1
    crowd.pass_time(0.01)
    assert crowd.full_at["rate a 0"] - 1000.0 >= let_in / limit.per_second / 2


def test_without_a_store_each_worker_has_the_full_limit_and_back_it_shares_again() -> None:
    limit = Limit(100)
    crowd = Crowd((limit,), 2, is_away=True)
    for _ in range(2):
        for worker in (0, 1):
            crowd.want(worker, 1000)
        crowd.pass_time(1.0)
    assert [crowd.want(worker, 1000) for worker in (0, 1)] == [100, 100]
    crowd.is_away = False
    crowd.pass_time(3.0)
    for _ in range(200):
        for worker in (0, 1):
            crowd.want(worker, 20)
        crowd.pass_time(0.02)
    before = len(crowd.taken_at)
    for _ in range(500):
        for worker in (0, 1):
            crowd.want(worker, 20)
        crowd.pass_time(0.02)
    assert 900 <= len(crowd.taken_at) - before <= 1100


def test_a_store_that_is_late_is_away() -> None:
    crowd = Crowd((Limit(100),), 2, delay_seconds=60.0)
    crowd.want(0, 1000)
    crowd.pass_time(LATE_SECONDS + 0.01)
    crowd.want(0, 1000)
    crowd.pass_time(1.0)
    assert crowd.want(0, 1000) == 100


def test_who_is_refused_is_told_when_to_come_back_and_then_gets_in() -> None:
    for workers in (1, 3):
        crowd = Crowd((Limit(5),), workers)
        crowd.want(0, 100)
        for _ in range(50):
            wait = crowd.shares[0].take(crowd.now)
            crowd.pass_time(0.05 if wait is None else wait + 0.001)
        crowd.want(0, 100)
        wait = crowd.shares[0].take(crowd.now)
        assert wait is not None
        assert 0 < wait < 5


def test_a_limit_of_nobody_elses_is_a_plain_bucket() -> None:
    share = Share(Purse(Limit(10), 1.0, 1000.0))
    taken = [share.take(1000.0) for _ in range(12)]
    assert taken[:10] == [None] * 10
    assert taken[10] == taken[11] == pytest.approx(0.1)
    assert share.take(1000.15) is None
    assert share.take(1000.15) is not None
    assert sum(share.take(2000.0) is None for _ in range(100)) == 10, "what is not used is not saved up"


def test_another_limit_holds_at_once() -> None:
    purse = Purse(Limit(10), 1.0, 1000.0)
    share = Share(purse)
    purse.adjust(Limit(2), 1.0)
    share.adjust()
    assert sum(share.take(1000.0) is None for _ in range(20)) == 2
