"""Many workers as real processes on one Redis: started by one command or by several, stopped, and killed."""

import asyncio
from typing import Any

from tests.cli.command_line import CommandLine
from tests.peers.tools import echo, held, text_of
from tests.support.gateway import Gateway, Guests
from tests.support.processes import GatewayProcess, serve
from tests.support.redis_server import RedisServer
from tests.support.running import KEY

SHORT_LEASE: dict[str, Any] = {"lease_seconds": 2.0, "beat_seconds": 0.4, "redis_timeout_seconds": 0.5}


async def until_ready(gateway: Gateway, workers: int = 1) -> Gateway:
    """Wait until so many workers are in the cluster and, as far as the kernel lets one see each, take connections."""
    in_a_row = 0
    async with asyncio.timeout(20):
        while in_a_row < 8 * (workers - 1) + 1:
            in_a_row = in_a_row + 1 if await is_ready(gateway, workers) else 0
            await asyncio.sleep(0.01)
    return gateway


async def is_ready(gateway: Gateway, workers: int) -> bool:
    try:
        answers = [await gateway.get(path) for path in ("/readyz", f"/mcp_endpoint/health?key={KEY}")]
        if any(answer.status != 200 for answer in answers):
            return False
        return bool(answers[1].json()["result"]["connections"]["workers"] >= workers)
    except OSError:
        return False  # with several workers the URLs are printed before anybody listens


async def test_the_workers_of_one_command_serve_each_others_peers(
    cli: CommandLine, guests: Guests, redis_server: RedisServer
) -> None:
    """The kernel spreads the peers over the workers; wherever one lands, it finds everybody."""
    gateway = await until_ready(Gateway(await serve(cli, redis_server.url, workers=2), guests), workers=2)
    names: list[str] = []
    while len(names) < 4 or len(await owners(gateway)) < 2:
        assert len(names) < 30, "one worker gets all connections"
        names.append(f"tool{len(names)}")
        await gateway.tool_server(names[-1], [echo(names[-1])], is_awaited=False)
        await gateway.until_connected(len(names))
    for _ in range(4):
        robot = await gateway.robot()
        await robot.sees(*names)
        for name in names:
            assert text_of(await robot.call(name, {"text": name})) == name


async def owners(gateway: Gateway) -> set[str]:
    """The workers that hold a tool server."""
    return {server["worker"] for server in (await gateway.servers()).values()}


async def two_processes(
    cli: CommandLine, guests: Guests, redis_server: RedisServer
) -> tuple[Gateway, Gateway, GatewayProcess]:
    """Two gateways on one Redis with short leases; the second one's process as well."""
    async with asyncio.TaskGroup() as tasks:
        starting = [tasks.create_task(serve(cli, redis_server.url, **SHORT_LEASE, park_seconds=8.0)) for _ in range(2)]
    first, second = (starting.result() for starting in starting)
    return await until_ready(Gateway(first, guests)), await until_ready(Gateway(second, guests)), second


async def test_a_killed_worker_costs_its_calls_and_nothing_else(
    cli: CommandLine, guests: Guests, redis_server: RedisServer
) -> None:
    a, b, process = await two_processes(cli, guests, redis_server)
    kept = await a.tool_server("kept", [echo("kept")])
    lost = await b.tool_server("lost", [held("slow"), echo("fast")])
    robot = await a.robot()
    await robot.sees("kept", "slow", "fast")
    request_id = await robot.start_call("slow")
    await lost.until_called()

    await process.kill()

    error = (await robot.answer(request_id, seconds=10))["error"]
    assert error["code"] == -32002
    assert error["data"]["executed"] == "unknown"
    assert text_of(await robot.call("kept", {"text": "still here"})) == "still here"
    again = await a.tool_server("lost", [held("slow"), echo("fast")], is_awaited=False)
    assert text_of(await robot.call("fast", {"text": "back"}, seconds=10)) == "back"
    assert len(again.calls) == 1
    assert kept.is_open
    await a.until_connected(2, seconds=10)


async def test_a_stopped_worker_says_goodbye_to_everybody(
    cli: CommandLine, guests: Guests, redis_server: RedisServer
) -> None:
    a, b, process = await two_processes(cli, guests, redis_server)
    server = await b.tool_server("lights", [held("slow"), echo("fast")])
    robot, other = await a.robot(), await b.robot()
    await robot.sees("slow", "fast")
    request_id = await robot.start_call("slow")
    await server.until_called()

    await process.stop()

    assert (await robot.answer(request_id))["error"]["code"] == -32002
    for peer in (server, other):
        assert (await peer.until_closed()).code == 1012
    again = await a.tool_server("lights", [held("slow"), echo("fast")])
    assert text_of(await robot.call("fast", {"text": "back"})) == "back"
    assert len(again.calls) == 1
    assert not robot.received("notifications/tools/list_changed")
