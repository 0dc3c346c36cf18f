"""Every path has a credential of its own, none opens another, and no path tells what is behind it or whether it is."""

import asyncio
import re
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from gateway.setting_rules import broken_rules
from gateway.settings import Settings
from tests.conftest import settings_of
from tests.endpoints.knocking import knock, legacy, path, signed
from tests.support import http
from tests.support.gateway import Gateway
from tests.support.ports import own_port
from tests.support.running import KEY, MemoryCluster, Worker, settings

HEALTH_KEY = "a-key-for-the-monitors"
METRICS_KEY = "a-key-for-the-scrapers"
ADMIN_KEY = "a-key-for-the-operators"
KEYS: dict[str, Any] = {"health_key": HEALTH_KEY, "metrics_key": METRICS_KEY, "admin_key": ADMIN_KEY}


@pytest.fixture
async def worker(request: pytest.FixtureRequest) -> AsyncGenerator[Worker]:
    """A worker with an admin port and a key for everything."""
    changes: dict[str, Any] = {"admin_port": own_port(), **KEYS, **settings_of(request)}
    cluster = MemoryCluster(settings(**changes), is_shared=False)
    try:
        yield await cluster.add_worker()
    finally:
        await cluster.stop()


async def opened_by(worker: Worker, secret: str) -> set[str]:
    """What this secret opens, wherever one could put it."""
    found = set()
    bearer = {"Authorization": f"Bearer {secret}"}
    for name, port, target in (
        ("health", worker.port, "/mcp_endpoint/health"),
        ("status", worker.port, "/mcp_endpoint/status"),
        ("metrics", worker.admin_port, "/metrics"),
        ("drain", worker.admin_port, "/drain"),
    ):
        for query, headers in ((f"?key={secret}&token={secret}", {}), ("", bearer)):
            if (await http.get(port, target + query, headers=headers)).status == 200:
                found.add(name)
    for role in ("mcp", "call"):
        for target, header in ((path(role, secret), "X: y"), (path(role), f"Authorization: Bearer {secret}")):
            if (await knock(worker.port, target, header)).status == 101:
                found.add(role)
    return found


async def test_every_credential_opens_its_own_path_and_no_other(worker: Worker) -> None:
    table = {
        KEY: {"health"},
        HEALTH_KEY: {"health"},
        METRICS_KEY: {"metrics"},
        ADMIN_KEY: {"drain"},
        legacy(): {"mcp", "call", "status"},
        signed("mcp"): {"mcp", "status"},
        signed("call"): {"call", "status"},
        "": set(),
        "nonsense": set(),
    }
    assert {secret: await opened_by(worker, secret) for secret in table} == table


@pytest.mark.settings(legacy_tokens="none")
async def test_the_server_key_stays_at_home_once_nothing_needs_it_abroad(worker: Worker) -> None:
    assert await opened_by(worker, KEY) == set()
    assert await opened_by(worker, HEALTH_KEY) == {"health"}
    assert await opened_by(worker, legacy()) == set()


@pytest.mark.settings(legacy_tokens="none", health_key="")
async def test_without_a_health_key_the_server_key_goes_on_opening_the_health_answer(worker: Worker) -> None:
    assert await opened_by(worker, KEY) == {"health"}


@pytest.mark.parametrize("name", ["health_key", "metrics_key", "admin_key", "envelope_key"])
def test_no_key_may_be_anothers(name: str) -> None:
    for other in {"key", "health_key", "metrics_key", "admin_key", "envelope_key"} - {name}:
        one = "0123456789abcdef0123456789abcdef"
        changes: dict[str, Any] = {key: (one,) if key in ("key", "envelope_key") else one for key in (name, other)}
        [problem] = broken_rules(Settings(admin_port=9090, **changes))
        assert "GATEWAY_HEALTH_KEY" in problem
        assert one not in problem
    assert broken_rules(Settings(admin_port=9090, key=("a", "a"), **KEYS)) == []


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"health_key": "short"}, "GATEWAY_HEALTH_KEY"),
        ({"trusted_proxies": ("10.0.0.0/8", "ingress.local")}, "GATEWAY_TRUSTED_PROXIES"),
        ({"trusted_proxies": ("0.0.0.0/0",)}, "GATEWAY_TRUSTED_PROXIES"),
        ({"origins": ("console.example.com",)}, "GATEWAY_ORIGINS"),
    ],
)
def test_a_setting_of_the_door_that_can_not_be_meant_is_named(changes: dict[str, Any], setting: str) -> None:
    [problem] = broken_rules(Settings(**changes))
    assert problem.startswith(setting)
    assert " / " in problem


# What is not there, and what is switched off

HIDDEN = [
    "/drain",
    "/drain/",
    "/drain?x=y",
    "/metrics",
    "/openapi.json",
    "/docs",
    "/nothing",
    "/mcp_endpoint/drain",
    "/xmcp_endpoint/health",
]
METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PROPFIND"]


async def exact(port: int, method: str, target: str, *headers: str) -> bytes:
    """The whole answer without its date."""
    lines = [f"{method} {target} HTTP/1.1", "Host: x", "Connection: close", "Content-Length: 0", *headers]
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write("\r\n".join([*lines, "", ""]).encode())
            return re.sub(rb"date: [^\r]*\r\n", b"", await reader.read())
        finally:
            writer.transport.abort()


async def test_a_path_that_is_switched_off_answers_as_one_that_never_was(gateway: Gateway) -> None:
    for method in METHODS:
        for headers in ((), ("Origin: https://a.example",), (f"Authorization: Bearer {ADMIN_KEY}",)):
            never = await exact(gateway.port, method, "/never", *headers)
            assert b" 404 " in never.partition(b"\r\n")[0]
            for target in HIDDEN:
                assert await exact(gateway.port, method, target, *headers) == never, (method, target)


@pytest.mark.settings(admin_key="")
async def test_the_admin_port_hides_what_is_switched_off_as_well(worker: Worker) -> None:
    for method in ("GET", "POST", "DELETE"):
        never = await exact(worker.admin_port, method, "/never")
        assert b" 404 " in never.partition(b"\r\n")[0]
        for target in ("/drain", "/drain/", "/mcp_endpoint/health", "/mcp_endpoint/status"):
            assert await exact(worker.admin_port, method, target) == never, (method, target)


async def test_a_handshake_is_told_nothing_about_any_other_path(gateway: Gateway) -> None:
    never = await knock(gateway.port, "/never")
    assert never.status == 404
    for target in ("/", "/drain", "/metrics", "/mcp_endpoint/health", "/mcp_endpoint/status", "/livez", "*"):
        for header in ("X: y", f"Authorization: Bearer {legacy()}"):
            assert (await knock(gateway.port, target, header)).raw == never.raw


async def test_whether_an_agent_exists_is_told_to_nobody_without_its_token(gateway: Gateway) -> None:
    await gateway.tool_server(agent="real")
    strange = "fedcba9876543210fedcba9876543210"
    for role in ("mcp", "call"):
        answers = {(await knock(gateway.port, path(role, legacy(agent, strange)))).raw for agent in ("real", "none")}
        assert len(answers) == 1
