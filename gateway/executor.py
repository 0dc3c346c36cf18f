"""Runs other workers' calls on the tool servers that are connected here.

Theory of operation
-------------------
Every ledger id runs at most once: an id that was seen, or that this worker has said it never saw, is not taken
again. What can't be run goes back as a `nack` before anything reached the tool server, with the reason; what was
sent and has no answer ends as `nack lost`. After a gap `recover` finds in the ledger what was published meanwhile.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gateway import jsonrpc, results
from gateway.backplane.base import Backplane, Record
from gateway.backplane.envelope import Envelope, EnvelopeError, decode
from gateway.calls import Deadlines, Job
from gateway.hub import Hub
from gateway.jsonrpc import Request
from gateway.settings import Settings
from gateway.tasks import Tasks
from gateway.toollink import ToolLink

logger = logging.getLogger(__name__)

SEEN_MAX = 50_000
DEADLINE_SLACK_SECONDS = 1.0
"""The asking worker ends a call at its deadline; this one only cleans up when that did not happen."""
RECORD_AFTER_SECONDS = 1.0


class Executor:
    """The jobs of other workers. Is their `Caller`: what becomes of them goes back by envelope."""

    def __init__(
        self, settings: Settings, backplane: Backplane, hub: Hub, tasks: Tasks, is_fenced: Callable[[], bool]
    ) -> None:
        self._settings = settings
        self._backplane = backplane
        self._hub = hub
        self._tasks = tasks
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._jobs: dict[str, tuple[Job, ToolLink]] = {}
        self._unheard: dict[str, tuple[Job, Envelope]] = {}
        """What ended while the store was away, until nobody waits for it any more."""
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
        self._note_seen(envelope.id)
        refusal = self._run(envelope)
        if refusal is not None:
            self._nack(envelope.id, envelope.sender, refusal)

    def _run(self, envelope: Envelope) -> str | None:
        """Why the call can't be run, None if it runs."""
        if self._is_fenced():
            return "fenced"
        left_ms = envelope.due - self._backplane.now_ms if envelope.due else envelope.ms
        if left_ms <= 0:
            return "late"
        link = self._hub.tool_servers.get(envelope.conn)
        if link is None or link.cause:
            return "moved"
        if link.row is None or link.row.epoch != envelope.epoch:
            return "early"  # others may read of a registration before its own worker hears that it was taken
        return self._run_on(link, envelope, left_ms / 1000)

    def _run_on(self, link: ToolLink, envelope: Envelope, left_seconds: float) -> str | None:
        if link.load >= self._settings.calls_per_connection:
            return "busy"
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
        )
        self._jobs[job.call_id] = (job, link)
        self._deadlines.add(job)
        if link.run(job) is not None:
            self._forget(job)
            return "bad"
        return None

    def on_cancel(self, envelope: Envelope) -> None:
        """The asking worker has given the call up; one that has not come yet will not be started."""
        self._note_seen(envelope.id)
        entry = self._jobs.get(envelope.id)
        if entry is not None:
            self._cancel(*entry, envelope.reason)

    def on_query(self, envelope: Envelope) -> None:
        """Was this call ever seen here? After a no it will not be run any more."""
        known = envelope.id in self._seen or envelope.id in self._jobs
        self._note_seen(envelope.id)
        if envelope.id in self._unheard:
            self._tell(*self._unheard[envelope.id])
        self._backplane.send(envelope.sender, Envelope("status", id=envelope.id, reason="seen" if known else "unseen"))

    def on_probe(self, envelope: Envelope) -> None:
        """Does this connection still live?"""
        link = self._hub.tool_servers.get(envelope.conn)

        def tell(is_alive: bool) -> None:
            self._backplane.send(
                envelope.sender, Envelope("status", id=envelope.id, reason="alive" if is_alive else "ghost")
            )

        if link is None:
            tell(is_alive=False)
        else:
            link.probe(tell)

    def _note_seen(self, call_id: str) -> None:
        self._seen[call_id] = None
        if len(self._seen) > SEEN_MAX:
            self._seen.popitem(last=False)

    def _nack(self, call_id: str, to: str, reason: str) -> None:
        self._backplane.drop(call_id, to, Envelope("nack", id=call_id, reason=reason))

    # What becomes of the jobs

    def on_answer(self, job: Job, message: dict[str, Any], frame: bytes) -> None:
        self._forget(job)
        body = frame.strip()
        if len(body) > self._settings.result_bytes and "result" in message:
            shape = results.Shape(self._settings.result_bytes, with_error_text=False)
            body = results.answer(job.upstream_id, message, shape)
        self._tell(job, Envelope("res", id=job.call_id, body=body))

    def on_lost(self, job: Job) -> None:
        self._forget(job)
        self._tell(job, Envelope("nack", id=job.call_id, reason="lost"))

    def _tell(self, job: Job, envelope: Envelope) -> None:
        """Send the end of the job to who asked; keep it where that may not arrive."""
        self._backplane.answer(job.origin, envelope)
        if not self._backplane.is_connected:
            self._unheard[job.call_id] = (job, envelope)

    def on_unsent(self, job: Job) -> None:
        self._forget(job)
        self._nack(job.call_id, job.origin, "moved")

    def on_progress(self, job: Job, params: dict[str, Any]) -> None:
        now = self._tasks.now()
        job.extend(now, self._settings.call_seconds)
        if job.may_tell_progress(now):
            with suppress(jsonrpc.Undumpable):  # nested too deep to be told; the next one will do
                body = results.progress_frame(params.get("progressToken"), params, self._settings.result_bytes)
                self._backplane.send(job.origin, Envelope("note", id=job.call_id, body=body))

    def _forget(self, job: Job) -> None:
        job.is_done = True
        self._deadlines.discard(job)
        self._jobs.pop(job.call_id, None)

    def _cancel(self, job: Job, link: ToolLink, reason: str) -> None:
        self._forget(job)
        link.cancel(job, reason)

    # Time, gaps, lost workers

    def tick(self, now: float) -> None:
        if self._unheard:
            self._unheard = {id: entry for id, entry in self._unheard.items() if entry[0].deadline > now}
        for job in self._deadlines.due(now):
            entry = self._jobs.get(job.call_id)
            if entry is not None:
                self._cancel(*entry, "deadline exceeded")
                self._backplane.answer(job.origin, Envelope("nack", id=job.call_id, reason="lost"))

    def caller_lost(self, worker: str) -> None:
        """Nobody waits for these any more: the tool servers may stop."""
        for job, link in [entry for entry in self._jobs.values() if entry[0].origin == worker]:
            self._cancel(job, link, "caller lost")

    async def recover(self) -> None:
        """Say once more what was not heard, and take over what was published while this worker could not hear."""
        for job, envelope in list(self._unheard.values()):
            self._tell(job, envelope)
        for record in await self._backplane.pending():
            try:
                for envelope in decode(record.message):
                    self.on_request(envelope)
            except EnvelopeError:
                logger.warning("unreadable call record", extra={"call": record.id})

    def note_local(self, now: float) -> None:
        """Record the local calls that take long enough for an operator to see."""
        records, deadlines_ms = [], []
        for link in self._hub.tool_servers.values():
            for job in link.jobs.values():
                if job.call is None or job.is_recorded or now - job.started < RECORD_AFTER_SECONDS:
                    continue
                job.is_recorded = True
                records.append(self._record(job, link, now))
                deadlines_ms.append(self._backplane.now_ms + round((job.deadline - now) * 1000))
        if records:
            self._backplane.note_local(records, deadlines_ms)

    def _record(self, job: Job, link: ToolLink, now: float) -> Record:
        return Record(
            id=job.call_id,
            state="local",
            sender=self._backplane.worker_id,
            agent=job.agent,
            server_id=link.server_id,
            tool=job.tool,
            sent_ms=self._backplane.now_ms - round((now - job.started) * 1000),
        )
