"""The composition root: builds every object once, wires lifespan and routes, runs one worker."""

import logging
import socket
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from gateway import admin, intercom, logs
from gateway.admission import Admission
from gateway.backplane.base import Backplane
from gateway.backplanes import make_backplane
from gateway.collector import Collector
from gateway.endpoints import Door, State, routes
from gateway.hall import Hall
from gateway.instance import OneWorker
from gateway.origins import Origins
from gateway.server import Company, serve
from gateway.settings import Settings
from gateway.worker import Worker

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
            yield State(door=door, gate=admission, hall=Hall(worker, admission), meters=worker.meters)

    listed = list(Origins(settings.origins).listed)
    cors = Middleware(CORSMiddleware, allow_origins=listed, allow_methods=["GET"], allow_headers=["Authorization"])
    return Gateway(Starlette(routes=routes(settings), lifespan=lifespan, middleware=[cors]), worker, instance)


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
