"""A tool server's connection: its conversation, and the jobs that it is executing.

Theory of operation
-------------------
Everything is synchronous: a frame comes in, is handled to its end, and what it causes is written or handed on before
the next one. The pure session says what to do about frames that are no answers; the link does it, keeps the one
timer that the session asks for, and matches answers to jobs.

While the connection is suspected to be a ghost (`probe`), new jobs are held: they go out when it proves alive, and
back to their callers, unsent, when it does not. So are new jobs of one that is to leave (`hold`), while its running
ones end: they go back when it is closed, and their callers place them where the tool server has redialled to.
"""

import asyncio
import logging
import math
from collections.abc import Callable
from typing import Any, Protocol

from gateway import errors, jsonrpc, toolsession
from gateway.calls import Job, call_of, upstream_frame
from gateway.connection import Connection
from gateway.directory import Claim, Row
from gateway.errors import CloseCode, Failure
from gateway.guarded import for_each
from gateway.jsonrpc import PARTS_MAX, TOO_MANY_PARTS, Garbage, Invalid, Message, Response
from gateway.quantities import KIB, MIB
from gateway.rates import Allowance
from gateway.registration import Newcomer
from gateway.toolsession import End, Progress, Remark, Send, Step, ToolSession, ToolsRead, own_id

logger = logging.getLogger(__name__)

READ_AGAIN_BYTES_MAX = MIB
"""A frame that is no JSON and larger than this is not read a second time: 8 MiB would take a second of everybody's."""
READ_AGAIN_BYTES = 2 * MIB
READ_AGAIN_BYTES_PER_SECOND = 64 * KIB
_UNREADABLE = {TOO_MANY_PARTS: f"超过 {PARTS_MAX} 个对象和数组 / {TOO_MANY_PARTS}"}
_LIST_TROUBLES = ("list refused", "dropped", "oversized", "cut", "pages")
"""Remarks of the session that its people want to know of as long as it is connected."""


class ToolEvents(Protocol):
    """Who registers tool servers."""

    def on_tools(self, link: "ToolLink", read: ToolsRead) -> None: ...


class ToolLink:
    """One tool server, connected here."""

    __slots__ = (
        *("_events", "_ghost_seconds", "_held", "_loop", "_probe_timer", "_probes", "_second_readings"),
        *("_timer", "_timer_due", "cause", "claims", "connection", "is_leaving", "is_restart", "jobs"),
        *("last_stage", "offer", "row", "server_id", "session", "toolset", "trouble"),
    )

    def __init__(
        self, connection: Connection, session: ToolSession, events: ToolEvents, *, ghost_seconds: float
    ) -> None:
        self.connection = connection
        self.session = session
        self.server_id = connection.server_id
        self.row: Row | None = None
        """What is registered of it; None before that, and after its connection has gone."""
        self.claims: dict[str, Claim] = {}
        self.toolset = b"[]"
        """Its tools as JSON text, as they are registered."""
        self.offer: Newcomer | None = None
        """What it would be registered as once the directory can be reached; None before its tools are in, and after."""
        self.jobs: dict[int, Job] = {}
        self.cause = ""
        """Why the gateway closed it, empty if it did not."""
        self.trouble = ""
        """What is wrong with its list, which was taken as far as it goes."""
        self.last_stage = session.stage
        """How far its conversation had come when its connection went."""
        self.is_restart = False
        """Whether it was closed because the gateway restarts: nothing is wrong with it."""
        self._second_readings = Allowance(READ_AGAIN_BYTES, READ_AGAIN_BYTES_PER_SECOND)
        self._events = events
        self._ghost_seconds = ghost_seconds
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0  # uvloop's handles don't tell theirs
        self._probes: list[Callable[[bool], None]] = []
        self._probe_timer: asyncio.TimerHandle | None = None
        self._held: list[Job] = []
        self.is_leaving = False
        """Whether new jobs are held because it is to be closed as soon as the running ones have ended."""

    def __repr__(self) -> str:
        name = self.server_id or "?"
        return f"<ToolLink {self.connection.id} {name} [{self.session.stage.value}, {len(self.jobs)} jobs]>"

    @property
    def load(self) -> int:
        """How many jobs it has, those that are held included."""
        return len(self.jobs) + len(self._held)

    def open(self) -> None:
        """Begin the conversation."""
        self.session.start(self._loop.time())
        self._arm()

    # What it says

    def on_frame(self, frame: bytes) -> None:
        message = jsonrpc.parse(frame)
        if isinstance(message, Response):
            job = self.jobs.get(own_id(message.id))
            if job is not None:
                self._on_answer(job, message.message, frame)
                return
        self._on_other(message, frame)

    def _on_other(self, message: Message, frame: bytes) -> None:
        if isinstance(message, Garbage) and not message.is_blank:
            what = _UNREADABLE.get(message.what, "NaN、Infinity、BOM 或残缺字符 / NaN, Infinity, a BOM or surrogates")
            message, answered = self._read_again(message, frame)
            if answered is not None:
                self._on_unusable(answered, what)
                return
        if isinstance(message, Invalid) and not message.has_method and message.id is not None:
            job = self.jobs.get(own_id(message.id))
            if job is not None:
                self._on_unusable(job, "既无 result 也无 error / neither result nor error")
                return
        if self._probes:
            self._end_probe(is_alive=True)
        if isinstance(message, list):
            for member in message[:1000]:
                self._on_member(member)
            return
        self._carry_out(self.session.on_message(message, self._loop.time()))

    def _read_again(self, garbage: Garbage, frame: bytes) -> tuple[Message, Job | None]:
        """What the frame says to a more patient reader, and the job that it was to answer, if any."""
        size, now = len(frame), self._loop.time()
        if size > READ_AGAIN_BYTES_MAX or not self._second_readings.take(size, now):
            rpc_id = jsonrpc.answered_id(frame)
            return garbage, None if rpc_id is None else self.jobs.get(rpc_id)
        message = jsonrpc.standard_parse(frame)
        return message, self.jobs.get(own_id(message.id)) if isinstance(message, Response) else None

    def _on_member(self, member: Any) -> None:
        """One member of an array, which servers of 2025-03-26 may send."""
        message = jsonrpc.classify(member)
        job = self.jobs.get(own_id(message.id)) if isinstance(message, Response) else None
        if job is None or not isinstance(message, Response):
            self._carry_out(self.session.on_message(message, self._loop.time()))
            return
        try:
            frame = jsonrpc.dumps(message.message)
        except jsonrpc.Undumpable:
            self._on_unusable(job, "嵌套过深 / nested too deep")
        else:
            self._on_answer(job, message.message, frame)

    def _on_answer(self, job: Job, message: dict[str, Any], frame: bytes) -> None:
        self._forget(job)
        self.session.note_heard(self._loop.time())
        if self._probes:
            self._end_probe(is_alive=True)
        job.caller.on_answer(job, message, frame)

    def _on_unusable(self, job: Job, what: str) -> None:
        """An answer that can't be passed on: the call ends at once."""
        failure = errors.bad_answer(self.server_id, what)
        error = failure.as_error(job.agent, call_of(job.call_id))
        message = {"jsonrpc": "2.0", "id": job.upstream_id, "error": error}
        self._on_answer(job, message, jsonrpc.dumps(message))

    def _forget(self, job: Job) -> None:
        self.jobs.pop(job.upstream_id, None)
        job.is_done = True

    # Jobs

    def run(self, job: Job) -> Failure | None:
        """Send the job to the tool server, or hold it while that is probed or to leave. A failure means: not sent."""
        if self._probes or self.is_leaving:
            self._held.append(job)
            return None
        return self._send_job(job)

    def _send_job(self, job: Job) -> Failure | None:
        job.upstream_id = self.session.take_id(self.jobs.__contains__)
        try:
            frame = upstream_frame(job)
        except jsonrpc.Undumpable:
            return errors.too_deep()
        if not self.connection.wire.send(frame):
            job.is_done = True
            job.caller.on_unsent(job)
            return None
        self.session.note_sent(self._loop.time())
        self.jobs[job.upstream_id] = job
        return None

    def cancel(self, job: Job, reason: str) -> None:
        """Forget the job and tell the tool server so; a late answer is a foreign id then."""
        if job in self._held:
            self._held.remove(job)
        elif self.jobs.pop(job.upstream_id, None) is job:
            params = {"requestId": job.upstream_id, "reason": reason}
            self.connection.wire.send(jsonrpc.notification("notifications/cancelled", params))
        job.is_done = True

    def hold(self) -> None:
        """Send no new job from now on; each goes back to its caller, unsent, when the connection is closed."""
        self.is_leaving = True

    def give_back(self, until: float = math.inf) -> None:
        """Give back the held jobs whose deadline comes before `until`: their callers still have time to say so."""
        held, self._held = self._held, []
        self._held = [job for job in held if job.deadline >= until]
        for_each([job for job in held if job.deadline < until], self._unsend, "giving back a held job")

    def _unsend(self, job: Job) -> None:
        job.is_done = True
        job.caller.on_unsent(job)

    # Ghosts

    def probe(self, on_verdict: Callable[[bool], None]) -> None:
        """Find out whether the peer still lives: True at once while it executes a job, or when it says anything."""
        if self.jobs:
            on_verdict(True)
            return
        self._probes.append(on_verdict)
        if self._probe_timer is None:
            self._probe_timer = self._loop.call_later(self._ghost_seconds, self._end_probe, False)
            self._carry_out(self.session.ping(self._loop.time()))

    def _end_probe(self, is_alive: bool) -> None:
        if self._probe_timer is not None:
            self._probe_timer.cancel()
            self._probe_timer = None
        probes, self._probes = self._probes, []
        for on_verdict in probes:
            on_verdict(is_alive)
        if not is_alive:
            self.close(CloseCode.REPLACED, "无响应，已被新连接取代 / silent; replaced by a newer connection", "ghost")
        elif not self.is_leaving:
            held, self._held = self._held, []
            for_each(held, self._send_held, "sending a held job")

    def _send_held(self, job: Job) -> None:
        failure = self._send_job(job)
        if failure is not None:
            job.is_done = True
            error = failure.as_error(job.agent, call_of(job.call_id))
            message = {"jsonrpc": "2.0", "id": 0, "error": error}
            job.caller.on_answer(job, message, jsonrpc.dumps(message))

    # The session's wishes

    def _carry_out(self, steps: list[Step]) -> None:
        for step in steps:
            match step:
                case Send(frame):
                    self.connection.wire.answer(frame)
                case ToolsRead():
                    self._events.on_tools(self, step)
                case Progress(token, params):
                    job = self.jobs.get(own_id(token))
                    if job is not None:
                        job.caller.on_progress(job, params)
                case End(code, reason, cause):
                    self.close(code, reason, cause)
                case Remark(kind, text):
                    self.trouble = text if kind in _LIST_TROUBLES else self.trouble
                    self._log(logging.WARNING, "tool server oddity", event="tool_server_oddity", kind=kind, what=text)
        self._arm()

    def _arm(self) -> None:
        """Have the session's next moment come; a timer that is early enough already stays as it is."""
        if self._timer is not None:
            if self._timer_due <= self.session.due:
                return
            self._timer.cancel()
        self._timer_due = self.session.due
        self._timer = self._loop.call_at(self._timer_due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._carry_out(self.session.on_time(self._loop.time(), is_busy=bool(self.jobs)))

    # The end

    def close(self, code: CloseCode, reason: str, cause: str) -> None:
        """End the connection from our side; `gone` follows when the socket is closed. No job is taken from now on."""
        if not self.cause:
            self.cause, self.is_restart = cause, code is CloseCode.RESTART
        self.connection.wire.close(int(code), reason)
        self.give_back()

    def gone(self) -> None:
        """The socket is closed: every job here ends now."""
        for timer in (self._timer, self._probe_timer):
            if timer is not None:
                timer.cancel()
        self.last_stage, self.session.stage = self.session.stage, toolsession.Stage.CLOSED
        if self._probes:
            probes, self._probes = self._probes, []
            for on_verdict in probes:
                on_verdict(False)
        self.give_back()
        jobs = list(self.jobs.values())
        self.jobs.clear()
        for_each(jobs, self._lose, "ending a job of a lost tool server")

    def _lose(self, job: Job) -> None:
        job.is_done = True
        job.caller.on_lost(job)

    def _log(self, level: int, message: str, **fields: object) -> None:
        extra = {"agent": self.connection.agent, "server_id": self.server_id, "conn": self.connection.id, **fields}
        logger.log(level, message, extra=extra)
