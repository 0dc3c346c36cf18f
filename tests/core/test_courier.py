"""Calls between workers, seen from both ends: what is asked, what is remembered, and for how long."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from gateway import errors, routing
from gateway.backplane.base import Dispatch, Tell, Verdict, nothing
from gateway.backplane.envelope import Envelope
from gateway.backplane.memory import MemoryBackplane, MemoryStore
from gateway.calls import Call, Job
from gateway.courier import ASK_SECONDS, Courier
from gateway.errors import Failure
from gateway.executor import Executor
from gateway.hub import Hub
from gateway.settings import Settings
from gateway.tasks import Tasks
from gateway.trail import Trail


class Clock(Tasks):
    """Time that the test turns; what is to happen later happens when it has come."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 0.0
        self._later: list[tuple[float, Callable[[], None]]] = []

    def now(self) -> float:
        return self.time

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        self._later.append((self.time + seconds, act))

    def turn(self, seconds: float) -> None:
        self.time += seconds
        due = [act for at, act in self._later if at <= self.time]
        self._later = [(at, act) for at, act in self._later if at > self.time]
        for act in due:
            act()


class Post(MemoryBackplane):
    """A backplane that only notes what is said, and of which nobody hears the end of a call."""

    def __init__(self) -> None:
        super().__init__(MemoryStore(lambda: 1_000.0), "here", is_shared=True)
        self.sent: list[Envelope] = []
        self.answered: list[Envelope] = []
        self.tell_verdict: list[Callable[[Verdict], None]] = []

    def dispatch(self, dispatch: Dispatch, on_verdict: Callable[[Verdict], None]) -> None:
        self.tell_verdict.append(on_verdict)

    def send(self, worker: str, envelope: Envelope, on_receivers: Callable[[int], None] | None = None) -> None:
        self.sent.append(envelope)

    def answer(self, to: str, envelope: Envelope, keep_seconds: float = 30.0, on_unheard: Tell = nothing) -> None:
        self.answered.append(envelope)

    def drop(self, call_id: str, nack_to: str, envelope: Envelope, on_unheard: Tell = nothing) -> None:
        on_unheard()


class Desk:
    """Who is told what becomes of a call."""

    def __init__(self) -> None:
        self.failures: list[Failure] = []

    def answer(self, call: Call, message: dict[str, Any]) -> None: ...

    def fail(self, call: Call, failure: Failure) -> None:
        self.failures.append(failure)

    def progress(self, call: Call, params: dict[str, Any]) -> None: ...

    def place_again(self, call: Call) -> None: ...

    def find_again(self, call: Call) -> None: ...


class Line:
    """A tool server's connection that takes every call and leaves the rest to the test."""

    cause = ""
    load = 0
    is_leaving = False
    server_id = "line"
    row = SimpleNamespace(epoch=1)

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def run(self, job: Job) -> None:
        self.jobs.append(job)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def post() -> Post:
    return Post()


def executor_of(post: Post, clock: Clock, line: Line | None = None, **changes: Any) -> Executor:
    hub: Any = Hub()
    if line is not None:
        hub.tool_servers["there"] = line
    settings = Settings(**changes)
    return Executor(settings, post, hub, clock, Trail(settings, post), lambda: False)


def courier_of(post: Post, clock: Clock) -> Courier:
    return Courier(Settings(), post, clock, set(), Trail(Settings(), post))


def request(call_id: str) -> Envelope:
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"}}'
    return Envelope("req", id=call_id, sender="far", conn="there", epoch=1, ms=27_000, body=body)


def query(call_id: str) -> Envelope:
    return Envelope("query", id=call_id, sender="far")


def a_call(call_id: str = "1") -> Call:
    return Call(call_id, "robot", 1, "home", "echo", b"{}", {}, 0.0, 27.0, 27.0, False, worker="far", conn="there")


# The worker that asks


def test_however_many_calls_were_in_doubt_each_is_asked_about_once_at_a_time(clock: Clock, post: Post) -> None:
    courier, desk = courier_of(post, clock), Desk()
    for number in range(20):
        brief = a_call(f"brief-{number}")
        courier.dispatch(brief, desk)
        post.tell_verdict[-1](Verdict.UNKNOWN)
        courier.forget(brief)
    courier.dispatch(a_call("lasting"), desk)
    post.tell_verdict[-1](Verdict.UNKNOWN)
    for _ in range(3):
        post.sent.clear()
        clock.turn(ASK_SECONDS)
        assert [(envelope.type, envelope.id) for envelope in post.sent] == [("query", "lasting")]


def test_nobody_is_asked_any_more_once_no_call_is_in_doubt(clock: Clock, post: Post) -> None:
    courier, desk, call = courier_of(post, clock), Desk(), a_call()
    courier.dispatch(call, desk)
    post.tell_verdict[-1](Verdict.UNKNOWN)
    clock.turn(ASK_SECONDS)
    courier.on_envelope(Envelope("status", id="1", reason="seen"), desk)
    post.sent.clear()
    clock.turn(ASK_SECONDS)
    clock.turn(ASK_SECONDS)
    assert post.sent == []


def test_a_refusal_that_this_version_does_not_know_promises_nothing(clock: Clock, post: Post) -> None:
    """A newer worker may mean anything by it, also that the tool has run."""
    courier, desk = courier_of(post, clock), Desk()
    courier.dispatch(a_call(), desk)
    courier.on_envelope(Envelope("nack", id="1", reason="of tomorrow"), desk)
    assert [failure.executed for failure in desk.failures] == ["unknown"]


def test_a_tool_server_that_is_just_moving_is_said_to_be_reconnecting() -> None:
    """No time and no cause are known of it, so none are made up."""
    failure = routing.offline("calc", None)
    assert failure.executed is False
    assert failure.reason == errors.server_offline("calc", "12:00", "cable").reason
    for part in ("calc 正在重连", "calc is reconnecting"):
        assert part in failure.message
    assert "?" not in failure.message
    assert "unknown" not in failure.message


# The worker that executes


def test_an_id_is_not_taken_again_within_its_time_however_many_came_after_it(clock: Clock, post: Post) -> None:
    """Its record may be found once more by a recovery that was under way when it was answered."""
    line = Line()
    executor = executor_of(post, clock, line)
    executor.on_request(request("first"))
    executor.on_answer(line.jobs[0], {"result": {}}, b'{"result":{}}')
    for number in range(60_000):
        executor.on_cancel(Envelope("cancel", id=f"other-{number}"))
    executor.on_query(query("first"))
    executor.on_request(request("first"))
    assert [envelope.reason for envelope in post.sent] == ["seen"]
    assert len(line.jobs) == 1


def test_the_time_of_an_id_begins_anew_when_its_call_has_ended(clock: Clock, post: Post) -> None:
    """One that reported progress was open for long."""
    line = Line()
    executor = executor_of(post, clock, line, call_seconds=27.0)
    executor.on_request(request("long"))
    clock.turn(200.0)
    executor.on_answer(line.jobs[0], {"result": {}}, b'{"result":{}}')
    clock.turn(27.0)
    executor.on_cancel(Envelope("cancel", id="another"))
    executor.on_request(request("long"))
    assert len(line.jobs) == 1


def test_an_id_whose_time_is_long_over_is_let_go(clock: Clock, post: Post) -> None:
    executor = executor_of(post, clock, call_seconds=27.0)
    executor.on_cancel(Envelope("cancel", id="old"))
    clock.turn(60.0)
    executor.on_cancel(Envelope("cancel", id="new"))
    for call_id in ("old", "new"):
        executor.on_query(query(call_id))
    assert [(envelope.id, envelope.reason) for envelope in post.sent] == [("old", "unseen"), ("new", "seen")]


def test_a_refusal_that_nobody_heard_is_said_again_to_who_asks(clock: Clock, post: Post) -> None:
    """It has left no record from which it could be read; only so many of them are kept to be said unasked."""
    executor = executor_of(post, clock, calls_bytes=0)
    executor.on_request(request("1"))
    executor.on_query(query("1"))
    assert [(envelope.type, envelope.id, envelope.reason) for envelope in post.sent] == [("nack", "1", "moved")]
    executor.on_request(request("1"))
    assert len(post.sent) == 1


def test_ends_that_nobody_heard_are_kept_up_to_a_limit_also_where_they_say_little(clock: Clock, post: Post) -> None:
    executor = executor_of(post, clock, calls_bytes=10_000)
    for number in range(1_000):
        executor.on_request(request(str(number)))
    for number in range(1_000):
        executor.on_query(query(str(number)))
    assert 0 < len(post.answered) < 100
