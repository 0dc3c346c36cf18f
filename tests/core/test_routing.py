"""Where a call goes: delivered, parked, or refused with a reason that a person can act on."""

from gateway import errors, routing
from gateway.catalog import Catalog, Route
from gateway.directory import Row
from gateway.routing import Decision, Deliver, Lost, Park, Refuse

NOW = 1_700_000_000_000
GRACE = 30_000
ROUTE = Route("home", "lamp.on")
UP = Row("up", "w1", "c1", 0, epoch=9)
HANDSHAKE = {"~c9": Row("handshake", "w1", "c9", NOW)}


def gone(since: int, cause: str = "Kabel") -> Row:
    return Row("offline", "w1", "c1", 0, epoch=9, offline_since=since, cause=cause)


def decide(
    row: Row | None,
    name: str = "lamp_on",
    *,
    workers: frozenset[str] = frozenset(),
    conns: frozenset[str] = frozenset(),
) -> Decision:
    built = Catalog(rows={"home": row} if row else {}, routes={"lamp_on": ROUTE})
    return routing.decide(built, name, now_ms=NOW, grace_ms=GRACE, lost=Lost(workers, conns))


def refusal(decision: Decision) -> errors.Failure:
    assert isinstance(decision, Refuse)
    assert decision.failure.executed is False
    assert " / " in decision.failure.message
    return decision.failure


def test_a_call_goes_to_the_connection_that_the_row_names() -> None:
    assert decide(UP) == Deliver(ROUTE, "w1", "c1", 9)


def test_names_are_looked_up_exactly() -> None:
    for name in ("lamp.on", "LAMP_ON", "lamp_on ", "lamp", ""):
        assert refusal(decide(UP, name)).code == -32602


def test_a_call_for_a_tool_server_in_its_grace_is_parked() -> None:
    assert decide(gone(NOW)) == Park(ROUTE)
    assert decide(gone(NOW - GRACE + 1)) == Park(ROUTE)


def test_after_the_grace_a_call_is_refused_with_time_and_cause() -> None:
    failure = refusal(decide(gone(NOW - GRACE)))
    assert failure.code == -32001
    assert failure.reason == "tool server offline"
    for part in ("home", "2023-11-14 22:12:50 UTC", "Kabel"):
        assert failure.message.count(part) == 2, "in both languages"


def test_a_row_that_is_up_but_known_to_be_lost_parks_the_call() -> None:
    assert decide(UP, workers=frozenset(["w1"])) == Park(ROUTE)
    assert decide(UP, conns=frozenset(["c1"])) == Park(ROUTE)
    assert decide(UP, workers=frozenset(["c1"]), conns=frozenset(["w1"])) == Deliver(ROUTE, "w1", "c1", 9)


def test_a_tool_whose_server_was_forgotten_is_refused_as_offline() -> None:
    assert refusal(decide(None)).code == -32001


def test_without_any_tool_server_the_reason_says_so() -> None:
    for rows in ({}, HANDSHAKE):
        decision = routing.decide(Catalog(rows=rows), "x", now_ms=NOW, grace_ms=GRACE, lost=Lost(set(), set()))
        failure = refusal(decision)
        assert failure.code == -32001
        assert failure.reason == "no tool server connected"


def test_where_all_have_left_the_last_to_leave_is_named() -> None:
    rows = {"old": gone(NOW - 9 * GRACE, "alt"), "last": gone(NOW - GRACE, "Strom")}
    decision = routing.decide(Catalog(rows=rows), "x", now_ms=NOW, grace_ms=GRACE, lost=Lost(set(), set()))
    failure = refusal(decision)
    assert failure.code == -32001
    assert "last" in failure.message
    assert "Strom" in failure.message
    assert "alt" not in failure.message


def test_an_unknown_tool_is_one_as_long_as_somebody_is_there_or_expected_back() -> None:
    for row in (UP, gone(NOW - 1)):
        assert refusal(decide(row, "other")).reason == "unknown tool"


def test_offline_is_told_without_a_row_too() -> None:
    for row in (None, UP):
        assert routing.offline("home", row).code == -32001


def test_what_the_policy_forbids_is_refused_whether_its_tool_server_is_there_or_not() -> None:
    for row in (UP, gone(NOW), gone(NOW - GRACE), None):
        built = Catalog(rows={"home": row} if row else {}, refused={"lamp_on": "policy", "lamp_off": "pins"})
        lost = Lost(set(), set())
        forbidden, unapproved = (
            refusal(routing.decide(built, name, now_ms=NOW, grace_ms=GRACE, lost=lost))
            for name in ("lamp_on", "lamp_off")
        )
        assert (forbidden.code, forbidden.reason, forbidden.outcome) == (-32004, "not allowed", "not_allowed")
        assert (unapproved.code, unapproved.reason, unapproved.outcome) == (-32004, "not approved", "not_allowed")
