"""One WebSocket of a test, and everything that arrived on it, in order."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Self

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from tests.support.waiting import wait_until

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SeenFrame:
    """A frame as the wire carried it: what a library that joins fragments and decodes text no longer shows."""

    opcode: Opcode
    is_final: bool
    bytes: int


class TappedConnection(ClientConnection):
    """A client connection that notes every frame before the library digests it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen: list[SeenFrame] = []

    def process_event(self, event: Any) -> None:
        if isinstance(event, Frame):
            self.seen.append(SeenFrame(event.opcode, event.fin, len(event.data)))
        super().process_event(event)


@dataclass(frozen=True, slots=True)
class Closed:
    """How the connection ended, as this side saw it. 1006: without a closing handshake."""

    code: int
    reason: str


class Peer:
    """One WebSocket. `frames` holds what arrived as it was, `messages` the same parsed; both only grow.

    The defaults are those of the `websockets` library, which most real peers use: 1 MiB per message, a ping every
    20 s, compression offered, no sub-protocol. Options of `websockets.connect` may be given by name.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self.url = url
        self.options = options
        self.frames: list[str | bytes] = []
        self.messages: list[Message] = []
        self.closed: Closed | None = None
        self._failure: Exception | None = None
        self._socket: TappedConnection | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def socket(self) -> TappedConnection:
        assert self._socket is not None, "the peer has not dialled yet"
        return self._socket

    @property
    def is_open(self) -> bool:
        return self._socket is not None and self.closed is None

    @property
    def seen(self) -> list[SeenFrame]:
        """Every frame on the wire so far, pings included."""
        return self.socket.seen

    @property
    def response_headers(self) -> dict[str, str]:
        response = self.socket.response
        assert response is not None
        return {name.lower(): value for name, value in response.headers.raw_items()}

    async def open(self) -> Self:
        """Dial. Raises what `websockets.connect` raises: InvalidStatus for a refusal before the upgrade."""
        socket = await connect(self.url, proxy=None, create_connection=TappedConnection, **self.options)
        assert isinstance(socket, TappedConnection)
        self._socket = socket
        loop = asyncio.get_running_loop()
        self._reader = loop.create_task(self._read(socket), name=f"reader of {type(self).__name__}")
        await self.on_open()
        return self

    async def on_open(self) -> None:
        """What the peer does right after the upgrade."""

    async def on_message(self, message: Message) -> None:
        """What the peer does with a message, in the order of arrival."""

    async def on_close(self) -> None:
        """What the peer does once the connection has ended."""

    async def _read(self, socket: TappedConnection) -> None:
        try:
            async for frame in socket:
                await self._take(frame)
        except ConnectionClosed:
            pass
        except Exception as failure:  # noqa: BLE001 - told to the test when it closes the peer
            self._failure = failure
        self.closed = Closed(socket.close_code or 1006, socket.close_reason or "")
        await self.on_close()

    async def _take(self, frame: str | bytes) -> None:
        self.frames.append(frame)
        message = orjson.loads(frame)
        self.messages.append(message)
        await self.on_message(message)

    async def send(self, message: Any) -> None:
        """Send a value as compact JSON in one text frame."""
        await self.socket.send(orjson.dumps(message).decode())

    async def send_frame(self, frame: str | bytes) -> None:
        """Send a frame as it is: text for str, binary for bytes."""
        await self.socket.send(frame)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Leave with a closing handshake. Raises what went wrong in the peer's own reader, if anything did."""
        if self._socket is not None:
            await self._socket.close(code, reason)
        if self._reader is not None:
            await self._reader
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    async def vanish(self) -> None:
        """Break the TCP connection, as a killed process does."""
        self.socket.transport.abort()
        await self.until(lambda: self.closed is not None, "the aborted connection is noticed by its own side")

    def freeze(self) -> None:
        """Stop reading for good, as a machine that has lost its network does: no answer, no pong, no close."""
        self.socket.transport.pause_reading()

    def thaw(self) -> None:
        """Read again, so that the connection can be ended."""
        if not self.socket.transport.is_closing():
            self.socket.transport.resume_reading()

    async def until(self, predicate: Callable[[], bool], description: str, seconds: float = 5) -> None:
        """Wait until something is true, and fail with the description if it does not become so."""
        await wait_until(predicate, description, seconds)

    async def until_async(
        self, predicate: Callable[[], Awaitable[bool]], describe: Callable[[], str], seconds: float = 5
    ) -> None:
        """Ask again and again until the answer is yes; fails with the description of that moment."""
        try:
            async with asyncio.timeout(seconds):
                while not await predicate():
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"not within {seconds:g} s: {describe()}") from None

    async def until_closed(self, seconds: float = 5) -> Closed:
        """Wait for the end of the connection and return how it ended."""
        await self.until(lambda: self.closed is not None, f"the connection of {type(self).__name__} ends", seconds)
        assert self.closed is not None
        return self.closed

    def received(self, method: str) -> list[Message]:
        """All messages of this method so far."""
        return [message for message in self.messages if isinstance(message, dict) and message.get("method") == method]

    async def until_received(self, method: str, count: int = 1, seconds: float = 5) -> Message:
        """Wait until `count` messages of the method have come, and return the last of these."""
        await self.until(lambda: len(self.received(method)) >= count, f"{method} arrives ({count}×)", seconds)
        return self.received(method)[count - 1]


def same_id(one: Any, other: Any) -> bool:
    """Ids are equal only with their type: `1`, `"1"`, `1.0` and `true` are four."""
    return type(one) is type(other) and bool(one == other)
