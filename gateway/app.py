"""The composition root: builds every object once, wires lifespan and routes, runs one worker."""

import logging
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from gateway.backplane.base import Backplane
from gateway.collector import Collector
from gateway.endpoints import Door, State, routes
from gateway.server import serve
from gateway.settings import Settings
from gateway.worker import Worker, new_worker_id

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Gateway:
    """One worker, ready to be served: its ASGI application, and the worker behind it."""

    app: Starlette
    worker: Worker


def build(settings: Settings, backplane: Backplane) -> Gateway:
    """A worker on this backplane. Nothing runs before the application's lifespan begins."""
    worker = Worker(settings, backplane)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[State]:
        async with worker.running():
            await worker.opened()
            yield State(door=Door(settings, worker))

    cors = Middleware(CORSMiddleware, allow_origins=list(settings.origins), allow_methods=["GET"])
    return Gateway(Starlette(routes=routes(), lifespan=lifespan, middleware=[cors]), worker)


def make_backplane(settings: Settings) -> Backplane:
    """The backplane that the settings ask for, not connected yet."""
    if not settings.redis_url:
        from gateway.backplane.memory import MemoryBackplane, MemoryStore

        return MemoryBackplane(MemoryStore(), new_worker_id())
    # redis-py takes a while to import; a home needs none of it.
    from gateway.backplane.keys import Lifetimes
    from gateway.backplane.redis import RedisBackplane, RedisOptions

    lifetimes = Lifetimes.derive(name_hold_seconds=settings.name_hold_seconds, renew_seconds=settings.renew_seconds)
    timeout_seconds, usual = settings.redis_timeout_seconds, RedisOptions()
    options = RedisOptions(
        prefix=settings.redis_prefix,
        timeout_seconds=timeout_seconds,
        patience_seconds=timeout_seconds,
        # Who wants quicker answers wants trouble to be noticed as much earlier; never later.
        ping_seconds=min(usual.ping_seconds, timeout_seconds / 2),
        probe_seconds=min(usual.probe_seconds, timeout_seconds / 2),
        poll_seconds=min(usual.poll_seconds, timeout_seconds / 4),
        lifetimes=lifetimes,
        seen_limit=2 * settings.servers_per_agent,
    )
    return RedisBackplane(settings.redis_url, new_worker_id(), options)


def run(settings: Settings, sockets: list[socket.socket] | None, *, banner: bool) -> int:
    """Serve one worker until a signal or a drain ends it; the exit code."""
    gateway = build(settings, make_backplane(settings))
    hub = gateway.worker.hub
    collector = Collector(count_open=lambda: len(hub), count_closed=lambda: hub.closed)

    def on_started() -> None:
        collector.install()
        if banner:
            from gateway.banner import banner as text

            sys.stdout.write(text(settings))
            sys.stdout.flush()

    worker = gateway.worker
    return serve(
        gateway.app,
        settings,
        on_shutdown=worker.shut_down,
        drain=worker.drain,
        sockets=sockets,
        on_started=on_started,
    )
