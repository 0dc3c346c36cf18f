"""Calls between workers, seen from both ends: what is asked, what is remembered, and for how long."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from gateway import errors, routing
from gateway.backplane.base import Dispatch, Record, Tell, Verdict, nothing
from gateway.backplane.envelope import Envelope, encode
from gateway.backplane.memory import MemoryBackplane, MemoryStore
from gateway.backplane.memory_store import KeptCall
from gateway.calls import Call, Job, Stage
from gateway.courier import ASK_SECONDS, Courier
from gateway.errors import Failure
from gateway.executor import Executor
from gateway.hub import Hub
from gateway.settings import Settings
from gateway.tasks import Tasks
from gateway.trail import Trail
from tests.support.waiting import wait_until


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
        self.store = MemoryStore(lambda: 1_000.0)
        super().__init__(self.store, "here", is_shared=True)
        self.sent: list[Envelope] = []
        self.answered: list[Envelope] = []
        self.dropped: list[tuple[str, Envelope]] = []
        self.tell_verdict: list[Callable[[Verdict], None]] = []

    def dispatch(self, dispatch: Dispatch, on_verdict: Callable[[Verdict], None]) -> None:
        self.tell_verdict.append(on_verdict)

    def send(self, worker: str, envelope: Envelope, on_receivers: Callable[[int], None] | None = None) -> None:
        self.sent.append(envelope)

    def answer(self, to: str, envelope: Envelope, keep_seconds: float = 30.0, on_unheard: Tell = nothing) -> None:
        self.answered.append(envelope)

    def drop(self, call_id: str, nack_to: str, envelope: Envelope, on_unheard: Tell = nothing) -> None:
        self.dropped.append((nack_to, envelope))
        on_unheard()


class Desk:
    """Who is told what becomes of a call."""

    def __init__(self) -> None:
        self.failures: list[Failure] = []
        self.events: list[str] = []
        self.courier: Courier | None = None

    def answer(self, call: Call, message: dict[str, Any]) -> None:
        self._end(call, "answer")

    def fail(self, call: Call, failure: Failure) -> None:
        self.failures.append(failure)
        self._end(call, failure.reason)

    def _end(self, call: Call, how: str) -> None:
        self.events.append(how)
        if self.courier is not None:
            self.courier.forget(call)

    def progress(self, call: Call, params: dict[str, Any]) -> None: ...

    def place_again(self, call: Call) -> None:
        self.events.append("place again")

    def find_again(self, call: Call) -> None:
        self.events.append("find again")


class Line:
    """A tool server's connection that takes every call and leaves the rest to the test."""

    cause = ""
    load = 0
    is_leaving = False
    server_id = "line"
    row = SimpleNamespace(epoch=1)
    connection = SimpleNamespace(agent="home")

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
    return Envelope("req", id=call_id, sender="far", agent="home", conn="there", epoch=1, ms=27_000, body=body)


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
    courier.on_envelope(Envelope("status", id="1", sender="far", reason="seen"), desk)
    post.sent.clear()
    clock.turn(ASK_SECONDS)
    clock.turn(ASK_SECONDS)
    assert post.sent == []


def test_a_refusal_that_this_version_does_not_know_promises_nothing(clock: Clock, post: Post) -> None:
    """A newer worker may mean anything by it, also that the tool has run."""
    courier, desk = courier_of(post, clock), Desk()
    courier.dispatch(a_call(), desk)
    courier.on_envelope(Envelope("nack", id="1", sender="far", reason="of tomorrow"), desk)
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


def dispatched(courier: Courier, post: Post, desk: Desk, verdict: Verdict = Verdict.OK) -> Call:
    call, desk.courier = a_call(), courier
    courier.dispatch(call, desk)
    post.tell_verdict[-1](verdict)
    return call


def said(kind: str, reason: str = "", sender: str = "far", body: bytes = b"") -> Envelope:
    return Envelope(kind, id="1", sender=sender, reason=reason, body=body)


def put_on_record(post: Post, result: bytes, state: str = "answered") -> None:
    record = Record("1", state, "here", "home", "", "", 1, result=result)
    post.store.worker("far").calls["1"] = KeptCall(record, 10_000_000)


ANSWER = b'{"jsonrpc":"2.0","id":1,"result":{"content":[]}}'


@pytest.mark.parametrize(
    "envelope",
    [
        said("res", body=ANSWER, sender="another"),
        said("nack", "moved", sender="another"),
        said("status", "unseen", sender="another"),
        said("status", "over", sender="another"),
        said("nack", "lost", sender=""),
    ],
    ids=lambda envelope: f"{envelope.type} {envelope.reason}",
)
async def test_nobody_but_the_worker_that_has_the_call_is_believed_about_it(
    envelope: Envelope, clock: Clock, post: Post
) -> None:
    """Records can be forged, and a worker that reads a forged one says in good faith what is not so."""
    courier, desk = courier_of(post, clock), Desk()
    call = dispatched(courier, post, desk)
    async with clock:
        courier.on_envelope(envelope, desk)
    assert (len(courier), desk.events, call.stage) == (1, [], Stage.SENT)


async def test_a_call_whose_answer_got_lost_ends_as_unknown_when_its_owner_says_that_it_is_over(
    clock: Clock, post: Post
) -> None:
    courier, desk = courier_of(post, clock), Desk()
    dispatched(courier, post, desk)
    put_on_record(post, b"")  # as with call_records=bare
    async with clock:
        courier.on_envelope(said("status", "seen"), desk)
        await courier.recover(desk)
        assert desk.events == [], "its answer may be on its way"
        clock.turn(ASK_SECONDS)
        assert post.sent[-1].type == "query"
        courier.on_envelope(said("status", "over"), desk)
        await wait_until(lambda: bool(desk.events), "its end")
    assert desk.events == ["answer lost"]
    assert [failure.executed for failure in desk.failures] == ["unknown"]


async def test_an_answer_that_was_not_heard_is_read_from_its_record_when_the_owner_says_that_it_is_over(
    clock: Clock, post: Post
) -> None:
    courier, desk = courier_of(post, clock), Desk()
    call = dispatched(courier, post, desk)
    put_on_record(post, encode(said("res", body=ANSWER)))
    async with clock:
        courier.on_envelope(said("status", "over"), desk)
        await wait_until(lambda: bool(desk.events), "its end")
    assert desk.events == ["answer"]
    assert call.attempts == 1


@pytest.mark.parametrize(
    "result",
    [b"garbage", encode(Envelope("res", id="2", sender="far", body=ANSWER)), encode(said("res", sender="x"))],
    ids=["no envelope", "of another call", "of another worker"],
)
async def test_a_record_that_holds_no_answer_of_this_call_is_taken_for_empty(
    result: bytes, clock: Clock, post: Post
) -> None:
    courier, desk = courier_of(post, clock), Desk()
    dispatched(courier, post, desk)
    put_on_record(post, result)
    await courier.recover(desk)
    assert desk.events == []
    clock.turn(ASK_SECONDS)
    assert [envelope.type for envelope in post.sent] == ["query"]


@pytest.mark.parametrize("verdict", [Verdict.OK, Verdict.UNKNOWN])
def test_a_call_that_its_owner_has_never_seen_is_sent_anew_and_nothing_is_lost(
    verdict: Verdict, clock: Clock, post: Post
) -> None:
    courier, desk = courier_of(post, clock), Desk()
    dispatched(courier, post, desk, verdict)
    courier.on_envelope(said("status", "unseen"), desk)
    assert desk.events == ["place again"]


def test_a_call_that_was_refused_before_its_verdict_came_is_sent_anew(clock: Clock, post: Post) -> None:
    """Its owner found the record while the message was still on its way."""
    courier, desk, call = courier_of(post, clock), Desk(), a_call()
    courier.dispatch(call, desk)
    courier.on_envelope(said("status", "unseen"), desk)
    post.tell_verdict[-1](Verdict.OK)
    assert (desk.events, len(courier)) == (["place again"], 0)


async def test_a_call_of_a_lost_owner_ends_as_unknown_where_its_record_holds_nothing(clock: Clock, post: Post) -> None:
    courier, desk = courier_of(post, clock), Desk()
    dispatched(courier, post, desk)
    put_on_record(post, b"")
    await courier.owner_lost("far", desk)
    assert [(failure.reason, failure.executed) for failure in desk.failures] == [("worker lost", "unknown")]


# The worker that executes


def pending(post: Post, message: bytes, call_id: str = "1", sent_ms: int = 999_000) -> None:
    record = Record(call_id, "sent", "far", "home", "", "", sent_ms, message=message)
    post.store.worker("here").calls[call_id] = KeptCall(record, 10_000_000)


async def test_a_call_that_was_not_heard_and_whose_record_is_bare_is_refused_for_good_and_sent_back(
    clock: Clock, post: Post
) -> None:
    line = Line()
    executor = executor_of(post, clock, line)
    pending(post, b"")
    await executor.recover()
    assert [(to, envelope.type, envelope.reason) for to, envelope in post.dropped] == [("far", "status", "unseen")]
    executor.on_request(request("1"))  # its message comes after all
    await executor.recover()
    assert line.jobs == []
    assert len(post.dropped) == 1


async def test_a_call_that_runs_or_has_run_is_not_sent_back_because_its_record_is_bare(
    clock: Clock, post: Post
) -> None:
    line = Line()
    executor = executor_of(post, clock, line)
    for call_id in ("ended", "running"):
        executor.on_request(request(call_id))
        pending(post, b"", call_id)
    executor.on_answer(line.jobs[0], {"result": {}}, ANSWER)
    await executor.recover()
    assert post.dropped == []
    for call_id in ("ended", "running"):
        executor.on_query(query(call_id))
    assert [(envelope.id, envelope.reason) for envelope in post.sent] == [("ended", "over"), ("running", "seen")]


async def test_nothing_is_promised_of_a_bare_record_that_is_older_than_what_is_remembered(
    clock: Clock, post: Post
) -> None:
    pending(post, b"", sent_ms=1_000_000 - 27_001)
    await executor_of(post, clock, call_seconds=27.0).recover()
    assert post.dropped == []


@pytest.mark.parametrize("kind", ["cancel", "query", "note", "res"])
async def test_only_the_request_that_a_record_is_of_is_taken_from_it(kind: str, clock: Clock, post: Post) -> None:
    line = Line()
    executor = executor_of(post, clock, line)
    pending(post, encode(request("2")) + encode(Envelope(kind, id="1", sender="far", conn="there")))
    await executor.recover()
    assert line.jobs == []
    assert [envelope.reason for _, envelope in post.dropped] == ["unseen"]


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
    assert [envelope.reason for envelope in post.sent] == ["over"]
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
    assert [(envelope.id, envelope.reason) for envelope in post.sent] == [("old", "unseen"), ("new", "over")]


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
