"""The one connection that carries commands to Redis.

Theory of operation
-------------------
Everything that one turn of the event loop wants to say is written at once, and while those replies are awaited the
next batch gathers by itself: the busier, the larger the batches. One task writes. Nobody's deadline
ever cancels a batch, since what has been written can't be taken back and a connection that is cut in mid-reply is
lost; a caller that has given up simply no longer listens. A second task reads, also when nothing is awaited: a
connection that Redis has closed is made anew before somebody needs it.

When the connection is lost, commands that were not written yet wait for the next one, and so do written ones that
may be repeated without harm; the others are told that their outcome is unknown. That patience ends
`patience_seconds` after the loss: then everything fails, and until Redis is back it fails at once.

A server that says that it is not the one to be asked (a replica, or still loading) has done nothing of what it
refused so: that is told as a refusal, and once the batch is answered the connection is made anew.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    MasterDownError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
)

from gateway.backplane.redis import scripts
from gateway.backplane.redis.attempts import Attempts
from gateway.backplane.redis.commands import (
    Command,
    CommandLink,
    Misdirected,
    Rejected,
    Unanswered,
    Unsent,
    nothing,
    settle,
)
from gateway.backplane.redis.connector import Connector, Meter, WrongServer, close, receive, send
from gateway.meters import Meters

logger = logging.getLogger(__name__)

_MOST_ATTEMPTS = 3
_BATCH_COMMANDS = 1024
_BATCH_BYTES = 4 * 1024 * 1024

_WRONG_SERVER = (ReadOnlyError, MasterDownError, BusyLoadingError, AuthenticationError)
"""Who answers so is not the one to ask: a replica, not ready, or knows this connection no more."""


class Link(CommandLink):
    """Commands to one server, batched by turns of the event loop."""

    def __init__(
        self,
        connector: Connector,
        *,
        patience_seconds: float = 2.0,
        most_commands: int = 50_000,
        most_bytes: int = 128 * 1024 * 1024,
    ) -> None:
        self.up = asyncio.Event()
        self.tried = asyncio.Event()
        self.gather = nothing
        self.on_up = nothing
        self.on_lost: Callable[[], None] = nothing
        self.on_redirect: Callable[[Command, RedisError], bool] = _not_redirected
        """Gets what was refused and not executed, first; whether it has taken care of the command."""
        self.meters = Meters()
        self._trouble = "Redis: not connected yet"
        self._was_up = False
        self._connector = connector
        self._patience_seconds = patience_seconds
        self._most_commands, self._most_bytes = most_commands, most_bytes
        self._meter = Meter()
        self._queue: deque[Command] = deque()
        self._queued_bytes = 0
        self._written: deque[Command] = deque()
        self._unloaded: list[Command] = []
        """Written, and refused only because Redis did not know the script."""
        self._is_answered = asyncio.Event()
        self._wake = asyncio.Event()
        self._is_hopeless = True
        self._patience: asyncio.TimerHandle | None = None
        self._attempts = Attempts("the Redis command connection")
        self._doubt = ""
        """Why the server is believed not to be the right one."""

    # -- for callers

    @property
    def trouble(self) -> str:
        return self._trouble

    @property
    def pending(self) -> int:
        return len(self._queue) + len(self._written)

    @property
    def refusal(self) -> Unsent | None:
        """Why a command would be refused now, or None."""
        if self._is_hopeless:
            return Unsent(self._trouble)
        if len(self._queue) >= self._most_commands or self._queued_bytes >= self._most_bytes:
            return Unsent("等待 Redis 的命令过多，请检查其负载 / too many commands wait for Redis; check its load")
        return None

    def wake(self) -> None:
        self._wake.set()
        if self._is_hopeless:
            asyncio.get_running_loop().call_soon(self.gather)

    def enqueue(self, command: Command) -> None:
        refusal = self.refusal
        if refusal is not None:
            asyncio.get_running_loop().call_soon(self.fail, command, refusal)
            return
        self._queue.append(command)
        self._queued_bytes += command.size
        self._wake.set()

    async def flush(self) -> None:
        await self.call(Command(("PING",), is_bound=True))

    def drop(self, reason: str) -> None:
        self._attempts.drop(f"Redis {self._connector.where}: {reason}")

    def distrust(self, command: Command, reason: str) -> None:
        self._doubt = self._doubt or reason

    def abandon(self, reason: str) -> list[Command]:
        """The server is of no more use: what may still be sent, to be sent elsewhere; the rest fails."""
        self._down(reason)
        return self.take_waiting()

    def take_waiting(self) -> list[Command]:
        """What has not been written yet, to be sent elsewhere."""
        commands = [command for command in self._queue if not command.is_bound]
        self._queue = deque(command for command in self._queue if command.is_bound)
        self._queued_bytes = sum(command.size for command in self._queue)
        return commands

    # -- the task

    def expect(self) -> None:
        """Be as patient with the first connection as with one that was lost."""
        self._is_hopeless = False
        self._patience = asyncio.get_running_loop().call_later(self._patience_seconds, self._give_up)

    async def run(self) -> None:
        try:
            await self._attempts.run(self._connect_and_serve, self._connector.describe, self._lost)
        finally:
            self.up.clear()
            self._down("Redis: closed")
            if self._patience is not None:
                self._patience.cancel()
            self._give_up()

    async def _connect_and_serve(self) -> None:
        connection = await self._connector.connect("cmd", self._meter)
        try:
            await self._prepare(connection)
            self._doubt = ""
            self._up()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read(connection))
                await self._write(connection)
        finally:
            await close(connection)

    async def _prepare(self, connection: AbstractConnection) -> None:
        texts = [scripts.load(name).text for name in scripts.NAMES]
        async with asyncio.timeout(self._connector.timeout_seconds):
            await send(connection, [("SCRIPT", "LOAD", text) for text in texts])
            replies = [await receive(connection) for _ in texts]
        for reply in replies:
            if isinstance(reply, RedisError):
                raise reply

    def _up(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if self._was_up:
            self.meters.redis_reconnects_total.add("commands")
        self._was_up = True
        self._is_hopeless = False
        self._attempts.succeeded()
        self._trouble = ""
        self.up.set()
        self.tried.set()
        self.on_up()

    async def _next_batch(self) -> list[Command]:
        while True:
            self.gather()
            if self._queue:
                break
            self._wake.clear()
            await self._wake.wait()
        batch: list[Command] = []
        size = 0
        while self._queue and len(batch) < _BATCH_COMMANDS and size < _BATCH_BYTES:
            command = self._queue.popleft()
            size += command.size
            batch.append(command)
        self._queued_bytes -= size
        return batch

    async def _write(self, connection: AbstractConnection) -> None:
        """Send batch after batch, each when the one before was answered. Raises TimeoutError when replies stay out."""
        while True:
            batch = await self._next_batch()
            self._written.extend(batch)
            self._is_answered.clear()
            for command in batch:
                command.attempts += 1
            async with asyncio.timeout(self._connector.timeout_seconds):
                await send(connection, [command.words() for command in batch])
            while self._written:
                left, reads = len(self._written), self._meter.reads
                try:
                    async with asyncio.timeout(self._connector.timeout_seconds):
                        await self._is_answered.wait()
                except TimeoutError:
                    if (len(self._written), self._meter.reads) == (left, reads):
                        raise
            self._put_back(self._take_unloaded())
            if self._doubt:
                raise WrongServer(self._doubt)

    async def _read(self, connection: AbstractConnection) -> None:
        """Hand replies to who waits for them; also notice the end of an idle connection."""
        while True:
            reply = await receive(connection)
            if not self._written:
                raise ConnectionError("it said something that was not asked for")
            command = self._written.popleft()
            if isinstance(reply, RedisError):
                self._refused(command, reply)
            else:
                settle(command, reply)
            if not self._written:
                self._is_answered.set()

    def _take_unloaded(self) -> list[Command]:
        unloaded, self._unloaded = self._unloaded, []
        return unloaded

    def _refused(self, command: Command, error: RedisError) -> None:
        if isinstance(error, NoScriptError) and command.script is not None and not command.is_spelled_out:
            command.is_spelled_out = True
            command.attempts -= 1
            self._unloaded.append(command)
            return
        if self.on_redirect(command, error):
            return
        reason = f"Redis 拒绝了命令 / Redis refuses: {self._connector.describe(error)}"
        if isinstance(error, _WRONG_SERVER) or _said_in_script(error):
            self._doubt = self._doubt or str(error)
            self.fail(command, Misdirected(reason))
        else:
            self.fail(command, Rejected(reason))

    def _put_back(self, commands: Sequence[Command]) -> None:
        self._queue.extendleft(reversed(commands))
        self._queued_bytes += sum(command.size for command in commands)

    # -- when the connection is lost

    def _lost(self, reason: str) -> None:
        self._down(reason)
        if self._patience is None and not self._is_hopeless:
            self._patience = asyncio.get_running_loop().call_later(self._patience_seconds, self._give_up)

    def _down(self, reason: str) -> None:
        if self.up.is_set():
            text = "与 Redis 的连接中断 / the connection to Redis was lost: %s"
            logger.warning(text, reason, extra={"event": "redis_lost", "cause": reason})
        self.up.clear()
        self.tried.set()
        self._trouble = reason
        self.on_lost()
        repeatable = self._take_unloaded()
        for command in self._written:
            if command.is_repeatable and command.attempts < _MOST_ATTEMPTS:
                command.is_unsure = True
                repeatable.append(command)
            else:
                self.fail(command, Unanswered(reason))
        self._written.clear()
        self._put_back(repeatable)

    def _give_up(self) -> None:
        self._patience = None
        self.gather()
        self._is_hopeless = True
        for command in self._queue:
            self.fail(command, Unanswered(self._trouble) if command.is_unsure else Unsent(self._trouble))
        self._queue.clear()
        self._queued_bytes = 0


def _said_in_script(error: RedisError) -> bool:
    """Redis 6.2 puts the place in the script before the first word."""
    return any(f": -{word} " in str(error) for word in ("READONLY", "MASTERDOWN"))


def _not_redirected(_command: Command, _error: RedisError) -> bool:
    return False
