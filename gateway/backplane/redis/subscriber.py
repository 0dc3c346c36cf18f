"""The one connection on which this worker hears: its mailbox, the control channel, the catalogs it watches.

Theory of operation
-------------------
One task reads; a second one, living exactly as long as the connection, writes what is asked for and is the watchdog:
it pings when nothing was heard for a while, and gives the connection up when the ping isn't answered (redis-py would
wait for ever). A lost connection is made anew, everything is subscribed again, and once all of it is confirmed the
listener is told that there was a gap. So is it at any confirmation that nobody asked for.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from gateway.backplane.base import BackplaneUnavailable
from gateway.backplane.redis.connector import TROUBLE, Connector, close, receive, send
from gateway.backplane.redis.link import Backoff

logger = logging.getLogger(__name__)

_BATCH_CHANNELS = 512
_SILENT_PINGS = 3


class _Broken(ConnectionError):
    """The connection is of no more use; the text says why."""


class Subscriber:
    """Subscriptions that survive lost connections. `run` must be running."""

    def __init__(
        self,
        connector: Connector,
        channels: Collection[str],
        *,
        on_message: Callable[[bytes, bytes], None],
        on_gap: Callable[[], None],
        ping_seconds: float = 1.0,
    ) -> None:
        self.trouble = "Redis: not connected yet"
        self.up = asyncio.Event()
        """Set while everything that is wanted is subscribed and confirmed."""
        self.tried = asyncio.Event()
        """The first try to get there has succeeded or failed."""
        self._connector = connector
        self._on_message, self._on_gap = on_message, on_gap
        self._ping_seconds = ping_seconds
        self._first = frozenset(channel.encode() for channel in channels)
        self._wanted = set(self._first)
        self._confirmed: set[bytes] = set()
        self._asked: dict[bytes, int] = {}
        self._missing: set[bytes] = set()
        self._waiters: dict[bytes, list[asyncio.Future[None]]] = {}
        self._requests: list[tuple[str, bytes]] = []
        self._wake = asyncio.Event()
        self._was_up = False
        self._heard = False
        self._backoff = Backoff()

    # -- for callers

    async def add(self, channel: str) -> None:
        """Subscribe; returns when it is confirmed. Raises BackplaneUnavailable if that takes too long."""
        name = channel.encode()
        if name in self._confirmed:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(name, []).append(waiter)
        if name not in self._wanted:
            self._wanted.add(name)
            self._request("SUBSCRIBE", name)
        try:
            async with asyncio.timeout(self._connector.timeout_seconds):
                await waiter
        except TimeoutError:
            if not self._drop_waiter(name, waiter):
                self.discard(channel)
            raise BackplaneUnavailable(self.trouble or "Redis: no confirmation of a subscription") from None
        finally:
            self._drop_waiter(name, waiter)

    def discard(self, channel: str) -> None:
        """Unsubscribe."""
        name = channel.encode()
        if name in self._wanted:
            self._wanted.discard(name)
            self._confirmed.discard(name)
            self._request("UNSUBSCRIBE", name)
            self._arrived(name)

    def _drop_waiter(self, name: bytes, waiter: asyncio.Future[None]) -> bool:
        """Whether others still wait for the channel."""
        waiters = self._waiters.get(name, [])
        if waiter in waiters:
            waiters.remove(waiter)
        if not waiters:
            self._waiters.pop(name, None)
        return bool(waiters)

    def _request(self, verb: str, name: bytes) -> None:
        self._requests.append((verb, name))
        self._wake.set()

    # -- the tasks

    async def run(self) -> None:
        """Keep a connection and read it, until cancelled. Never raises for anything that Redis does."""
        self._wanted = set(self._first)
        self._was_up = False
        while True:
            try:
                await self._connect_and_read()
            except TROUBLE as error:
                self._down(self._connector.describe(error))
            except ExceptionGroup as group:
                self._down(self._connector.describe(group.exceptions[0]))
                if group.split(TROUBLE)[1] is not None:
                    logger.exception("unexpected failure on the Redis subscriber connection")
            except Exception as error:
                logger.exception("unexpected failure on the Redis subscriber connection")
                self._down(self._connector.describe(error))
            await asyncio.sleep(self._backoff.next_seconds())

    def _down(self, reason: str) -> None:
        if self.up.is_set():
            logger.warning("Redis 订阅中断 / the Redis subscription was lost: %s", reason)
        self.up.clear()
        self.tried.set()
        self.trouble = reason

    async def _connect_and_read(self) -> None:
        connection = await self._connector.connect("sub")
        try:
            self._confirmed.clear()
            self._asked.clear()
            self._requests = [("SUBSCRIBE", name) for name in self._wanted]
            self._missing = set(self._wanted)
            self._wake.set()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._write(connection))
                while True:
                    self._hear(await receive(connection))
        finally:
            self.up.clear()
            self._confirmed.clear()
            await close(connection)

    async def _write(self, connection: AbstractConnection) -> None:
        """Send what is asked for, and watch over the connection."""
        loop = asyncio.get_running_loop()
        unanswered = 0
        next_look = loop.time() + self._ping_seconds
        while True:
            try:
                async with asyncio.timeout_at(next_look):
                    await self._wake.wait()
            except TimeoutError:
                # Turns of the loop are counted, not seconds: a loop that was held up has heard nothing either.
                unanswered = 0 if self._heard else unanswered + 1
                if unanswered > _SILENT_PINGS:
                    raise _Broken("nothing was heard from it, not even an answer to a ping") from None
                if not self._heard:
                    await self._send(connection, [("PING",)])
                self._heard = False
                next_look = loop.time() + self._ping_seconds
            self._wake.clear()
            requests, self._requests = self._requests, []
            for command in _batches(requests):
                if command[0] == "SUBSCRIBE":
                    for name in command[1:]:
                        self._asked[name] = self._asked.get(name, 0) + 1
                await self._send(connection, [command])

    async def _send(self, connection: AbstractConnection, commands: Sequence[tuple[Any, ...]]) -> None:
        async with asyncio.timeout(self._connector.timeout_seconds):
            await send(connection, commands)

    # -- what is heard

    def _hear(self, reply: Any) -> None:
        self._heard = True
        if isinstance(reply, RedisError):
            raise reply
        if not isinstance(reply, list) or len(reply) < 3:
            return
        kind, channel, data = reply[0], reply[1], reply[2]
        if kind in (b"message", b"smessage"):
            self._deliver(channel, data)
        elif kind in (b"subscribe", b"ssubscribe"):
            self._subscribed(channel)
        elif kind in (b"unsubscribe", b"sunsubscribe") and channel in self._confirmed:
            raise _Broken("it ended a subscription")

    def _deliver(self, channel: bytes, data: bytes) -> None:
        try:
            self._on_message(channel, data)
        except Exception:
            # One message that can't be handled must not make the worker deaf for all others.
            logger.exception("a message on %s could not be handled", channel.decode("utf-8", "replace"))

    def _subscribed(self, name: bytes) -> None:
        asked = self._asked.pop(name, 0)
        if asked > 1:
            # Subscribed, unsubscribed and subscribed again: only the last confirmation counts.
            self._asked[name] = asked - 1
            return
        if asked == 0:
            logger.warning("Redis confirmed a subscription that was not asked for: there may have been a gap")
            self._on_gap()
        if name not in self._wanted:
            return
        self._confirmed.add(name)
        for waiter in self._waiters.pop(name, []):
            if not waiter.done():
                waiter.set_result(None)
        self._arrived(name)

    def _arrived(self, name: bytes) -> None:
        """One less is missing; with the last one this worker hears everything again."""
        self._missing.discard(name)
        if self._missing or self.up.is_set() or not self._confirmed:
            return
        self.up.set()
        self.tried.set()
        self.trouble = ""
        self._backoff.reset()
        if self._was_up:
            self._on_gap()
        self._was_up = True


def _batches(requests: Sequence[tuple[str, bytes]]) -> list[tuple[Any, ...]]:
    """Neighbouring requests of one kind, in commands of bounded length."""
    commands: list[list[Any]] = []
    for verb, name in requests:
        if not commands or commands[-1][0] != verb or len(commands[-1]) > _BATCH_CHANNELS:
            commands.append([verb])
        commands[-1].append(name)
    return [tuple(command) for command in commands]
