"""The admin port: /livez, /readyz, /metrics and /drain on a listener of its own.

Theory of operation
-------------------
It is there before the worker is ready, so that a probe hears why, and until the very end of a drain. It shares the
event loop with the calls, so nothing that happens on it may cost much: at most `ACCEPTS_PER_SECOND` connections are
taken from the kernel's queue, whatever knocks; each has one request, with little time to send it and to read its
answer. Under a flood probes may go without an answer here, but never a call.

What the port speaks for is a `gateway.probes.Instance`: one worker, or all workers of a supervisor.
"""

import asyncio
import dataclasses
import logging
import math
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.server import ServerState

from gateway import listening
from gateway.auth import is_bearer
from gateway.intake import NEWCOMERS_SECONDS, GatewayHttpProtocol
from gateway.listening import listen
from gateway.meters import Meters
from gateway.pace import Pace
from gateway.probes import Instance, Said
from gateway.rates import Turnstile
from gateway.refused import RefusalLog
from gateway.settings import Settings
from gateway.tasks import Tasks

logger = logging.getLogger(__name__)

ACCEPTS_PER_SECOND = 20
"""Two scrapers and the probes of an orchestrator ask once a second together. The dearest answer takes
some 5 ms of the event loop, and 20 ms with ten thousand connections."""
ACCEPTS_AT_ONCE = 20
BACKLOG = 64
RETRY_SECONDS = 5
FAILED_ACCEPT_SECONDS = 1.0
LAST_ANSWERS_SECONDS = 1.0
_BOUNDS = {"header_seconds": 3.0, "header_bytes": 8 * 1024, "pong_seconds": 5.0, "close_seconds": 1.0}
"""What a connection here is given at most; the settings of the same name are those of the public port."""


@asynccontextmanager
async def serving(instance: Instance, settings: Settings) -> AsyncGenerator[None]:
    """Serve the admin port inside this block. Raises `ListenError` if that can't be listened on."""
    host = settings.admin_host or settings.host
    sock = listen(host, settings.admin_port, backlog=BACKLOG, named=listening.ADMIN)
    sock.setblocking(False)
    state = ServerState()
    make_protocol = _protocols(_make_app(instance, settings), settings, state)
    try:
        async with Tasks() as tasks:
            tasks.spawn(_accept(sock, make_protocol), "admin port")
            yield
    finally:
        sock.close()
        await _end(state)


async def _end(state: ServerState) -> None:
    """Let the answers go out that are on their way, such as to who has asked for this very end; drop the rest."""
    for connection in list(state.connections):
        connection.shutdown()
    try:
        async with asyncio.timeout(LAST_ANSWERS_SECONDS):
            while state.connections:  # noqa: ASYNC110  # uvicorn's set, which rings no bell
                await asyncio.sleep(0.01)
    except TimeoutError:
        pass
    finally:
        for connection in list(state.connections):
            connection.transport.abort()


async def _accept(sock: socket.socket, make_protocol: Callable[[], asyncio.Protocol]) -> None:
    loop = asyncio.get_running_loop()
    turnstile = Turnstile(ACCEPTS_PER_SECOND, at_once=ACCEPTS_AT_ONCE, wait_seconds_max=math.inf)
    while True:
        try:
            accepted, _ = await loop.sock_accept(sock)
            await loop.connect_accepted_socket(make_protocol, accepted)
        except OSError as error:
            # No file descriptor is left, or the peer is gone already.
            logger.warning("admin connection not taken", extra={"event": "admin_accept_failed", "cause": str(error)})
            await asyncio.sleep(FAILED_ACCEPT_SECONDS)
        await asyncio.sleep(turnstile.turn(loop.time()) or 0.0)


def _protocols(app: Starlette, settings: Settings, state: ServerState) -> Callable[[], asyncio.Protocol]:
    bounds: dict[str, Any] = {name: min(bound, getattr(settings, name)) for name, bound in _BOUNDS.items()}
    given = dataclasses.replace(settings, **bounds)

    class Http(GatewayHttpProtocol):
        settings = given
        pace = Pace(NEWCOMERS_SECONDS)
        refusal_log = RefusalLog(logging.getLogger("gateway.intake"))
        turnstile = Turnstile(ACCEPTS_PER_SECOND, at_once=ACCEPTS_AT_ONCE, wait_seconds_max=0.0)

    config = uvicorn.Config(
        app,
        http=Http,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        headers=[("connection", "close")],
    )
    config.load()
    config.loaded_app = app  # without uvicorn's tracer
    state.default_headers = config.encoded_headers
    app_state = {"meters": Meters()}  # what is refused here is no refused handshake
    return lambda: Http(config, state, app_state)


def _make_app(instance: Instance, settings: Settings) -> Starlette:
    desk = _Desk(instance, settings)
    routes = [
        Route("/livez", _probe(instance.livez)),
        Route("/readyz", _probe(instance.readyz)),
        Route("/metrics", desk.metrics),
    ]
    if settings.admin_key:  # else the path is not there, as any other that never was
        routes.append(Route("/drain", desk.drain, methods=["GET", "POST"]))
    return Starlette(routes=routes)


def _probe(ask: Callable[[], Awaitable[Said]]) -> Callable[[Request[Any]], Awaitable[Response]]:
    async def answer(_: Request[Any]) -> Response:
        said = await ask()
        headers = None if said.is_ok else {"Retry-After": str(RETRY_SECONDS)}
        return PlainTextResponse(said.text + "\n", 200 if said.is_ok else 503, headers)

    return answer


class _Desk:
    """The two paths that may want a key."""

    def __init__(self, instance: Instance, settings: Settings) -> None:
        self._instance = instance
        self._metrics_key = settings.metrics_key
        self._admin_key = settings.admin_key
        self._refusal_log = RefusalLog(logger)

    async def metrics(self, request: Request[Any]) -> Response:
        if self._metrics_key and not is_bearer(request.headers.get("Authorization", ""), self._metrics_key):
            return key_needed(self._refusal_log, request, "GATEWAY_METRICS_KEY")
        text, content_type = await self._instance.metrics(request.headers.get("Accept", ""))
        return Response(text, headers={"Content-Type": content_type})

    async def drain(self, request: Request[Any]) -> Response:
        if not is_bearer(request.headers.get("Authorization", ""), self._admin_key):
            return key_needed(self._refusal_log, request, "GATEWAY_ADMIN_KEY")
        return await drain_answer(self._instance, request)


async def drain_answer(instance: Instance, request: Request[Any]) -> Response:
    """What is told to somebody who may know: POST begins the drain, GET tells how far it is."""
    begins = request.method == "POST"
    report = await instance.drain(begins=begins)
    return Response(orjson.dumps(report), 202 if begins else 200, media_type="application/json")


def key_needed(log: RefusalLog, request: Request[Any], setting: str, source: str = "") -> Response:
    """401, and a line in the log: somebody has asked for what is not his. `source`: where he is, if not the peer."""
    fields = {"address": source or (request.client.host if request.client else "?"), "path": request.url.path}
    log.tell(logging.WARNING, "admin request refused", fields, event="admin_refused")
    text = f"需要 {setting} / {setting} is needed: Authorization: Bearer …\n"
    return PlainTextResponse(text, 401, {"WWW-Authenticate": "Bearer"})
