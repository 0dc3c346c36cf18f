"""A tiny app behind the gateway's own server, in the loop of the test: what the wire does is seen from both ends.

HTTP is Starlette's; for WebSockets the app is a gate and a hall, as `gateway.intake` asks for them.
"""

import asyncio
import contextlib
import dataclasses
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from gateway.connection import OnEnd, Wire
from gateway.errors import RESTART_REASON
from gateway.refused import Refused
from gateway.server import GatewayServer
from gateway.settings import Settings
from gateway.wire import GatewayWebSocketProtocol
from tests.peers.raw import TEXT, RawSocket, masked_frame
from tests.support.waiting import wait_until

BASE = Settings(host="127.0.0.1", port=0, close_seconds=0.3, header_seconds=5)
BIG_BYTES = 16 * 1024 * 1024
EAGER_BYTES = 128 * 1024


@dataclass
class Session:
    """One WebSocket as the app holds it."""

    wire: Wire
    frames: list[bytes] = field(default_factory=list)
    ended: tuple[int, str] | None = None

    async def until_ended(self) -> tuple[int, str]:
        """Wait until the app has been told of the end; return what it was told."""
        await wait_until(lambda: self.ended is not None, "the app is told of the end")
        assert self.ended is not None
        return self.ended


class LittleApp:
    """Routes by name of what the app does there; the newest session is last."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.sessions: list[Session] = []
        self.released = asyncio.Event()
        self.early = masked_frame(TEXT, b"x" * EAGER_BYTES)
        """What peers of `/eager` have sent by the time they are let in."""
        self.hook: Callable[[], Any] = self.close_all
        self._receivers: dict[str, Callable[[Session], None]] = {
            "/echo": self.echo,
            "/eager": self.eager,
            "/boom": self.boom,
            "/crash": self.crash,
            "/sore": self.sore,
        }
        routes = [
            Route("/health", self.health, methods=["GET", "POST"]),
            Route("/hang", self.hang, methods=["GET", "POST"]),
            Route("/big", self.big),
        ]
        self.asgi = Starlette(routes=routes, lifespan=self._lifespan)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[dict[str, Any]]:
        yield {"gate": self, "hall": self}

    # The gate

    def examine(self, target: bytes, headers: Sequence[tuple[bytes, bytes]], peer: str) -> str:
        path = target.partition(b"?")[0].decode()
        if path == "/refuse":
            raise Refused(401, "bad_token", "no")
        if path not in self._receivers:
            raise Refused(404, "not_found", "Not Found")
        return path

    def queues(self, visit: str) -> bool:
        return False

    def queue(self, visit: str) -> None:
        raise NotImplementedError

    def unqueue(self, visit: str) -> None:
        raise NotImplementedError

    def enter(self, visit: str, *, has_waited: bool) -> None:
        """Let everybody in."""

    def note_refused(self, visit: str, refused: Refused) -> None:
        """Nobody is told."""

    # The hall

    def receive(self, visit: str, wire: Wire) -> OnEnd:
        session = Session(wire)
        self._receivers[visit](session)
        self.sessions.append(session)

        def on_end(code: int, reason: str) -> None:
            session.ended = code, reason
            if visit == "/sore":
                raise ValueError("sore")

        return on_end

    def echo(self, session: Session) -> None:
        def answer(frame: bytes) -> None:
            session.frames.append(frame)
            session.wire.send(frame)

        session.wire.attach(answer, max_bytes=self.settings.frame_bytes)

    def eager(self, session: Session) -> None:
        """As if the peer's first packet came before the loop's next turn after attach, which it can."""
        session.wire.attach(session.frames.append, max_bytes=self.settings.frame_bytes)
        cast(GatewayWebSocketProtocol, session.wire).data_received(self.early)

    def boom(self, session: Session) -> None:
        def fail(frame: bytes) -> None:
            raise ValueError("boom")

        session.wire.attach(fail, max_bytes=self.settings.frame_bytes)

    def crash(self, session: Session) -> None:
        raise ValueError("crash")

    def sore(self, session: Session) -> None:
        session.wire.attach(session.frames.append, max_bytes=self.settings.frame_bytes)

    # HTTP

    async def health(self, request: Request) -> Response:
        return PlainTextResponse("ok")

    async def hang(self, request: Request) -> Response:
        await self.released.wait()
        return PlainTextResponse("late")

    async def big(self, request: Request) -> Response:
        return PlainTextResponse(b"x" * BIG_BYTES)

    async def close_all(self) -> None:
        for session in self.sessions:
            session.wire.close(1012, RESTART_REASON)


class Site(LittleApp):
    """The app and its server, running."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.server = GatewayServer(self.asgi, settings, on_shutdown=self._call_hook, takes_signals=False)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]

    async def _call_hook(self) -> None:
        await self.hook()

    def url(self, path: str) -> str:
        return f"ws://127.0.0.1:{self.port}{path}"

    @property
    def sockets(self) -> int:
        """How many sockets the server holds."""
        return len(self.server.server_state.connections)

    async def until_empty(self) -> None:
        await wait_until(lambda: self.sockets == 0, "the server holds no socket")

    async def raw(self, path: str = "/echo", **options: Any) -> tuple[RawSocket, Session]:
        """A raw peer after its handshake, and the app's side of it."""
        count = len(self.sessions)
        peer = await RawSocket(self.url(path), **options).open()
        await wait_until(lambda: len(self.sessions) > count, "the app has the session")
        return peer, self.sessions[-1]

    async def stalled(self, path: str = "/echo") -> tuple[socket.socket, Session]:
        """A peer after its handshake that reads nothing more and has small buffers."""
        count = len(self.sessions)
        peer = socket.socket()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.setblocking(False)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(5):
            await loop.sock_connect(peer, ("127.0.0.1", self.port))
            await loop.sock_sendall(peer, handshake(path))
            await loop.sock_recv(peer, 65536)
        await wait_until(lambda: len(self.sessions) > count, "the app has the session")
        return peer, self.sessions[-1]

    async def ask(self, request: bytes) -> bytes:
        """Send bytes as they are; return everything that comes back until the server closes, nothing if it resets."""
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(request)
            try:
                return await reader.read()
            except ConnectionResetError:
                return b""
            finally:
                writer.close()


def handshake(path: str = "/echo", *lines: str) -> bytes:
    """A WebSocket handshake as a client sends it."""
    fixed = ("Host: gateway", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    return "\r\n".join([f"GET {path} HTTP/1.1", *fixed, key, *lines, "", ""]).encode()


@contextlib.asynccontextmanager
async def running(**changes: Any) -> AsyncGenerator[Site]:
    """A site with changed settings, gone at the end."""
    site = Site(dataclasses.replace(BASE, **changes))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(site.server.serve([site.socket]), name="server")
        await wait_until(lambda: site.server.started, "the server has started")
        try:
            yield site
        finally:
            # Here, not by the group: cancelled in the middle, the server would leave its sockets open.
            site.released.set()
            site.server.stop()
            await wait_until(task.done, "the server has ended")
