"""The audit: who knocked, who called which tool and what became of it, who changed what; never what was said.

Theory of operation
-------------------
One record for each handshake, each call of a robot (on the robot's worker), and each change that people make by a
command. They go to the log (`gateway.audit`) or, in bulk, to a capped stream of the backplane, as `GATEWAY_AUDIT`
says; where it says `off` nobody comes here at all (`is_on`).

Nothing waits for a record. Those for the stream are kept in a buffer with a bound until the next round takes them;
what does not fit, or can't be written for long, is lost, and counted. Every record has the worker's running number
(`n`), so whoever reads them sees what is missing without having to believe the counter.

Refused handshakes cost a stranger nothing, nor do calls beyond its limits a robot, so they are told within bounds
(`gateway.muffler`), and the number of the others, by cause, is a record of its own.
"""

import asyncio
import logging
import math
import os
import pwd
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from itertools import islice
from typing import Any, Protocol

import orjson

from gateway import logs
from gateway.backplane.base import BackplaneUnavailable
from gateway.credential import Credential
from gateway.meters import Meters
from gateway.muffler import Muffler
from gateway.settings import Settings
from gateway.sources import source_name

logger = logging.getLogger(__name__)

ACCEPTED = "accepted"
BEYOND_LIMITS = frozenset({"over_quota", "overloaded"})
"""Ends of calls that no limit bounds, since it is limits that end them so."""
_CALLS = "calls "
ROUND_SECONDS = 0.25
BATCH_RECORDS = 500
WAITING_RECORDS = 10_000
"""At some 400 bytes each: what a busy worker notes in a few seconds without the store."""
TEXT_CHARS_MAX = 256
LOST_TELL_MS = 10_000
_NETWORK_BITS = {4: 24, 6: 48}


class Shelf(Protocol):
    """Where records are kept; every backplane is one."""

    worker_id: str
    meters: Meters

    @property
    def now_ms(self) -> int: ...

    async def note_audit(self, records: Sequence[bytes], records_max: int, keep_seconds: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Handshake:
    """Somebody has dialled in, and was taken or not."""

    kind: str
    """`robot` or `tool_server`: which path was dialled."""
    address: str
    outcome: str
    """`accepted`, or the word under which the refusal is counted (`meters.REFUSALS`)."""
    agent: str = ""
    """Empty where no token was good."""
    credential: Credential | None = None
    server_id: str = ""
    conn: str = ""
    """The connection's id, if accepted."""
    cause: str = ""
    """Why refused, in the words of the log."""


class Audit:
    """What one worker, or one command, has to tell. `client_of` says what a robot's connection calls itself."""

    def __init__(self, settings: Settings, shelf: Shelf, client_of: Callable[[str], str] = lambda _: "") -> None:
        self.is_on = settings.audit != "off"
        """Whether there is anything to be told; who calls often asks first."""
        self._is_streamed = settings.audit == "stream"
        self._addresses = settings.audit_addresses
        self._log_form = settings.log_level, settings.log_format
        self._records_max, self._keep_seconds = settings.audit_records, settings.audit_seconds
        self._shelf = shelf
        self._client_of = client_of
        series = shelf.meters.audit_records_total.series
        self._written, self._lost, self._suppressed = series("written"), series("lost"), series("suppressed")
        self._lost_told, self._lost_told_at = 0, -math.inf
        self._muffler = Muffler()
        self._waiting: deque[bytes] = deque()
        self._flushing = asyncio.Lock()
        self._number = 0

    def __repr__(self) -> str:
        return f"<Audit [{len(self._waiting)} waiting, {self._lost.count} lost]>"

    # What is told

    def handshake(self, seen: "Handshake") -> None:
        """Somebody has dialled in."""
        if not self.is_on:
            return
        if seen.outcome != ACCEPTED and not self._is_told(seen):
            self._suppressed.count += 1
            return
        fields: dict[str, Any] = {"kind": seen.kind, "address": self._shown(seen.address), "outcome": seen.outcome}
        if seen.credential is not None:
            fields["token"] = seen.credential.token_id or "legacy"
        rest = (("agent", seen.agent), ("server_id", seen.server_id), ("conn", seen.conn), ("cause", seen.cause))
        self._note("handshake", fields | {name: text[:TEXT_CHARS_MAX] for name, text in rest if text})

    def _is_told(self, refused: "Handshake") -> bool:
        source = source_name(refused.address) or refused.address
        return self._muffler.passes(source, refused.outcome, self._shelf.now_ms / 1000)

    def _is_call_told(self, agent: str, outcome: str) -> bool:
        """Whether there is a record of it: there is no end to these, and the stream is everybody's."""
        return self._muffler.passes(f"calls of {agent}", _CALLS + outcome, self._shelf.now_ms / 1000)

    def call(self, fields: dict[str, Any]) -> None:
        """A robot's call has ended. `fields` are those of the log, and the sizes; they are the audit's from now on."""
        if fields["outcome"] in BEYOND_LIMITS and not self._is_call_told(fields["agent"], fields["outcome"]):
            self._suppressed.count += 1
            return
        fields["client"] = self._client_of(fields["conn"])
        self._note("call", fields)

    async def change(self, book: str, name: str, what: str, by: str, version: int = 0) -> None:
        """A command has changed something: `by` whom (`operator()`), in which `book`, of which entry, and what.

        Waits until it is written. Nothing is raised: the change itself has been made; what is lost is logged.
        """
        if not self.is_on:
            return
        if not logging.getLogger().handlers:  # a command has none of its own
            logs.set_up(*self._log_form)
        self._note("change", {"book": book, "entry": name, "what": what, "by": by, "version": version})
        await self._last_round()

    def noticed(self, book: str, name: str, version: int) -> None:
        """This worker acts upon a change from now on: the lasting trace of it, where the audit goes to the log."""
        if self.is_on and not self._is_streamed:
            self._note("change", {"book": book, "entry": name, "what": "noticed", "version": version})

    # How it is kept

    async def run(self) -> None:
        """Keep writing what was noted, until cancelled."""
        while True:
            await asyncio.sleep(ROUND_SECONDS)
            self._tell_suppressed(at_once=False)
            self._tell_lost(await self.flush(), self._shelf.now_ms - LOST_TELL_MS)

    async def close(self) -> None:
        """The last round: what can't be written now is lost."""
        if self.is_on:
            self._tell_suppressed(at_once=True)
            await self._last_round()

    async def flush(self) -> str:
        """Write what waits. What the store does not take goes on waiting: why, else empty."""
        async with self._flushing:
            while self._waiting:
                batch = list(islice(self._waiting, BATCH_RECORDS))
                try:
                    await self._shelf.note_audit(batch, self._records_max, self._keep_seconds)
                except BackplaneUnavailable as error:
                    return str(error)
                for _ in batch:
                    self._waiting.popleft()
                self._written.count += len(batch)
        return ""

    async def _last_round(self) -> None:
        cause = await self.flush()
        self._lost.count += len(self._waiting)
        self._waiting.clear()
        self._tell_lost(cause, math.inf)

    def _note(self, record: str, fields: dict[str, Any]) -> None:
        self._number += 1
        if not self._is_streamed:
            _log(record, {"record": record, "n": self._number, **fields})
            self._written.count += 1
        elif len(self._waiting) >= WAITING_RECORDS:
            self._lost.count += 1
        else:
            about = {"ms": self._shelf.now_ms, "worker": self._shelf.worker_id, "record": record, "n": self._number}
            about |= fields
            self._waiting.append(_text(about))

    def _tell_lost(self, cause: str, told_before_ms: float) -> None:
        lost = self._lost.count - self._lost_told
        if lost and self._lost_told_at <= told_before_ms:
            self._lost_told, self._lost_told_at = self._lost.count, self._shelf.now_ms
            extra = {"event": "audit_lost", "records": lost, "cause": cause}
            logger.error("%d audit records were not written", lost, extra=extra)

    def _tell_suppressed(self, *, at_once: bool) -> None:
        held = self._muffler.owed(self._shelf.now_ms / 1000, at_once=at_once)
        if held:
            calls = sum(count for word, count in held.items() if word.startswith(_CALLS))
            outcomes = {word.removeprefix(_CALLS): count for word, count in held.items()}
            self._note("suppressed", {"handshakes": sum(held.values()) - calls, "calls": calls, "outcomes": outcomes})

    def _shown(self, address: str) -> str:
        if self._addresses == "whole":
            return address
        return network_of(address) if self._addresses == "network" else ""


def operator() -> str:
    """Who runs this command, as far as the system knows: `user@host`."""
    uid = os.getuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:  # in a container there may be a number alone
        user = str(uid)
    return f"{user}@{socket.gethostname()}"


def network_of(address: str) -> str:
    """The address without the part that tells one household from its neighbours: a /24, or a /48 of IPv6."""
    try:
        known = ip_address(address)
    except ValueError:
        return ""
    return str(ip_network((known, _NETWORK_BITS[known.version]), strict=False))


def _log(record: str, fields: dict[str, Any]) -> None:
    match record:
        case "handshake":
            logger.info("handshake", extra={"event": "audit_handshake", **fields})
        case "call":
            logger.info("call", extra={"event": "audit_call", **fields})
        case "change":
            logger.info("change", extra={"event": "audit_change", **fields})
        case _:
            logger.info("refusals that are not listed", extra={"event": "audit_suppressed", **fields})


def _text(fields: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(fields)
    except TypeError:  # a peer's half of a surrogate pair
        return orjson.dumps({name: _valid(value) for name, value in fields.items()})


def _valid(value: Any) -> Any:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
