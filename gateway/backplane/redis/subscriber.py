"""The one connection on which this worker hears: its mailbox, the control channel, the catalogs it watches.

Theory of operation
-------------------
One task reads; a second one, living exactly as long as the connection, writes what is asked for and is the watchdog:
it pings when nothing came in for a while, and gives the connection up when nothing comes in at all (redis-py would
wait for ever). A part of a long message on a slow connection is life, too. A lost connection is made anew, everything
is subscribed again, and once all of it is confirmed the listener is told that there was a gap. So is it at any
confirmation that nobody asked for.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from gateway.backplane.base import BackplaneUnavailable
from gateway.backplane.redis.attempts import Attempts
from gateway.backplane.redis.commands import nothing
from gateway.backplane.redis.connector import Connector, Meter, close, receive, send
from gateway.meters import Meters

logger = logging.getLogger(__name__)

_BATCH_CHANNELS = 512
_SILENT_PINGS = 3


class _Broken(ConnectionError):
    """The connection is of no more use; the text says why."""


class Subscriptions(ABC):
    """Channels that are heard, whatever happens to connections. `run` must be running."""

    up: asyncio.Event
    """Set while this worker can be reached."""
    tried: asyncio.Event
    """The first try to get there has succeeded or failed."""
    meters: Meters
    _connector: Connector
    _waiters: "Waiters"

    @property
    @abstractmethod
    def trouble(self) -> str:
        """Why something is not heard; empty if everything is."""

    @abstractmethod
    async def run(self) -> None:
        """Keep what is wanted subscribed, until cancelled. Never raises for anything that Redis does."""

    async def add(self, channel: str) -> None:
        """Subscribe; returns when it is confirmed. Raises BackplaneUnavailable if that takes too long."""
        name = channel.encode()
        if self.hears(channel):
            return
        self.want(name)
        try:
            await self._waiters.wait(name, self._connector.timeout_seconds)
        except TimeoutError:
            if name not in self._waiters:
                self.discard(channel)
            raise BackplaneUnavailable(self.trouble or "Redis: no confirmation of a subscription") from None

    @abstractmethod
    def want(self, name: bytes) -> None:
        """Subscribe as soon as may be."""

    @abstractmethod
    def discard(self, channel: str) -> None:
        """Unsubscribe."""

    @abstractmethod
    def hears(self, channel: str) -> bool:
        """Whether the subscription is confirmed."""

    @abstractmethod
    def reads(self, channel: str) -> int:
        """A number that changes whenever a part of a message comes in where the channel is heard."""

    @abstractmethod
    def drop(self, reason: str, channel: str | None = None) -> None:
        """Connect anew, at once: there is a better server, or the channel is not heard here in spite of all."""


class Waiters:
    """Who waits for a channel's confirmation."""

    def __init__(self) -> None:
        self._of: dict[bytes, list[asyncio.Future[None]]] = {}

    async def wait(self, name: bytes, seconds: float) -> None:
        """Until the channel is confirmed. Raises TimeoutError."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._of.setdefault(name, []).append(waiter)
        try:
            async with asyncio.timeout(seconds):
                await waiter
        finally:
            waiters = self._of.get(name, [])
            if waiter in waiters:
                waiters.remove(waiter)
            if not waiters:
                self._of.pop(name, None)

    def release(self, name: bytes) -> None:
        """The channel is confirmed."""
        for waiter in self._of.pop(name, ()):
            if not waiter.done():
                waiter.set_result(None)

    def __contains__(self, name: bytes) -> bool:
        return name in self._of


class Subscriber(Subscriptions):
    """Subscriptions on one connection. `up` is set while everything that is wanted is confirmed."""

    verbs = ("SUBSCRIBE", "UNSUBSCRIBE")
    batch_channels = _BATCH_CHANNELS

    def __init__(
        self,
        connector: Connector,
        channels: Collection[str],
        *,
        on_message: Callable[[bytes, bytes], None],
        on_gap: Callable[[], None],
        ping_seconds: float = 1.0,
    ) -> None:
        self._trouble = "Redis: not connected yet"
        self.up = asyncio.Event()
        self.tried = asyncio.Event()
        self.on_lost: Callable[[], None] = nothing
        self.meters = Meters()
        self._connector = connector
        self._on_message, self._on_gap = on_message, on_gap
        self._ping_seconds = ping_seconds
        self._first = frozenset(channel.encode() for channel in channels)
        self._wanted = set(self._first)
        self._confirmed: set[bytes] = set()
        self._asked: dict[bytes, int] = {}
        self._missing: set[bytes] = set()
        self._waiters = Waiters()
        self._requests: list[tuple[str, bytes]] = []
        self._wake = asyncio.Event()
        self._is_connected = False
        self._was_up = False
        self._has_fallen = False
        self._meter = Meter()
        self._attempts = Attempts("the Redis subscriber connection")

    # -- for callers

    @property
    def trouble(self) -> str:
        return self._trouble

    def want(self, name: bytes) -> None:
        if name not in self._wanted:
            self._wanted.add(name)
            self._request(self.verbs[0], name)

    def discard(self, channel: str) -> None:
        name = channel.encode()
        if name in self._wanted:
            self._forget(name)
            self._request(self.verbs[1], name)
            self._arrived(name)

    def hears(self, channel: str) -> bool:
        return channel.encode() in self._confirmed

    def reads(self, channel: str) -> int:
        del channel
        return self._meter.reads

    def drop(self, reason: str, channel: str | None = None) -> None:
        del channel
        self._attempts.drop(f"Redis {self._connector.where}: {reason}")

    def _forget(self, name: bytes) -> None:
        self._wanted.discard(name)
        self._confirmed.discard(name)

    def _request(self, verb: str, name: bytes) -> None:
        if self._is_connected:  # else all that is wanted is asked for anyway, once there is a connection
            self._requests.append((verb, name))
            self._wake.set()

    # -- the tasks

    async def run(self) -> None:
        self._begin()
        await self._attempts.run(self._connect_and_read, self._connector.describe, self._lost)

    def _begin(self) -> None:
        self._wanted = set(self._first)
        self._was_up = False

    def _lost(self, reason: str) -> None:
        if self._has_fallen:
            fields = {"event": "subscription_lost", "cause": reason}
            logger.warning("Redis 订阅中断 / the Redis subscription was lost: %s", reason, extra=fields)
        self._has_fallen = False
        self.tried.set()
        self._trouble = reason
        self.on_lost()

    async def _connect_and_read(self) -> None:
        connection = await self._connector.connect("sub", self._meter)
        try:
            self._confirmed.clear()
            self._asked.clear()
            self._is_connected = True
            self._requests = [(self.verbs[0], name) for name in self._wanted]
            self._missing = set(self._wanted)
            self._wake.set()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._write(connection))
                while True:
                    self._hear(await receive(connection))
        finally:
            self._is_connected = False
            self._has_fallen = self.up.is_set()
            self.up.clear()
            self._confirmed.clear()
            self.on_lost()
            await close(connection)

    async def _write(self, connection: AbstractConnection) -> None:
        """Send what is asked for, and watch over the connection."""
        loop = asyncio.get_running_loop()
        unanswered, reads = 0, self._meter.reads
        next_look = loop.time() + self._ping_seconds
        while True:
            try:
                async with asyncio.timeout_at(next_look):
                    await self._wake.wait()
            except TimeoutError:
                # Turns of the loop are counted, not seconds: a loop that was held up has heard nothing either.
                unanswered = 0 if self._meter.reads != reads else unanswered + 1
                if unanswered > _SILENT_PINGS:
                    raise _Broken("nothing was heard from it, not even an answer to a ping") from None
                if unanswered:
                    await self._send(connection, [("PING",)])
                reads = self._meter.reads
                next_look = loop.time() + self._ping_seconds
            self._wake.clear()
            if commands := self._take_requests():
                await self._send(connection, commands)

    def _take_requests(self) -> list[tuple[Any, ...]]:
        """What is to be written next, noted as asked for."""
        requests, self._requests = self._requests, []
        for verb, name in requests:
            if verb == self.verbs[0]:
                self._asked[name] = self._asked.get(name, 0) + 1
        return _batches(requests, self.batch_channels)

    async def _send(self, connection: AbstractConnection, commands: Sequence[tuple[Any, ...]]) -> None:
        async with asyncio.timeout(self._connector.timeout_seconds):
            await send(connection, commands)

    # -- what is heard

    def _hear(self, reply: Any) -> None:
        if isinstance(reply, RedisError):
            self._refused(reply)
            return
        if not isinstance(reply, list) or len(reply) < 3:
            return
        kind, channel, data = reply[0], reply[1], reply[2]
        if kind in (b"message", b"smessage"):
            self._deliver(channel, data)
        elif kind in (b"subscribe", b"ssubscribe"):
            self._subscribed(channel)
        elif kind in (b"unsubscribe", b"sunsubscribe") and channel in self._confirmed:
            self._ended(channel)

    def _refused(self, error: RedisError) -> None:
        raise error

    def _ended(self, name: bytes) -> None:
        """The server has unsubscribed us from a wanted channel."""
        del name
        raise _Broken("it ended a subscription")

    def _deliver(self, channel: bytes, data: bytes) -> None:
        try:
            self._on_message(channel, data)
        except Exception:
            # One message that can't be handled must not make the worker deaf for all others.
            fields = {"event": "message_failed", "channel": channel.decode("utf-8", "replace")}
            logger.exception("a message could not be handled", extra=fields)

    def _subscribed(self, name: bytes) -> None:
        asked = self._asked.pop(name, 0)
        if asked > 1:
            # Subscribed, unsubscribed and subscribed again: only the last confirmation counts.
            self._asked[name] = asked - 1
            return
        if asked == 0:
            text = "Redis confirmed a subscription that was not asked for: there may have been a gap"
            logger.warning(text, extra={"event": "subscription_unasked"})
            self._on_gap()
        if name not in self._wanted:
            return
        self._confirmed.add(name)
        self._waiters.release(name)
        self._arrived(name)

    def _arrived(self, name: bytes) -> None:
        """One less is missing; with the last one this worker hears everything again."""
        self._missing.discard(name)
        if self._missing or self.up.is_set() or not self._confirmed:
            return
        self.up.set()
        self.tried.set()
        self._trouble = ""
        self._attempts.succeeded()
        if self._was_up:
            self.meters.redis_reconnects_total.add("subscriber")
            self._on_gap()
        self._was_up = True


def _batches(requests: Sequence[tuple[str, bytes]], most: int) -> list[tuple[Any, ...]]:
    """Neighbouring requests of one kind, in commands of bounded length."""
    commands: list[list[Any]] = []
    for verb, name in requests:
        if not commands or commands[-1][0] != verb or len(commands[-1]) > most:
            commands.append([verb])
        commands[-1].append(name)
    return [tuple(command) for command in commands]
