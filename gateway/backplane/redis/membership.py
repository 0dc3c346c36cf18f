"""Leases, the list of workers, what each must be cleaned of, and the event log, in Redis."""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

from gateway.backplane import rows
from gateway.backplane.base import BackplaneUnavailable, Beat, WorkerRow
from gateway.backplane.envelope import Envelope, encode
from gateway.backplane.redis.commands import Command, Rejected, Unanswered, script_command
from gateway.backplane.redis.convoy import Convoy, End
from gateway.backplane.redis.core import Tools, paired, text_of, whole
from gateway.backplane.redis.directory import Directory

logger = logging.getLogger(__name__)

_FORGET_MS = 3_600_000
_EVENTS = 10_000


class Membership(Directory):
    """See `gateway.backplane.base.Membership`."""

    _is_beat_unsure = False
    """A beat's reply was lost, and with it perhaps the news that the lease had not been there."""
    _listed: Mapping[str, int] = {}
    """The workers as they were listed when the list was last reached."""

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools)
        self._events: Convoy[list[str]] = Convoy(self._enqueue, self._event_commands)
        self._convoys.append(self._events)

    async def beat(self, row: WorkerRow, lease_seconds: float) -> Beat:
        lease_ms = int(lease_seconds * 1000)
        fields = [word for pair in rows.dump_worker(row).items() for word in pair]
        keys = [self._keys.worker(self.worker_id), self._keys.owned(self.worker_id)]
        try:
            ((fresh, now_ms),) = await self._link.call(
                script_command("beat", keys, [lease_ms, self._lifetimes.owned_ms, *fields])
            )
        except (Unanswered, Rejected):
            self._is_beat_unsure = True
            raise
        self._learn_time(now_ms)
        is_fresh, self._is_beat_unsure = bool(fresh) or self._is_beat_unsure, False
        if is_fresh:
            self._forget_toolsets()
        try:
            self._listed = await self._announce(lease_ms, now_ms)
        except BackplaneUnavailable as error:
            # In a Cluster the list is elsewhere. The lease is what counts, and it has been renewed.
            logger.warning(
                "the list of workers was not reached", extra={"event": "workers_unreached", "cause": str(error)}
            )
        return Beat(is_fresh, now_ms, self._listed)

    async def _announce(self, lease_ms: int, now_ms: int) -> dict[str, int]:
        args = [self.worker_id, lease_ms, self._lifetimes.workers_ms]
        (listed,) = await self._link.call(script_command("announce", [self._keys.workers], args, is_repeatable=True))
        workers = {text_of(name): whole(score) for name, score in paired(listed).items()}
        await self._prune_workers({name: ms for name, ms in workers.items() if ms < now_ms - _FORGET_MS})
        return workers

    async def _prune_workers(self, listed: Mapping[str, int]) -> None:
        """Take those off the list that are long dead and have nothing left to be cleaned of."""
        keys = [(self._keys.worker(name), self._keys.owned(name)) for name in listed]
        there = await self._call_all([("EXISTS", *both) for both in keys])
        gone = [word for pair, count in zip(listed.items(), there, strict=True) if not count for word in pair]
        if gone:
            await self._link.call(script_command("prune", [self._keys.workers], gone, is_repeatable=True))

    async def alive(self, workers: Collection[str]) -> set[str]:
        asked = list(workers)
        replies = await self._call_all([("EXISTS", self._keys.worker(worker)) for worker in asked])
        return {worker for worker, count in zip(asked, replies, strict=True) if count}

    async def owned(self, worker: str) -> list[tuple[str, str, str]]:
        members = await self._call("SMEMBERS", self._keys.owned(worker))
        return sorted(member for member in map(rows.load_member, members) if member is not None)

    async def bury(self, worker: str, done: Collection[tuple[str, str, str]]) -> None:
        owned = self._keys.owned(worker)
        if done:
            await self._call("SREM", owned, *(rows.dump_member(*member) for member in done))
        (left,) = await self._call_all([("EXISTS", owned, self._keys.worker(worker))])
        if not left:
            await self._call("ZREM", self._keys.workers, worker)

    async def leave(self) -> None:
        await self._call("DEL", self._keys.worker(self.worker_id))
        self._subscriber.discard(self._keys.mailbox(self.worker_id))
        self._subscriber.discard(self._keys.ctl)
        bye = self._sealed(self._keys.ctl, encode(Envelope("bye", sender=self.worker_id)))
        commands: list[tuple[Any, ...]] = [(self._tools.publish, self._keys.ctl, bye)]
        if await self._call("EXISTS", self._keys.owned(self.worker_id)):
            commands.append(("ZADD", self._keys.workers, self.now_ms, self.worker_id))
            commands.append(("PEXPIRE", self._keys.workers, self._lifetimes.workers_ms))
        else:
            commands.append(("ZREM", self._keys.workers, self.worker_id))
        await self._call_all(commands)

    async def event(self, kind: str, fields: Mapping[str, Any]) -> None:
        await self._events.send(self._line(kind, fields))

    def note_event(self, kind: str, fields: Mapping[str, Any]) -> None:
        if len(self._events) < _EVENTS:  # more would only push each other out
            self._events.begin(self._line(kind, fields)).add_done_callback(partial(_note_missing, kind))

    def _line(self, kind: str, fields: Mapping[str, Any]) -> list[str]:
        return ["kind", kind, "worker", self.worker_id, *(str(word) for pair in fields.items() for word in pair)]

    def _event_commands(self, lines: list[list[str]]) -> list[Command]:
        words: list[Any] = [_EVENTS, self._lifetimes.events_ms]
        for line in lines:
            words += [len(line), *line]
        return [script_command("event", [self._keys.events], words)]

    async def note_audit(self, records: Sequence[bytes], records_max: int, keep_seconds: float) -> None:
        args = [records_max, int(keep_seconds * 1000), *records]
        await self._link.call(script_command("audit", [self._keys.audit], args))


def _note_missing(kind: str, ended: "asyncio.Future[End]") -> None:
    failure = None if ended.cancelled() else ended.result()
    if failure is not None:
        logger.debug("event not written", extra={"event": "event_not_written", "kind": kind, "cause": str(failure)})
