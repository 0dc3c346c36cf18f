"""The admin port: probes, metrics and drain on a listener of its own, from before the start to the very end."""

import asyncio
import shutil
import subprocess
import warnings
from collections.abc import AsyncGenerator

import pytest

from gateway import admin
from gateway.admin import ACCEPTS_AT_ONCE, ACCEPTS_PER_SECOND
from gateway.fleet import Fleet
from gateway.listening import ListenError
from gateway.meters import METRICS
from gateway.probes import Said
from tests.conftest import settings_of
from tests.peers.tools import echo, held, text_of
from tests.support import http
from tests.support.gateway import Gateway, Guests
from tests.support.metrics import scrape
from tests.support.ports import own_port
from tests.support.running import KEY, MemoryCluster, RedisCluster, Worker, settings
from tests.support.waiting import wait_until

ADMIN_KEY = "a-key-for-operators"
METRICS_KEY = "a-key-for-scrapers"


@pytest.fixture
async def worker(request: pytest.FixtureRequest) -> AsyncGenerator[Worker]:
    """A worker with an admin port, on the memory backplane."""
    cluster = MemoryCluster(settings(admin_port=own_port(), **settings_of(request)), is_shared=False)
    try:
        yield await cluster.add_worker()
    finally:
        await cluster.stop()


@pytest.fixture
async def gateway(worker: Worker, guests: Guests) -> AsyncGenerator[Gateway]:
    yield Gateway(worker, guests)
    await guests.leave()


async def test_both_ports_have_the_probes_and_only_the_admin_port_has_metrics(worker: Worker) -> None:
    for port in (worker.port, worker.admin_port):
        for path in ("/livez", "/readyz"):
            assert (await http.get(port, path)).status == 200
    assert (await http.get(worker.admin_port, "/metrics")).status == 200
    assert (await http.get(worker.port, "/metrics")).status == 404


@pytest.mark.parametrize("path", ["/", "/mcp_endpoint/", f"/mcp_endpoint/health?key={KEY}", "/mcp_endpoint/mcp/", "/x"])
async def test_the_admin_port_has_nothing_else(worker: Worker, path: str) -> None:
    response = await http.get(worker.admin_port, path, headers={"Upgrade": "websocket", "Connection": "Upgrade"})
    assert response.status == 404


async def test_without_an_admin_port_there_are_no_metrics() -> None:
    cluster = MemoryCluster(settings(), is_shared=False)
    try:
        assert (await http.get((await cluster.add_worker()).port, "/metrics")).status == 404
    finally:
        await cluster.stop()


async def test_it_says_why_before_the_worker_is_ready_when_the_public_port_does_not_answer_yet() -> None:
    """The store does not answer: the public port waits for it a while before it takes anybody."""
    with_nobody = f"redis://127.0.0.1:{own_port()}"
    cluster = RedisCluster(settings(admin_port=own_port(), redis_url=with_nobody, redis_timeout_seconds=1.0))
    worker = Worker(cluster.settings, cluster._backplane(cluster.settings))
    starting = asyncio.get_running_loop().create_task(worker.start(is_awaited=False))
    try:

        async def reason() -> str:
            try:
                response = await http.get(worker.admin_port, "/readyz")
            except OSError:
                return ""
            assert response.status == 503
            assert response.headers["retry-after"]
            return response.text

        await wait_until(reason, "the admin port says not ready")
        assert not starting.done()
        assert (await http.get(worker.admin_port, "/livez")).status == 200
        metrics = await scrape(worker.admin_port)
        assert (metrics.value("mcpgw_ready"), metrics.value("mcpgw_redis_connected")) == (0, 0)
        assert metrics.value("mcpgw_workers", state="ready") == 0
    finally:
        starting.cancel()
        await worker.stop()


@pytest.mark.settings(drain_seconds=60.0, call_seconds=20.0)
async def test_it_answers_through_the_whole_drain(worker: Worker, gateway: Gateway) -> None:
    server = await gateway.tool_server("slow", [held("wait")])
    robot = await gateway.robot()
    calling = asyncio.get_running_loop().create_task(robot.call("wait"))
    call = await server.until_called()
    worker.drain()
    readyz = await http.get(worker.admin_port, "/readyz")
    assert (readyz.status, readyz.text) == (503, "not ready: draining\n")
    assert (await http.get(worker.admin_port, "/livez")).status == 200
    metrics = await scrape(worker.admin_port)
    assert metrics.value("mcpgw_worker_state", state="draining") == 1
    assert metrics.value("mcpgw_drain_connections") == 2
    assert metrics.value("mcpgw_drain_seconds_left") > 0
    await call.answer("done")
    await calling
    await worker.ended()
    with pytest.raises(OSError):  # noqa: PT011 - refused or reset, whichever the kernel says
        await http.get(worker.admin_port, "/livez")


@pytest.mark.settings(admin_key=ADMIN_KEY, drain_seconds=60.0)
async def test_the_drain_is_on_the_admin_port_alone_and_for_whoever_has_the_key(
    worker: Worker, gateway: Gateway
) -> None:
    bearer = {"Authorization": f"Bearer {ADMIN_KEY}"}
    assert (await http.get(worker.port, "/drain", headers=bearer)).status == 404
    assert (await http.get(worker.admin_port, "/drain")).status == 401
    before = await http.get(worker.admin_port, "/drain", headers=bearer)
    assert (before.status, before.json()["state"]) == (200, "up")
    after = await http.get(worker.admin_port, "/drain", method="POST", headers=bearer)
    assert (after.status, after.json()["state"]) == (202, "draining")
    await worker.ended()


async def test_without_an_admin_key_there_is_no_drain(worker: Worker) -> None:
    assert (await http.get(worker.admin_port, "/drain", method="POST")).status == 404


@pytest.mark.settings(metrics_key=METRICS_KEY)
@pytest.mark.parametrize("sent", ["", "Bearer", "Bearer wrong", f"Basic {METRICS_KEY}", f"Bearer {METRICS_KEY}x"])
async def test_a_metrics_key_is_asked_for_where_one_is_set(worker: Worker, sent: str) -> None:
    response = await http.get(worker.admin_port, "/metrics", headers={"Authorization": sent} if sent else {})
    assert response.status == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert "mcpgw" not in response.text
    assert (await scrape(worker.admin_port, METRICS_KEY)).value("mcpgw_ready") == 1
    assert (await http.get(worker.admin_port, "/readyz")).status == 200


# What is measured


async def test_every_metric_of_the_table_is_there_as_prometheus_reads_it(worker: Worker, gateway: Gateway) -> None:
    await gateway.tool_server("one", [echo()])
    robot = await gateway.robot()
    assert text_of(await robot.call("echo", {"text": "x"})) == "x"
    metrics = await scrape(worker.admin_port)
    expected = {metric.full_name for metric in METRICS.values() if metric.kind != "histogram"}
    expected |= {f"{metric.full_name}_bucket" for metric in METRICS.values() if metric.kind == "histogram"}
    assert expected - {"mcpgw_memory_limit_bytes"} <= metrics.names()
    assert {"process_resident_memory_bytes", "process_open_fds", "python_gc_collections_total"} <= metrics.names()
    assert metrics.value("mcpgw_connections", kind="tool_server") == 1
    assert metrics.value("mcpgw_calls_total", outcome="result", executed="true", path="local") == 1
    assert metrics.value("mcpgw_call_seconds_count", path="local") == 1
    assert metrics.value("mcpgw_call_seconds_bucket", path="local", le="+Inf") == 1
    assert metrics.value("mcpgw_tool_server_handshakes_total", outcome="ready") == 1
    assert metrics.value("mcpgw_workers", state="ready") == 1


async def test_promtool_finds_nothing_to_say_about_them(worker: Worker) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        warnings.warn("promtool is not installed: /metrics was not linted", pytest.PytestWarning, stacklevel=1)
        pytest.skip("promtool is not installed: /metrics was not linted")
    text = (await scrape(worker.admin_port)).text
    done = await asyncio.to_thread(
        subprocess.run,
        [promtool, "check", "metrics"],
        input=text.encode(),
        capture_output=True,
        check=False,
        timeout=20,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/html", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text; version=0.0.1", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text; version=x; q=0", "text/plain; version=0.0.4; charset=utf-8"),
        (
            "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ),
    ],
)
async def test_a_scraper_gets_the_format_that_it_asks_for(worker: Worker, accept: str, expected: str) -> None:
    response = await http.get(worker.admin_port, "/metrics", headers={"Accept": accept} if accept else {})
    assert response.headers["content-type"] == expected
    assert response.text.endswith("# EOF\n") == expected.startswith("application/openmetrics-text")


async def test_no_label_names_an_agent_a_tool_server_or_a_tool(worker: Worker, gateway: Gateway) -> None:
    await gateway.tool_server("secret-name", [echo("secret_tool")], agent="secret-agent", server_id="secret-id")
    robot = await gateway.robot(agent="secret-agent")
    await robot.call("secret_tool", {"text": "x"})
    assert "secret" not in (await scrape(worker.admin_port)).text


@pytest.mark.parametrize(
    ("path", "cause"),
    [
        ("/mcp_endpoint/mcp/", "no_token"),
        ("/mcp_endpoint/call/?token=nonsense", "bad_token"),
        ("/mcp_endpoint/nothing/", "not_found"),
        ("/mcp_endpoint/status?token=nonsense", "bad_token"),
    ],
)
async def test_what_is_refused_is_counted_by_its_cause(worker: Worker, path: str, cause: str) -> None:
    upgrade = {"Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    headers = {"Connection": "Upgrade", **upgrade} if "status" not in path else {}
    assert (await http.get(worker.port, path, headers=headers)).status in (400, 401, 404)
    metrics = await scrape(worker.admin_port)
    assert metrics.value("mcpgw_handshakes_refused_total", cause=cause) == 1


async def test_connections_that_came_and_went_are_counted_with_their_code(worker: Worker, gateway: Gateway) -> None:
    server = await gateway.tool_server("one")
    await server.close()
    await gateway.until_connected(0)
    metrics = await scrape(worker.admin_port)
    assert metrics.value("mcpgw_connections_opened_total", kind="tool_server") == 1
    assert metrics.value("mcpgw_connections_closed_total", kind="tool_server", code="1000") == 1


# It can't hurt the calls


async def test_a_flood_on_the_admin_port_is_left_to_wait_while_calls_go_on(worker: Worker, gateway: Gateway) -> None:
    await gateway.tool_server("one", [echo()])
    robot = await gateway.robot()
    answered = 0

    async def knock() -> None:
        nonlocal answered
        try:
            async with asyncio.timeout(1.0):
                await http.get(worker.admin_port, "/metrics")
                answered += 1
        except (OSError, TimeoutError):
            return

    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.TaskGroup() as flood:
        for _ in range(100):
            flood.create_task(knock())
        for _ in range(20):
            assert text_of(await robot.call("echo", {"text": "x"})) == "x"
    assert 0 < answered <= ACCEPTS_AT_ONCE + ACCEPTS_PER_SECOND * (loop.time() - began) + 1


@pytest.mark.settings(header_seconds=0.3)
async def test_who_sends_half_a_request_there_is_let_go_and_the_next_one_is_served(worker: Worker) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", worker.admin_port)
    try:
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n")
        assert (await http.get(worker.admin_port, "/livez")).status == 200
        async with asyncio.timeout(10):
            assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
    finally:
        writer.transport.abort()


async def test_a_connection_there_has_one_request(worker: Worker) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", worker.admin_port)
    try:
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        async with asyncio.timeout(10):
            assert (await reader.read()).count(b"HTTP/1.1 ") == 1
    finally:
        writer.transport.abort()


async def test_a_port_that_is_taken_is_told_with_the_setting_that_names_it(worker: Worker) -> None:
    with pytest.raises(ListenError, match="GATEWAY_ADMIN_PORT"):
        async with admin.serving(Fleet(1, on_drain=lambda: None), worker.settings):
            pytest.fail("two listeners on one port")


async def test_who_is_being_answered_when_it_ends_gets_his_answer() -> None:
    """As who has asked several workers to drain, none of which had anything to wait for."""

    class Slow(Fleet):
        async def livez(self) -> Said:
            asked.set()
            await ending.wait()
            return Said(True, "alive")

    asked, ending, port = asyncio.Event(), asyncio.Event(), own_port()
    async with asyncio.TaskGroup() as tasks:
        async with admin.serving(Slow(1, on_drain=lambda: None), settings(admin_port=port)):
            answer = tasks.create_task(http.get(port, "/livez"))
            await asked.wait()
            asyncio.get_running_loop().call_later(0.1, ending.set)
        assert (await answer).text == "alive\n"
