"""What refusing costs: nothing is made for who may not come in, nobody else waits for it, and the log stays short."""

import asyncio
import logging

import pytest

from gateway.intake import GatewayHttpProtocol
from gateway.rates import Turnstile
from gateway.wire import GatewayWebSocketProtocol
from tests.endpoints.knocking import knock, legacy, path, signed
from tests.peers.raw import RawSocket
from tests.peers.tools import echo, text_of
from tests.support.gateway import Gateway
from tests.support.http import get
from tests.support.metrics import scrape
from tests.support.ports import own_port
from tests.support.running import MemoryCluster, settings
from tests.support.waiting import wait_until

STRANGE = "fedcba9876543210fedcba9876543210"


@pytest.mark.settings(origins=("https://a.example",), agent_handshakes_per_minute=1, source_handshakes_per_minute=9)
async def test_for_who_is_refused_neither_a_websocket_nor_a_task_is_made(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def counting(kind: type, name: str) -> None:
        original = getattr(kind, name)

        def counted(*args: object) -> object:
            made.append(name)
            return original(*args)

        monkeypatch.setattr(kind, name, counted)

    counting(GatewayWebSocketProtocol, "connection_made")
    counting(GatewayHttpProtocol, "_start_asgi_task")
    knocks = {
        path("call", legacy()): 101,
        path("call", legacy()) + "&x": 429,
        path("call"): 400,
        path("call", "bad"): 401,
        path("mcp", signed("call")): 401,
        path("mcp", legacy("b"), "~x"): 400,
        "/other": 404,
    }
    statuses = {target: (await knock(gateway.port, target)).status for target in knocks}
    origin = await knock(gateway.port, path("call", legacy()), "Origin: https://b.example")
    assert (statuses, origin.status) == (knocks, 403)
    assert made == ["connection_made"], "the one that was accepted"


@pytest.mark.settings(handshakes_per_second=5, tool_handshakes_per_second=1)
async def test_a_flood_of_strangers_takes_no_turn_from_who_may_come_in_and_calls_go_on(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    await gateway.tool_server(tools=[echo()])
    robot = await gateway.robot()
    strangers = [path(role, legacy(key=STRANGE)) for role in ("mcp", "call")] * 100
    async with asyncio.TaskGroup() as tasks:
        answers = [tasks.create_task(knock(gateway.port, target)) for target in strangers]
        for number in range(20):
            assert text_of(await robot.call("echo", {"text": f"{number}"})) == f"{number}"
    assert {answer.result().status for answer in answers} == {401}
    assert (await knock(gateway.port, path("mcp", legacy("late")))).status == 101
    assert (await knock(gateway.port, path("call", legacy("late")))).status == 101
    told = [record for record in caplog.records if vars(record).get("event") == "connection_refused"]
    assert 10 <= len(told) <= 40, "of two hundred"


@pytest.mark.settings(servers_per_agent=2)
async def test_one_tokens_crowd_does_not_fill_the_queue_of_tool_servers(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_seconds = [1.5]
    monkeypatch.setattr(Turnstile, "turn", lambda self, now: wait_seconds[0])
    crowd = [RawSocket(gateway.mcp_url("crowd")) for _ in range(12)]
    async with asyncio.timeout(20):
        knocks = [asyncio.get_running_loop().create_task(raw.open()) for raw in crowd]
        await wait_until(lambda: sum(task.done() for task in knocks) >= 8, "those beyond the agent's room are refused")
        refused = [raw.status_line.split()[1] for raw, task in zip(crowd, knocks, strict=True) if task.done()]
        assert refused == ["503"] * 8
        wait_seconds[0] = 0.0
        assert (await knock(gateway.port, path("mcp", legacy("another")))).status == 101
        for raw, task in zip(crowd, knocks, strict=True):
            task.cancel()
            if hasattr(raw, "writer"):
                raw.writer.transport.abort()
        await asyncio.wait(knocks)

        async def is_admitted() -> bool:
            return (await knock(gateway.port, path("mcp", legacy("crowd")))).status == 101

        await wait_until(is_admitted, "who has left the queue is not counted any more", seconds=15)


async def test_no_spelling_of_the_path_goes_past_the_queue_of_tool_servers(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[float] = []

    def counted(_: Turnstile, now: float) -> float:
        turns.append(now)
        return 0.0

    monkeypatch.setattr(Turnstile, "turn", counted)
    query = path("mcp", legacy()).partition("?")[2]
    for target in ("/mcp_endpoint/mcp", "/mcp%5Fendpoint/mcp/", "/mcp_endpoint/%6Dcp/", "//x/mcp_endpoint/mcp"):
        assert (await knock(gateway.port, f"{target}?{query}")).status == 101
    assert len(turns) == 4
    assert (await knock(gateway.port, path("call", legacy()) + "&x=/mcp_endpoint/mcp/")).status == 101
    assert len(turns) == 4, "robots pass"


async def test_no_query_string_is_logged_whoever_sends_it(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    mark = "s3cr3tmark"
    for target in (
        f"/mcp_endpoint/mcp/?token={mark}",
        f"/mcp_endpoint/call/?token={legacy()}&server_id={mark}",
        f"/mcp_endpoint/call/?{mark}",
        f"/never?key={mark}",
        f"http://host/mcp_endpoint/mcp/?token={mark}",
    ):
        await knock(gateway.port, target)
        await knock(gateway.port, target, "Sec-WebSocket-Version: 12", f"Authorization: Bearer {mark}")
        await get(gateway.port, target)
    for target in (f"/mcp_endpoint/health?key={mark}", f"/mcp_endpoint/status?token={mark}", f"/drain?{mark}"):
        await get(gateway.port, target, headers={"Authorization": f"Bearer {mark}"})
        await get(gateway.port, target, method="POST", headers={"Content-Length": "99999999"})
    # Named by place: a failure of this test must not print what it guards.
    of_gateway = [record for record in caplog.records if not record.name.startswith("websockets.client")]
    assert [f"{one.name}:{one.lineno}" for one in of_gateway if mark in one.getMessage() + str(vars(one))] == []
    assert [record for record in of_gateway if vars(record).get("event") == "connection_refused"]


async def test_every_cause_has_a_counter_of_its_own() -> None:
    cluster = MemoryCluster(
        settings(admin_port=own_port(), origins=("https://a.example",), agent_handshakes_per_minute=1),
        is_shared=False,
    )
    try:
        worker = await cluster.add_worker()
        await knock(worker.port, path("call", legacy()), "Origin: https://b.example")
        await knock(worker.port, path("call"), f"Authorization: Basic {legacy('b')}")
        for _ in range(2):
            await knock(worker.port, path("call", legacy()))
        metrics = await scrape(worker.admin_port)
        causes = ("origin", "no_token", "agent_rate", "bad_token")
        counted = [metrics.value("mcpgw_handshakes_refused_total", cause=cause) for cause in causes]
        assert counted == [1, 1, 1, 0]
    finally:
        await cluster.stop()


async def test_a_handshake_that_is_none_is_refused_and_leaves_nothing_behind(gateway: Gateway) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    try:
        head = f"GET {path('mcp', legacy())} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        writer.write(head.encode())
        async with asyncio.timeout(10):
            assert (await reader.read()).startswith(b"HTTP/1.1 4")
    finally:
        writer.transport.abort()
    assert (await gateway.health())["total_connections"] == 0
