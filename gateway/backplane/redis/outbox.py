"""What this worker wants to tell others, gathered until the link sends its next batch.

Theory of operation
-------------------
Work for one worker keeps its order and is merged where neighbours are of one kind: calls go in one script, messages
back to back in one publish. Changes of this worker's own records go ahead of everything, so that an answer is
written down before it is published.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from gateway.backplane.base import Dispatch, Record, Verdict
from gateway.backplane.keys import Keys
from gateway.backplane.redis.commands import Command, CommandLink, Misdirected, Rejected, Unsent, script_command

Kind = Literal["dispatch", "withdraw", "reply", "send", "answer", "forget", "note"]

_MOST_BYTES = 8 * 1024 * 1024
"""What is gathered before the link's own bounds are asked."""

_ITEM_BYTES = 500
_RUN_ITEMS = 256
_RUN_BYTES = 1024 * 1024

_WRONG_SERVER = re.compile(rb"refused (@user_script: \d+: -)?(READONLY|MASTERDOWN)")
"""The script found out what the link else sees by itself."""


@dataclass(slots=True)
class _Item:
    """One piece of work; which fields are used depends on the kind of its run."""

    message: bytes = b""
    call_id: str = ""
    args: tuple[Any, ...] = ()
    to: str = ""
    is_second: bool = False
    """It has gone to the wrong server before."""
    on_verdict: Callable[[Verdict], None] | None = None
    on_receivers: Callable[[int], None] | None = None
    on_unheard: Callable[[], None] | None = None


@dataclass(slots=True)
class _Run:
    """Neighbours of one kind, for one worker; they become one command."""

    kind: Kind
    items: list[_Item] = field(default_factory=list)
    bytes: int = 0

    def takes(self, kind: Kind) -> bool:
        return self.kind == kind and len(self.items) < _RUN_ITEMS and self.bytes < _RUN_BYTES


class Outbox:
    """Work of the current turns of the event loop. `publish` is PUBLISH, or SPUBLISH in a Cluster."""

    def __init__(
        self,
        link: CommandLink,
        keys: Keys,
        worker_id: str,
        *,
        spare_ms: int,
        publish: str = "PUBLISH",
        is_bare: bool = False,
    ) -> None:
        """`is_bare`: records of calls hold neither the request nor the answer."""
        self._link = link
        self._keys = keys
        self._worker_id = worker_id
        self._spare_ms = spare_ms
        self._publish = publish
        self._is_bare = is_bare
        self._kept = "bare" if is_bare else "full"
        self._bytes = 0
        self._own: list[_Run] = []
        self._to: dict[str, list[_Run]] = {}
        link.gather = self.flush

    def dispatch(self, dispatch: Dispatch, message: bytes, on_verdict: Callable[[Verdict], None]) -> None:
        """The envelope's call; `message` is the envelope as it travels."""
        envelope = dispatch.envelope
        args = (
            *(envelope.id, envelope.due, int(dispatch.keep_seconds * 1000), envelope.sender),
            *(envelope.agent, envelope.server, envelope.tool, message),
        )
        self._add(dispatch.worker, "dispatch", _Item(message, envelope.id, args, on_verdict=on_verdict))

    def withdraw(self, worker: str, call_id: str, message: bytes) -> None:
        self._add(worker, "withdraw", _Item(message, call_id))

    def reply(self, worker: str, message: bytes, on_unheard: Callable[[], None] | None = None) -> None:
        """A message that may arrive twice after a lost connection, since a call is settled only once."""
        self._add(worker, "reply", _Item(message, on_unheard=on_unheard))

    def send(self, worker: str, message: bytes, on_receivers: Callable[[int], None] | None) -> None:
        self._add(worker, "send", _Item(message, on_receivers=on_receivers))

    def answer(
        self, to: str, call_id: str, keep_ms: int, message: bytes, on_unheard: Callable[[], None] | None = None
    ) -> None:
        """Note the answer, then send it."""
        kept = b"" if self._is_bare else message
        self._add(None, "answer", _Item(message, call_id, (call_id, keep_ms, kept), to, on_unheard=on_unheard))
        self.reply(to, message, on_unheard)

    def forget(self, call_id: str) -> None:
        self._add(None, "forget", _Item(b"", call_id))

    def note(self, record: Record, deadline_ms: int) -> None:
        of_call = (record.sender, record.agent, record.server_id, record.tool, record.sent_ms)
        self._add(None, "note", _Item(b"", record.id, (record.id, deadline_ms, *of_call)))

    def _add(self, worker: str | None, kind: Kind, item: _Item) -> None:
        runs = self._own if worker is None else self._to.setdefault(worker, [])
        if not runs or not runs[-1].takes(kind):
            runs.append(_Run(kind))
        runs[-1].items.append(item)
        runs[-1].bytes += len(item.message)
        self._bytes += _ITEM_BYTES + len(item.message)
        if self._bytes > _MOST_BYTES:
            self.flush()
        self._link.wake()

    def flush(self) -> None:
        """Give everything to the link. What the link refuses is reported as such."""
        self._bytes = 0
        own, self._own = self._own, []
        others, self._to = self._to, {}
        for run in own:
            self._link.enqueue(self._command(self._worker_id, run))
        for worker, runs in others.items():
            for run in runs:
                self._link.enqueue(self._command(worker, run))

    def _command(self, worker: str, run: _Run) -> Command:
        if run.kind == "dispatch":
            return self._dispatch_command(worker, run)
        if run.kind in ("reply", "send"):
            return self._publish_command(worker, run)
        calls = [self._keys.call(worker, item.call_id) for item in run.items]
        inflight, mailbox = self._keys.inflight(worker), self._keys.mailbox(worker)
        args = [arg for item in run.items for arg in item.args]
        if run.kind == "answer":
            command = script_command("answer", [inflight, *calls], args, is_repeatable=True)
            command.on_reply = lambda reply: self._on_answered(run.items, reply)
            return command
        if run.kind == "note":
            return script_command("note", [inflight, *calls], [self._spare_ms, *args], is_repeatable=True)
        message = b"".join(item.message for item in run.items)
        args = [self._publish, message, *(item.call_id for item in run.items)]
        command = script_command("withdraw", [inflight, mailbox, *calls], args, is_repeatable=True)
        command.on_reply = lambda reply: self._on_withdrawn(worker, run, reply)
        return command

    def _on_answered(self, items: Sequence[_Item], reply: Any) -> None:
        """Answers that went to the wrong server were not noted, and heard by nobody: they go to the right one."""
        if isinstance(reply, Misdirected):
            for item in items:
                if not item.is_second:
                    item.is_second = True
                    self._add(None, "answer", item)
                    self.reply(item.to, item.message, item.on_unheard)

    def _on_withdrawn(self, worker: str, run: _Run, reply: Any) -> None:
        """What went to the wrong server is done again at the right one."""
        if isinstance(reply, Misdirected):
            for item in run.items:
                if not item.is_second:
                    item.is_second = True
                    self._add(None if run.kind == "forget" else worker, run.kind, item)

    def _publish_command(self, worker: str, run: _Run) -> Command:
        message = b"".join(item.message for item in run.items)
        listeners = [item.on_receivers for item in run.items if item.on_receivers is not None]

        def tell(reply: Any) -> None:
            for on_receivers in listeners:
                on_receivers(reply if isinstance(reply, int) else -1)
            if not isinstance(reply, int) or reply == 0:
                for item in run.items:
                    if item.on_unheard is not None:
                        item.on_unheard()

        words = (self._publish, self._keys.mailbox(worker), message)
        return Command(words, tell, is_repeatable=run.kind == "reply")

    def _dispatch_command(self, worker: str, run: _Run) -> Command:
        keys = [self._keys.worker(worker), self._keys.inflight(worker), self._keys.mailbox(worker)]
        keys += [self._keys.call(worker, item.call_id) for item in run.items]
        args = [arg for item in run.items for arg in item.args]
        command = script_command("dispatch", keys, [self._publish, self._kept, *args], is_repeatable=True)

        def tell(reply: Any) -> None:
            said = verdicts(reply, len(run.items), command.is_unsure)
            if said[0] is not Verdict.OK and isinstance(reply, list) and _WRONG_SERVER.match(bytes(reply[0])):
                self._link.distrust(command, bytes(reply[0]).decode("utf-8", "replace").removeprefix("refused "))
            _tell_verdicts(run.items, said)

        command.on_reply = tell
        return command


def _tell_verdicts(items: Sequence[_Item], verdicts: Sequence[Verdict]) -> None:
    for item, verdict in zip(items, verdicts, strict=True):
        if item.on_verdict is not None:
            item.on_verdict(verdict)


def verdicts(reply: Any, calls: int, is_unsure: bool) -> list[Verdict]:
    """What the script's reply says of each call.

    After a repetition a record that was there already is our own; and whatever else the second try says, the first
    may have delivered: that can't be told any more.
    """
    if isinstance(reply, Unsent):
        said = [Verdict.UNAVAILABLE] * calls
    elif isinstance(reply, Rejected):
        said = [Verdict.REFUSED] * calls
    elif isinstance(reply, list) and len(reply) == calls:
        said = [_VERDICTS.get(bytes(word).split(b" ", 1)[0], Verdict.UNKNOWN) for word in reply]
    else:
        return [Verdict.UNKNOWN] * calls
    if not is_unsure:
        return said
    return [Verdict.OK if verdict in (Verdict.OK, Verdict.DUP) else Verdict.UNKNOWN for verdict in said]


_VERDICTS = {verdict.value.encode(): verdict for verdict in Verdict}
