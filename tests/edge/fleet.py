"""Three workers as processes on one Redis, with an nginx in front for either way of choosing among them."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from gateway.declared import written
from gateway.settings import Settings, env_name, specs
from tests.edge.nginx import BALANCES, Nginx, end_with_parent, upstream
from tests.support import http
from tests.support.ports import own_port
from tests.support.redis_server import RedisServer
from tests.support.running import KEY, settings
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
ROBOTS_PER_AGENT = 8
# A worker that was killed is missed within two seconds; one that drains has time, and takes little.
FAST: dict[str, Any] = {
    "lease_seconds": 2.0,
    "beat_seconds": 0.4,
    "redis_timeout_seconds": 1.0,
    "park_seconds": 8.0,
    "drain_seconds": 3.0,
    "drain_grace_seconds": 0.2,
    "ping_seconds": 0.25,
    "robots_per_agent": ROBOTS_PER_AGENT,
}


class WorkerProcess:
    """`mcp-gateway serve` on a port that stays the same when it is started again."""

    def __init__(self, folder: Path, redis_url: str, host: str = "127.0.0.1", port: int = 0) -> None:
        self.settings = settings(redis_url=redis_url, host=host, port=port or own_port(), **FAST)
        self._log = folder / f"{host}-{self.settings.port}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        return self.settings.port

    @property
    def address(self) -> str:
        return f"{self.settings.host}:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        return self._log.read_text()

    def start(self) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
        changed = {
            env_name(name): written(spec.kind, getattr(self.settings, name))
            for name, spec in specs().items()
            if getattr(self.settings, name) != getattr(Settings(), name)
        }
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gateway.cli", "serve"],
                cwd=self._log.parent,
                env=inherited | changed | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"},
                stdout=log,
                stderr=log,
                preexec_fn=end_with_parent,
            )

    async def is_ready(self) -> bool:
        assert self.is_running, f"the worker has ended: {self.log}"
        try:
            return (await http.get(self.port, "/readyz")).status == 200
        except OSError:
            return False

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        """End it without a word. Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=20)


class Fleet:
    """The three workers, and nginx by hash and in turns. What a test has ended is there again for the next."""

    def __init__(self, folder: Path, redis: RedisServer) -> None:
        self.redis = redis
        self.workers = [WorkerProcess(folder, redis.url) for _ in range(3)]
        self.front = {
            balance: Nginx(folder / balance, upstream(balance, [worker.address for worker in self.workers]))
            for balance in BALANCES
        }
        self._is_up = False

    @property
    def settings(self) -> Settings:
        return self.workers[0].settings

    async def until_ready(self) -> None:
        """Start whatever does not run, and wait until everything takes connections."""
        for worker in self.workers:
            if not worker.is_running:
                worker.start()
        for worker in self.workers:
            await wait_until(worker.is_ready, "the worker is ready", seconds=30)
        if not self._is_up:
            self._is_up = True
            for nginx in self.front.values():
                await nginx.start()
        await wait_until(self._has_three_workers, "three workers know of each other", seconds=10)

    async def _has_three_workers(self) -> bool:
        """Those that a test has ended are struck off after their leases."""
        answer = await http.get(self.workers[0].port, f"/mcp_endpoint/health?key={KEY}")
        return answer.status == 200 and bool(answer.json()["result"]["connections"]["workers"] == 3)

    async def ids(self) -> dict[str, WorkerProcess]:
        """Worker id → the process, as Redis knows it."""
        with self.redis.client() as client:
            found: dict[str, WorkerProcess] = {}
            for name in await asyncio.to_thread(client.zrange, "mcpgw:workers", 0, -1):
                worker = name.decode()
                pid = client.hget(f"mcpgw:worker:{{{worker}}}", "pid")
                for process in self.workers:
                    if pid and process.pid == int(pid):
                        found[worker] = process
            return found

    def stop(self) -> None:
        for nginx in self.front.values():
            nginx.stop()
        for worker in self.workers:
            worker.stop()


class Front:
    """nginx as one gateway of several workers."""

    def __init__(self, fleet: Fleet, port: int) -> None:
        self.settings = fleet.settings
        self.port = port

    async def stop(self) -> None:
        """It goes on for the next test."""
