"""Runs a floor exactly as the gateway is run: uvicorn, uvloop, httptools, the sansio WebSocket implementation."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

import uvicorn

Beside: TypeAlias = Callable[[], Coroutine[Any, Any, None]]


def serve(app: Any, port: int, beside: Beside | None = None, ping_seconds: float = 20) -> None:
    """Serve until SIGTERM; `beside` runs in the same loop, and what fails there ends both."""
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        http="httptools",
        ws="websockets-sansio",
        ws_ping_interval=ping_seconds,
        ws_ping_timeout=20,
        ws_per_message_deflate=False,
        lifespan="off",
        log_level="warning",
        access_log=False,
        backlog=2048,
    )
    server = uvicorn.Server(config)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_serve_beside(server, beside) if beside else server.serve())


async def _serve_beside(server: uvicorn.Server, beside: Beside) -> None:
    async with asyncio.TaskGroup() as tasks:
        other = tasks.create_task(beside())
        await server.serve()
        other.cancel()
