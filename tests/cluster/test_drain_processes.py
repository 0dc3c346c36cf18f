"""Rolling restarts of real processes: told by a signal or by a message, ended with 0, and no call lost on the way."""

import asyncio
import random
import signal
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake

from gateway.backplane.keys import Keys
from tests.cli.command_line import CommandLine
from tests.cluster.draining import assert_nothing_names
from tests.peers.redialler import Redialler
from tests.peers.robot import Robot
from tests.peers.tools import echo, sleeping, text_of
from tests.peers.wire import Message
from tests.support.gateway import Gateway, Guests
from tests.support.processes import GatewayProcess, serve
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

KEYS = Keys()
DRAIN: dict[str, Any] = {"drain_seconds": 6.0, "drain_grace_seconds": 0.2, "beat_seconds": 0.5, "lease_seconds": 6.0}


class Service:
    """Several workers, and the load balancer in front: it names one that is ready."""

    def __init__(self, cli: CommandLine, redis_url: str, guests: Guests) -> None:
        self._cli = cli
        self._redis_url = redis_url
        self._guests = guests
        self.gateways: list[Gateway] = []

    async def add(self) -> None:
        gateway = Gateway(await serve(self._cli, self._redis_url, **DRAIN), self._guests)
        await until_ready(gateway)
        self.gateways.append(gateway)

    async def replace_oldest(self) -> None:
        """A new worker comes, then an old one is told to leave and does, with exit code 0."""
        await self.add()
        await self.gateways.pop(0).worker.stop()

    def any(self) -> Gateway:
        return random.choice(self.gateways)


async def until_ready(gateway: Gateway) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                if (await gateway.get("/readyz")).status == 200:
                    return
            except OSError:
                pass
            await asyncio.sleep(0.01)


class Caller:
    """A robot that calls all the time. Closed between two calls, it dials again and goes on.

    What it had sent on a socket that was closed without an answer was not read by the gateway, and is sent again.
    """

    def __init__(self, service: Service, guests: Guests, name: str) -> None:
        self._service = service
        self._guests = guests
        self.name = name
        self.sent: list[str] = []
        self.answers: list[Message] = []
        self.codes: list[int] = []

    async def run(self, tools: list[str], over: asyncio.Event) -> None:
        robot = await self._dial()
        while not over.is_set():
            text = f"{self.name}-{len(self.sent)}"
            self.sent.append(text)
            while (answer := await self._ask(robot, tools, text)) is None:
                robot = await self._dial()
            self.answers.append(answer)
            await asyncio.sleep(0.03)

    async def _dial(self) -> Robot:
        while True:
            try:
                robot = await self._service.any().robot(is_ready=False)
                await robot.initialize()
            except (OSError, InvalidHandshake, ConnectionClosed):
                await asyncio.sleep(0.02)
            else:
                return robot

    async def _ask(self, robot: Robot, tools: list[str], text: str) -> Message | None:
        try:
            request_id = await robot.start_call(random.choice(tools), {"text": text})
        except ConnectionClosed:
            request_id = None
        if request_id is not None:
            await robot.until(lambda: bool(robot.answers(request_id)) or not robot.is_open, "the call ends", 20)
            if robot.answers(request_id):
                return robot.answers(request_id)[0]
        self.codes.append((await robot.until_closed()).code)
        return None


async def test_a_rolling_restart_of_three_workers_under_load_loses_no_call(
    cli: CommandLine, guests: Guests, redis_server: RedisServer
) -> None:
    service = Service(cli, redis_server.url, guests)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(3):
            tasks.create_task(service.add())
    servers = []
    for number, gateway in enumerate(service.gateways * 2):
        server = Redialler(gateway.mcp_url, name=f"server{number}", tools=[echo(f"echo{number}")])
        servers.append(await gateway.attach(server))
        server.where = lambda: service.any().mcp_url()
    tools = [f"echo{number}" for number in range(len(servers))]
    callers = [Caller(service, guests, f"robot{number}") for number in range(6)]
    over = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for caller in callers:
            tasks.create_task(caller.run(tools, over))
        first_ones = list(service.gateways)
        for _ in range(3):
            await service.replace_oldest()
        over.set()
    assert not set(first_ones) & set(service.gateways)
    answers = [answer for caller in callers for answer in caller.answers]
    assert [answer for answer in answers if "result" not in answer] == []
    sent = sorted(text for caller in callers for text in caller.sent)
    assert sorted(text_of(answer) for answer in answers) == sent
    assert sorted(call.arguments["text"] for server in servers for call in server.calls) == sent
    assert {code for server in servers for code in server.codes} == {1012}
    assert {code for caller in callers for code in caller.codes} <= {1012}
    assert all(server.codes for server in servers), "each has moved"
    with redis_server.client() as store:
        alive = {name.decode() for name, _ in store.zscan_iter(KEYS.workers)}
        assert len(alive) == 3
        for name, _ in store.xrange(KEYS.events):
            worker = store.xrange(KEYS.events, name, name)[0][1][b"worker"].decode()
            if worker not in alive:
                assert_nothing_names(store, worker)


async def test_a_call_ends_in_its_result_after_the_signal_and_a_second_signal_ends_it_all(
    cli: CommandLine, guests: Guests, redis_server: RedisServer
) -> None:
    process = await serve(cli, redis_server.url, **{**DRAIN, "drain_seconds": 60.0})
    gateway = Gateway(process, guests)
    await until_ready(gateway)
    await gateway.tool_server(tools=[sleeping("slow", 0.5, "slept")])
    robot = await gateway.robot()
    await robot.sees("slow")
    request_id = await robot.start_call("slow")
    process.signal(signal.SIGTERM)
    assert text_of(await robot.answer(request_id)) == "slept"
    assert "draining" in (await gateway.get("/readyz")).text
    assert robot.is_open
    process.signal(signal.SIGTERM)
    assert (await robot.until_closed()).code == 1012
    assert await process.ended() == 0


async def test_ctrl_c_ends_it_at_once(cli: CommandLine, guests: Guests, redis_server: RedisServer) -> None:
    process = await serve(cli, redis_server.url, **{**DRAIN, "drain_seconds": 60.0})
    gateway = Gateway(process, guests)
    await until_ready(gateway)
    robot = await gateway.robot()
    process.signal(signal.SIGINT)
    assert (await robot.until_closed()).code == 1012
    assert await process.ended() == 0


async def test_one_of_several_on_a_port_is_drained_by_message_and_started_anew_while_the_others_take_who_comes(
    cli: CommandLine, guests: Guests, redis_server: RedisServer
) -> None:
    process = await serve(cli, redis_server.url, workers=2, **{**DRAIN, "drain_seconds": 60.0})
    gateway = Gateway(process, guests)
    with redis_server.client() as store:
        await wait_until(lambda: store.zcard(KEYS.workers) == 2, "both workers are in the cluster", 20)
        await until_ready(gateway)
        robots = [await gateway.robot() for _ in range(20)]
        holders = await wait_until(lambda: holders_of(store, len(robots)), "the robots' rows are written")
        assert len(set(holders.values())) == 2, "the kernel spreads them"
        leaving = random.choice(sorted(set(holders.values())))
        store.publish(KEYS.ctl, f'{{"t":"drain","w":"{leaving}"}}')
        await wait_until(lambda: store.hget(KEYS.worker(leaving), "state") == b"draining", "it drains")
        for _ in range(20):
            await (await gateway.robot()).close()
        for robot in robots:
            await robot.close()
        await process.started.until("a drained worker is started again")
        await wait_until(lambda: store.zcard(KEYS.workers) == 2, "there are two again", 20)
        assert leaving.encode() not in store.zrange(KEYS.workers, 0, -1)
        assert_nothing_names(store, leaving)
    assert "ERROR" not in process.started.text
    await process.stop()


async def test_workers_that_lost_their_supervisor_leave_in_peace_and_a_new_one_has_the_port_at_once(
    cli: CommandLine, guests: Guests, redis_server: RedisServer
) -> None:
    changes = {**DRAIN, "drain_seconds": 60.0}
    process = await serve(cli, redis_server.url, workers=2, **changes)
    old = Gateway(process, guests)
    await until_ready(old)
    server = await old.attach(Redialler(old.mcp_url, tools=[echo()]))
    robot = await old.robot()
    await robot.sees("echo")
    process.started.process.kill()
    await process.started.process.wait()
    changes["port"] = process.port
    new = Gateway(await wait_until(lambda: started(cli, redis_server.url, changes), "the port is free", 10), guests)
    await until_ready(new)
    newcomer = await new.robot()
    for one, text in ((robot, "still here"), (newcomer, "across")):
        assert text_of(await one.call("echo", {"text": text}, seconds=10)) == text
    for peer in (robot, newcomer, server):
        await peer.close()
    await process.started.ended()
    await new.worker.stop()


async def started(cli: CommandLine, redis_url: str, changes: dict[str, Any]) -> GatewayProcess | None:
    """A gateway with these settings, None if it finds its port taken."""
    try:
        return await serve(cli, redis_url, workers=2, **changes)
    except AssertionError:
        return None


def holders_of(store: Any, count: int) -> dict[str, str]:
    """Robot's connection → its worker, once so many rows are there."""
    names = [name.decode() for name in store.hkeys("mcpgw:robots:{home}")]
    return {name: name.rpartition(".")[0] for name in names} if len(names) >= count else {}
