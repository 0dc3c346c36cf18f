"""The checker finds every broken promise in logs made by hand, and nothing in honest ones."""

from typing import Any

import pytest

from tests.chaos.checker import check
from tests.chaos.logbook import Entry


def entry(kind: str, at: float, **fields: Any) -> Entry:
    who = "tools-0" if kind in ("begin", "end") else "robots-0"
    return {"kind": kind, "at": at, "who": who, "call": 1, **fields}


def ask(at: float = 1.0, **fields: Any) -> Entry:
    known = {"method": "tools/call", "robot": "r", "agent": "a", "server": "s", "worker": "worker-0", "seconds": 6.0}
    return entry("ask", at, **{**known, **fields})


def answer(at: float = 2.0, executed: object = None, **fields: Any) -> Entry:
    outcome = "result" if executed is None else "error"
    return entry("answer", at, **{"robot": "r", "outcome": outcome, "executed": executed, "reason": "", **fields})


def begin(at: float = 1.5, **fields: Any) -> Entry:
    return entry("begin", at, **{"agent": "a", "of": "a", "server": "s", "worker": "worker-0", **fields})


def closed(at: float) -> Entry:
    return entry("closed", at, robot="r", code=1006)


def frozen(name: str, since: float, until: float) -> Entry:
    return {"kind": "frozen", "at": until, "who": "nemesis", "name": name, "since": since, "until": until}


HONEST: dict[str, list[Entry]] = {
    "a result": [ask(), begin(), answer()],
    "refused and not run": [ask(), answer(executed=False)],
    "unknown and run": [ask(), begin(), answer(executed="unknown")],
    "unknown and not run": [ask(), answer(executed="unknown")],
    "answered at its deadline": [ask(), begin(), answer(8.5, executed="unknown")],
    "its robot left before the deadline": [ask(), begin(), closed(3.0)],
    "its robot was killed": [ask(), {"kind": "ended", "at": 3.0, "who": "nemesis", "name": "robots-0"}],
    "taken back": [ask(), entry("cancel", 1.2, robot="r")],
    "taken back too late": [ask(), begin(), entry("cancel", 1.2, robot="r"), answer()],
    "its worker was frozen": [ask(), frozen("worker-0", 1.1, 6.1), answer(12.0)],
    "its robot was frozen": [ask(), frozen("robots-0", 1.1, 6.1), answer(12.0)],
    "its tool server was frozen": [ask(), answer(7.0, "unknown"), frozen("tools-0", 1.1, 9.0), begin(9.1)],
}

BROKEN: dict[str, list[Entry]] = {
    "lost": [ask(), begin()],
    "lost: its robot left after the deadline": [ask(), closed(9.5)],
    "lost: another one's worker was frozen": [ask(), frozen("worker-1", 1.1, 6.1), closed(10.0)],
    "late": [ask(), begin(), answer(9.1)],
    "answered twice": [ask(), begin(), answer(), answer(2.5)],
    "doubled": [ask(), begin(), begin(1.6), answer()],
    "ran though refused": [ask(), begin(), answer(executed=False)],
    "ran though refused: later": [ask(), answer(executed=False), begin(30.0)],
    "ran after its end": [ask(), answer(2.0, "unknown"), begin(3.5)],
    "misdelivered": [ask(), begin(), answer(robot="q")],
    "misdelivered: a stray": [ask(), begin(), answer(), entry("stray", 3.0, robot="q", what="?")],
    "crossed": [ask(), begin(agent="b"), answer()],
    "invented": [ask(), begin(), answer(), begin(call=7)],
}


@pytest.mark.parametrize("entries", HONEST.values(), ids=HONEST)
def test_honest_logs_break_no_promise(entries: list[Entry]) -> None:
    assert check(entries).violations == []


@pytest.mark.parametrize(("kind", "entries"), BROKEN.items(), ids=BROKEN)
def test_a_broken_promise_is_found(kind: str, entries: list[Entry]) -> None:
    assert {violation.kind for violation in check(entries).violations} == {kind.partition(":")[0]}


def test_an_error_is_found_where_only_a_result_will_do() -> None:
    entries = [ask(), answer(executed="unknown")]
    assert [violation.kind for violation in check(entries, results_due=True).violations] == ["no result"]


def test_what_is_not_due_yet_is_not_lost() -> None:
    assert check([ask()], until=8.9).violations == []
    assert [violation.kind for violation in check([ask()], until=9.1).violations] == ["lost"]


def test_calls_are_counted_by_how_they_ended() -> None:
    entries = [
        ask(), begin(), answer(),
        ask(call=2), answer(call=2, executed=False),
        ask(call=3), begin(call=3), answer(call=3, executed="unknown"),
        ask(call=4, robot="q"), {**closed(2.0), "robot": "q"},
        ask(call=5), entry("cancel", 1.2, call=5, robot="r"),
        ask(call=6, method="tools/list"), answer(call=6),
    ]  # fmt: skip
    counts = {"issued": 5, "result": 1, "error:false": 1, "error:unknown": 1, "abandoned": 1, "cancelled": 1, "run": 2}
    assert check(entries).counts == counts


def test_what_came_before_a_round_is_known_but_not_counted() -> None:
    entries = [ask(1.0), answer(2.0, executed="unknown"), begin(9.0), ask(8.0, call=2), answer(8.5, call=2)]
    verdict = check(entries, since=7.5)
    assert verdict.counts == {"issued": 1, "result": 1, "run": 0}
    assert [violation.kind for violation in verdict.violations] == ["ran after its end"]
