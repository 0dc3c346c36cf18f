"""Takes calls to the tool servers that are connected to this worker: the courier's counterpart for the short way."""

import logging
import random
from typing import Protocol

from gateway import errors, routing
from gateway.backplane.base import Backplane
from gateway.calls import Call, Caller, Job, Stage
from gateway.courier import ROOM_PAUSE_SECONDS
from gateway.errors import Failure
from gateway.hub import Hub
from gateway.settings import Settings
from gateway.tasks import Tasks
from gateway.trail import Trail

logger = logging.getLogger(__name__)


class Sender(Caller, Protocol):
    """The desk, as the porter reports to it."""

    def fail(self, call: Call, failure: Failure) -> None: ...

    def park(self, call: Call, now: float) -> None:
        """Its tool server is not there now: let the call wait for it."""

    def place_again(self, call: Call) -> None: ...


class Porter:
    """The way from a call to a job on one of this worker's own connections."""

    def __init__(self, settings: Settings, backplane: Backplane, hub: Hub, tasks: Tasks, trail: Trail) -> None:
        self._settings = settings
        self._backplane = backplane
        self._hub = hub
        self._tasks = tasks
        self._trail = trail

    def run(self, call: Call, sender: Sender, now: float) -> None:
        """Send the call to the connection that it names."""
        link = self._hub.tool_servers.get(call.conn)
        if link is not None and link.connection.agent != call.agent:
            self._refuse_foreign(call, sender)
            return
        is_full = link is not None and link.load >= self._settings.calls_per_connection
        if link is None or link.cause or (is_full and link.is_leaving):
            sender.park(call, now)
            return
        if is_full and now < call.parked_until:
            # It has waited for this tool server together with many others: they go out as there is room.
            self._tasks.later(random.uniform(0.5, 1.5) * ROOM_PAUSE_SECONDS, lambda: sender.place_again(call))
            return
        if is_full:
            limit = f"GATEWAY_CALLS_PER_CONNECTION={self._settings.calls_per_connection}"
            sender.fail(call, errors.overloaded(limit))
            return
        if call.parked_at:
            self._trail.unparked(call, now)
        call.stage = Stage.SENT
        job = call.job = Job(
            call_id=call.new_ledger_id(),
            agent=call.agent,
            tool=call.original,
            params=call.params,
            started=now,
            deadline=call.deadline,
            deadline_max=call.deadline_max,
            caller=sender,
            call=call,
            timeout_seconds=call.timeout_seconds,
        )
        if self._trail.is_tracing:
            self._trail.started(job, "")
        failure = link.run(job)
        if failure is not None:
            sender.fail(call, failure)

    def _refuse_foreign(self, call: Call, sender: Sender) -> None:
        """Whatever a row in the store says: nothing of an agent gets to another one's tool servers."""
        fields = {"agent": call.agent, "server_id": call.server_id, "conn": call.conn, "call": call.id}
        logger.error("a row names the connection of another agent", extra={"event": "foreign_row", **fields})
        sender.fail(call, routing.offline(call.server_id, None))

    def withdraw(self, job: Job, conn: str, reason: str) -> None:
        """Tell the tool server to give the job up."""
        link = self._hub.tool_servers.get(conn)
        if link is not None:
            link.cancel(job, reason)
        self.forget_record(job)

    def forget_record(self, job: Job) -> None:
        """Take the call out of what operators see of calls in flight."""
        if job.is_recorded:
            self._backplane.forget_local([job.call_id])
