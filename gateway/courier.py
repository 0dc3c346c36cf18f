"""Takes calls to the workers that hold their tool servers, and brings back what becomes of them.

Theory of operation
-------------------
A call is on its way from `dispatch` until the desk has ended it (`forget`). The verdict of the backplane and the
envelopes of the other worker may come in any order; whichever ends the call first wins. Each attempt has an id of its
own in the ledger, since a worker never takes an id twice, nor one that it has said it never saw.

Where a dispatch may or may not have left, or a record is gone or tells nothing, the owner is asked (`query`). One that
has never seen the call refuses it from then on, so that it may be sent anew. One that has ended it (`over`) has told so
before: what was not heard is on record, or lost.

Only the worker that a call was dispatched to is believed about it.

`executed: false` is said only where the ledger or the other worker says so: the dispatch was refused or nobody heard
it, or it came back (`nack`) before it reached the tool server.
"""

import math
import random
from contextlib import suppress
from typing import Any, Protocol

from gateway import errors, jsonrpc, routing
from gateway.backplane.base import Backplane, BackplaneUnavailable, Dispatch, Record, Verdict
from gateway.backplane.envelope import Envelope, EnvelopeError, decode
from gateway.calls import Call, Stage
from gateway.errors import Failure
from gateway.jsonrpc import Notification, Response
from gateway.settings import Settings
from gateway.tasks import Tasks
from gateway.trail import Trail

ATTEMPTS_MAX = 5
NOSUB_TRIES = 5
NOSUB_PAUSE_SECONDS = 0.08
EARLY_PAUSE_SECONDS = 0.05
"""Before the second attempt at a connection whose worker does not know of its registration yet; doubles each time."""
ROOM_PAUSE_SECONDS = 0.1
"""Between two attempts of a call that was parked, at a tool server that has more than enough to do since it is back."""
ASK_SECONDS = 0.25
SETTLE_SECONDS = 3.0
"""After an outage: within so long every worker has found the store again."""
KEEP_AFTER_MAX_SECONDS = 30.0


class Sender(Protocol):
    """The desk, as the courier reports to it."""

    def answer(self, call: Call, message: dict[str, Any]) -> None: ...

    def fail(self, call: Call, failure: Failure) -> None: ...

    def progress(self, call: Call, params: dict[str, Any]) -> None: ...

    def place_again(self, call: Call) -> None:
        """The call is certain not to be on its way: place it by the catalog as it is."""

    def find_again(self, call: Call) -> None:
        """As `place_again`, and the connection it was sent to is gone: read the catalog again first."""


class Courier:
    """The calls that other workers are to execute for this one."""

    def __init__(self, settings: Settings, backplane: Backplane, tasks: Tasks, gone: set[str], trail: Trail) -> None:
        self._settings = settings
        self._backplane = backplane
        self._tasks = tasks
        self._gone = gone
        self._trail = trail
        self._meters = backplane.meters
        self._calls: dict[str, Call] = {}
        self._unsure: dict[str, Call] = {}
        """Those that may have got lost on their way."""
        self._is_asking = False
        self._settled_at = -math.inf

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def owners(self) -> set[str]:
        """The workers that we wait for."""
        return {call.worker for call in self._calls.values()}

    def dispatch(self, call: Call, sender: Sender) -> None:
        """Send the call to the worker and connection that it names."""
        call.attempts += 1
        if call.attempts > ATTEMPTS_MAX:
            sender.fail(call, routing.offline(call.server_id, None))
            return
        try:
            body = call.frame or jsonrpc.request(0, "tools/call", call.params)
        except jsonrpc.Undumpable:
            sender.fail(call, errors.too_deep())
            return
        now = self._tasks.now()
        if call.parked_at:
            self._trail.unparked(call, now)
        ledger_id = call.ledger_id = call.new_ledger_id()
        call.stage = Stage.DISPATCHED
        self._calls[ledger_id] = call
        left_ms = max(1, round((call.deadline - now) * 1000))
        envelope = Envelope(
            "req",
            id=ledger_id,
            sender=self._backplane.worker_id,
            agent=call.agent,
            server=call.server_id,
            epoch=call.epoch,
            conn=call.conn,
            tool=call.original,
            ms=left_ms,
            due=self._backplane.now_ms + left_ms,
            trace=self._trail.dispatched(call),
            body=body,
        )
        keep_seconds = self._settings.call_max_seconds + KEEP_AFTER_MAX_SECONDS
        self._backplane.dispatch(
            Dispatch(call.worker, envelope, keep_seconds), lambda verdict: self._on_verdict(ledger_id, verdict, sender)
        )

    def note_gap(self) -> None:
        """The store was away: for a while, nobody subscribed does not mean nobody there."""
        self._settled_at = self._tasks.now() + SETTLE_SECONDS

    def forget(self, call: Call) -> None:
        """The call has ended, or is not on its way any more."""
        self._calls.pop(call.ledger_id, None)
        self._unsure.pop(call.ledger_id, None)

    def withdraw(self, call: Call, reason: str) -> None:
        """Tell the other worker to give the call up, also if it has not come there yet."""
        envelope = Envelope("cancel", id=call.ledger_id, agent=call.agent, conn=call.conn, reason=reason)
        self._backplane.withdraw(call.worker, envelope)

    # What the backplane says of a dispatch

    def _on_verdict(self, ledger_id: str, verdict: Verdict, sender: Sender) -> None:
        call = self._calls.get(ledger_id)
        self._trail.verdict(call, verdict)
        if call is None:
            return
        match verdict:
            case Verdict.OK | Verdict.DUP:
                call.stage = Stage.SENT
            case Verdict.UNKNOWN:
                call.stage = Stage.SENT
                self._find_out(call)
            case Verdict.NOSUB:
                self._on_nosub(call, sender)
            case Verdict.GONE:
                self._on_worker_lost(call, sender)
            case Verdict.LATE:
                sender.fail(call, errors.not_sent_in_time(call.call_seconds))
            case Verdict.REFUSED | Verdict.UNAVAILABLE:
                sender.fail(call, errors.backplane_unavailable(executed=False))

    def _on_nosub(self, call: Call, sender: Sender) -> None:
        """Nobody reads that mailbox: its worker is dead, or resubscribing at this moment."""
        is_settled = self._backplane.is_connected and self._tasks.now() >= self._settled_at
        call.nosubs += is_settled  # after an outage not everybody is back at once
        if call.nosubs >= NOSUB_TRIES:
            sender.fail(call, errors.worker_unreachable(call.server_id))
            return
        self._unsend(call)
        call.attempts -= 1
        self._tasks.later(NOSUB_PAUSE_SECONDS, lambda: sender.place_again(call))

    def _on_worker_lost(self, call: Call, sender: Sender) -> None:
        """The worker has no lease; a beat that finds it renewed takes this back."""
        self._gone.add(call.worker)
        self._unsend(call)
        sender.place_again(call)

    def _unsend(self, call: Call) -> None:
        self.forget(call)
        call.stage = Stage.WAITING

    # What the other worker says

    def on_envelope(self, envelope: Envelope, sender: Sender) -> None:
        """A `res`, `nack`, `note` or `status` about one of our calls."""
        call = self._calls.get(envelope.id)
        if call is None or envelope.sender != call.worker:
            return  # it has ended already, or is none of his business
        match envelope.type:
            case "res":
                self._on_result(call, envelope.body, sender)
            case "nack":
                self._on_nack(call, envelope.reason, sender)
            case "note":
                message = jsonrpc.parse(envelope.body)
                if isinstance(message, Notification) and type(message.params) is dict:
                    sender.progress(call, message.params)
            case "status":
                self._on_status(call, envelope.reason, sender)

    def _on_status(self, call: Call, reason: str, sender: Sender) -> None:
        self._unsure.pop(call.ledger_id, None)
        if reason == "unseen":
            # The owner will not run it any more, so it may be sent anew.
            self._unsend(call)
            sender.place_again(call)
        elif reason == "over":
            self._tasks.spawn(self._look_for_end(call, sender), f"answer of {call.ledger_id}")

    async def _look_for_end(self, call: Call, sender: Sender) -> None:
        """The owner has answered, and that was not heard: it is on record, or lost."""
        try:
            await self._catch_up([call], sender)
        except BackplaneUnavailable:
            self._find_out(call)
            return
        if self._calls.get(call.ledger_id) is call:
            sender.fail(call, errors.answer_lost(call.server_id))

    def _on_result(self, call: Call, body: bytes, sender: Sender) -> None:
        message = jsonrpc.parse(body)
        if isinstance(message, Response):
            sender.answer(call, message.message)
        else:
            sender.fail(call, errors.bad_answer(call.server_id, "not a response"))

    def _on_nack(self, call: Call, reason: str, sender: Sender) -> None:
        self._meters.nacks_total.add(reason)
        match reason:
            case "moved":
                self._unsend(call)
                sender.find_again(call)
            case "early":
                self._unsend(call)
                self._tasks.later(EARLY_PAUSE_SECONDS * 2**call.attempts, lambda: sender.place_again(call))
            case "busy" if self._tasks.now() < call.parked_until:
                # It has waited for this tool server together with many others: they go out as there is room.
                self._unsend(call)
                call.attempts = 0
                pause_seconds = random.uniform(0.5, 1.5) * ROOM_PAUSE_SECONDS
                self._tasks.later(pause_seconds, lambda: sender.place_again(call))
            case "fenced":
                self._on_worker_lost(call, sender)
            case _:
                sender.fail(call, _failure(call, reason))

    # After a gap, and when an owner's lease is gone

    async def owner_lost(self, worker: str, sender: Sender) -> None:
        """The worker is gone: read its records once more, then end what it was executing for us."""
        calls = {ledger_id: call for ledger_id, call in self._calls.items() if call.worker == worker}
        await self._catch_up(list(calls.values()), sender)
        for ledger_id, call in calls.items():
            if self._calls.get(ledger_id) is call:
                self.withdraw(call, "owner lost")  # should it only have been frozen, it must not begin it now
                sender.fail(call, errors.owner_lost(call.server_id))

    async def recover(self, sender: Sender) -> None:
        """Messages may have been missed: read what was answered meanwhile, ask where even the record is gone."""
        await self._catch_up([call for call in self._calls.values() if call.stage is Stage.SENT], sender)

    async def _catch_up(self, calls: list[Call], sender: Sender) -> None:
        records = await self._backplane.read([(call.worker, call.ledger_id) for call in calls])
        for call, record in zip(calls, records, strict=True):
            if self._calls.get(call.ledger_id) is call:
                self._on_record(call, record, sender)

    def _on_record(self, call: Call, record: Record | None, sender: Sender) -> None:
        for envelope in _answers(record):
            self._meters.calls_recovered_total.add("robot")
            self.on_envelope(envelope, sender)
        if record is None:
            self._ask(call)
        if self._calls.get(call.ledger_id) is call:
            self._find_out(call)  # its end may be known to the owner, and not have been written down

    def _find_out(self, call: Call) -> None:
        """Ask the owner, until it says whether the call has come there: it may not be listening yet either."""
        self._unsure[call.ledger_id] = call
        if not self._is_asking:
            self._is_asking = True
            self._tasks.later(ASK_SECONDS, self._ask_about_all)

    def _ask_about_all(self) -> None:
        if self._backplane.is_connected:
            for call in self._unsure.values():
                self._ask(call)
        self._is_asking = bool(self._unsure)
        if self._is_asking:
            self._tasks.later(ASK_SECONDS, self._ask_about_all)

    def _ask(self, call: Call) -> None:
        self._backplane.send(call.worker, Envelope("query", id=call.ledger_id, conn=call.conn))


def _answers(record: Record | None) -> list[Envelope]:
    """What the record holds of the answer; nothing where it is not there, kept bare, or somebody's forgery."""
    if record is None or record.state != "answered":
        return []
    with suppress(EnvelopeError):
        return list(decode(record.result))
    return []


def _failure(call: Call, reason: str) -> Failure:
    """What a `nack` means that ends the call."""
    match reason:
        case "lost":
            return errors.lost_in_call(call.server_id)
        case "late":
            return errors.not_sent_in_time(call.call_seconds)
        case "bad":
            return errors.too_deep()
        case "busy":
            return errors.overloaded("GATEWAY_CALLS_PER_CONNECTION")
        case "unsupported":
            return errors.not_understood(call.server_id)
        case _:
            return errors.internal_error(executed="unknown")  # of a newer worker: it may mean anything
