"""The ledger of calls and the mailboxes in Redis."""

from collections.abc import Callable, Sequence

from gateway.backplane.base import Dispatch, Record, Tell, Verdict, nothing
from gateway.backplane.envelope import Envelope, encode
from gateway.backplane.redis.core import Core, paired, text_of


class Ledger(Core):
    """See `gateway.backplane.base.Ledger` and `Mailbox`."""

    def dispatch(self, dispatch: Dispatch, on_verdict: Callable[[Verdict], None]) -> None:
        self._stamp(dispatch.envelope)
        self._outbox.dispatch(dispatch, on_verdict)

    def answer(self, to: str, envelope: Envelope, keep_seconds: float = 30.0, on_unheard: Tell = nothing) -> None:
        self._outbox.answer(to, envelope.id, int(keep_seconds * 1000), self._stamp(envelope), on_unheard)

    def withdraw(self, worker: str, envelope: Envelope) -> None:
        self._outbox.withdraw(worker, envelope.id, self._stamp(envelope))

    def drop(self, call_id: str, nack_to: str, envelope: Envelope, on_unheard: Tell = nothing) -> None:
        self._outbox.forget(call_id)
        self._outbox.reply(nack_to, self._stamp(envelope), on_unheard)

    def note_local(self, records: Sequence[Record], deadlines_ms: Sequence[int]) -> None:
        for record, deadline_ms in zip(records, deadlines_ms, strict=True):
            self._outbox.note(record, deadline_ms)

    def forget_local(self, call_ids: Sequence[str]) -> None:
        for call_id in call_ids:
            self._outbox.forget(call_id)

    def send(self, worker: str, envelope: Envelope, on_receivers: Callable[[int], None] | None = None) -> None:
        self._outbox.send(worker, self._stamp(envelope), on_receivers)

    def _stamp(self, envelope: Envelope) -> bytes:
        envelope.sender = envelope.sender or self.worker_id
        return encode(envelope)

    async def pending(self) -> list[Record]:
        inflight = self._keys.inflight(self.worker_id)
        ids = [text_of(call_id) for call_id in await self._call("ZRANGE", inflight, 0, -1)]
        records = await self.read([(self.worker_id, call_id) for call_id in ids])
        return [record for record in records if record is not None and record.state == "sent" and record.message]

    async def read(self, calls: Sequence[tuple[str, str]]) -> list[Record | None]:
        replies = await self._call_all([("HGETALL", self._keys.call(worker, call_id)) for worker, call_id in calls])
        return [_record(call_id, paired(flat)) for (_, call_id), flat in zip(calls, replies, strict=True)]


def _record(call_id: str, fields: dict[bytes, bytes]) -> Record | None:
    if not fields:
        return None
    sent = fields.get(b"sent", b"")
    return Record(
        id=call_id,
        state=text_of(fields.get(b"state", b"")),
        sender=text_of(fields.get(b"from", b"")),
        agent=text_of(fields.get(b"agent", b"")),
        server_id=text_of(fields.get(b"server_id", b"")),
        tool=text_of(fields.get(b"tool", b"")),
        sent_ms=int(sent) if sent.isdigit() else 0,
        message=fields.get(b"message", b""),
        result=fields.get(b"result", b""),
    )
