"""The audit by itself: what a record holds, where it goes, and what becomes of those that can't be written."""

import logging
from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from gateway.audit import ACCEPTED, BATCH_RECORDS, WAITING_RECORDS, Audit, Handshake, network_of, operator
from gateway.backplane.base import BackplaneUnavailable
from gateway.credential import Credential
from gateway.meters import Meters
from gateway.settings import Settings

CALL = {"call": "c-1", "agent": "home", "conn": "w.1", "tool": "lamp", "outcome": "result", "executed": True}


class Shelf:
    """A store that can be away; it keeps what it was given."""

    worker_id, now_ms = "w", 1_700_000_000_000

    def __init__(self) -> None:
        self.meters = Meters()
        self.is_away = False
        self.batches: list[Sequence[bytes]] = []
        self.bounds: set[tuple[int, float]] = set()

    async def note_audit(self, records: Sequence[bytes], records_max: int, keep_seconds: float) -> None:
        if self.is_away:
            raise BackplaneUnavailable("gone fishing")
        self.batches.append(records)
        self.bounds.add((records_max, keep_seconds))

    @property
    def records(self) -> list[dict[str, Any]]:
        return [orjson.loads(record) for batch in self.batches for record in batch]

    def count(self, fate: str) -> int:
        return self.meters.audit_records_total.of(fate)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def audit_of(shelf: Shelf, **changes: Any) -> Audit:
    return Audit(Settings(**{"audit": "stream", **changes}), shelf, lambda conn: f"client of {conn}")


def refused(address: str = "203.0.113.7", outcome: str = "bad_token") -> Handshake:
    return Handshake("robot", address, outcome, cause="签名不对 / bad signature")


async def test_without_the_setting_nothing_is_noted(shelf: Shelf) -> None:
    audit = audit_of(shelf, audit="off")
    assert not audit.is_on
    audit.handshake(refused())
    await audit.change("policy", "home", "set", "root@host")
    await audit.close()
    assert shelf.records == []
    assert sum(shelf.meters.audit_records_total.values.values()) == 0


async def test_an_accepted_handshake_says_who_and_with_which_token(shelf: Shelf) -> None:
    audit = audit_of(shelf)
    credential = Credential("home", role="mcp", token_id="t-17")
    audit.handshake(Handshake("tool_server", "203.0.113.7", ACCEPTED, "home", credential, "lamp", "w.1"))
    audit.handshake(Handshake("robot", "203.0.113.8", ACCEPTED, "home", Credential("home"), conn="w.2"))
    await audit.flush()
    about = {"ms": shelf.now_ms, "worker": "w", "record": "handshake", "outcome": "accepted", "agent": "home"}
    server = {"kind": "tool_server", "address": "203.0.113.7", "token": "t-17", "server_id": "lamp", "conn": "w.1"}
    robot = {"kind": "robot", "address": "203.0.113.8", "token": "legacy", "conn": "w.2"}
    assert shelf.records == [{**about, "n": 1, **server}, {**about, "n": 2, **robot}]


async def test_a_refused_one_says_why(shelf: Shelf) -> None:
    audit = audit_of(shelf)
    audit.handshake(refused())
    await audit.flush()
    [record] = shelf.records
    assert (record["outcome"], record["cause"]) == ("bad_token", "签名不对 / bad signature")
    assert "agent" not in record


async def test_a_flood_of_refusals_is_cut_and_its_size_told(shelf: Shelf) -> None:
    audit = audit_of(shelf)
    for _ in range(1000):
        audit.handshake(refused())
    for _ in range(50):
        audit.handshake(refused(outcome="rate"))
    await audit.close()
    listed = [record for record in shelf.records if record["record"] == "handshake"]
    [rest] = [record for record in shelf.records if record["record"] == "suppressed"]
    assert len(listed) == 20
    assert (rest["handshakes"], rest["outcomes"]) == (1030, {"bad_token": 980, "rate": 50})
    assert shelf.count("suppressed") == 1030


async def test_a_robot_beyond_its_limits_pushes_nobody_elses_records_out(shelf: Shelf) -> None:
    audit = audit_of(shelf)
    for agent, outcome in [("loop", "over_quota")] * 1000 + [("loop", "result")] * 50 + [("home", "over_quota")]:
        audit.call({"agent": agent, "conn": "w.1", "outcome": outcome})
    await audit.close()
    calls = [(record["agent"], record["outcome"]) for record in shelf.records if record["record"] == "call"]
    assert calls == [("loop", "over_quota")] * 20 + [("loop", "result")] * 50 + [("home", "over_quota")]
    [rest] = [record for record in shelf.records if record["record"] == "suppressed"]
    assert (rest["handshakes"], rest["calls"], rest["outcomes"]) == (0, 980, {"over_quota": 980})


async def test_all_addresses_of_one_household_are_one_source(shelf: Shelf) -> None:
    """Whoever has one IPv6 address has a whole network of them."""
    audit = audit_of(shelf)
    for number in range(300):
        audit.handshake(refused(address=f"2001:db8::{number:x}"))
    audit.handshake(refused(address="2001:db8:0:1::1"))
    await audit.close()
    assert len([record for record in shelf.records if record["record"] == "handshake"]) == 21


async def test_accepted_handshakes_are_never_left_out(shelf: Shelf) -> None:
    audit = audit_of(shelf)
    for number in range(300):
        audit.handshake(Handshake("robot", "203.0.113.7", ACCEPTED, "home", Credential("home"), conn=f"w.{number}"))
    await audit.flush()
    assert len(shelf.records) == 300


async def test_a_call_says_what_its_robot_calls_itself(shelf: Shelf) -> None:
    audit = audit_of(shelf)
    audit.call(dict(CALL))
    await audit.flush()
    [record] = shelf.records
    assert record == {"ms": shelf.now_ms, "worker": "w", "record": "call", "n": 1, "client": "client of w.1", **CALL}


async def test_half_a_surrogate_pair_of_a_peer_spoils_no_record(shelf: Shelf) -> None:
    audit = audit_of(shelf)
    audit.call({**CALL, "tool": "\ud83d"})
    await audit.flush()
    assert shelf.records[0]["tool"] == "?"


async def test_records_wait_while_the_store_is_away_and_are_written_in_order(shelf: Shelf) -> None:
    audit = audit_of(shelf)
    shelf.is_away = True
    for _ in range(BATCH_RECORDS + 1):
        audit.call(dict(CALL))
    assert await audit.flush() == "gone fishing"
    shelf.is_away = False
    assert await audit.flush() == ""
    assert [len(batch) for batch in shelf.batches] == [BATCH_RECORDS, 1]
    assert [record["n"] for record in shelf.records] == list(range(1, BATCH_RECORDS + 2))
    assert (shelf.count("written"), shelf.count("lost")) == (BATCH_RECORDS + 1, 0)


async def test_what_does_not_fit_is_lost_counted_and_seen_in_the_numbers(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    audit = audit_of(shelf)
    for _ in range(WAITING_RECORDS + 5):
        audit.call(dict(CALL))
    await audit.flush()
    audit.call(dict(CALL))
    await audit.close()
    assert shelf.count("lost") == 5
    assert [record["n"] for record in shelf.records[-2:]] == [WAITING_RECORDS, WAITING_RECORDS + 6]
    assert [record.__dict__["records"] for record in caplog.records if record.levelno == logging.ERROR] == [5]


async def test_at_the_end_what_the_store_does_not_take_is_told_as_lost(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    audit = audit_of(shelf)
    shelf.is_away = True
    audit.call(dict(CALL))
    await audit.close()
    assert shelf.count("lost") == 1
    assert [record.__dict__["cause"] for record in caplog.records] == ["gone fishing"]


async def test_a_change_is_written_before_its_command_ends(shelf: Shelf) -> None:
    audit = audit_of(shelf)
    await audit.change("revoked", "agent:home", "set", "root@host", 17)
    [record] = shelf.records
    assert {name: record[name] for name in ("record", "book", "entry", "what", "by", "version")} == {
        "record": "change",
        "book": "revoked",
        "entry": "agent:home",
        "what": "set",
        "by": "root@host",
        "version": 17,
    }


async def test_records_of_the_log_have_their_events_whatever_the_log_level(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    audit = audit_of(shelf, audit="log")
    with caplog.at_level(logging.INFO, "gateway.audit"):
        for _ in range(21):
            audit.handshake(refused())
        audit.call(dict(CALL))
        audit.noticed("policy", "home", 3)
        await audit.change("policy", "home", "set", "root@host", 3)
        await audit.close()
    events = [record.__dict__["event"] for record in caplog.records]
    assert events[20:] == ["audit_call", "audit_change", "audit_change", "audit_suppressed"]
    assert set(events[:20]) == {"audit_handshake"}
    assert shelf.records == [], "the log and the stream are two places"


@pytest.mark.parametrize(
    ("setting", "address", "shown"),
    [
        ("whole", "203.0.113.7", "203.0.113.7"),
        ("network", "203.0.113.7", "203.0.113.0/24"),
        ("network", "2001:db8:1:2::7", "2001:db8:1::/48"),
        ("network", "?", ""),
        ("none", "203.0.113.7", ""),
    ],
)
async def test_as_much_of_an_address_is_kept_as_the_setting_says(
    shelf: Shelf, setting: str, address: str, shown: str
) -> None:
    audit = audit_of(shelf, audit_addresses=setting)
    audit.handshake(refused(address))
    await audit.flush()
    assert shelf.records[0]["address"] == shown


async def test_the_store_is_told_how_much_and_how_long_to_keep(shelf: Shelf) -> None:
    audit = audit_of(shelf, audit_records=5000, audit_seconds=3600)
    audit.call(dict(CALL))
    await audit.flush()
    assert shelf.bounds == {(5000, 3600)}


def test_a_network_is_that_of_a_household_and_its_neighbours() -> None:
    assert network_of("10.1.2.3") == "10.1.2.0/24"
    assert network_of("unix:") == ""


def test_who_runs_a_command_is_known_by_user_and_host() -> None:
    user, _, host = operator().partition("@")
    assert user
    assert host
