"""What robots and tool servers have in common: they dial again, and they take orders from the run."""

import asyncio
import os
import random
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import orjson
import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from tests.chaos.logbook import Pen
from tests.chaos.plan import Plan
from tests.chaos.processes import Pipe

OPEN_SECONDS = 5.0
FRAME_BYTES = 16 * 1024 * 1024

Message = dict[str, Any]
Handler = Callable[..., Awaitable[Any]]


class Redialler:
    """A peer that dials again for ever, the next worker if one does not take it."""

    def __init__(self, plan: Plan, pen: Pen, home: int, *, stays: bool = False) -> None:
        self.plan, self.pen = plan, pen
        self.home = self.slot = home
        self.stays = stays
        """Dials no other worker than that of its home."""
        self.socket: ClientConnection | None = None
        self.is_ready = False
        self.is_leaving = False
        self._next: int | None = None
        """Where it was told to dial next."""

    @property
    @abstractmethod
    def url(self) -> str: ...

    @abstractmethod
    async def talk(self, socket: ClientConnection) -> None:
        """The whole conversation of one connection, until it ends."""

    async def run(self) -> None:
        """Come and come again, until told to leave."""
        while not self.is_leaving:
            with suppress(OSError, WebSocketException, TimeoutError, EOFError):
                await self._connect_and_talk()
            elsewhere = self.home if self.stays else (self.slot + 1) % self.plan.slots
            self.slot, self._next = elsewhere if self._next is None else self._next, None
            await asyncio.sleep(random.uniform(*self.plan.redial_seconds))

    async def _connect_and_talk(self) -> None:
        ping_seconds = self.plan.ping_seconds
        socket = await connect(
            self.url,
            proxy=None,
            compression=None,
            open_timeout=OPEN_SECONDS,
            close_timeout=0.5,
            ping_interval=ping_seconds,
            ping_timeout=ping_seconds,
            max_size=FRAME_BYTES,
        )
        self.socket = socket
        self.pen.note("joined", peer=repr(self), slot=self.slot)
        try:
            if self._next is None:
                await self.talk(socket)
        finally:
            self.pen.note("left", peer=repr(self), slot=self.slot, code=socket.close_code)
            self.is_ready, self.socket = False, None
            socket.transport.abort()

    async def go_home(self) -> None:
        """Be connected to the worker of its home, by a new connection if need be."""
        if self.slot != self.home:
            await self.hang_up()

    async def hang_up(self) -> None:
        """End the connection in order; the next one is to the worker of its home."""
        self._next = self.home
        if self.socket is not None:
            with suppress(OSError, WebSocketException):
                await self.socket.close()

    def drop(self) -> None:
        """End the connection without a word; the next one is to any worker."""
        self._next = random.randrange(self.plan.slots)
        if self.socket is not None:
            self.socket.transport.abort()

    async def leave(self) -> None:
        self.is_leaving = True
        await self.hang_up()


async def send(socket: ClientConnection, message: Message) -> None:
    await socket.send(orjson.dumps(message).decode())


async def until(predicate: Callable[[], bool], seconds: float) -> bool:
    """Whether it became true in time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not predicate():
                await asyncio.sleep(0.02)
            return True
    return predicate()


class Orders:
    """The pipe to the run: each order is done in a task of its own and replied to. The pipe's end is the process's."""

    def __init__(self, pipe: Pipe, tasks: asyncio.TaskGroup, handlers: Mapping[str, Handler]) -> None:
        self._pipe, self._tasks, self._handlers = pipe, tasks, handlers
        asyncio.get_running_loop().add_reader(pipe.fileno(), self._on_readable)

    def _on_readable(self) -> None:
        try:
            while self._pipe.poll():
                self._tasks.create_task(self._carry_out(**self._pipe.recv()))
        except (EOFError, OSError):
            os._exit(0)

    async def _carry_out(self, ticket: int, do: str, **fields: Any) -> None:
        self._pipe.send((ticket, await self._handlers[do](**fields)))


def run(main: Awaitable[None]) -> None:
    """Run a process of peers on the loop that the gateway runs on."""

    async def whole() -> None:
        await main

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(whole())
