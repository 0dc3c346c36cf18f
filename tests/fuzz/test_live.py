"""A slice of cases against a live worker in every run of the tests; `make fuzz` plays the rest."""

from pathlib import Path

from tests.fuzz.plays import PLAYS
from tests.fuzz.run import Plan, play
from tests.support.redis_server import RedisServer

SEED = 20
CASES, CASES_ON_REDIS = 250, 120


async def test_a_worker_bears_a_slice_of_everything_and_the_innocent_notice_nothing(tmp_path: Path) -> None:
    outcome = await play(Plan(SEED, CASES), tmp_path)
    assert outcome.found == [], "\n".join(map(str, outcome.found))
    assert outcome.calls > 0


async def test_so_does_one_that_shares_a_redis(tmp_path: Path, redis_server: RedisServer) -> None:
    outcome = await play(Plan(SEED, CASES_ON_REDIS, first=CASES, redis_url=redis_server.url), tmp_path)
    assert outcome.found == [], "\n".join(map(str, outcome.found))


def test_the_slice_has_nearly_every_kind_of_case_in_it() -> None:
    kinds = {case.kind for _, case in Plan(SEED, CASES).numbered(0, CASES + CASES_ON_REDIS)}
    assert len(kinds) >= len(PLAYS) - 3
