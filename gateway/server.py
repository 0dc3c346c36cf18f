"""uvicorn's server, with the gateway's protocols, its own end, and exit code 0 for an end that was asked for.

*Signals.* SIGTERM begins the drain, during which everything goes on being served; the server ends when that is over.
A SIGTERM or SIGINT after it ends the server in order, at once; one more drops everything. SIGINT alone never drains:
a person waits at the terminal. SIGHUP tells one of several workers that its supervisor is gone: it drains as well, and
leaves the port to a new one.

*The end.* The listener closes first, then `on_shutdown` runs while every connection still works,
then what is left is closed and the app's lifespan shut down. All of it together takes at most `close_seconds` and two
seconds more, whatever the peers, the hook or the app do; a second Ctrl-C ends it at once. uvicorn's own `shutdown`
does the same with pauses of 100 ms, but closes every WebSocket first and waits for peers that read nothing.
"""

import asyncio
import contextlib
import logging
import socket
from asyncio import Timeout
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from enum import IntEnum
from signal import SIGHUP, SIGINT, SIGTERM
from types import FrameType
from typing import Protocol

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import STARTUP_FAILURE

from gateway.intake import NEWCOMERS_SECONDS, TURN_SECONDS_MAX, TURNS_AT_ONCE, GatewayHttpProtocol
from gateway.intake import log as intake_log
from gateway.listening import BACKLOG, ListenError, listen
from gateway.pace import Pace
from gateway.rates import Turnstile
from gateway.refused import RefusalLog
from gateway.settings import Settings
from gateway.wire import GatewayWebSocketProtocol

LIFESPAN_SECONDS = 1
"""Of the two seconds beyond `close_seconds`, for the app's lifespan to say goodbye."""
TICK_SECONDS = 0.1
"""uvicorn's: it counts ten to the second, at which the Date header is renewed."""

log = logging.getLogger(__name__)

OnShutdown = Callable[[], Awaitable[None]]


class Drain(Protocol):
    """How the app gets rid of its connections in peace (`gateway.drain`)."""

    def begin(self, cause: str) -> None:
        """Begin, unless that has happened."""

    def follow(self, *, on_begin: Callable[[str], None], on_end: Callable[[], None]) -> None:
        """Be told when it begins, with the cause, and when it has ended by itself."""


@dataclass(frozen=True, slots=True)
class Company:
    """What goes along with the serving."""

    beside: AbstractAsyncContextManager[None] = field(default_factory=nullcontext)
    """Entered before the app's lifespan, and left when nothing else is left: the admin port."""
    on_started: Callable[[], None] = lambda: None
    """Called once connections are taken."""


class Rung(IntEnum):
    """How far signals have driven the server down."""

    SERVING = 0
    DRAINING = 1
    ENDING = 2
    FORCED = 3


def make_protocols(settings: Settings) -> tuple[type[GatewayHttpProtocol], type[GatewayWebSocketProtocol]]:
    """Return the classes for uvicorn's `http` and `ws`: it makes them itself, so the settings are in the class."""
    given = settings

    class Http(GatewayHttpProtocol):
        settings = given
        pace = Pace(NEWCOMERS_SECONDS)
        refusal_log = RefusalLog(intake_log)
        turnstile = Turnstile(
            given.tool_handshakes_per_second, at_once=TURNS_AT_ONCE, wait_seconds_max=TURN_SECONDS_MAX
        )

    class WebSocket(GatewayWebSocketProtocol):
        __slots__ = ()
        settings = given

    return Http, WebSocket


def make_config(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    """Return uvicorn's configuration, loaded, with every default that matters here set explicitly."""
    http, websocket = make_protocols(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=http,
        ws=websocket,
        lifespan="on",
        interface="asgi3",
        log_config=None,
        access_log=False,
        workers=1,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
    )
    config.load()
    config.loaded_app = app  # without uvicorn's tracer, which would print query strings, and so tokens
    return config


class GatewayServer(uvicorn.Server):
    """One worker's server. `run` for a process; `serve` inside a running loop, then with `takes_signals=False`."""

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        *,
        on_shutdown: OnShutdown,
        drain: Drain | None = None,
        company: Company | None = None,
        takes_signals: bool = True,
    ) -> None:
        super().__init__(make_config(app, settings))
        self._company = company or Company()
        self._drain = drain
        self._rung = Rung.SERVING
        self._given: list[socket.socket] = []
        self._close_seconds = settings.close_seconds
        self._on_shutdown = on_shutdown
        self._takes_signals = takes_signals
        self._stopping = asyncio.Event()
        self._bound: Timeout | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

        if drain is not None:
            drain.follow(on_begin=self._on_drain, on_end=self.stop)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        async with self._company.beside:
            await super().serve(sockets)

    def stop(self) -> None:
        """Begin the end at once, without a drain."""
        self.should_exit = True
        self._stopping.set()

    def _on_drain(self, cause: str) -> None:
        """Leave a port that is shared with other workers to them, when only this one goes: they take who comes."""
        if cause == SIGTERM.name or not self.started:
            return
        if self._is_port_shared():
            self._stop_listening()

    def _is_port_shared(self) -> bool:
        return any(sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) for sock in self._given)

    def _stop_listening(self) -> None:
        for server in self.servers:
            server.close()
        for given in self._given:
            given.close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._given = list(sockets or ())
        if self._drain is not None and self._takes_signals and self._is_port_shared():
            self._loop.add_signal_handler(SIGHUP, self._drain.begin, SIGHUP.name)
        await super().startup(sockets)
        if self.started:
            self._company.on_started()

    async def main_loop(self) -> None:
        ticks = 0
        try:
            while not await self.on_tick(ticks):
                ticks += 1
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TICK_SECONDS):
                        await self._stopping.wait()
        except BaseException:
            self._drop()  # cancelled, without a shutdown: uvloop waits for ever at its end for sockets left open
            raise

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        log.info("正在关闭 / shutting down", extra={"event": "server_stopping"})
        self._stop_listening()
        seconds = 0.0 if self.force_exit else self._close_seconds + LIFESPAN_SECONDS + 1
        try:
            async with asyncio.timeout(seconds) as self._bound:
                await self._call_hook()
                await self._close_connections()
                await self.lifespan.shutdown()
        except TimeoutError:
            log.warning("未能按时结束，强制退出 / did not end in time, forced", extra={"event": "stop_forced"})
        finally:
            self._bound = None
            self._drop()

    async def _call_hook(self) -> None:
        try:
            # The hook keeps to the same time by itself, and knows better how to end.
            async with asyncio.timeout(self._close_seconds + LIFESPAN_SECONDS / 2):
                await self._on_shutdown()
        except Exception:
            log.exception("关闭前的收尾出错 / the work before closing failed", extra={"event": "shutdown_failed"})

    async def _close_connections(self) -> None:
        """Close what the hook has left, and wait for the app's tasks; drop and cancel those that take too long."""
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        end = self._bound.when() if self._bound is not None else None
        assert end is not None
        try:
            async with asyncio.timeout_at(end - LIFESPAN_SECONDS):
                while state.connections or state.tasks:  # noqa: ASYNC110  # uvicorn's sets, which ring no bell
                    await asyncio.sleep(0.01)
        except TimeoutError:
            count = len(state.tasks)
            log.warning("%d 个任务被取消 / %d tasks are cancelled", count, count, extra={"event": "tasks_cancelled"})
            self._drop()
            for task in list(state.tasks):
                task.cancel()

    def _drop(self) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if not self._takes_signals:
            yield
            return
        with super().capture_signals():
            yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take one signal. uvicorn's own would raise it again at the end: death by signal, not exit code 0."""
        self._rung = self._next_rung(sig)
        if self._rung is Rung.DRAINING and self._drain is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._drain.begin, SIGTERM.name)
            return
        self.should_exit = True
        self.force_exit = self._rung is Rung.FORCED
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._wake)

    def _next_rung(self, sig: int) -> Rung:
        match self._rung:
            case Rung.SERVING if sig == SIGTERM and self._drain is not None and self.started and not self.should_exit:
                return Rung.DRAINING
            case Rung.SERVING | Rung.DRAINING:
                return Rung.ENDING
            case _ if sig == SIGINT or self._drain is not None:
                return Rung.FORCED
            case rung:
                return rung

    def _wake(self) -> None:
        self._stopping.set()
        if self.force_exit and self._bound is not None and not self._bound.expired():
            self._bound.reschedule(0.0)


def serve(
    app: ASGIApp,
    settings: Settings,
    *,
    on_shutdown: OnShutdown,
    drain: Drain | None = None,
    sockets: list[socket.socket] | None = None,
    company: Company | None = None,
) -> int:
    """Serve until a signal or the end of a drain; return the exit code: 0 after such an end, 3 if the start failed.

    `sockets` are bound already, by a supervisor that shares the port between workers.
    """
    server = GatewayServer(app, settings, on_shutdown=on_shutdown, drain=drain, company=company)
    try:
        sockets = sockets or [listen(settings.host, settings.port)]
        server.run(sockets=sockets)
    except ListenError as trouble:
        log.error("%s", trouble, extra={"event": "listen_failed"})
        return STARTUP_FAILURE
    except SystemExit:
        return STARTUP_FAILURE  # the lifespan failed to start; uvicorn has logged why
    except KeyboardInterrupt:
        return 0  # Ctrl-C before the server took the signals
    finally:
        for sock in sockets or ():
            sock.close()
    return 0
