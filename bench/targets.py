"""What is measured: gateways and floors, with their addresses and tokens."""

import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from itertools import cycle
from urllib.parse import quote

from bench.case import Ground
from bench.processes import Server, serving
from gateway.auth import issue

KEY = "00112233445566778899aabbccddeeff"

FAST_CALLERS = {"GATEWAY_CALLS_PER_SECOND": "1000000"}
"""The limit of calls stays in place and is counted, but ten agents may use the whole machine."""

FAST_DIALLERS = {"GATEWAY_HANDSHAKES_PER_SECOND": "1000000", "GATEWAY_TOOL_HANDSHAKES_PER_SECOND": "1000000"}
"""The limits of handshakes stay in place and are counted, but thousands of peers may dial for a measurement."""


READY_SECONDS = 20.0


def start_gateway(stack: ExitStack, ground: Ground, redis_url: str = "", **settings: str) -> Server:
    """One worker with default settings, but for these; ready, which takes it a while beside an empty Redis (ADR 25)."""
    environment = {
        "GATEWAY_HOST": "127.0.0.1",
        "GATEWAY_PORT": "{port}",
        "GATEWAY_KEY": KEY,
        "GATEWAY_DRAIN_SECONDS": "0",  # nobody waits for a measured gateway to leave
        "GATEWAY_REDIS_URL": redis_url,
        "GATEWAY_LOG_LEVEL": "WARNING",
    }
    worker = stack.enter_context(serving(["gateway", "serve"], environment | settings, ground.folder))
    _wait_until_ready(worker)
    return worker


def _wait_until_ready(worker: Server) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{worker.port}/readyz", timeout=5).close()
            return
        except urllib.error.HTTPError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)


def start_floor(stack: ExitStack, ground: Ground, name: str, *arguments: str) -> Server:
    return stack.enter_context(serving([f"bench.floors.{name}", "{port}", *arguments], {}, ground.folder))


def agents(count: int, first: int = 0) -> list[str]:
    """Names of agents."""
    return [f"bench-{number}" for number in range(first, first + count)]


def tool_urls(names: Iterable[str], servers: Sequence[Server]) -> list[str]:
    """Where the tool servers of these agents dial: each agent at one of the servers, in turns."""
    return _urls("mcp", names, servers)


def robot_urls(names: Iterable[str], servers: Sequence[Server]) -> list[str]:
    """Where the robots of these agents dial, in the same turns."""
    return _urls("call", names, servers)


def _urls(role: str, names: Iterable[str], servers: Sequence[Server]) -> list[str]:
    ports = cycle([one.port for one in servers])
    return [
        f"ws://127.0.0.1:{port}/mcp_endpoint/{role}/?token={quote(issue(name, KEY), safe='')}"
        for name, port in zip(names, ports, strict=False)
    ]
