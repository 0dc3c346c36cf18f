"""A TCP proxy that plays a bad network: slow, torn, cut, deaf on one side; switchable while it runs, from any thread.

Theory of operation
-------------------
Each connection has two directions, `up` (to the server) and `down` (to the client). A direction is read, held in a
bounded queue with the moment at which it may go on, and written: so delays keep the order of bytes, and whoever sends
too much is held back as by a real network. What a direction does is asked at each piece, so a switch works at once,
also for connections that are open.

TCP never has a hole in it. A connection that has lost bytes (`is_swallowing`) is therefore reset when it would speak
again after the fault has ended, as by a router that has forgotten it; one that was only held (`is_holding`) goes on as
after a retransmission.

In an event loop: `async with Toxics(host, port) as toxics`; beside programs without one, in a thread of its own:
`with Toxics(host, port) as toxics`. `toxics.port` is where to dial instead.
"""

import asyncio
import random
import socket
import ssl
import struct
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal, Self

from tests.support.ports import own_port

_PIECE_BYTES = 65536
_PIECES_HELD = 256
_BACKLOG = 1024
_BOUND_SECONDS = 10.0
_POLL_SECONDS = 0.01
_TLS_HANDSHAKE = b"\x16"
_NO_LINGER = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

Doors = Literal["open", "blackhole", "refuse"]


@dataclass(slots=True)
class Direction:
    """What happens to bytes that go one way. Everything off is a plain wire."""

    latency_ms: float = 0.0
    jitter_ms: float = 0.0
    """As much again, by chance; the order stays."""
    is_swallowing: bool = False
    """Bytes are taken and forgotten, and so are endings; nothing is closed."""
    is_holding: bool = False
    """Bytes and endings wait until this is off again."""
    slice_bytes: int = 0
    """Bytes come in pieces of this size …"""
    slice_pause_ms: float = 1.0
    """… with a pause after each."""
    bytes_per_second: float = 0.0
    limit_bytes: int = 0
    """After so many bytes, a connection is reset."""

    def clear(self) -> None:
        """Be a plain wire again."""
        for name, usual in _USUAL.items():
            setattr(self, name, usual)


_USUAL = {name: getattr(Direction(), name) for name in Direction.__slots__}


@dataclass(slots=True, eq=False)
class _Flow:
    """One direction of one connection."""

    rules: Direction
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    pieces: asyncio.Queue[tuple[float, bytes]] = field(default_factory=lambda: asyncio.Queue(_PIECES_HELD))
    passed_bytes: int = 0
    has_hole: bool = False
    is_dead: bool = False
    """Nothing gets through any more, whatever the rules say."""
    due: float = 0.0

    async def take(self) -> None:
        """Read until the end, which is queued as an empty piece. Raises OSError on a reset that is to be passed on."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                data = await self.reader.read(_PIECE_BYTES)
            except OSError:
                await self._until_heard()
                raise
            if self.is_silent:
                self.has_hole = True
                if not data:
                    await self._until_heard()
                    raise ConnectionResetError
                continue
            if self.has_hole:
                raise ConnectionResetError
            delay_ms = self.rules.latency_ms + random.uniform(0, self.rules.jitter_ms)
            self.due = max(self.due, loop.time() + delay_ms / 1000)
            await self.pieces.put((self.due, data))
            if not data:
                return

    @property
    def is_silent(self) -> bool:
        return self.is_dead or self.rules.is_swallowing

    async def _until_heard(self) -> None:
        """An ending came in: wait while nothing may be said of it."""
        while self.is_silent:
            await asyncio.sleep(_POLL_SECONDS)

    async def give(self) -> None:
        """Write what was taken, each piece when its time has come, and then the end."""
        loop = asyncio.get_running_loop()
        while True:
            due, data = await self.pieces.get()
            if (left := due - loop.time()) > 0:
                await asyncio.sleep(left)
            while self.rules.is_holding:
                await asyncio.sleep(_POLL_SECONDS)
            if not data:
                self._end()
                return
            await self._write(data)

    def _end(self) -> None:
        if self.writer.is_closing():
            return  # reset meanwhile
        if self.writer.can_write_eof():
            self.writer.write_eof()
        else:
            self.writer.close()

    async def _write(self, data: bytes) -> None:
        size = self.rules.slice_bytes or len(data)
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            if self.rules.limit_bytes and self.passed_bytes + len(piece) > self.rules.limit_bytes:
                raise ConnectionResetError
            if self.writer.is_closing():
                raise ConnectionResetError
            self.passed_bytes += len(piece)
            self.writer.write(piece)
            await self.writer.drain()
            pause = self.rules.slice_pause_ms / 1000 if self.rules.slice_bytes else 0.0
            if self.rules.bytes_per_second:
                pause += len(piece) / self.rules.bytes_per_second
            if pause:
                await asyncio.sleep(pause)


class Toxics:
    """A proxy before one address. With `tls`, clients that begin with a TLS handshake are served, beside plain ones."""

    def __init__(self, target_host: str, target_port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self.target = (target_host, target_port)
        self.up = Direction()
        self.down = Direction()
        self._tls = tls
        self._doors: Doors = "open"
        # Holds the port while nobody listens on it, so that opening again needs no luck.
        self.port = own_port()
        self._guard = _bound(self.port)
        self._listener: socket.socket | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._flows: set[tuple[_Flow, _Flow]] = set()
        self._left_alone: list[socket.socket] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._is_over: asyncio.Event | None = None
        self._stack = AsyncExitStack()
        self._thread: threading.Thread | None = None
        self._is_started = threading.Event()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """How many clients are connected through it."""
        return len(self._open) // 2

    # -- faults, from any thread; each has happened when the call returns

    def reset(self) -> None:
        """End every open connection with a RST, to both sides."""
        self._in_loop(self._reset)

    def swallow(self, *, up: bool = True, down: bool = True) -> None:
        """Half-open: nothing gets through this way any more, and nothing is closed."""
        self.up.is_swallowing, self.down.is_swallowing = up, down

    def deaden(self, *, up: bool = True, down: bool = True) -> None:
        """As `swallow`, for the connections that are open now and for good: a dead one beside new ones that work."""
        self._in_loop(self._deaden, up, down)

    def hold(self, *, up: bool = True, down: bool = True) -> None:
        """As a link that is down: nothing gets through now, everything later."""
        self.up.is_holding, self.down.is_holding = up, down

    def delay(self, latency_ms: float, jitter_ms: float = 0.0) -> None:
        """Both ways are slow."""
        for direction in (self.up, self.down):
            direction.latency_ms, direction.jitter_ms = latency_ms, jitter_ms

    def slice(self, size_bytes: int, pause_ms: float = 1.0) -> None:
        """Both ways in small pieces."""
        for direction in (self.up, self.down):
            direction.slice_bytes, direction.slice_pause_ms = size_bytes, pause_ms

    def refuse(self) -> None:
        """Nobody listens: new connections are refused. Open ones stay."""
        self._in_loop(self._set_doors, "refuse")

    def blackhole(self) -> None:
        """New connections are accepted and never served. Open ones stay."""
        self._in_loop(self._set_doors, "blackhole")

    def heal(self) -> None:
        """A plain wire again. Connections that were left alone are reset, so that their clients dial again."""
        self.up.clear()
        self.down.clear()
        self._in_loop(self._set_doors, "open")

    # -- life

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._running())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(
            target=asyncio.run, args=(self._run(),), name=f"toxics {self.port}", daemon=True
        )
        self._thread.start()
        if not self._is_started.wait(_BOUND_SECONDS):
            raise RuntimeError("the proxy does not start")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._is_over is not None
        assert self._thread is not None
        self._in_loop(self._is_over.set)
        self._thread.join(_BOUND_SECONDS)

    async def _run(self) -> None:
        is_over = self._is_over = asyncio.Event()
        async with self._running():
            self._is_started.set()
            await is_over.wait()

    @asynccontextmanager
    async def _running(self) -> AsyncGenerator[None, None]:
        self._loop = asyncio.get_running_loop()
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._set_doors("open")
                try:
                    yield
                finally:
                    self._set_doors("refuse")
                    for connection in self._connections:
                        connection.cancel()
        finally:
            self._loop = None
            self._guard.close()

    def _in_loop(self, action: Callable[..., None], *arguments: object) -> None:
        loop = self._loop
        if loop is None:
            return
        if self._thread is None or threading.current_thread() is self._thread:
            action(*arguments)
            return
        is_done = threading.Event()

        def act() -> None:
            action(*arguments)
            is_done.set()

        with suppress(RuntimeError):  # it has ended meanwhile
            loop.call_soon_threadsafe(act)
            is_done.wait(_BOUND_SECONDS)

    # -- in the loop

    def _set_doors(self, doors: Doors) -> None:
        assert self._loop is not None
        self._doors = doors
        if doors == "refuse" and self._listener is not None:
            self._loop.remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None
        if doors != "refuse" and self._listener is None:
            self._listener = _bound(self.port)
            self._listener.listen(_BACKLOG)
            self._loop.add_reader(self._listener.fileno(), self._arrived)
        if doors != "blackhole":
            for peer in self._left_alone:
                _close_hard(peer)
            self._left_alone.clear()

    def _arrived(self) -> None:
        assert self._listener is not None
        assert self._tasks is not None
        with suppress(BlockingIOError, ConnectionError):
            peer, _ = self._listener.accept()
            peer.setblocking(False)
            if self._doors == "blackhole":
                self._left_alone.append(peer)
                return
            connection = self._tasks.create_task(self._serve(peer))
            self._connections.add(connection)
            connection.add_done_callback(self._connections.discard)

    async def _serve(self, peer: socket.socket) -> None:
        writers: list[asyncio.StreamWriter] = []
        try:
            of_client, to_client = await self._welcome(peer)
            writers.append(to_client)
            of_server, to_server = await asyncio.open_connection(*self.target)
            writers.append(to_server)
            self._open.update(writers)
            flows = (_Flow(self.up, of_client, to_server), _Flow(self.down, of_server, to_client))
            self._flows.add(flows)
            async with asyncio.TaskGroup() as tasks:
                for flow in flows:
                    tasks.create_task(flow.take())
                    tasks.create_task(flow.give())
            for writer in writers:
                writer.close()
        except* OSError:
            for writer in writers:
                _abort(writer)
        finally:
            self._open.difference_update(writers)
            self._flows = {flows for flows in self._flows if flows[0].writer not in writers}
            for writer in writers:
                writer.transport.abort()
            peer.close()

    async def _welcome(self, peer: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        tls = self._tls if self._tls is not None and await _first_byte(peer) == _TLS_HANDSHAKE else None
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, peer, ssl=tls)
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    def _deaden(self, up: bool, down: bool) -> None:
        for upwards, downwards in self._flows:
            upwards.is_dead |= up
            downwards.is_dead |= down

    def _reset(self) -> None:
        for writer in list(self._open):
            _abort(writer)


async def _first_byte(peer: socket.socket) -> bytes:
    """What the client says first, left in the socket."""
    loop = asyncio.get_running_loop()
    is_readable = asyncio.Event()
    loop.add_reader(peer.fileno(), is_readable.set)
    try:
        await is_readable.wait()
    finally:
        loop.remove_reader(peer.fileno())
    return peer.recv(1, socket.MSG_PEEK)


def _bound(port: int) -> socket.socket:
    """A socket on that port of 127.0.0.1, beside others of this module."""
    made = socket.socket()
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    return made


def _abort(writer: asyncio.StreamWriter) -> None:
    """RST instead of FIN."""
    with suppress(OSError, TypeError, AttributeError):  # the socket is None once it is closed
        writer.get_extra_info("socket").setsockopt(*_NO_LINGER)
    writer.transport.abort()


def _close_hard(peer: socket.socket) -> None:
    with suppress(OSError):
        peer.setsockopt(*_NO_LINGER)
    peer.close()
