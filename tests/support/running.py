"""Gateways running inside a test's event loop: the one place that knows how a gateway is built and stopped."""

import asyncio
import dataclasses
import socket
from abc import abstractmethod
from pathlib import Path
from typing import Any

from gateway.app import build
from gateway.backplane.base import Backplane
from gateway.backplane.memory import MemoryBackplane, MemoryStore
from gateway.backplanes import make_backplane, new_worker_id
from gateway.drain import Drain
from gateway.server import Company, GatewayServer
from gateway.settings import Settings
from gateway.toollink import ToolLink
from tests.support.waiting import wait_until

KEY = "0123456789abcdef0123456789abcdef"

# Short where a test would wait for it, long where a busy machine could trip over it.
BASE = Settings(
    host="127.0.0.1",
    port=0,
    key=(KEY,),
    hello_pause_seconds=0.005,
    debounce_seconds=0.02,
    close_seconds=1.0,
    call_seconds=10.0,
    grace_seconds=10.0,
    park_seconds=5.0,
    drain_seconds=0,
    drain_grace_seconds=0.2,
)


def settings(**changes: Any) -> Settings:
    """The settings of a test: those above, with changes by name."""
    return dataclasses.replace(BASE, **changes)


class Worker:
    """One worker: an app, a server and a port of 127.0.0.1."""

    def __init__(self, settings: Settings, backplane: Backplane) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.settings = dataclasses.replace(settings, port=self.port)
        gateway = build(self.settings, backplane)
        self.id = backplane.worker_id
        self._server = GatewayServer(
            gateway.app,
            self.settings,
            on_shutdown=gateway.worker.shut_down,
            drain=gateway.worker.drain,
            company=Company(gateway.admin(self.settings)),
            takes_signals=False,
        )
        self.room = gateway.worker
        self._task: asyncio.Task[None] | None = None

    async def start(self, *, is_awaited: bool = True) -> None:
        """Serve; returns once connections are taken, or (unless that is awaited) refused."""
        self._task = asyncio.get_running_loop().create_task(
            self._server.serve([self._socket]), name=f"worker {self.id}"
        )
        await wait_until(
            lambda: self._task_is_done() or (self._server.started and (self.room.is_ready or not is_awaited)),
            "the worker serves",
        )
        assert not self._task_is_done(), "the worker ended while starting"

    async def stop(self) -> None:
        """End as on Ctrl-C: in order, and at once. Idempotent."""
        self._server.stop()
        await self.ended()

    def drain(self) -> None:
        """Begin the drain, as SIGTERM does; `ended` returns when the worker is gone."""
        self.drain_room.begin("SIGTERM")

    @property
    def admin_port(self) -> int:
        """Its admin port; 0 if it has none."""
        return self.settings.admin_port

    @property
    def drain_room(self) -> Drain:
        return self.room.drain

    @property
    def tool_links(self) -> list[ToolLink]:
        """The tool servers that are connected to it, as it holds them."""
        return list(self.room.hub.tool_servers.values())

    async def ended(self) -> None:
        """Wait until it has ended."""
        if self._task is not None:
            await self._task
        self._socket.close()

    @property
    def is_running(self) -> bool:
        return self._task is not None and not self._task.done()

    def _task_is_done(self) -> bool:
        return self._task is not None and self._task.done()


class Cluster:
    """Workers on one backplane."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.workers: list[Worker] = []

    @abstractmethod
    def _backplane(self, settings: Settings) -> Backplane:
        """A new worker's access to what all of them share."""

    async def add_worker(self, *, is_awaited: bool = True, **changes: Any) -> Worker:
        """Start one more worker; `changes` are settings of its own. Unless awaited, it need not be ready yet."""
        settings = dataclasses.replace(self.settings, **changes)
        worker = Worker(settings, self._backplane(settings))
        self.workers.append(worker)
        await worker.start(is_awaited=is_awaited)
        return worker

    async def stop(self) -> None:
        """Stop every worker, all at once."""
        async with asyncio.TaskGroup() as tasks:
            for worker in self.workers:
                tasks.create_task(worker.stop())


class MemoryCluster(Cluster):
    """Workers that share the memory of this process. Alone and not shared: the embedded default."""

    def __init__(self, settings: Settings, *, is_shared: bool = True) -> None:
        super().__init__(settings)
        keeps_files = not is_shared and settings.data_dir != BASE.data_dir
        self._store = MemoryStore(directory=Path(settings.data_dir) if keeps_files else None)
        self._is_shared = is_shared

    def _backplane(self, settings: Settings) -> Backplane:
        return MemoryBackplane(self._store, new_worker_id(), is_shared=self._is_shared)


class RedisCluster(Cluster):
    """Workers that share a Redis; its URL is in the settings."""

    def _backplane(self, settings: Settings) -> Backplane:
        return make_backplane(settings)
