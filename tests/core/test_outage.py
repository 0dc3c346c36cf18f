"""What a worker makes of an agent's facts while the store is away."""

from dataclasses import replace

from gateway.backplane.base import Snapshot
from gateway.directory import Claim, Row
from gateway.outage import Registered, facts, remembered
from gateway.registration import Newcomer, Rules

RULES = Rules(hold_ms=3_600_000, handshake_ms=60_000, servers_max=64, tools_max=100)
NOW = 1_000_000
GRACE = 10_000


def row(worker: str, conn: str, name: str = "calc") -> Row:
    return Row("up", worker, conn, since=1, epoch=1, name=name, toolset="t", tools=1)


def newcomer(conn: str, server_id: str = "", name: str = "calc", originals: tuple[str, ...] = ("add",)) -> Newcomer:
    return Newcomer("w1", conn, server_id, name, "1", "t", originals)


def known(last: Snapshot, registered: list[Registered], newcomers: list[Newcomer]) -> Snapshot:
    return facts(last, registered, newcomers, worker="w1", now_ms=NOW, rules=RULES)


LAST = Snapshot(
    revision=77,
    now_ms=5,
    rows={"calc": row("w1", "c1"), "lamp": row("w2", "c2", "lamp")},
    claims={"add": Claim("calc", "add", 1, 0), "on": Claim("lamp", "on", 1, 0)},
)


def test_what_was_read_last_is_believed_of_other_workers_and_its_revision_stays() -> None:
    snapshot = known(LAST, [Registered("calc", LAST.rows["calc"], {})], [])
    assert snapshot.rows == LAST.rows
    assert snapshot.revision == 77
    assert snapshot.now_ms == NOW


def test_what_is_connected_here_is_there_although_nothing_was_ever_read() -> None:
    snapshot = known(Snapshot(0, 0), [Registered("calc", row("w1", "c1"), {"add": Claim("calc", "add", 1, 0)})], [])
    assert list(snapshot.rows) == ["calc"]
    assert list(snapshot.claims) == ["add"]


def test_a_row_of_this_worker_without_a_connection_is_offline() -> None:
    snapshot = known(LAST, [], [])
    assert snapshot.rows["calc"].state == "offline"
    assert snapshot.rows["calc"].offline_since == NOW
    assert snapshot.rows["lamp"].state == "up"
    again = known(replace(snapshot, now_ms=0), [], [])
    assert again.rows == snapshot.rows, "its grace does not begin anew"


def test_a_newcomer_is_admitted_by_the_rules_of_every_day() -> None:
    snapshot = known(LAST, [Registered("calc", LAST.rows["calc"], {})], [newcomer("c9", name="other")])
    assert snapshot.rows["other"].conn == "c9"
    assert snapshot.claims["add"].server == "calc"
    assert snapshot.claims["other__add"].server == "other"


def test_a_newcomer_with_the_server_id_of_another_takes_its_place() -> None:
    snapshot = known(LAST, [], [newcomer("c9", server_id="lamp", name="lamp", originals=("on",))])
    assert snapshot.rows["lamp"].worker == "w1"
    assert snapshot.rows["lamp"].epoch > LAST.rows["lamp"].epoch
    assert snapshot.claims["on"].server == "lamp"


def test_a_newcomer_that_was_admitted_before_stays_what_it_is() -> None:
    once = known(Snapshot(0, 0), [], [newcomer("c1"), newcomer("c2")])
    twice = known(once, [], [newcomer("c1"), newcomer("c2")])
    assert {name: r.conn for name, r in once.rows.items()} == {"calc": "c1", "calc-2": "c2"}
    assert twice.rows == once.rows, "nothing new: no catalog needs to be built"


def test_a_newcomer_beyond_a_limit_has_to_wait_for_the_store() -> None:
    many = tuple(f"tool_{number}" for number in range(RULES.tools_max + 1))
    assert known(Snapshot(0, 0), [], [newcomer("c1", originals=many)]).rows == {}


def test_a_connected_tool_server_that_the_store_does_not_know_any_more_is_remembered() -> None:
    emptied = Snapshot(0, NOW)
    assert remembered(emptied, LAST, grace_ms=GRACE).rows == LAST.rows
    assert remembered(emptied, LAST, grace_ms=GRACE).claims == LAST.claims
    half = Snapshot(80, NOW, rows={"lamp": row("w3", "c3", "lamp")}, claims={"on": Claim("lamp", "on", 9, 0)})
    assert remembered(half, LAST, grace_ms=GRACE).rows == {"calc": LAST.rows["calc"], "lamp": half.rows["lamp"]}
    assert remembered(half, LAST, grace_ms=GRACE).claims["on"].claimed == 9


def test_what_the_store_knows_is_not_overruled() -> None:
    offline = replace(LAST, rows={**LAST.rows, "calc": replace(LAST.rows["calc"], state="offline")})
    assert remembered(offline, LAST, grace_ms=GRACE) is offline
    assert remembered(LAST, offline, grace_ms=GRACE) is LAST
    renamed = replace(LAST, rows={"calc-2": LAST.rows["calc"], "lamp": LAST.rows["lamp"]})
    assert remembered(renamed, LAST, grace_ms=GRACE) is renamed, "the same connection under another name"
    gone = Snapshot(80, NOW)
    long_gone = replace(LAST.rows["calc"], state="offline", offline_since=NOW - GRACE)
    assert remembered(gone, replace(LAST, rows={"calc": long_gone}), grace_ms=GRACE) is gone


def test_what_is_known_to_be_gone_is_remembered_as_offline_for_its_grace() -> None:
    emptied = Snapshot(0, NOW)
    known = remembered(emptied, LAST, grace_ms=GRACE, is_gone=lambda row: row.conn == "c1")
    assert (known.rows["calc"].state, known.rows["calc"].offline_since) == ("offline", NOW)
    assert known.rows["lamp"].state == "up"
    later = replace(emptied, now_ms=NOW + GRACE - 1)
    assert remembered(later, known, grace_ms=GRACE).rows["calc"] == known.rows["calc"]
    assert "calc" not in remembered(replace(emptied, now_ms=NOW + GRACE), known, grace_ms=GRACE).rows
