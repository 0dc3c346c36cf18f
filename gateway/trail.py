"""What a call leaves behind, on its robot's worker and on the one that ran it: counted, logged, and traced.

Theory of operation
-------------------
The rooms say what has happened to a call; here it becomes a number, a log line and a span. The three agree thereby,
and they carry the call's id, which also stands in its record and in the data of its error. Arguments and results are
never among what is kept. Every call is counted. Which ones are logged is a setting (`GATEWAY_CALL_LOG`), and there are
spans only where a tracer was given: without one a call costs two additions here. Of calls that were refused before
anything was sent the log has so many lines for each agent and outcome, and then a number, unless it is to have all.
"""

import logging
from contextlib import suppress
from typing import Any

from gateway import jsonrpc
from gateway.audit import Audit
from gateway.backplane.base import Backplane, Verdict
from gateway.calls import Call, Job, Stage, call_of
from gateway.errors import Executed, Failure
from gateway.muffler import Muffler
from gateway.settings import Settings
from gateway.tracing import Tracer

logger = logging.getLogger(__name__)

NO_ERRORS = frozenset({"result", "cancelled", "robot_gone"})
"""Ends that nobody needs to look at."""
EXECUTED: dict[Executed, str] = {True: "true", False: "false", "unknown": "unknown"}
NAME_CHARS_MAX = 64


def outcome_of(message: dict[str, Any]) -> str:
    """The word for a tool server's response."""
    error = message.get("error")
    if error is not None or "result" not in message:
        data = error.get("data") if type(error) is dict else None
        # The other worker says so in the tool server's place.
        is_ours = type(data) is dict and data.get("reason") == "unusable answer"
        return "bad_answer" if is_ours else "rpc_error"
    result = message["result"]
    return "tool_error" if type(result) is dict and result.get("isError") is True else "result"


def _request_bytes(call: Call) -> int:
    """The size of what the robot sent; of its parameters, where it sent several requests at once."""
    if call.frame:
        return len(call.frame)
    with suppress(jsonrpc.Undumpable):  # nested too deep: it went nowhere
        return len(jsonrpc.dumps(call.params))
    return 0


class Trail:
    """Keeps what one worker's calls leave behind."""

    def __init__(
        self, settings: Settings, backplane: Backplane, tracer: Tracer | None = None, audit: Audit | None = None
    ) -> None:
        self._worker_id = backplane.worker_id
        self._meters = backplane.meters
        self._tracer = tracer
        self._observe_local = self._meters.local_call_seconds.observe
        self._observe_remote = self._meters.remote_call_seconds.observe
        self._local_results = self._meters.calls_total.series("result", "true", "local")
        self._remote_results = self._meters.calls_total.series("result", "true", "remote")
        self._heard = self._meters.dispatches_total.series(Verdict.OK.value)
        self._logs_errors = settings.call_log != "none"
        self._logs_all = settings.call_log == "all"
        self.is_tracing = tracer is not None
        """Whether `began` and `started` do anything for a robot's call."""
        self.is_brief = tracer is None and not self._logs_all
        """Whether a call that ends well leaves nothing but numbers on the worker that runs it."""
        self._audit = audit if audit is not None and audit.is_on else None
        self._muffler = Muffler()
        self._is_brief_here = self.is_brief and self._audit is None

    # On the robot's worker

    def began(self, call: Call) -> None:
        if self._tracer is not None:
            self._tracer.begin_call(call)

    def parked(self, call: Call, now: float) -> None:
        """The call waits for its tool server; it may be said more than once."""
        if not call.parked_at:
            call.parked_at = now
            self._meters.calls_parked_total.add()

    def unparked(self, call: Call, now: float) -> None:
        """The call waits no more; it need not have waited."""
        if call.parked_at:
            self._meters.park_seconds.observe(now - call.parked_at)
            call.parked_at = 0.0

    def dispatched(self, call: Call) -> str:
        """The call is about to be handed to the backplane: what the other worker is to know of its trace."""
        return self._tracer.begin_dispatch(call) if self._tracer is not None else ""

    def verdict(self, call: Call | None, verdict: Verdict) -> None:
        """The backplane has said what became of that; None if the call has ended meanwhile."""
        if verdict is Verdict.OK:
            self._heard.count += 1
        else:
            self._meters.dispatches_total.add(verdict.value)
        if self._tracer is not None and call is not None:
            self._tracer.end_dispatch(call, verdict.value)

    def answered(self, call: Call, message: dict[str, Any], size_bytes: int, now: float) -> None:
        """The call has ended with its tool server's response, `size_bytes` as the robot gets it."""
        if self._is_brief_here and not call.parked_at:  # nearly all of them, so it is spelled out; else it is the same
            result = message.get("result")
            if type(result) is dict and "isError" not in result and "error" not in message:
                if call.worker == self._worker_id:
                    self._local_results.count += 1
                    self._observe_local(now - call.started)
                else:
                    self._remote_results.count += 1
                    self._observe_remote(now - call.started)
                return
        outcome = outcome_of(message)
        self._ended(call, outcome, "true", now)
        if self._audit is not None:
            self._told(self._audit, call, outcome, True, now, size_bytes)
        if self._logs_all or (self._logs_errors and outcome != "result"):
            fields = self._fields(call, outcome, True, now)
            logger.info("call ended", extra={"event": "call_ended", **fields, "bytes": size_bytes})

    def failed(self, call: Call, failure: Failure, now: float) -> None:
        """The call has ended with an error of ours."""
        executed = failure.executed if failure.executed is not None else "unknown"
        self._ended(call, failure.outcome, EXECUTED[executed], now, int(failure.code))
        if self._audit is not None:
            self._told(self._audit, call, failure.outcome, executed, now)
        if self._logs_errors and self._is_told(call, failure, now):
            fields = self._fields(call, failure.outcome, executed, now)
            of_error = {"code": int(failure.code), "reason": failure.reason}
            logger.warning("call failed", extra={"event": "call_ended", **fields, **of_error})

    def _is_told(self, call: Call, failure: Failure, now: float) -> bool:
        """Whether the log has a line for it. A refusal costs nobody anything, so most of a flood is only counted."""
        if self._logs_all or failure.executed is not False:
            return True
        return self._muffler.passes(f"{call.agent} {failure.outcome}", failure.outcome, now)

    def tick(self, now: float, *, at_once: bool = False) -> None:
        """Tell how many refusals the log has not told one by one; unless `at_once` only now and then."""
        held = self._muffler.owed(now, at_once=at_once)
        if held:
            extra = {"event": "calls_suppressed", "calls": sum(held.values()), "outcomes": dict(held)}
            logger.warning("refused calls that were not logged one by one", extra=extra)

    def given_up(self, call: Call, outcome: str, now: float) -> None:
        """The robot wants no answer any more. To be told while the call's stage is what it was."""
        executed: Executed = "unknown" if call.stage in (Stage.SENT, Stage.DISPATCHED) else False
        self._ended(call, outcome, EXECUTED[executed], now)
        if self._audit is not None:
            self._told(self._audit, call, outcome, executed, now)
        if self._logs_all:
            logger.info("call given up", extra={"event": "call_ended", **self._fields(call, outcome, executed, now)})

    def _ended(self, call: Call, outcome: str, executed: str, now: float, code: int = 0) -> None:
        self.unparked(call, now)
        if not call.worker:
            path = "none"
        elif call.worker == self._worker_id:
            path = "local"
            self._observe_local(now - call.started)
        else:
            path = "remote"
            self._observe_remote(now - call.started)
        self._meters.calls_total.add(outcome, executed, path)
        if self._tracer is not None:
            self._tracer.end_call(call, outcome, executed, code)

    def _told(
        self, audit: Audit, call: Call, outcome: str, executed: Executed, now: float, answer_bytes: int = 0
    ) -> None:
        fields = self._fields(call, outcome, executed, now)
        fields["request_bytes"], fields["answer_bytes"] = _request_bytes(call), answer_bytes
        audit.call(fields)

    def _fields(self, call: Call, outcome: str, executed: Executed, now: float) -> dict[str, object]:
        path = "none" if not call.worker else "local" if call.worker == self._worker_id else "remote"
        return {
            "call": call.id,
            "agent": call.agent,
            "conn": call.robot,
            "tool": call.name[:NAME_CHARS_MAX],
            "server_id": call.server_id,
            "path": path,
            "owner": call.worker,
            "outcome": outcome,
            "executed": executed,
            "seconds": round(now - call.started, 3),
        }

    # On the worker that runs it

    def started(self, job: Job, trace: str) -> None:
        """The job is about to be sent. `trace` is where its trace has come to, empty if nobody has said so."""
        job.trace = self._tracer.begin_job(job, trace) if self._tracer is not None else trace

    def unsent(self, job: Job) -> None:
        """The job was not sent after all."""
        if self._tracer is not None:
            self._tracer.end_job(job, "unsent")

    def refused(self, ledger_id: str, agent: str, reason: str) -> None:
        """Another worker's call goes back before anything was sent."""
        level = logging.INFO if self._logs_all else logging.DEBUG
        if logger.isEnabledFor(level):
            fields = {"event": "job_refused", "call": call_of(ledger_id), "attempt": ledger_id, "agent": agent}
            logger.log(level, "another worker's call refused", extra={**fields, "reason": reason})

    def job_ended(self, job: Job, server_id: str, outcome: str, size_bytes: int, now: float) -> None:
        """Another worker's call has ended here."""
        if self._tracer is not None:
            self._tracer.end_job(job, outcome)
        if self._logs_all or (self._logs_errors and outcome not in NO_ERRORS):
            fields = {
                "event": "job_ended",
                "call": call_of(job.call_id),
                "attempt": job.call_id,
                "agent": job.agent,
                "server_id": server_id,
                "tool": job.tool[:NAME_CHARS_MAX],
                "origin": job.origin,
                "outcome": outcome,
                "seconds": round(now - job.started, 3),
                "bytes": size_bytes,
            }
            logger.info("another worker's call ended", extra=fields)
