"""The promises beyond the accounting can be broken: each on a logbook that is written by hand."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.chaos.fleet import Fleet
from tests.chaos.logbook import Entry
from tests.chaos.nemesis import Fault
from tests.chaos.plan import Plan
from tests.chaos.redis_faults_promises import (
    Promise,
    RedisFault,
    broken_promises,
    in_flight_ends_in_results,
    local_calls_go_on,
    nobody_is_cut_off,
    nothing_runs_late,
    other_workers_are_untouched,
    short_gaps_cost_nothing,
)

PLAN = Plan(folder=Path(), ports=(1, 2, 3), key="", call_seconds=6.0)
LOCAL, REMOTE = "worker-0", "worker-1"
"""s0 of alpha is at home with worker-0."""


def story(*, asked: float, answered: float, worker: str = REMOTE, **answer: Any) -> list[Entry]:
    """One call of alpha's s0; Redis is away from 10 to 12."""
    ask = {"kind": "ask", "call": 1, "method": "tools/call", "robot": "r", "agent": "alpha", "server": "s0"}
    outcome = {"outcome": "result", "executed": None, "reason": ""} | answer
    return [
        ask | {"at": asked, "who": "robots-0", "worker": worker, "seconds": 6.0},
        {"kind": "begin", "call": 1, "at": asked + 0.1, "agent": "alpha", "of": "alpha", "server": "s0"},
        {"kind": "answer", "call": 1, "at": answered, "robot": "r", **outcome},
        {"kind": "away", "at": 12.0, "since": 10.0, "until": 12.0, "workers": ["worker-2"]},
    ]


def told(promise: Promise, entries: list[Entry]) -> list[str]:
    fleet = cast(Fleet, SimpleNamespace(plan=PLAN, last_entries=entries))
    return broken_promises(RedisFault("f", (), lambda _: None, promises=(promise,)), fleet)


UNKNOWN: dict[str, Any] = {"outcome": "error", "executed": "unknown", "reason": "deadline exceeded"}
REFUSED: dict[str, Any] = {"outcome": "error", "executed": False, "reason": "backplane unavailable"}


@pytest.mark.parametrize(
    ("promise", "entries"),
    [
        (local_calls_go_on, story(asked=11, answered=11.1, worker=LOCAL, **REFUSED)),
        (local_calls_go_on, story(asked=10.1, answered=12.1, worker=LOCAL)),
        (in_flight_ends_in_results, story(asked=9, answered=15, **UNKNOWN)),
        (in_flight_ends_in_results, story(asked=11, answered=17, **UNKNOWN)),
        (short_gaps_cost_nothing, story(asked=9, answered=10.1, **REFUSED)),
        (nothing_runs_late, [*story(asked=1, answered=7, **UNKNOWN), {"kind": "begin", "call": 1, "at": 8.0}]),
        (other_workers_are_untouched, story(asked=11, answered=11.1, **REFUSED)),
        (nobody_is_cut_off, [*story(asked=1, answered=2), {"kind": "closed", "at": 11.0, "robot": "r", "code": 1013}]),
    ],
)
def test_a_broken_promise_is_told(promise: Promise, entries: list[Entry]) -> None:
    [text] = told(promise, entries)
    assert text.startswith(promise.__name__)


@pytest.mark.parametrize(
    ("promise", "entries"),
    [
        (local_calls_go_on, story(asked=11, answered=11.5, worker=LOCAL)),
        (local_calls_go_on, story(asked=11, answered=11.5, **REFUSED)),
        (in_flight_ends_in_results, story(asked=9, answered=12.4)),
        (in_flight_ends_in_results, story(asked=11, answered=11.1, **REFUSED)),
        (in_flight_ends_in_results, story(asked=7, answered=13, **UNKNOWN)),
        (short_gaps_cost_nothing, story(asked=9, answered=9.1, **REFUSED | {"reason": "worker unreachable"})),
        (nothing_runs_late, story(asked=9, answered=12.4)),
        (other_workers_are_untouched, story(asked=9, answered=9.1, **REFUSED)),
        (nobody_is_cut_off, [*story(asked=1, answered=2), {"kind": "closed", "at": 11.0, "robot": "r", "code": 1000}]),
        (nobody_is_cut_off, [*story(asked=1, answered=2), {"kind": "closed", "at": 12.5, "robot": "r", "code": 1012}]),
    ],
)
def test_a_kept_promise_is_not(promise: Promise, entries: list[Entry]) -> None:
    assert told(promise, entries) == []


def test_faults_of_others_have_no_promises_here() -> None:
    assert broken_promises(Fault("f", (), lambda _: None), cast(Fleet, None)) == []
