"""The ledger of calls and the mailboxes in Redis.

A record holds the bytes that were published, signed for the mailbox that they went to: who finds his message there
reads it as if it had just come. What is not genuine reads as missing.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from gateway.backplane.base import Dispatch, Record, Tell, Verdict, nothing
from gateway.backplane.envelope import Envelope, encode
from gateway.backplane.keys import is_plain
from gateway.backplane.redis.core import Core, paired, text_of

_DIGITS_MAX = 18


class Ledger(Core):
    """See `gateway.backplane.base.Ledger` and `Mailbox`."""

    def dispatch(self, dispatch: Dispatch, on_verdict: Callable[[Verdict], None]) -> None:
        self._outbox.dispatch(dispatch, self._stamp(dispatch.worker, dispatch.envelope), on_verdict)

    def answer(self, to: str, envelope: Envelope, keep_seconds: float = 30.0, on_unheard: Tell = nothing) -> None:
        self._outbox.answer(to, envelope.id, int(keep_seconds * 1000), self._stamp(to, envelope), on_unheard)

    def withdraw(self, worker: str, envelope: Envelope) -> None:
        self._outbox.withdraw(worker, envelope.id, self._stamp(worker, envelope))

    def drop(self, call_id: str, nack_to: str, envelope: Envelope, on_unheard: Tell = nothing) -> None:
        self._outbox.forget(call_id)
        self._outbox.reply(nack_to, self._stamp(nack_to, envelope), on_unheard)

    def note_local(self, records: Sequence[Record], deadlines_ms: Sequence[int]) -> None:
        for record, deadline_ms in zip(records, deadlines_ms, strict=True):
            self._outbox.note(record, deadline_ms)

    def forget_local(self, call_ids: Sequence[str]) -> None:
        for call_id in call_ids:
            self._outbox.forget(call_id)

    def send(self, worker: str, envelope: Envelope, on_receivers: Callable[[int], None] | None = None) -> None:
        self._outbox.send(worker, self._stamp(worker, envelope), on_receivers)

    def _stamp(self, worker: str, envelope: Envelope) -> bytes:
        """The envelope as it travels to that worker."""
        envelope.sender = envelope.sender or self.worker_id
        message = encode(envelope)
        return message if self._seal is None else self._seal.sign(self._keys.mailbox(worker), message)

    async def pending(self) -> list[Record]:
        inflight = self._keys.inflight(self.worker_id)
        ids = filter(is_plain, map(text_of, await self._call("ZRANGE", inflight, 0, -1)))
        records = await self._records([(self.worker_id, call_id) for call_id in ids])
        pending = [record for record in records if record is not None and record.state == "sent"]
        return [replace(record, message=self._opened(record.message)) for record in pending]

    async def read(self, calls: Sequence[tuple[str, str]]) -> list[Record | None]:
        records = await self._records(calls)
        return [record and replace(record, result=self._opened(record.result)) for record in records]

    async def _records(self, calls: Sequence[tuple[str, str]]) -> list[Record | None]:
        replies = await self._call_all([("HGETALL", self._keys.call(worker, call_id)) for worker, call_id in calls])
        return [_record(call_id, paired(flat)) for (_, call_id), flat in zip(calls, replies, strict=True)]

    def _opened(self, message: bytes) -> bytes:
        """What was meant for this worker's mailbox, empty if it is not genuine."""
        if self._seal is None or not message:
            return message
        return self._seal.open(self._keys.mailbox(self.worker_id), message) or b""


def _record(call_id: str, fields: dict[bytes, bytes]) -> Record | None:
    """The record; None where there is none, or nothing that could have been written by a worker."""
    sender = text_of(fields.get(b"from", b""))
    if not is_plain(sender):
        return None
    sent = fields.get(b"sent", b"")
    return Record(
        id=call_id,
        state=text_of(fields.get(b"state", b"")),
        sender=sender,
        agent=text_of(fields.get(b"agent", b"")),
        server_id=text_of(fields.get(b"server_id", b"")),
        tool=text_of(fields.get(b"tool", b"")),
        sent_ms=int(sent) if sent.isdigit() and len(sent) <= _DIGITS_MAX else 0,
        message=fields.get(b"message", b""),
        result=fields.get(b"result", b""),
    )
