"""The doctor's rules where real Redis would make a test long: what is normal, and must not be told."""

from typing import Any

import pytest

from gateway.backplane.base import RobotRow, Snapshot, WorkerRow
from gateway.backplane.facts import AgentFacts, CallFacts, ClusterFacts, EventFacts, WorkerFacts
from gateway.directory import Claim, Row
from gateway.doctor import lasting, verdicts
from gateway.doctor_rules import RULES, Symptom
from gateway.finding import Level, is_well
from gateway.settings import Settings

NOW = 1_795_345_644_711
ALIVE = WorkerFacts("gw-0", WorkerRow("host", 1, "1", NOW - 5000), NOW + 7000, 7000, NOW - 500, listeners=1)


def cluster(*agents: AgentFacts, **changes: Any) -> ClusterFacts:
    toolsets = {row.toolset for agent in agents for row in agent.rows.values()}
    fields: dict[str, Any] = {"workers": {"gw-0": ALIVE}, "agents": agents, "toolsets": toolsets}
    return ClusterFacts(NOW, **(fields | changes))


def agent(rows: dict[str, Row], claims: dict[str, Claim] | None = None, **changes: Any) -> AgentFacts:
    return AgentFacts("home", "home", Snapshot(NOW - 100, NOW, rows, claims or {}), **changes)


def found(rule: str, facts: ClusterFacts, **settings: Any) -> list[Symptom]:
    return list(RULES[rule](facts, Settings(**settings)))


def up(worker: str = "gw-0", **changes: Any) -> Row:
    fields: dict[str, Any] = {"state": "up", "conn": f"{worker}.1", "since": NOW - 9, "epoch": NOW - 9}
    return Row(worker=worker, **(fields | changes))


def test_what_a_cluster_usually_holds_is_well() -> None:
    rows = {
        "lamp": up(tools=2),
        "~gw-0.7": Row("handshake", "gw-0", "gw-0.7", NOW - 100),
        "fan": up(state="offline", conn="gw-0.3", offline_since=NOW - 5, cause="1000"),
        "old": up("gw-dead", state="offline", conn="gw-dead.1", offline_since=NOW - 5),
    }
    claims = {"on": Claim("lamp", "on", NOW - 9, 0), "blow": Claim("fan", "blow", NOW - 99, NOW + 99_999)}
    robots = {"gw-0.9": RobotRow("gw-0", "robot", NOW - 9)}
    call = CallFacts("1", "gw-0", NOW + 5000, "sent", "gw-0", "home", "lamp", "on", NOW - 9000)
    answered = CallFacts("2", "gw-0", NOW - 9999, "answered")
    expired = CallFacts("3", "gw-0", NOW - 99_999)
    facts = cluster(agent(rows, claims, robots=robots, robots_count=1), calls=[call, answered, expired])
    assert {name: several for name in RULES if (several := found(name, facts))} == {}


@pytest.mark.parametrize(("ended_ms", "level"), [(1000, Level.NOTE), (20_000, Level.NOTE), (60_000, Level.WARN)])
def test_rows_of_a_dead_worker_are_bad_once_the_others_should_have_cleaned_up(ended_ms: int, level: Level) -> None:
    dead = WorkerFacts("gw-1", None, NOW - ended_ms)
    facts = cluster(agent({"lamp": up("gw-1")}), workers={"gw-0": ALIVE, "gw-1": dead})
    assert [one.level for one in found("orphans", facts)] == [level]


def test_rows_of_a_dead_worker_are_bad_at_once_where_nobody_is_left_to_clean_up() -> None:
    facts = cluster(agent({"lamp": up("gw-1")}), workers={"gw-1": WorkerFacts("gw-1", None, NOW - 1000)})
    assert [one.level for one in found("orphans", facts)] == [Level.WARN]


def test_a_call_that_may_report_progress_is_only_noted_as_long_as_its_worker_lives() -> None:
    call = CallFacts("1", "gw-0", NOW - 60_000, "sent", "gw-0", "home", "lamp", "on", NOW - 87_000)
    assert [one.level for one in found("calls", cluster(calls=[call]))] == [Level.NOTE]
    assert [one.level for one in found("calls", cluster(calls=[call], workers={}))] == [Level.WARN]


def test_joins_of_long_ago_are_no_flapping() -> None:
    fields = {"agent": "home", "server": "lamp"}
    events = [EventFacts(str(at), NOW - 3_600_000 - at, "join", fields) for at in range(9)]
    assert found("flapping", cluster(events=events)) == []


def test_a_mailbox_that_may_not_be_asked_about_is_not_judged() -> None:
    deaf = WorkerFacts("gw-0", ALIVE.row, NOW + 7000, 7000, NOW - 500, listeners=None)
    facts = cluster(workers={"gw-0": deaf}, unread={"mailboxes": "redis-cli PUBSUB NUMSUB x"})
    assert found("mailboxes", facts) == []
    told = [one for one in verdicts({"mailboxes": []}, facts) if "mailboxes" in one.subject]
    assert [one.level for one in told] == [Level.UNKNOWN]


def test_only_what_both_looks_have_found_is_believed() -> None:
    first = {"orphans": [Symptom(Level.WARN, "a", "1 s"), Symptom(Level.WARN, "b")]}
    second = {"orphans": [Symptom(Level.WARN, "a", "5 s"), Symptom(Level.WARN, "c")]}
    assert lasting(first, second) == {"orphans": [Symptom(Level.WARN, "a", "5 s")]}


def test_many_of_a_kind_are_counted_and_a_few_are_named() -> None:
    [finding] = verdicts({"endless": [Symptom(Level.WARN, f"key-{at}") for at in range(40)]}, cluster())
    assert "key-0" in finding.text
    assert "key-39" not in finding.text
    assert "in all 40" in finding.text
    assert not is_well([finding])


def test_a_note_is_no_reason_to_exit_with_an_error() -> None:
    assert is_well(verdicts({"versions": [Symptom(Level.NOTE, "1"), Symptom(Level.NOTE, "2")]}, cluster()))
