"""A flood of alike lines is told within bounds, and what was not told is counted."""

import logging

import pytest

from gateway.muffler import SOURCES_MAX, TELL_SECONDS, Muffler
from gateway.refused import RefusalLog


def told(muffler: Muffler, source: str, times: int, now: float) -> int:
    return sum(muffler.passes(source, "bad_token", now) for _ in range(times))


def test_a_few_are_told_one_by_one() -> None:
    muffler = Muffler()
    assert told(muffler, "10.0.0.1", 5, now=100) == 5
    assert muffler.owed(1000) == {}


def test_of_a_flood_the_first_are_told_and_the_others_counted_by_word() -> None:
    muffler = Muffler()
    assert told(muffler, "10.0.0.1", 100, now=100) == 20
    assert not muffler.passes("10.0.0.1", "rate", 100)
    assert muffler.owed(100) == {}, "not yet worth a line"
    assert muffler.owed(100 + TELL_SECONDS) == {"bad_token": 80, "rate": 1}
    assert muffler.owed(200 + TELL_SECONDS) == {}, "told once"


def test_what_is_owed_can_be_had_at_once() -> None:
    muffler = Muffler()
    told(muffler, "10.0.0.1", 21, now=100)
    assert muffler.owed(100, at_once=True) == {"bad_token": 1}


def test_a_flood_of_one_source_hides_nobody_elses_line() -> None:
    muffler = Muffler()
    told(muffler, "10.0.0.1", 100_000, now=100)
    assert muffler.passes("10.0.0.2", "bad_token", 100)


def test_a_flood_of_many_sources_has_a_bound_in_lines_and_in_memory() -> None:
    muffler = Muffler()
    lines = sum(muffler.passes(f"10.1.{n // 250}.{n % 250}", "bad_token", 100) for n in range(20_000))
    assert lines == 200
    assert len(muffler) == SOURCES_MAX
    assert muffler.owed(200) == {"bad_token": 19_800}


def test_sources_that_have_been_quiet_make_room_for_others() -> None:
    muffler = Muffler()
    told(muffler, "10.0.0.1", 20, now=100)
    for number in range(SOURCES_MAX - 1):
        muffler.passes(f"source {number}", "bad_token", 100)
    assert muffler.passes("10.0.0.9", "bad_token", 1000)
    assert len(muffler) == 1


def test_all_addresses_of_one_household_are_one_source_in_the_log_of_refusals(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever has one IPv6 address has a whole network of them, and could fill what all sources have together."""
    log = RefusalLog(logging.getLogger("gateway.tests"))
    for address in [*(f"2001:db8::{number:x}" for number in range(300)), "2001:db8:0:1::1"]:
        log.tell(logging.WARNING, "connection refused", {"address": address}, event="connection_refused")
    told = [vars(record)["address"] for record in caplog.records]
    assert 20 <= len(told) <= 30, "and one more for every two seconds"
    assert told[-1] == "2001:db8:0:1::1"
