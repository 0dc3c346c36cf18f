"""Gateways that are processes of their own, as in production: to be killed, which nothing in this process can play."""

import signal
from typing import Any

from gateway.declared import written
from gateway.settings import Settings, env_name, specs
from tests.cli.command_line import CommandLine, Started
from tests.support.ports import own_port
from tests.support.running import settings

READY = {"text": r"http://127\.0\.0\.1:\d+/mcp_endpoint/health\?key=", "json": '"event":"worker_ready"'}
"""What it says once it listens: to people its URLs, to machines nothing that has a key in it."""


class GatewayProcess:
    """`mcp-gateway serve` on a free port; with several workers, all of them behind it."""

    def __init__(self, started: Started, settings: Settings, port: int) -> None:
        self.started = started
        self.settings = settings
        self.port = port

    async def stop(self) -> None:
        """End as an orchestrator does; fails if that does not go in order."""
        code = await self.started.stop(signal.SIGTERM)
        assert code == 0, f"exit code {code}: {self.started.text}"

    def signal(self, number: signal.Signals) -> None:
        self.started.process.send_signal(number)

    async def ended(self) -> int:
        """The exit code, once it has ended."""
        return await self.started.ended()

    async def kill(self) -> None:
        """End without a word."""
        self.started.process.kill()
        await self.started.ended()


async def serve(cli: CommandLine, redis_url: str, *, workers: int = 1, **changes: Any) -> GatewayProcess:
    """Start one with the tests' settings and these; returns once it has said that it takes connections."""
    port = changes.pop("port", 0) or own_port()
    chosen = settings(redis_url=redis_url, workers=workers, port=port, **changes)
    kinds = specs()
    environ = {
        env_name(name): written(spec.kind, getattr(chosen, name))
        for name, spec in kinds.items()
        if getattr(chosen, name) != getattr(Settings(), name)
    }
    started = await cli.start("serve", **environ)
    await started.until(READY[chosen.log_format])
    return GatewayProcess(started, chosen, port)
