"""The backplane on Redis or Valkey: the only package that talks to it.

`address` reads the URL, `connector` makes connections, `link` sends commands in batches, `outbox` gathers what goes to
other workers, `convoy` what many want of one key, `subscriber` hears; `sentinel` knows the primary, `cluster_link` and
`cluster_subscriber` do for many nodes what their namesakes do for one. `directory`, `ledger` and `membership` say in
these terms what `gateway.backplane.base` promises, and know nothing of all this.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

from gateway.backplane.base import BackplaneUnavailable, Listener
from gateway.backplane.envelope import EnvelopeError, decode, decode_notice
from gateway.backplane.keys import Keys, Lifetimes
from gateway.backplane.redis import selfprobe
from gateway.backplane.redis.books import Books
from gateway.backplane.redis.buckets import Buckets
from gateway.backplane.redis.connector import Connector
from gateway.backplane.redis.core import Tools, revision_of
from gateway.backplane.redis.ledger import Ledger
from gateway.backplane.redis.lines import Hearing, Timing, make_lines
from gateway.backplane.redis.membership import Membership
from gateway.backplane.redis.outbox import Outbox
from gateway.backplane.redis.selfprobe import SelfProbe
from gateway.backplane.seal import Cause, make_seal
from gateway.meters import Meters
from gateway.muffler import Muffler

__all__ = ["RedisBackplane", "RedisOptions"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RedisOptions:
    """What can be set of the Redis backplane."""

    prefix: str = "mcpgw:"
    timeout_seconds: float = 2.0
    """How long Redis may leave us without any reply before the connection counts as lost."""
    patience_seconds: float = 2.0
    """How long commands wait for a lost connection to come back."""
    ping_seconds: float = 1.0
    """How often a silent subscriber connection is pinged; it is given up when three stay unanswered."""
    probe_seconds: float = 0.75
    """After how long a silent mailbox is probed by a message to itself; the answer may take two times as long."""
    poll_seconds: float = 0.5
    """How often Sentinels are asked for the primary."""
    topology_seconds: float = 5.0
    """How often the nodes of a Cluster are asked for the slots, when nothing gives a reason to."""
    lifetimes: Lifetimes = field(default_factory=Lifetimes)
    seen_limit: int = 128
    """How many tool servers of an agent are remembered after they have gone."""
    envelope_key: tuple[str, ...] = field(default=(), repr=False)
    """What workers sign their messages with (see `gateway.backplane.seal`); empty: nothing is signed."""
    is_bare: bool = False
    """Records of calls hold neither the request nor the answer."""


class RedisBackplane(Membership, Ledger, Books, Buckets):
    """One worker's access to Redis. See `gateway.backplane.base.Backplane`.

    Raises ValueError where the URL can't be used; its text is for people and has nothing secret in it.
    """

    is_shared = True

    def __init__(self, url: str, worker_id: str, options: RedisOptions | None = None) -> None:
        options = options or RedisOptions()
        keys, lifetimes = Keys(options.prefix), options.lifetimes
        seal = make_seal(options.envelope_key)
        if seal is not None:
            seal.on_refused = self._on_forged
        self._connector = Connector(url, f"mcpgw:{worker_id}", options.timeout_seconds)
        timing = Timing(options.patience_seconds, options.ping_seconds, options.poll_seconds, options.topology_seconds)
        self._mailbox, self._ctl = keys.mailbox(worker_id).encode(), keys.ctl.encode()
        hearing = Hearing((keys.mailbox(worker_id), keys.ctl), self._on_message, self._on_gap)
        self._lines = lines = make_lines(self._connector, timing, keys.worker(worker_id), hearing)
        lines.link.on_up = self._on_gap
        self.meters = lines.link.meters = lines.subscriber.meters = Meters()
        self._probe = SelfProbe(
            lines.link,
            lines.subscriber,
            keys.mailbox(worker_id),
            publish=lines.publish,
            seconds=options.probe_seconds,
        )
        super().__init__(
            Tools(
                worker_id=worker_id,
                link=lines.link,
                outbox=Outbox(
                    *(lines.link, keys, worker_id),
                    spare_ms=lifetimes.call_spare_ms,
                    publish=lines.publish,
                    is_bare=options.is_bare,
                ),
                subscriber=lines.subscriber,
                keys=keys,
                lifetimes=lifetimes,
                publish=lines.publish,
                seen_limit=options.seen_limit,
                seal=seal,
            )
        )
        self._muffler = Muffler(all_units=20, all_per_second=0.5)
        self._listener: Listener | None = None
        self._is_single = self._connector.address.kind == "single"

    def __repr__(self) -> str:
        state = "connected" if self.is_connected else self.trouble
        return f"<RedisBackplane {self.worker_id} [{self._connector.where} | {state}]>"

    @property
    def is_connected(self) -> bool:
        return self._link.up.is_set() and self._subscriber.up.is_set()

    @property
    def trouble(self) -> str:
        return self._link.trouble or self._subscriber.trouble

    @property
    def pending_commands(self) -> int:
        return self._link.pending

    @asynccontextmanager
    async def session(self, listener: Listener) -> AsyncGenerator[None, None]:
        failure: Exception | None = None
        self._link.tried.clear()
        self._subscriber.tried.clear()
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(run()) for run in (*self._lines.runs, self._probe.run)]
            try:
                await self._connect()
                self._listener = listener
                yield
            except Exception as error:  # noqa: BLE001 - kept, since the group would wrap it; raised again below
                failure = error
            finally:
                self._listener = None
                await self._flush()
                for task in running:
                    task.cancel()
        if failure is not None:
            raise failure

    async def _connect(self) -> None:
        """Both connections, at the first try: what is wrong now is the best answer to somebody who waits for it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(2 * self._connector.timeout_seconds):
                await self._link.tried.wait()
                await self._subscriber.tried.wait()
        if not self.is_connected:
            raise BackplaneUnavailable(f"无法连接 Redis / can't connect to {self.trouble}")

    async def _flush(self) -> None:
        """What was asked for until now still goes out, if Redis is there."""
        for convoy in self._convoys:
            convoy.hurry()
        if self._link.up.is_set():
            with suppress(BackplaneUnavailable, TimeoutError):
                async with asyncio.timeout(self._connector.timeout_seconds):
                    await self._link.flush()

    def _on_gap(self) -> None:
        """A subscription or the command connection was made anew; told once both are there, and of both at once."""
        self._forget_toolsets()
        if self._listener is not None and self.is_connected:
            self._listener.on_gap()

    def _on_message(self, channel: bytes, message: bytes) -> None:
        if channel == self._mailbox:
            self._probe.has_heard = True
            if message == selfprobe.MESSAGE:
                return
        if self._listener is None:
            return
        if channel in (self._mailbox, self._ctl):
            self._on_mail(self._listener, channel, message)
            return
        agent = self._watched.get(channel)
        if agent is not None:
            self._listener.on_catalog(agent, revision_of(message))

    def _on_mail(self, listener: Listener, channel: bytes, message: bytes) -> None:
        opened = None if self._seal is None else partial(self._seal.open, channel.decode())
        try:
            for envelope in (decode if channel == self._mailbox else decode_notice)(message, opened):
                if channel == self._ctl and envelope.sender == self.worker_id:
                    continue
                try:
                    if envelope.type == "book":
                        if envelope.sender and not envelope.reason:
                            self._note_asking(envelope.sender)
                        listener.on_book(envelope.reason)
                    else:
                        listener.on_envelope(envelope)
                except Exception:
                    # The envelopes after it belong to other calls.
                    fields = {"event": "envelope_failed", "kind": envelope.type, "attempt": envelope.id}
                    logger.exception("an envelope could not be handled", extra=fields)
        except EnvelopeError as error:
            fields = {
                "event": "envelope_unreadable",
                "channel": channel.decode("utf-8", "replace"),
                "cause": str(error),
            }
            logger.warning("a message is no envelope", extra=fields)

    def _on_forged(self, channel: str, cause: Cause) -> None:
        self.meters.forged_total.add(cause)
        if self._muffler.passes("", cause, self._monotonic_ms / 1000):
            fields = {"event": "envelope_forged", "channel": channel, "cause": cause}
            text = "收到没有有效签名的消息，已丢弃 / a message without a valid signature was dropped (%s): %s"
            logger.warning(text, cause, channel, extra=fields)
