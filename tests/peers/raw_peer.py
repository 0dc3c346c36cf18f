"""What the tool servers that are played byte by byte have in common: a socket, and a task that reads it."""

import asyncio

from tests.peers.raw import CLOSE, PING, PONG, RawFrame, RawSocket
from tests.peers.wire import Message


class RawPeer:
    """Answers WebSocket pings and hands every other frame on, until the socket ends."""

    def __init__(self, url: str) -> None:
        self.raw = RawSocket(url, seconds=30)
        self.calls: list[Message] = []
        self._task: asyncio.Task[None] | None = None

    async def close(self) -> None:
        await self.raw.close()
        if self._task is not None:
            await self._task

    def _begin(self, name: str) -> None:
        """Read from now on."""
        self._task = asyncio.get_running_loop().create_task(self._serve(), name=name)

    async def _serve(self) -> None:
        try:
            while (frame := await self.raw.read_frame()).opcode != CLOSE and self._can_read(frame):
                if frame.opcode == PING:
                    await self.raw.send_frame(PONG, frame.payload)
                else:
                    await self._on_frame(frame)
        except (asyncio.IncompleteReadError, ConnectionError):
            return

    def _can_read(self, frame: RawFrame) -> bool:
        """Whether the peer gets over this frame at all; it stops reading where it does not."""
        return True

    async def _on_frame(self, frame: RawFrame) -> None:
        raise NotImplementedError
