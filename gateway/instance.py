"""One worker as its probes, its scrapers and its supervisor see it."""

import asyncio
from typing import Any

from gateway.exposition import Exposition, ProcessFacts
from gateway.meters import METRICS, Reading
from gateway.probes import Said
from gateway.worker import Worker

ADMIN_CAUSE = "POST /drain"


def why_unready(worker: Worker) -> str:
    """Why the worker takes no connections, for people; empty if it does."""
    if worker.is_ready:
        return ""
    return worker.state if worker.state not in ("up", "starting") else worker.trouble or "lease not renewed"


class OneWorker:
    """See `gateway.probes.Instance`.

    To count the open files of ten thousand connections takes some 20 ms; a thread does it, and calls need not wait.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._exposition = Exposition()

    async def livez(self) -> Said:
        return Said(True, "alive")

    async def readyz(self) -> Said:
        trouble = why_unready(self._worker)
        return Said(not trouble, f"not ready: {trouble}" if trouble else "ready")

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        reading = self.reading()
        state = "ready" if self._worker.is_ready else "starting" if self._worker.state == "starting" else "unready"
        reading["workers"] = {(name,): float(name == state) for name in METRICS["workers"].labels["state"]}
        return await asyncio.to_thread(self._text, reading, accept)

    def _text(self, reading: Reading, accept: str) -> tuple[bytes, str]:
        return self._exposition.text(reading, {"": self._exposition.process()}, accept)

    async def drain(self, *, begins: bool) -> dict[str, Any]:
        drain = self._worker.drain
        if begins:
            drain.begin(ADMIN_CAUSE)
        return drain.report()

    # For the supervisor

    @property
    def worker_id(self) -> str:
        return self._worker.backplane.worker_id

    def reading(self) -> Reading:
        """Everything that the worker measures, now."""
        return self._worker.read_meters()

    async def process(self) -> ProcessFacts:
        """The numbers of this process."""
        return await asyncio.to_thread(self._exposition.process)
