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
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import NoScriptError, RedisError

from gateway.backplane.base import BackplaneUnavailable
from gateway.backplane.redis import scripts
from gateway.backplane.redis.connector import TROUBLE, Connector, close, receive, send

logger = logging.getLogger(__name__)

_MOST_ATTEMPTS = 3
_BATCH_COMMANDS = 1024
_BATCH_BYTES = 4 * 1024 * 1024
_OVERHEAD_BYTES = 200


class Unsent(BackplaneUnavailable):
    """The command never left this process."""


class Unanswered(BackplaneUnavailable):
    """The command left this process, and no reply came."""


class Rejected(BackplaneUnavailable):
    """Redis answered with an error."""


@dataclass(slots=True, eq=False)
class Command:
    """One command, what becomes of its reply, and whether doing it twice does no harm.

    `on_reply` gets the reply, or one of the exceptions above. With `script`, `args` begin at the number of keys.
    """

    args: tuple[Any, ...]
    on_reply: Callable[[Any], None] = field(default=lambda _reply: None)
    is_repeatable: bool = False
    script: scripts.Script | None = None
    is_spelled_out: bool = False
    """The script is sent as text, as Redis does not know its digest."""
    attempts: int = 0
    size: int = field(init=False)
    """About how much memory it takes, in bytes."""

    def __post_init__(self) -> None:
        self.size = _OVERHEAD_BYTES + sum(len(arg) for arg in self.args if isinstance(arg, (bytes, str)))

    def words(self) -> tuple[Any, ...]:
        """The command as it is sent."""
        if self.script is None:
            return self.args
        if self.is_spelled_out:
            return ("EVAL", self.script.text, *self.args)
        return ("EVALSHA", self.script.digest, *self.args)


def script_command(
    script: str, keys: Sequence[str], args: Sequence[Any] = (), *, is_repeatable: bool = False
) -> Command:
    """The command that runs a script."""
    return Command((len(keys), *keys, *args), script=scripts.load(script), is_repeatable=is_repeatable)


class Backoff:
    """How long to wait before the next try: doubling up to 2 s, half of it by chance, so that workers spread out."""

    def __init__(self) -> None:
        self._failures = 0

    def reset(self) -> None:
        self._failures = 0

    def next_seconds(self) -> float:
        self._failures += 1
        return min(0.05 * 2.0 ** min(self._failures, 10), 2.0) * random.uniform(0.5, 1.0)


class Link:
    """Commands to Redis, batched by turns of the event loop. `run` must be running."""

    def __init__(
        self,
        connector: Connector,
        *,
        patience_seconds: float = 2.0,
        most_commands: int = 50_000,
        most_bytes: int = 128 * 1024 * 1024,
    ) -> None:
        self.trouble = "Redis: not connected yet"
        self.up = asyncio.Event()
        self.tried = asyncio.Event()
        """The first try to connect has succeeded or failed."""
        self.gather: Callable[[], None] = _nothing
        """Called before each batch is made: whoever collects work of the current turn enqueues it now."""
        self._connector = connector
        self._patience_seconds = patience_seconds
        self._most_commands, self._most_bytes = most_commands, most_bytes
        self._queue: deque[Command] = deque()
        self._queued_bytes = 0
        self._written: deque[Command] = deque()
        self._unloaded: list[Command] = []
        """Written, and refused only because Redis did not know the script."""
        self._is_answered = asyncio.Event()
        self._wake = asyncio.Event()
        self._is_hopeless = True
        self._patience: asyncio.TimerHandle | None = None
        self._backoff = Backoff()

    # -- for callers

    @property
    def refusal(self) -> Unsent | None:
        """Why a command would be refused now, or None."""
        if self._is_hopeless:
            return Unsent(self.trouble)
        if len(self._queue) >= self._most_commands or self._queued_bytes >= self._most_bytes:
            return Unsent("等待 Redis 的命令过多，请检查其负载 / too many commands wait for Redis; check its load")
        return None

    def wake(self) -> None:
        """There is something to gather."""
        self._wake.set()
        if self._is_hopeless:
            asyncio.get_running_loop().call_soon(self.gather)

    def enqueue(self, command: Command) -> None:
        """Send the command with the next batch. `on_reply` is called later, never from here."""
        refusal = self.refusal
        if refusal is not None:
            asyncio.get_running_loop().call_soon(_settle, command, refusal)
            return
        self._queue.append(command)
        self._queued_bytes += command.size
        self._wake.set()

    async def call(self, *commands: Command) -> list[Any]:
        """The replies of the commands, in order. Raises the first failure, after all have ended."""
        self.gather()
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        replies: list[Any] = [None] * len(commands)
        left = len(commands)

        def keep(reply: Any, at: int) -> None:
            nonlocal left
            replies[at] = reply
            left -= 1
            if left == 0 and not ended.done():
                ended.set_result(None)

        for at, command in enumerate(commands):
            command.on_reply = partial(keep, at=at)
            self.enqueue(command)
        if commands:
            await ended
        for reply in replies:
            if isinstance(reply, BackplaneUnavailable):
                raise reply
        return replies

    # -- the task

    async def run(self) -> None:
        """Keep a connection and serve it, until cancelled. Never raises for anything that Redis does."""
        try:
            while True:
                try:
                    await self._connect_and_serve()
                except TROUBLE as error:
                    self._lost(self._connector.describe(error))
                except ExceptionGroup as group:
                    self._lost(self._connector.describe(group.exceptions[0]))
                    if group.split(TROUBLE)[1] is not None:
                        logger.exception("unexpected failure on the Redis command connection")
                except Exception as error:
                    logger.exception("unexpected failure on the Redis command connection")
                    self._lost(self._connector.describe(error))
                await asyncio.sleep(self._backoff.next_seconds())
        finally:
            self.up.clear()
            self._down("Redis: closed")
            if self._patience is not None:
                self._patience.cancel()
            self._give_up()

    async def _connect_and_serve(self) -> None:
        connection = await self._connector.connect("cmd")
        try:
            await self._prepare(connection)
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
        self._is_hopeless = False
        self._backoff.reset()
        self.trouble = ""
        self.up.set()
        self.tried.set()

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
                left = len(self._written)
                try:
                    async with asyncio.timeout(self._connector.timeout_seconds):
                        await self._is_answered.wait()
                except TimeoutError:
                    if len(self._written) == left:
                        raise
            self._put_back(self._take_unloaded())

    async def _read(self, connection: AbstractConnection) -> None:
        """Hand replies to who waits for them; also notice the end of an idle connection."""
        while True:
            reply = await receive(connection)
            if not self._written:
                raise ConnectionError("it said something that was not asked for")
            command = self._written.popleft()
            if isinstance(reply, NoScriptError) and command.script is not None and not command.is_spelled_out:
                command.is_spelled_out = True
                command.attempts -= 1
                self._unloaded.append(command)
            else:
                _settle(command, self._understood(reply))
            if not self._written:
                self._is_answered.set()

    def _take_unloaded(self) -> list[Command]:
        unloaded, self._unloaded = self._unloaded, []
        return unloaded

    def _understood(self, reply: Any) -> Any:
        if isinstance(reply, RedisError):
            return Rejected(f"Redis 拒绝了命令 / Redis refuses: {self._connector.describe(reply)}")
        return reply

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
            logger.warning("与 Redis 的连接中断 / the connection to Redis was lost: %s", reason)
        self.up.clear()
        self.tried.set()
        self.trouble = reason
        repeatable = self._take_unloaded()
        for command in self._written:
            if command.is_repeatable and command.attempts < _MOST_ATTEMPTS:
                repeatable.append(command)
            else:
                _settle(command, Unanswered(reason))
        self._written.clear()
        self._put_back(repeatable)

    def _give_up(self) -> None:
        self._patience = None
        self.gather()
        self._is_hopeless = True
        for command in self._queue:
            _settle(command, Unanswered(self.trouble) if command.attempts else Unsent(self.trouble))
        self._queue.clear()
        self._queued_bytes = 0


def _nothing() -> None:
    return None


def _settle(command: Command, reply: Any) -> None:
    try:
        command.on_reply(reply)
    except Exception:
        # The batch's other replies belong to others; they must not suffer.
        logger.exception("a listener failed on a reply of Redis")
