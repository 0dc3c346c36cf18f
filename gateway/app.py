"""The composition root: builds every object once, wires lifespan and routes, runs one worker."""

import logging
import socket
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from gateway import admin, intercom, logs
from gateway.admission import Admission
from gateway.backplane.base import Backplane
from gateway.collector import Collector
from gateway.endpoints import Door, State, routes
from gateway.instance import OneWorker
from gateway.origins import Origins
from gateway.server import Company, serve
from gateway.settings import Settings
from gateway.worker import Worker, new_worker_id

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Gateway:
    """One worker, ready to be served: its ASGI application, and the worker behind it."""

    app: Starlette
    worker: Worker
    instance: OneWorker

    def admin(self, settings: Settings, supervisor: socket.socket | None = None) -> AbstractAsyncContextManager[None]:
        """`async with`: whoever runs this is answered, the supervisor if there is one, else on the admin port."""
        if supervisor is not None:
            return intercom.answering(self.instance, supervisor)
        return admin.serving(self.instance, settings) if settings.admin_port else nullcontext()


def build(settings: Settings, backplane: Backplane) -> Gateway:
    """A worker on this backplane. Nothing runs before the application's lifespan begins."""
    worker = Worker(settings, backplane)
    instance = OneWorker(worker)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[State]:
        async with worker.running():
            await worker.opened()
            admission = Admission(settings, worker)
            door = Door(settings, worker, instance, admission)
            yield State(door=door, gate=admission, meters=worker.meters)

    listed = list(Origins(settings.origins).listed)
    cors = Middleware(CORSMiddleware, allow_origins=listed, allow_methods=["GET"], allow_headers=["Authorization"])
    return Gateway(Starlette(routes=routes(settings), lifespan=lifespan, middleware=[cors]), worker, instance)


def make_backplane(settings: Settings) -> Backplane:
    """The backplane that the settings ask for, not connected yet."""
    if not settings.redis_url:
        from gateway.backplane.memory import MemoryBackplane, MemoryStore

        return MemoryBackplane(MemoryStore(directory=Path(settings.data_dir)), new_worker_id())
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
        envelope_key=settings.envelope_key,
        is_bare=settings.call_records == "bare",
    )
    return RedisBackplane(settings.redis_url, new_worker_id(), options)


def run(
    settings: Settings,
    sockets: list[socket.socket] | None,
    *,
    banner: bool = False,
    supervisor: socket.socket | None = None,
) -> int:
    """Serve one worker until a signal or a drain ends it; the exit code. `supervisor` is the line to it, if any."""
    gateway = build(settings, make_backplane(settings))
    hub = gateway.worker.hub
    collector = Collector(count_open=lambda: len(hub), count_closed=lambda: hub.closed)

    def on_started() -> None:
        collector.install()
        if banner:
            from gateway.banner import show

            show(settings)

    worker = gateway.worker
    logs.bind(worker.backplane.worker_id, worker.meters.log_records_total)
    return serve(
        gateway.app,
        settings,
        on_shutdown=worker.shut_down,
        drain=worker.drain,
        sockets=sockets,
        company=Company(gateway.admin(settings, supervisor), on_started),
    )
