"""The admin port of a supervisor: several workers as one instance, also while one of them is killed or hangs."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from gateway import fleet as fleet_module
from gateway import intercom
from tests.cli.answering import COUNTED, Stand
from tests.cli.command_line import CommandLine, Started
from tests.peers.tools import echo, text_of
from tests.support import http
from tests.support.gateway import Gateway, Guests
from tests.support.metrics import Metrics, scrape
from tests.support.ports import own_port
from tests.support.processes import serve
from tests.support.redis_server import RedisServer, empty
from tests.support.waiting import wait_until

ADMIN_KEY = "a-key-for-operators"
START_SECONDS = 40.0
STARTED = r"a worker process was started .*slot=(\d) pid=(\d+)"


class Fleet:
    """A supervisor with two workers, seen from outside."""

    def __init__(self, started: Started, admin_port: int) -> None:
        self.started = started
        self.admin_port = admin_port

    async def pids(self, starts: int = 2) -> dict[str, int]:
        """Slot → process id, once so many have been started."""
        found: list[Any] = await self.started.until(STARTED, starts)
        return {slot: int(pid) for slot, pid in found}

    async def until_ready(self) -> Metrics:
        """The numbers, once both take connections."""
        await self.until_said("/readyz", 200, "2 of 2 workers")
        return await scrape(self.admin_port)

    async def get(self, path: str, method: str = "GET") -> http.Response:
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        return await http.get(self.admin_port, path, method=method, headers=headers)

    async def until_said(self, path: str, status: int, text: str) -> str:
        """The answer of a probe, once it is this one: on a busy machine a worker may miss its time once."""

        async def said() -> str:
            try:
                response = await self.get(path)
            except OSError:
                return ""  # nobody listens yet
            return response.text if response.status == status and text in response.text else ""

        answer: str = await wait_until(said, f"{path} says {status} {text!r}", START_SECONDS)
        return answer


@pytest.fixture
async def fleet(cli: CommandLine) -> Fleet:
    """Two stand-ins that only answer, each of which has counted something."""
    port = own_port()
    fleet = Fleet(await cli.start("2", str(port), "--answering", module="tests.cli.supervised"), port)
    await fleet.until_ready()
    return fleet


def counted(metrics: Metrics) -> float:
    return metrics.value("mcpgw_handshakes_refused_total", cause="bad_token")


def went_back(before: Metrics, after: Metrics) -> list[str]:
    """The counters of the gateway that are smaller than they were."""
    return [
        name
        for name in before.names()
        if name.startswith("mcpgw_") and name.endswith(("_total", "_bucket", "_count"))
        for labels, value in before.series(name).items()
        if after.series(name).get(labels, -1) < value
    ]


# Real workers


@pytest.fixture
async def real(tmp_path: Path, guests: Guests, redis_server: RedisServer) -> AsyncGenerator[tuple[Fleet, Gateway]]:
    with redis_server.client() as client:
        empty(client)
    cli, port = CommandLine(tmp_path), own_port()
    try:
        process = await serve(cli, redis_server.url, workers=2, admin_port=port)
        fleet = Fleet(process.started, port)
        await fleet.until_ready()
        yield fleet, Gateway(process, guests)
        await guests.leave()
    finally:
        await cli.stop_all()


async def test_the_numbers_of_all_workers_are_one_and_never_go_back_when_they_are_killed(
    real: tuple[Fleet, Gateway],
) -> None:
    fleet, gateway = real
    await gateway.tool_server("one", [echo()])
    robot = await gateway.robot()
    for _ in range(5):
        assert text_of(await robot.call("echo", {"text": "x"})) == "x"
    before = await scrape(fleet.admin_port)
    assert called(before) == 5
    assert before.value("mcpgw_connections", kind="robot") == 1
    assert before.value("mcpgw_connections_limit") == 2 * gateway.settings.connections
    slots = {dict(labels)["slot"] for labels in before.series("process_resident_memory_bytes")}
    assert slots == {"0", "1", "2"}

    for pid in (await fleet.pids()).values():
        os.kill(pid, signal.SIGKILL)
    await fleet.pids(4)
    between = await scrape(fleet.admin_port)
    assert called(between) == 5
    after = await fleet.until_ready()
    assert called(after) == 5
    assert after.value("mcpgw_connections", kind="robot") == 0
    assert went_back(before, between) == went_back(between, after) == []


def called(metrics: Metrics) -> float:
    return sum(metrics.series("mcpgw_calls_total").values())


# Stand-ins that answer


async def test_what_a_worker_counted_since_the_last_scrape_is_not_lost_when_it_ends_in_order(fleet: Fleet) -> None:
    assert counted(await scrape(fleet.admin_port)) == 2 * COUNTED
    pids = await fleet.pids()
    for starts in (3, 4):  # the second one started in slot 1 is never scraped
        os.kill(pids["1"], signal.SIGTERM)
        pids = await fleet.pids(starts)
        await fleet.until_said("/readyz", 200, "2 of 2 workers")
    assert counted(await scrape(fleet.admin_port)) == 4 * COUNTED


async def test_a_worker_that_hangs_is_seen_by_liveness_and_scrape_and_keeps_its_counters(fleet: Fleet) -> None:
    before = await scrape(fleet.admin_port)
    hung = (await fleet.pids())["2"]
    os.kill(hung, signal.SIGSTOP)
    try:
        await fleet.until_said("/livez", 503, "no answer from worker 2\n")
        assert "worker 2: silent" in await fleet.until_said("/readyz", 200, "1 of 2 workers")
        during = await wait_until(lambda: with_one_silent(fleet), "the scrape tells of it", START_SECONDS)
        assert during.value("mcpgw_connections_limit") == before.value("mcpgw_connections_limit") / 2
        assert not during.has("process_open_fds", slot="2")
        assert went_back(before, during) == []
    finally:
        os.kill(hung, signal.SIGCONT)
    await fleet.until_said("/livez", 200, "alive")


async def with_one_silent(fleet: Fleet) -> Metrics | None:
    metrics = await scrape(fleet.admin_port)
    states = [metrics.value("mcpgw_workers", state=state) for state in ("ready", "unready", "silent", "starting")]
    return metrics if states == [1, 0, 1, 0] else None


async def test_a_drain_there_makes_all_workers_leave_and_then_the_supervisor(fleet: Fleet) -> None:
    assert (await http.get(fleet.admin_port, "/drain", method="POST")).status == 401
    before = (await fleet.get("/drain")).json()
    assert before == {"state": "up", "workers": [{"slot": 1, "state": "up"}, {"slot": 2, "state": "up"}]}
    response = await fleet.get("/drain", "POST")
    assert (response.status, response.json()["state"]) == (202, "draining")
    assert await fleet.started.ended() == 0
    assert fleet.started.text.count("signal=SIGTERM workers=2") == 1
    assert "again" not in fleet.started.text


async def test_a_worker_that_has_said_goodbye_and_not_ended_yet_does_not_hang() -> None:
    one = fleet_module.Fleet(1, on_drain=lambda: None)
    [seat] = one.seats
    theirs = seat.take().theirs.dup()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(seat.listen())
        async with intercom.answering(Stand(), theirs):
            await wait_until(lambda: seat.is_started, "the worker has said hello")
            assert (await one.livez()).text == "alive"
    assert (await one.livez()).text == "alive"
    assert (await one.readyz()).text == "not ready: 0 of 1 workers\nworker 1: starting"
    one.is_draining = True
    assert (await one.drain(begins=False))["workers"] == [{"slot": 1, "state": "ended"}]


# Stand-ins that don't


async def test_workers_that_are_still_starting_are_alive_and_not_ready(cli: CommandLine) -> None:
    port = own_port()
    started = await cli.start("2", str(port), module="tests.cli.supervised")
    await started.until(STARTED, 2)
    assert (await http.get(port, "/livez")).status == 200
    readyz = await http.get(port, "/readyz")
    assert readyz.status == 503
    assert readyz.text == "not ready: 0 of 2 workers\nworker 1: starting\nworker 2: starting\n"
    assert (await scrape(port)).value("mcpgw_workers", state="starting") == 2
    assert (await http.get(port, "/drain", method="POST")).status == 404


async def test_the_admin_port_stays_until_the_last_worker_has_gone(cli: CommandLine) -> None:
    port = own_port()
    started = await cli.start("1", str(port), "--deaf", module="tests.cli.supervised")
    await started.until(r"^started \d+")  # the worker's own word: it is deaf from then on
    for number in (signal.SIGTERM, signal.SIGINT):
        started.process.send_signal(number)
        await started.until(f"signal={number.name}")
        assert (await http.get(port, "/livez")).status == 200
    assert await started.stop() == 1


async def test_an_admin_port_that_is_taken_stops_the_start_with_one_line(cli: CommandLine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = cli.run("2", str(taken.getsockname()[1]), module="tests.cli.supervised")
    assert done.returncode == 3
    assert "GATEWAY_ADMIN_PORT" in done.stderr
    assert "Traceback" not in done.stderr
