"""How a generator is told what to do: lines of JSON on standard input, each answered with one on standard output."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import uvloop

_LINE_BYTES_MAX = 64 * 1024 * 1024


class Orders:
    """The bench's side of the conversation."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    async def next(self) -> Any:
        """The next order, None once there will be none."""
        line = await self._reader.readline()
        return orjson.loads(line) if line else None

    async def sleep(self, seconds: float) -> None:
        """Until the time is over, or the next line, which then only says: enough."""
        try:
            async with asyncio.timeout(seconds):
                await self._reader.readline()
        except TimeoutError:
            return

    def answer(self, value: Any) -> None:
        sys.stdout.buffer.write(orjson.dumps(value) + b"\n")
        sys.stdout.buffer.flush()


def run(main: Callable[[Orders], Awaitable[None]]) -> None:
    """Run a generator until its last order."""

    async def start() -> None:
        reader = asyncio.StreamReader(limit=_LINE_BYTES_MAX)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
        await main(Orders(reader))

    uvloop.run(start())
