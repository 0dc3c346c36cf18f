"""Runs other workers' calls on the tool servers that are connected here.

Theory of operation
-------------------
Every ledger id runs at most once: an id that was seen, or that this worker has said it never saw, is not taken
again. What can't be run goes back as a `nack` before anything reached the tool server, with the reason; what was
sent and has no answer ends as `nack lost`. After a gap `recover` finds in the ledger what was published meanwhile.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

from gateway import jsonrpc, results
from gateway.backplane.base import Backplane, Record
from gateway.backplane.envelope import Envelope, EnvelopeError, decode
from gateway.calls import Deadlines, Job
from gateway.guarded import for_each
from gateway.hub import Hub
from gateway.jsonrpc import Request
from gateway.settings import Settings
from gateway.tasks import Tasks
from gateway.toollink import ToolLink
from gateway.trail import Trail, outcome_of

logger = logging.getLogger(__name__)

SEEN_MAX = 500_000
SEEN_SPARE_SECONDS = 10.0
"""How long an id is remembered beyond the time of a call: no dispatch is taken, and nobody asks, after a deadline."""
UNHEARD_BYTES = 500
"""What an end that is kept weighs beside its body."""
DEADLINE_SLACK_SECONDS = 1.0
"""The asking worker ends a call at its deadline; this one only cleans up when that did not happen."""
RECORD_AFTER_SECONDS = 1.0


Seen: TypeAlias = bool | Envelope
"""True: the call came here. False: only the question whether it did. An envelope: it was refused so."""


@dataclass(frozen=True, slots=True)
class Unheard:
    """The end of a call, for who asked: worth being said again until the deadline (loop time)."""

    to: str
    deadline: float
    envelope: Envelope


class Executor:
    """The jobs of other workers. Is their `Caller`: what becomes of them goes back by envelope."""

    def __init__(
        self,
        settings: Settings,
        backplane: Backplane,
        hub: Hub,
        tasks: Tasks,
        trail: Trail,
        is_fenced: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._backplane = backplane
        self._hub = hub
        self._tasks = tasks
        self._trail = trail
        self._meters = backplane.meters
        self._seen: OrderedDict[str, tuple[float, Seen]] = OrderedDict()
        """Ids that are not taken any more: until when, and how that came."""
        self._jobs: dict[str, tuple[Job, ToolLink]] = {}
        self._unheard: dict[str, Unheard] = {}
        """What ended and may have been heard by nobody, until it is said again or nobody waits for it any more."""
        self._unheard_bytes = 0
        self._deadlines: Deadlines[Job] = Deadlines()
        self._is_fenced = is_fenced

    def __repr__(self) -> str:
        return f"<Executor [{len(self._jobs)} jobs]>"

    @property
    def origins(self) -> set[str]:
        """The workers that wait for us."""
        return {job.origin for job, _ in self._jobs.values()}

    # What other workers want

    def on_envelope(self, envelope: Envelope) -> None:
        """A `req`, `cancel`, `query` or `probe`."""
        match envelope.type:
            case "req":
                self.on_request(envelope)
            case "cancel":
                self.on_cancel(envelope)
            case "query":
                self.on_query(envelope)
            case "probe":
                self.on_probe(envelope)

    def on_request(self, envelope: Envelope) -> None:
        if envelope.id in self._seen or envelope.id in self._jobs:
            return
        self._note_seen(envelope.id, True, self._tasks.now() + envelope.ms / 1000)
        refusal = self._run(envelope)
        if refusal is not None:
            self._trail.refused(envelope.id, envelope.agent, refusal)
            self._nack(envelope.id, envelope.sender, refusal, self._tasks.now() + envelope.ms / 1000)

    def _run(self, envelope: Envelope) -> str | None:
        """Why the call can't be run, None if it runs."""
        if not envelope.is_supported:
            return "unsupported"
        if self._is_fenced():
            return "fenced"
        left_ms = envelope.due - self._backplane.now_ms if envelope.due else envelope.ms
        self._meters.mailbox_lag_seconds.observe(max(0, envelope.ms - left_ms) / 1000)
        if left_ms <= 0:
            return "late"
        link = self._hub.tool_servers.get(envelope.conn)
        if link is None or link.cause or link.connection.agent != envelope.agent:
            return "moved"  # or somebody has written another agent's connection into a row
        if link.row is None or link.row.epoch != envelope.epoch:
            return "early"  # others may read of a registration before its own worker hears that it was taken
        return self._run_on(link, envelope, left_ms / 1000)

    def _run_on(self, link: ToolLink, envelope: Envelope, left_seconds: float) -> str | None:
        if link.load >= self._settings.calls_per_connection:
            return "moved" if link.is_leaving else "busy"
        request = jsonrpc.parse(envelope.body)
        if not isinstance(request, Request) or type(request.params) is not dict:
            return "bad"
        return self._start(envelope, link, request.params, left_seconds)

    def _start(self, envelope: Envelope, link: ToolLink, params: dict[str, Any], left_seconds: float) -> str | None:
        now = self._tasks.now()
        job = Job(
            call_id=envelope.id,
            agent=envelope.agent,
            tool=envelope.tool,
            params=params,
            started=now,
            deadline=now + left_seconds + DEADLINE_SLACK_SECONDS,
            deadline_max=now + self._settings.call_max_seconds + DEADLINE_SLACK_SECONDS,
            caller=self,
            origin=envelope.sender,
            timeout_seconds=max(left_seconds, self._settings.call_seconds),
        )
        self._jobs[job.call_id] = (job, link)
        self._deadlines.add(job)
        self._trail.started(job, envelope.trace)
        if link.run(job) is not None:
            self._forget(job, "bad_params")
            return "bad"
        return None

    def on_cancel(self, envelope: Envelope) -> None:
        """The asking worker has given the call up; one that has not come yet will not be started."""
        self._note_seen(envelope.id, True)
        entry = self._jobs.get(envelope.id)
        if entry is not None:
            outcome = "timed_out" if envelope.reason == "deadline exceeded" else "cancelled"
            self._cancel(*entry, envelope.reason, outcome)

    def on_query(self, envelope: Envelope) -> None:
        """Was this call ever seen here? After a no it will not be run any more."""
        _, seen = self._seen.get(envelope.id, (0.0, envelope.id in self._jobs))
        if envelope.id in self._unheard:
            self._say(self._take_unheard(envelope.id))
        elif isinstance(seen, Envelope):
            self._backplane.send(envelope.sender, seen)  # it has no record that the first one could be read from
            return
        self._note_seen(envelope.id, seen)
        reason = "unseen" if not seen else "seen" if envelope.id in self._jobs else "over"
        self._backplane.send(envelope.sender, Envelope("status", id=envelope.id, reason=reason))

    def on_probe(self, envelope: Envelope) -> None:
        """Does this connection still live?"""
        link = self._hub.tool_servers.get(envelope.conn)

        def tell(is_alive: bool) -> None:
            self._backplane.send(
                envelope.sender, Envelope("status", id=envelope.id, reason="alive" if is_alive else "ghost")
            )

        if link is None or link.cause:
            tell(is_alive=False)
        else:
            link.probe(tell)

    def _note_seen(self, call_id: str, seen: Seen, deadline: float = 0.0) -> None:
        now = self._tasks.now()
        until, _ = self._seen.pop(call_id, (0.0, False))
        until = max(until, deadline + SEEN_SPARE_SECONDS, now + self._settings.call_seconds + SEEN_SPARE_SECONDS)
        self._seen[call_id] = (until, seen)
        while len(self._seen) > SEEN_MAX or next(iter(self._seen.values()))[0] < now:
            self._seen.popitem(last=False)

    def _nack(self, call_id: str, to: str, reason: str, deadline: float) -> None:
        end = Unheard(to, deadline, Envelope("nack", id=call_id, reason=reason))
        self._note_seen(call_id, end.envelope, deadline)
        self._backplane.drop(call_id, to, end.envelope, on_unheard=lambda: self._keep(end))

    # What becomes of the jobs

    def on_answer(self, job: Job, message: dict[str, Any], frame: bytes) -> None:
        body = frame.strip()
        self._forget(job, outcome_of(message), len(body))
        if len(body) > self._settings.result_bytes and "result" in message:
            shape = results.Shape(self._settings.result_bytes, with_error_text=False)
            body = results.answer(job.upstream_id, message, shape)
        self._tell(job, Envelope("res", id=job.call_id, body=body))

    def on_lost(self, job: Job) -> None:
        self._forget(job, "tool_server_lost")
        self._tell(job, Envelope("nack", id=job.call_id, reason="lost"))

    def _tell(self, job: Job, envelope: Envelope) -> None:
        """Send the end of the job to who asked; keep it where that may not have arrived."""
        self._say(Unheard(job.origin, job.deadline, envelope))

    def _say(self, end: Unheard) -> None:
        self._backplane.answer(end.to, end.envelope, on_unheard=lambda: self._keep(end))

    def _keep(self, end: Unheard) -> None:
        size = len(end.envelope.body) + UNHEARD_BYTES
        if end.envelope.id not in self._unheard and self._unheard_bytes + size <= self._settings.calls_bytes:
            self._unheard[end.envelope.id] = end
            self._unheard_bytes += size

    def _take_unheard(self, call_id: str) -> Unheard:
        end = self._unheard.pop(call_id)
        self._unheard_bytes -= len(end.envelope.body) + UNHEARD_BYTES
        return end

    def on_unsent(self, job: Job) -> None:
        self._forget(job, "offline")
        self._nack(job.call_id, job.origin, "moved", job.deadline)

    def on_progress(self, job: Job, params: dict[str, Any]) -> None:
        now = self._tasks.now()
        job.extend(now, self._settings.call_seconds)
        if job.may_tell_progress(now):
            with suppress(jsonrpc.Undumpable):  # nested too deep to be told; the next one will do
                body = results.progress_frame(params.get("progressToken"), params, self._settings.result_bytes)
                self._backplane.send(job.origin, Envelope("note", id=job.call_id, body=body))

    def _forget(self, job: Job, outcome: str, size_bytes: int = 0) -> None:
        job.is_done = True
        self._deadlines.discard(job)
        entry = self._jobs.pop(job.call_id, None)
        self._note_seen(job.call_id, True, job.deadline)
        if entry is not None and not (outcome == "result" and self._trail.is_brief):
            self._trail.job_ended(job, entry[1].server_id, outcome, size_bytes, self._tasks.now())

    def _cancel(self, job: Job, link: ToolLink, reason: str, outcome: str = "cancelled") -> None:
        self._forget(job, outcome)
        link.cancel(job, reason)

    # Time, gaps, lost workers

    def tick(self, now: float) -> None:
        for call_id in [id for id, end in self._unheard.items() if end.deadline <= now]:
            self._take_unheard(call_id)
        for_each(self._deadlines.due(now), self._end_late, "ending another worker's call at its deadline")

    def _end_late(self, job: Job) -> None:
        entry = self._jobs.get(job.call_id)
        if entry is not None:
            self._cancel(*entry, "deadline exceeded", "timed_out")
            self._backplane.answer(job.origin, Envelope("nack", id=job.call_id, reason="lost"))

    def caller_lost(self, worker: str) -> None:
        """Nobody waits for these any more: the tool servers may stop."""
        for job, link in [entry for entry in self._jobs.values() if entry[0].origin == worker]:
            self._cancel(job, link, "caller lost", "caller_lost")

    async def recover(self) -> None:
        """Say once more what was not heard, and take over what was published while this worker could not hear."""
        for call_id in list(self._unheard):
            self._say(self._take_unheard(call_id))
        for record in await self._backplane.pending():
            if record.id not in self._seen and record.id not in self._jobs:
                self._take_over(record)

    def _take_over(self, record: Record) -> None:
        """Run a call that was not heard; where its record does not tell (any more) what it was, let it be sent anew."""
        try:
            envelopes = [one for one in decode(record.message) if (one.type, one.id) == ("req", record.id)]
        except EnvelopeError:
            envelopes = []
            logger.warning("unreadable call record", extra={"event": "record_unreadable", "attempt": record.id})
        for envelope in envelopes:
            self._meters.calls_recovered_total.add("tool_server")
            self.on_request(envelope)
        # Of older ones it would not be certain that they have not run: their ids may have been forgotten.
        is_recent = self._backplane.now_ms - record.sent_ms < 1000 * self._settings.call_seconds
        if not envelopes and is_recent:
            self._note_seen(record.id, False)
            self._backplane.drop(record.id, record.sender, Envelope("status", id=record.id, reason="unseen"))

    def note_local(self, jobs: Iterable[Job], now: float) -> None:
        """Record the local calls that take long enough for an operator to see."""
        records, deadlines_ms = [], []
        for job in jobs:
            if not job.is_sent or job.is_recorded or now - job.started < RECORD_AFTER_SECONDS:
                continue
            job.is_recorded = True
            records.append(self._record(job, now))
            deadlines_ms.append(self._backplane.now_ms + round((job.deadline - now) * 1000))
        if records:
            self._backplane.note_local(records, deadlines_ms)

    def _record(self, job: Job, now: float) -> Record:
        return Record(
            id=job.call_id,
            state="local",
            sender=self._backplane.worker_id,
            agent=job.agent,
            server_id=job.call.server_id if job.call is not None else "",
            tool=job.tool,
            sent_ms=self._backplane.now_ms - round((now - job.started) * 1000),
        )
