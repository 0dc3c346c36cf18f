"""A tool server that comes back: as soon as its connection ends it dials again, wherever a place is offered."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

from websockets.exceptions import InvalidHandshake

from tests.peers.tool_server import ToolServer


class Redialler(ToolServer):
    """`where` gives the URL of each dial. Between dials it waits a random time up to `wait_seconds`, as bridges do."""

    def __init__(self, where: Callable[[], str], *, wait_seconds: float = 0.3, **options: Any) -> None:
        super().__init__(where(), **options)
        self.where = where
        self.wait_seconds = wait_seconds
        self.codes: list[int] = []
        """The close code of each connection that has ended."""
        self.refusals = 0
        self.is_at_home = False
        """Set when it shall not dial any more."""

    async def on_close(self) -> None:
        assert self.closed is not None
        self.codes.append(self.closed.code)
        while not self.is_at_home:
            await asyncio.sleep(self.wait_seconds * random.uniform(0.2, 1.0))
            self.url = self.where()
            try:
                await self.open()
            except (OSError, InvalidHandshake):
                self.refusals += 1
            else:
                self.closed = None
                return

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self.is_at_home = True
        await super().close(code, reason)
