"""A Prometheus of one's own, on a port of 127.0.0.1: it scrapes, evaluates rules, and answers queries."""

import asyncio
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from tests.observability.promtool import program
from tests.observability.queries import RULES
from tests.support import http
from tests.support.ports import own_port
from tests.support.waiting import wait_until

START_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Prometheus:
    port: int

    async def ask(self, path: str, **query: str) -> Any:
        """`data` of an answer of its HTTP API; raises AssertionError with its own words if it refuses."""
        target = f"/api/v1/{path}" + (f"?{urlencode(query)}" if query else "")
        answer = (await http.get(self.port, target)).json()
        assert answer["status"] == "success", f"{query}: {answer}"
        return answer["data"]

    async def is_ready(self) -> bool:
        try:
            return (await http.get(self.port, "/-/ready")).status == 200
        except OSError:
            return False

    async def rules(self) -> list[dict[str, Any]]:
        return [rule for group in (await self.ask("rules"))["groups"] for rule in group["rules"]]

    async def until(self, query: str, value: float) -> None:
        """Wait until the query's one result has at least this value. On a busy machine a scrape may fail in between."""

        async def is_there() -> bool:
            result = (await self.ask("query", query=query))["result"]
            return bool(result) and float(result[0]["value"][1]) >= value

        await wait_until(is_there, query, START_SECONDS)


@asynccontextmanager
async def running(folder: Path, targets: list[str]) -> AsyncGenerator[Prometheus]:
    """With the shipped rules, scraping these targets as the job `mcp-gateway`, many times a second."""
    config = {
        "global": {"scrape_interval": "200ms", "scrape_timeout": "200ms", "evaluation_interval": "200ms"},
        "rule_files": [str(RULES)],
        "scrape_configs": [{"job_name": "mcp-gateway", "static_configs": [{"targets": targets}]}],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    prometheus = Prometheus(own_port())
    process = await asyncio.create_subprocess_exec(
        program("prometheus"),
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{prometheus.port}",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await wait_until(prometheus.is_ready, "Prometheus is ready", START_SECONDS)
        yield prometheus
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        async with asyncio.timeout(10):
            await process.wait()
