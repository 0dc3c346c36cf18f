"""The page of limits says what the code does."""

import orjson
import pytest

from gateway import flow, quotas, robotlink, robotsession, shares
from gateway.declared import Kind
from gateway.errors import over_quota
from gateway.policy import LIMITS
from gateway.settings import env_name, specs
from gateway.shares import Limit
from tests.docs.markdown import Document, code_in, read

NO_LIMITS = {"port", "workers", "admin_port", "audit_records"}
"""Counts that are something else."""
WINDOWS = {"second": 1.0, "minute": 60.0}


@pytest.fixture
def page() -> Document:
    return read("docs/limits.md")


def limits(page: Document) -> dict[str, list[str]]:
    """Setting → its row."""
    tables = [table for table in page.tables if table[0][:3] == ["Setting", "Default", "Counts"]]
    return {code_in(row[0])[0]: row for table in tables for row in table[1:]}


def test_every_limit_is_on_the_page_and_nothing_else(page: Document) -> None:
    counted = {field for field, spec in specs().items() if spec.kind in (Kind.COUNT, Kind.SIZE)}
    assert set(limits(page)) == {env_name(field) for field in counted - NO_LIMITS}


def test_what_an_agent_may_have_otherwise_is_what_policies_know(page: Document) -> None:
    assert {row[0] for row in _rows(page, "In the policy's `limits`")} == {f"`{name}`" for name in LIMITS}
    for row in _rows(page, "In the policy's `limits`"):
        assert code_in(row[1])[0] == env_name(code_in(row[0])[0])
    overridden = {setting for setting, row in limits(page).items() if row[4] == "yes"}
    assert overridden == {env_name(name) for name in LIMITS}


def test_how_much_workers_may_exceed_a_limit_is_what_the_arithmetic_says(page: Document) -> None:
    for text, workers, burst, spare in _rows(page, "Limit", "Workers"):
        units, _, window = text.split()
        limit = Limit(float(units), WINDOWS[window])
        assert float(burst) == limit.burst
        assert float(spare) == pytest.approx(limit.spare_units(int(workers)), rel=0.01)


def test_the_parts_of_a_limit_are_those_of_the_code(page: Document) -> None:
    assert f"1/{round(1 / shares.QUIET_PART)} of every limit" in page.prose
    assert f"at least {shares.QUIET_UNITS_MIN:g} units each" in page.prose
    assert "for 1/{} to 1/{} of".format(*(round(1 / part) for part in shares.ASK_PARTS)) in page.prose
    assert f"up to 1/{round(1 / shares.CREDIT_PART)} of a second's worth on credit" in page.prose
    assert f"no answer within {shares.LATE_SECONDS:g} s" in page.prose


def test_bounds_that_are_no_settings_are_those_of_the_code(page: Document) -> None:
    bounds = {row[0]: row[1] for row in _rows(page, "What", "Bound")}
    found = [int("".join(filter(str.isdigit, text.split(" ")[0]))) for text in bounds.values()]
    kib = 1024
    assert found == [
        flow.CONTROL_FRAMES_PER_SECOND,
        flow.ANSWERS_BYTES_MAX // kib,
        flow.PAGES_MAX,
        flow.FRAGMENTS_MAX,
        robotlink.LINE_MAX,
        robotsession.BATCH_MAX,
        quotas.AGENTS_MAX,
    ]
    assert quotas.AGENTS_MAX == quotas.SOURCES_MAX


def test_the_error_that_is_shown_is_what_a_robot_gets(page: Document) -> None:
    [shown] = [orjson.loads(block.text) for block in page.blocks if block.language == "json"]
    assert shown == over_quota("GATEWAY_CALLS_PER_SECOND=5", 0.2).as_error("home", shown["data"]["call"])


def _rows(page: Document, *head: str) -> list[list[str]]:
    [table] = [table for table in page.tables if tuple(table[0][: len(head)]) == head]
    return table[1:]
