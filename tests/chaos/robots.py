"""A process of robots: they ask at random or as told, check every answer, and note all of it."""

import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from tests.chaos.checker import SLACK_SECONDS
from tests.chaos.logbook import Pen
from tests.chaos.peers import Message, Orders, Redialler, run, send, until
from tests.chaos.plan import Plan, tool_of, worker_of
from tests.chaos.processes import Pipe

OPEN_MAX = 24
PROBE_SECONDS = 0.1
HELLO = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "robot", "version": "1"},
}


@dataclass(slots=True)
class Asked:
    """A request on its way."""

    call: int
    nonce: str
    method: str
    due: float
    answered: "asyncio.Future[Message]"
    is_cancelled: bool = False


@dataclass(slots=True)
class Load:
    """How much is asked for at the moment."""

    rate: float = 0.0
    slow_seconds: float = 0.6
    stay_seconds: float = 4.0


class Robot(Redialler):
    """One conversation after the other. Ids are small integers from 1 on each connection, as those of real robots."""

    def __init__(
        self, plan: Plan, pen: Pen, agent: str, home: int, numbers: Iterator[int], *, stays: bool = False
    ) -> None:
        super().__init__(plan, pen, home, stays=stays)
        self.agent = agent
        self.name = ""
        self.asked: dict[int, Asked] = {}
        self._numbers = numbers
        self._ids = count(1)

    def __repr__(self) -> str:
        return f"robot of {self.agent} at home on {worker_of(self.home)}"

    @property
    def url(self) -> str:
        return self.plan.call_url(self.agent, self.slot)

    @property
    def owed(self) -> list[Asked]:
        """What an answer is due to."""
        return [asked for asked in self.asked.values() if not asked.is_cancelled]

    async def talk(self, socket: ClientConnection) -> None:
        self.name = f"{self.pen.who}.{next(self._numbers)}"
        self._ids = count(1)
        try:
            await self._ask(socket, "initialize", HELLO)
            async for frame in socket:
                match self._hear(orjson.loads(frame)):
                    case "initialize":
                        await send(socket, {"jsonrpc": "2.0", "method": "notifications/initialized"})
                        await self._ask(socket, "tools/list", {})
                    case "tools/list":
                        self.is_ready = True
        finally:
            self.pen.note("closed", robot=self.name, code=socket.close_code)
            for asked in self.asked.values():
                asked.answered.cancel()
            self.asked = {}

    async def call(self, server: str, pause: float = 0.0, bulk: int = 0, pad: int = 0) -> Asked | None:
        """Ask for a call; None if it could not be sent."""
        if self.socket is None:
            return None
        call, nonce = next(self._numbers), f"{random.getrandbits(64):016x}"
        arguments = {"call": call, "nonce": nonce, "agent": self.agent, "pause": pause, "bulk": bulk, "pad": "p" * pad}
        params = {"name": tool_of(server), "arguments": arguments}
        request = next(self._ids)
        asked = self._note_ask(request, "tools/call", call, nonce, server)
        with suppress(OSError, WebSocketException):
            await send(self.socket, {"jsonrpc": "2.0", "id": request, "method": "tools/call", "params": params})
        return asked

    async def cancel_later(self, asked: Asked, seconds: float) -> None:
        """Take the call back in the middle."""
        await asyncio.sleep(seconds)
        request = next((request for request, one in self.asked.items() if one is asked), None)
        if request is not None and self.socket is not None:
            self.pen.note("cancel", call=asked.call, robot=self.name)
            asked.is_cancelled = True
            params = {"requestId": request, "reason": "changed its mind"}
            with suppress(OSError, WebSocketException):
                await send(self.socket, {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})

    async def _ask(self, socket: ClientConnection, method: str, params: Message) -> None:
        request = next(self._ids)
        self._note_ask(request, method, next(self._numbers))
        await send(socket, {"jsonrpc": "2.0", "id": request, "method": method, "params": params})

    def _note_ask(self, request: int, method: str, call: int, nonce: str = "", server: str = "") -> Asked:
        at = self.pen.note(
            "ask",
            call=call,
            method=method,
            robot=self.name,
            agent=self.agent,
            server=server,
            worker=worker_of(self.slot),
            seconds=self.plan.call_seconds,
        )
        answered: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self.asked[request] = Asked(call, nonce, method, at + self.plan.call_seconds, answered)
        return self.asked[request]

    def _hear(self, message: Message) -> str:
        """Note an answer; the method that it answers."""
        if "method" in message:
            return ""
        asked = self.asked.pop(message.get("id", 0), None)
        if asked is None:
            self.pen.note("stray", robot=self.name, what=f"an answer that nobody waits for: id {message.get('id')}")
            return ""
        error = message.get("error")
        if error is None and asked.nonce:
            self._check_echo(asked, message)
        told = (error or {}).get("data") or {}
        self.pen.note(
            "answer",
            call=asked.call,
            robot=self.name,
            outcome="error" if error else "result",
            executed=told.get("executed"),
            reason=told.get("reason", "") or (str(error)[:200] if error else ""),
        )
        if not asked.answered.done():
            asked.answered.set_result(message)
        return asked.method

    def _check_echo(self, asked: Asked, message: Message) -> None:
        text = message["result"]["content"][0]["text"]
        echo = orjson.loads(text.partition("\n")[0])
        if (echo["call"], echo["nonce"]) != (asked.call, asked.nonce):
            self.pen.note("stray", robot=self.name, call=asked.call, what=f"the answer of call {echo['call']}")


class Crowd:
    """The robots of this process, and the orders that it takes."""

    def __init__(self, plan: Plan, pen: Pen, tasks: asyncio.TaskGroup, first_number: int) -> None:
        self._plan, self._pen, self._tasks = plan, pen, tasks
        self._numbers = count(first_number)
        self._load = Load()
        self._robots = [self._robot(agent, slot) for agent in plan.agents for slot in range(plan.slots)]
        for robot in self._robots:
            tasks.create_task(robot.run())
            tasks.create_task(self._ask_at_random(robot))
            tasks.create_task(self._come_and_go(robot))

    def _robot(self, agent: str, slot: int, *, stays: bool = False) -> Robot:
        return Robot(self._plan, self._pen, agent, slot, self._numbers, stays=stays)

    # Load

    async def _ask_at_random(self, robot: Robot) -> None:
        while True:
            await asyncio.sleep(random.expovariate(self._load.rate / len(self._robots)) if self._load.rate else 0.05)
            if self._load.rate and robot.is_ready and len(robot.asked) < OPEN_MAX:
                await self._ask_once(robot)

    async def _ask_once(self, robot: Robot) -> None:
        is_slow = random.random() < self._plan.slow_share
        pause = random.uniform(0.3, 1.0) * self._load.slow_seconds if is_slow else 0.0
        pad = 65536 if random.random() < 0.01 else 0
        asked = await robot.call(random.choice(self._plan.servers), pause, pad=pad)
        if asked is not None and is_slow and random.random() < self._plan.cancel_share:
            self._tasks.create_task(robot.cancel_later(asked, pause / 2))

    async def _come_and_go(self, robot: Robot) -> None:
        """Conversations end after a while, when nothing is owed, and new ones begin."""
        while True:
            await asyncio.sleep(random.expovariate(1 / self._load.stay_seconds))
            if self._load.rate and robot.is_ready and await until(lambda: not robot.owed, 1.0):
                await robot.hang_up()

    async def load(self, rate: float, slow_seconds: float, stay_seconds: float) -> None:
        """So many calls a second from now on, the slow ones up to so slow, in conversations of about that length."""
        self._load = Load(rate, slow_seconds, stay_seconds)

    async def quiet(self) -> bool:
        """Ask nothing more; replies when nothing is owed any more: whether all was answered."""
        self._load.rate = 0.0
        last = max((asked.due for robot in self._robots for asked in robot.owed), default=0.0)
        # A little longer than the checker allows, so that what is missing then is missing for good.
        seconds = last - time.monotonic() + SLACK_SECONDS + 0.1
        return await until(lambda: not any(robot.owed for robot in self._robots), max(0.0, seconds))

    async def spread(self, seconds: float) -> bool:
        """Everybody to the worker of their home; whether all are there."""
        for robot in self._robots:
            await robot.go_home()
        return await until(lambda: all(r.is_ready and r.slot == r.home for r in self._robots), seconds)

    async def redial(self) -> None:
        """Everybody drops the line at once and dials any worker."""
        for robot in self._robots:
            robot.drop()

    # As told

    async def call(self, agent: str, slot: int, server: str, **options: Any) -> int:
        """One call by the agent's robot on that worker; its number."""
        robot = next(r for r in self._robots if r.agent == agent and r.home == slot)
        await until(lambda: robot.is_ready and robot.slot == slot, 5.0)
        asked = await robot.call(server, **options)
        return asked.call if asked is not None else 0

    async def deaf(self, agent: str, slot: int, server: str, seconds: float, bulk: int) -> None:
        """For so long, a robot asks for large results and does not read them."""
        robot = next(r for r in self._robots if r.agent == agent and r.home == slot)
        if robot.socket is None:
            return
        transport, name = robot.socket.transport, robot.name
        began = self._pen.note("deaf", robot=name)
        transport.pause_reading()
        for _ in range(OPEN_MAX):
            await robot.call(server, bulk=bulk)
        await asyncio.sleep(seconds)
        if not transport.is_closing():
            transport.resume_reading()
        self._pen.note("frozen", name=name, since=began, until=self._pen.note("hears", robot=name))

    async def storm(self, count: int, seconds: float) -> Message:
        """So many robots come at once, are cut off at once, and come again: how many got through, and in what time."""
        loop = asyncio.get_running_loop()
        done: list[float] = []
        began = loop.time()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as tasks:
                for number in range(count):
                    tasks.create_task(self._come_twice(number, done))
        return {"through": len(done), "seconds": max(done, default=began) - began}

    async def _come_twice(self, number: int, done: list[float]) -> None:
        plan = self._plan
        url = plan.call_url(plan.agents[number % len(plan.agents)], number % plan.slots)
        left = 2
        while left:
            try:
                socket = await connect(url, proxy=None, compression=None, ping_interval=None, open_timeout=10)
                await send(socket, {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HELLO})
                await socket.recv()
                socket.transport.abort()
                left -= 1
            except (OSError, WebSocketException, TimeoutError):
                await asyncio.sleep(random.uniform(0.1, 0.5))
        done.append(asyncio.get_running_loop().time())

    # Have all come back?

    async def probe(self, since: float, seconds: float, slots: list[int]) -> dict[str, float | None]:
        """Every tool server called from each of these workers: after how long it first gave a result, None if never."""
        found: dict[str, float | None] = {}
        probers = [self._robot(agent, slot, stays=True) for agent in self._plan.agents for slot in slots]
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as tasks:
                for prober in probers:
                    tasks.create_task(self._probe_from(prober, since, found))
        return found

    async def _probe_from(self, prober: Robot, since: float, found: dict[str, float | None]) -> None:
        missing = set(self._plan.servers)
        found.update({_pair(prober, server): None for server in missing})
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(prober.run())
            while missing:
                for server in missing if prober.is_ready else ():
                    asked = await prober.call(server)
                    if asked is not None:
                        tasks.create_task(self._note_success(prober, server, asked, since, found, missing))
                await asyncio.sleep(PROBE_SECONDS if prober.is_ready else PROBE_SECONDS / 10)
            await until(lambda: not prober.owed, self._plan.call_seconds + SLACK_SECONDS)
            await prober.leave()

    async def _note_success(
        self, prober: Robot, server: str, asked: Asked, since: float, found: dict[str, float | None], missing: set[str]
    ) -> None:
        with suppress(asyncio.CancelledError):
            answer = await asked.answered
            if "result" in answer and server in missing:
                missing.discard(server)
                found[_pair(prober, server)] = time.monotonic() - since


def _pair(robot: Robot, server: str) -> str:
    return f"{robot.agent}/{server} from {worker_of(robot.home)}"


def main(pipe: Pipe, plan: Plan, who: str, first_number: int) -> None:
    """Run a robot of every agent on each worker."""

    async def whole() -> None:
        async with asyncio.TaskGroup() as tasks:
            crowd = Crowd(plan, Pen(plan.folder, who), tasks, first_number)
            names = ("load", "quiet", "spread", "redial", "call", "deaf", "storm", "probe")
            Orders(pipe, tasks, {name: getattr(crowd, name) for name in names})

    run(whole())
