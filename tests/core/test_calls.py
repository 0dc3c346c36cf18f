"""Calls in flight: their deadlines, the frame that goes upstream, and how many there may be."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import jsonrpc
from gateway.calls import SLOT_SECONDS, Call, Deadlines, Job, Stage, upstream_frame
from gateway.catalog import Route
from gateway.rates import Rate, Turnstile


class Nobody:
    """A caller that wants to know nothing."""

    def on_answer(self, job: Job, message: dict[str, Any], frame: bytes) -> None: ...

    def on_lost(self, job: Job) -> None: ...

    def on_unsent(self, job: Job) -> None: ...

    def on_progress(self, job: Job, params: dict[str, Any]) -> None: ...


def job(params: dict[str, Any] | None = None, *, deadline: float = 27.0, deadline_max: float = 300.0) -> Job:
    given_params = {"name": "listed"} if params is None else params
    made = Job("id", "agent", "original", given_params, 0.0, deadline, deadline_max, Nobody())
    made.upstream_id = 41
    return made


def call(*, deadline: float = 27.0, deadline_max: float = 300.0, is_extendable: bool = True) -> Call:
    return Call("5b1f09aa-7", "robot", 1, "agent", "listed", b"", {}, 0.0, deadline, deadline_max, is_extendable)


# Deadlines move


def test_progress_moves_the_deadline_up_to_the_hard_maximum() -> None:
    for one in (call(), job()):
        one.extend(10.0, 27.0)
        assert one.deadline == 37.0
        one.extend(290.0, 27.0)
        assert one.deadline == 300.0
        one.extend(5.0, 27.0)
        assert one.deadline == 300.0, "never back"


def test_the_deadline_of_a_call_that_may_not_be_extended_stays() -> None:
    one = call(is_extendable=False)
    one.extend(10.0, 27.0)
    assert one.deadline == 27.0


def test_a_tools_own_timeout_is_counted_from_the_beginning_and_from_each_progress() -> None:
    one = call()
    one.allow(5.0)
    assert one.deadline == 5.0
    one.extend(4.0, 27.0)
    assert one.deadline == 9.0
    one.extend(298.0, 27.0)
    assert one.deadline == 300.0
    own = job(deadline=5.0)
    own.timeout_seconds = 5.0
    own.extend(4.0, 27.0)
    assert own.deadline == 9.0


def test_a_tools_own_timeout_bounds_a_call_that_may_not_be_extended_for_good() -> None:
    one = call(is_extendable=False, deadline_max=10.0)
    one.allow(20.0)
    one.extend(15.0, 27.0)
    assert one.deadline == one.deadline_max == 20.0


def test_a_call_knows_its_tool_once_it_has_a_route() -> None:
    one = call()
    assert (one.server_id, one.original, one.is_done) == ("", "listed", False)
    one.route = Route("home", "lamp.on")
    one.stage = Stage.DONE
    assert (one.server_id, one.original, one.is_done) == ("home", "lamp.on", True)


# Upstream


def sent(params: dict[str, Any]) -> dict[str, Any]:
    frame = orjson.loads(upstream_frame(job(params)))
    assert {key: value for key, value in frame.items() if key != "params"} == {
        "jsonrpc": "2.0",
        "id": 41,
        "method": "tools/call",
    }
    content: dict[str, Any] = frame["params"]
    return content


def test_the_tool_server_gets_its_own_name_our_id_and_a_token_of_ours() -> None:
    assert sent({"name": "listed", "arguments": {"a": [1]}}) == {
        "name": "original",
        "arguments": {"a": [1]},
        "_meta": {"progressToken": 41},
    }


def test_arguments_null_go_out_as_absent_and_absent_ones_stay_absent() -> None:
    assert "arguments" not in sent({"name": "listed", "arguments": None})
    assert "arguments" not in sent({"name": "listed"})
    assert sent({"name": "listed", "arguments": {}})["arguments"] == {}


def test_everything_else_travels_whole() -> None:
    params = {
        "name": "x",
        "serialNumber": None,
        "task": {"ttl": 1},
        "_meta": {"traceparent": "00", "progressToken": "theirs"},
    }
    assert sent(params) == {
        "name": "original",
        "serialNumber": None,
        "task": {"ttl": 1},
        "_meta": {"traceparent": "00", "progressToken": 41},
    }
    assert params["_meta"] == {"traceparent": "00", "progressToken": "theirs"}, "what the robot sent is not changed"


def test_what_belongs_to_the_robots_connection_does_not_travel() -> None:
    assert sent({"name": "x", "_meta": {"io.modelcontextprotocol/clientInfo": {}}})["_meta"] == {"progressToken": 41}
    assert sent({"name": "x", "_meta": None})["_meta"] == {"progressToken": 41}


def test_arguments_nested_too_deep_can_not_be_sent() -> None:
    with pytest.raises(jsonrpc.Undumpable):
        upstream_frame(job({"name": "x", "arguments": {"a": orjson.loads(b"[" * 300 + b"]" * 300)}}))


@pytest.mark.parametrize(
    ("params", "has_token"),
    [
        ({}, False),
        ({"_meta": None}, False),
        ({"_meta": {}}, False),
        ({"_meta": {"progressToken": None}}, False),
        ({"_meta": {"progressToken": 0}}, True),
        ({"_meta": {"progressToken": ""}}, True),
    ],
    ids=repr,
)
def test_a_job_knows_whether_progress_was_asked_for(params: dict[str, Any], has_token: bool) -> None:
    assert job(params).has_token is has_token


def test_unasked_progress_is_told_once_a_second_and_asked_progress_more_often() -> None:
    unasked, asked = job({}), job({"_meta": {"progressToken": 1}})
    moments = [100 + number / 100 for number in range(200)]
    assert sum(unasked.may_tell_progress(now) for now in moments) == 2
    assert sum(asked.may_tell_progress(now) for now in moments) > 20


# Who is due


def test_what_is_due_comes_once_and_never_early() -> None:
    deadlines: Deadlines[Job] = Deadlines()
    early, late = job(deadline=10.0), job(deadline=20.0)
    for one in (late, early):
        deadlines.add(one)
    assert deadlines.due(9.999) == []
    assert deadlines.due(10.0 + SLOT_SECONDS) == [early]
    assert deadlines.due(15.0) == []
    assert deadlines.due(100.0) == [late]
    assert len(deadlines) == 0
    assert deadlines.due(1000.0) == []


def test_a_deadline_that_moved_comes_when_it_is_due_by_then() -> None:
    deadlines: Deadlines[Call] = Deadlines()
    one = call(deadline=10.0)
    deadlines.add(one)
    one.deadline = 25.0
    assert deadlines.due(20.0) == []
    assert deadlines.due(30.0) == [one]


def test_what_is_discarded_is_never_due() -> None:
    deadlines: Deadlines[Call] = Deadlines()
    one = call(deadline=10.0)
    deadlines.discard(one)
    deadlines.add(one)
    deadlines.discard(one)
    assert len(deadlines) == 0
    assert deadlines.due(100.0) == []


def test_a_deadline_in_the_past_is_due_at_once() -> None:
    deadlines: Deadlines[Call] = Deadlines()
    assert deadlines.due(1000.0) == []
    late = call(deadline=1.0)
    deadlines.add(late)
    assert deadlines.due(1000.0) == [late]
    again = call(deadline=2.0)
    deadlines.add(again)
    assert deadlines.due(1000.0) == [again]


STEPS = st.lists(st.tuples(st.sampled_from(["add", "move", "discard", "pass"]), st.integers(0, 40)), max_size=40)


@settings(deadline=None, max_examples=80)
@given(STEPS)
def test_every_item_is_due_exactly_once_and_in_time(steps: list[tuple[str, int]]) -> None:
    deadlines: Deadlines[Call] = Deadlines()
    now, waiting = 50.0, dict[Call, None]()
    for step, number in steps:
        chosen = list(waiting)[number % len(waiting)] if waiting else None
        if step == "add":
            one = call(deadline=now + number / 7)
            deadlines.add(one)
            waiting[one] = None
        elif step == "move" and chosen is not None:
            chosen.deadline += number / 3
        elif step == "discard" and chosen is not None:
            deadlines.discard(chosen)
            del waiting[chosen]
        elif step == "pass":
            now += number / 5
            for one in deadlines.due(now):
                assert one.deadline <= now
                del waiting[one]
            assert all(one.deadline > now - 2 * SLOT_SECONDS for one in waiting)
        assert len(deadlines) == len(waiting)


# How many


def test_a_rate_allows_a_second_at_once_and_then_as_it_refills() -> None:
    rate = Rate(10)
    assert [rate.take(1000.0) for _ in range(12)] == [True] * 10 + [False] * 2
    assert rate.take(1000.15)
    assert not rate.take(1000.15)
    assert sum(rate.take(2000.0) for _ in range(100)) == 10, "what is not used is not saved up"


def test_a_rate_of_zero_is_no_limit() -> None:
    rate = Rate(0)
    assert all(rate.take(5.0) for _ in range(10_000))


def test_a_turnstile_lets_a_few_through_at_once_and_then_one_at_a_time() -> None:
    turnstile = Turnstile(10.0, at_once=3, wait_seconds_max=0.5)
    turns = [turnstile.turn(100.0) for _ in range(9)]
    assert turns[:4] == [0.0, 0.0, 0.0, 0.0]
    assert turns[4:] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])


def test_a_turn_that_is_too_far_away_is_not_taken() -> None:
    turnstile = Turnstile(10.0, at_once=0, wait_seconds_max=0.15)
    assert turnstile.turn(0.0) == 0.0
    assert turnstile.turn(0.0) == pytest.approx(0.1)
    assert [turnstile.turn(0.0) for _ in range(5)] == [None] * 5
    assert turnstile.turn(0.1) == pytest.approx(0.1)


def test_after_a_lull_a_few_go_through_at_once_again() -> None:
    turnstile = Turnstile(10.0, at_once=2, wait_seconds_max=1.0)
    for _ in range(5):
        turnstile.turn(0.0)
    assert [turnstile.turn(50.0) for _ in range(4)] == pytest.approx([0.0, 0.0, 0.0, 0.1])
