"""What a call leaves in the log: enough to see what is wrong, and never a flood."""

import logging
from dataclasses import replace

import pytest

from gateway import errors
from gateway.backplane.memory import MemoryBackplane, MemoryStore
from gateway.calls import Call
from gateway.settings import Settings
from gateway.trail import Trail

SETTINGS = Settings()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="gateway.trail")
    return caplog


def trail_of(settings: Settings) -> Trail:
    return Trail(settings, MemoryBackplane(MemoryStore(), "w"))


def call_of(agent: str) -> Call:
    return Call("c-1", "w.1", 1, agent, "lamp_on", b"{}", {}, 0.0, 9.0, 9.0, is_extendable=False)


def events(log: pytest.LogCaptureFixture, event: str) -> list[logging.LogRecord]:
    return [record for record in log.records if vars(record).get("event") == event]


async def test_a_robot_that_is_refused_in_a_loop_does_not_fill_the_log_nor_hide_another_agents_line(
    log: pytest.LogCaptureFixture,
) -> None:
    trail = trail_of(SETTINGS)
    for _ in range(1000):
        trail.failed(call_of("loop"), errors.not_allowed("lamp_on"), 1.0)
    trail.failed(call_of("other"), errors.not_allowed("lamp_on"), 1.0)
    trail.failed(call_of("loop"), errors.overloaded("x"), 1.0)
    assert len(events(log, "call_ended")) < 30
    assert {vars(record)["agent"] for record in events(log, "call_ended")} == {"loop", "other"}
    assert {vars(record)["outcome"] for record in events(log, "call_ended")} == {"not_allowed", "overloaded"}
    trail.tick(20.0)
    (told,) = events(log, "calls_suppressed")
    assert vars(told)["calls"] + len(events(log, "call_ended")) == 1002
    assert vars(told)["outcomes"] == {"not_allowed": vars(told)["calls"]}


async def test_calls_that_were_sent_and_failed_are_all_logged(log: pytest.LogCaptureFixture) -> None:
    trail = trail_of(SETTINGS)
    for _ in range(100):
        trail.failed(call_of("a"), errors.lost_in_call("lamp"), 1.0)
    assert len(events(log, "call_ended")) == 100


async def test_who_wants_all_calls_logged_has_all_refusals_as_well(log: pytest.LogCaptureFixture) -> None:
    trail = trail_of(replace(SETTINGS, call_log="all"))
    for _ in range(100):
        trail.failed(call_of("a"), errors.not_allowed("lamp_on"), 1.0)
    assert len(events(log, "call_ended")) == 100
