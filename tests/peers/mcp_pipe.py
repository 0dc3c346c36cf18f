"""The official bridge, 78/mcp-calculator `mcp_pipe.py`, and its many copies, as a tool server that redials.

One frame per line that the child prints, trailing newline included; whatever else the child prints becomes a frame
too; the child is started only after the connection stands; every close doubles the wait, and nothing resets it.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson

from tests.peers.tool_server import ToolServer
from tests.peers.tools import Tool
from tests.peers.wire import Message

INITIAL_BACKOFF_SECONDS = 1.0
MAX_BACKOFF_SECONDS = 600.0


class McpPipe(ToolServer):
    """One socket of the bridge and the child behind it.

    `banner` are the lines that the child prints first; `child_start_seconds` is how long it takes to come up.
    `waits` lists the seconds the bridge has waited before each redial so far (times `time_scale`, to keep tests short).
    """

    def __init__(
        self,
        url: str,
        *,
        name: str = "Calculator",
        tools: Sequence[Tool] = (),
        banner: Sequence[str] = (),
        child_start_seconds: float = 0.0,
        time_scale: float = 0.01,
        **options: Any,
    ) -> None:
        super().__init__(url, name=name, tools=tools, **{"max_size": 1024 * 1024, **options})
        self.banner = banner
        self.child_start_seconds = child_start_seconds
        self.time_scale = time_scale
        self.waits: list[float] = []
        self.is_child_alive = False
        self._unread: list[Message] = []
        self._backoff_seconds = INITIAL_BACKOFF_SECONDS

    async def on_open(self) -> None:
        await asyncio.sleep(self.child_start_seconds)
        self.is_child_alive = True
        for line in self.banner:
            await self.send_frame(line + "\n")
        unread, self._unread = self._unread, []
        for message in unread:
            await super().on_message(message)

    async def on_message(self, message: Message) -> None:
        if self.is_child_alive:
            await super().on_message(message)
        else:
            self._unread.append(message)

    async def send(self, message: Any) -> None:
        """A line of the child, with the newline that `readline` leaves on it."""
        await self.send_frame(orjson.dumps(message).decode() + "\n")

    def kill_child(self) -> None:
        """The child dies; the bridge keeps its socket and notices nothing."""
        self.is_child_alive = False

    async def redial(self) -> None:
        """Wait as the bridge waits after any close, then dial again."""
        assert self.closed is not None, "the bridge redials only when it has been closed"
        self._backoff_seconds = min(self._backoff_seconds * 2, MAX_BACKOFF_SECONDS)
        self.waits.append(self._backoff_seconds)
        await asyncio.sleep(self._backoff_seconds * self.time_scale)
        self.closed = None
        await self.open()
