"""The worker under attack, as a process of its own: the gateway as it is, and what the run asks it about itself.

`faults` are planted by name, to see that the run notices them; see `tests.fuzz.faults`.
"""

import asyncio
import ctypes
import gc
import os
import sys
import threading
import warnings
from collections.abc import Sequence
from typing import Any

from gateway import app, logs
from gateway.backplane import redis as _preloaded  # noqa: F401  # imported once, before the workers are forked
from gateway.backplane.base import Backplane
from gateway.listening import listen
from gateway.server import GatewayServer
from gateway.settings import Settings
from tests.chaos.processes import Pipe
from tests.fuzz.faults import FAULTS

RUN_IS_GONE = 77
_SERVERS: list[GatewayServer] = []
_GATEWAYS: list[app.Gateway] = []


def stats() -> dict[str, int]:
    """What this worker holds, after everything unreachable has been thrown away. Called in its event loop."""
    gc.unfreeze()
    gc.collect()
    gc.unfreeze()  # the worker's collector has set aside what stayed
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    with open(f"/proc/{os.getpid()}/status", encoding="ascii") as file:
        kib = {line.split()[0]: int(line.split()[1]) for line in file if line.startswith(("VmHWM", "VmRSS"))}
    [gateway], [server] = _GATEWAYS, _SERVERS
    return {
        "rss_bytes": kib["VmRSS:"] * 1024,
        "peak_bytes": kib["VmHWM:"] * 1024,
        "objects": len(gc.get_objects()),
        "tasks": len(asyncio.all_tasks()),
        "descriptors": len(os.listdir(f"/proc/{os.getpid()}/fd")),
        "sockets": len(server.server_state.connections),
        "connections": len(gateway.worker.hub),
        "app tasks": len(server.server_state.tasks),
    }


def _answer(pipe: Pipe) -> None:
    """Take orders until the run is gone, and end with it."""
    while True:
        try:
            order: dict[str, Any] = pipe.recv()
        except (EOFError, OSError):
            os._exit(RUN_IS_GONE)
        if not _SERVERS or _SERVERS[0]._loop is None or not _SERVERS[0].started:
            pipe.send((order["ticket"], {}))
            continue
        loop = _SERVERS[0]._loop
        loop.call_soon_threadsafe(_tell, pipe, order["ticket"])


def _tell(pipe: Pipe, ticket: int) -> None:
    pipe.send((ticket, stats()))


def _notice() -> None:
    """Remember the server and the gateway that this process builds."""
    build, startup = app.build, GatewayServer.startup

    def built(settings: Settings, backplane: Backplane) -> app.Gateway:
        _GATEWAYS.append(build(settings, backplane))
        return _GATEWAYS[-1]

    async def started(self: GatewayServer, *arguments: Any, **named: Any) -> None:
        await startup(self, *arguments, **named)
        _SERVERS.append(self)

    app.build = built
    GatewayServer.startup = started  # type: ignore[method-assign]


def main(pipe: Pipe, settings: Settings, faults: Sequence[str] = ()) -> None:
    """Serve until SIGTERM. Every warning is an error."""
    warnings.simplefilter("error")
    logs.set_up(settings.log_level, settings.log_format)
    _notice()
    for name in faults:
        FAULTS[name]()
    listening = listen(settings.host, settings.port)
    threading.Thread(target=_answer, args=(pipe,), name="orders", daemon=True).start()
    os._exit(app.run(settings, [listening], banner=False))
