"""A worker process that does nothing but answer its supervisor: ready at once, and it has counted seven handshakes."""

import asyncio
import os
import signal
import socket
import sys
import threading
from typing import Any

from gateway.intercom import answering
from gateway.member import unpacked
from gateway.meters import Meters, Reading
from gateway.probes import Said

COUNTED = 7


class Stand:
    """See `gateway.intercom.Answering`."""

    worker_id = "stand-in"

    def __init__(self) -> None:
        self._meters = Meters()
        for _ in range(COUNTED):
            self._meters.handshakes_refused_total.add("bad_token")

    async def readyz(self) -> Said:
        return Said(True, "ready")

    async def drain(self, *, begins: bool) -> dict[str, Any]:
        return {"state": "up"}

    def reading(self) -> Reading:
        return self._meters.read({"ready": {(): 1.0}, "connections_limit": {(): 10.0}})

    async def process(self) -> list[list[Any]]:
        return [["process_open_fds", "gauge", "Open files.", [["process_open_fds", {}, 3.0]]]]


async def main() -> None:
    _, channel = unpacked(sys.stdin.buffer.readline())
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    threading.Thread(target=lambda: (os.read(0, 1), os._exit(7)), daemon=True).start()
    async with answering(Stand(), socket.socket(fileno=channel)):
        await stopping.wait()


if __name__ == "__main__":
    asyncio.run(main())
