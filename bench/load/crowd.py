"""A crowd: robots and tool servers that are connected and do nothing; on an order tool servers that redial."""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.cpu import raise_open_files
from bench.load.joins import heard
from bench.load.orders import Orders, run
from bench.load.peers import Robot, ToolServer, each, encoded_list
from bench.load.sockets import Socket, connect

BACKOFF_SECONDS = 1.0
BACKOFF_SECONDS_MAX = 8.0
DIAL_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Who comes. `redial_urls` are where the tool servers dial after they have lost their worker."""

    tool_urls: Sequence[str]
    robot_urls: Sequence[str]
    tools: int
    redial_urls: Sequence[str] = ()
    is_echo: bool = False


@dataclass(slots=True)
class Crowd:
    """Those who are there."""

    plan: Plan
    sockets: list[Socket] = field(default_factory=list)
    dials: int = 0

    async def come(self) -> None:
        """Connect everybody; return when the tool servers are listed and the robots have listed."""
        tool_list = encoded_list(self.plan.tools)

        async def tool_server(url: str) -> None:
            self.sockets.append((await self._listed(url, tool_list)).socket)

        async def robot(url: str) -> None:
            one = Robot(await connect(url))
            self.sockets.append(one.socket)
            await one.shake_hands()

        async def echo(url: str) -> None:
            socket = await connect(url)
            self.sockets.append(socket)
            await heard(socket, b'{"jsonrpc":"2.0","id":1,"method":"ping"}')

        await each(self.plan.tool_urls, echo if self.plan.is_echo else tool_server)
        await each(self.plan.robot_urls, echo if self.plan.is_echo else robot)

    async def redial(self) -> None:
        """All dial at once; whoever is refused waits 1 s, 2 s, 4 s … and as much again by chance, and tries again."""
        tool_list = encoded_list(self.plan.tools)
        while not all(socket.lost for socket in self.sockets):
            await asyncio.sleep(0.01)
        self.sockets.clear()
        async with asyncio.TaskGroup() as tasks:
            for url in self.plan.redial_urls:
                tasks.create_task(self._dial_until_listed(url, tool_list))

    async def _listed(self, url: str, tool_list: bytes) -> ToolServer:
        """Connect one. Raises ConnectionError or TimeoutError if its tools are not asked for."""
        one = ToolServer(await connect(url, DIAL_SECONDS), tool_list)
        async with asyncio.timeout(DIAL_SECONDS):
            await one.listed.wait()
        return one

    async def _dial_until_listed(self, url: str, tool_list: bytes) -> None:
        backoff_seconds = BACKOFF_SECONDS
        while True:
            self.dials += 1
            try:
                one = await self._listed(url, tool_list)
            except (ConnectionError, TimeoutError):
                await asyncio.sleep(backoff_seconds * (1 + random.random()))
                backoff_seconds = min(2 * backoff_seconds, BACKOFF_SECONDS_MAX)
            else:
                self.sockets.append(one.socket)
                return


async def main(orders: Orders) -> None:
    plan = Plan(**await orders.next())
    raise_open_files(len(plan.tool_urls) + len(plan.robot_urls) + 500)
    crowd = Crowd(plan)
    await crowd.come()
    orders.answer({"connected": len(crowd.sockets)})
    while (order := await orders.next()) is not None:
        if order["do"] == "check":
            orders.answer({"lost": [one.lost for one in crowd.sockets if one.lost][:3]})
            continue
        started = time.perf_counter()
        await crowd.redial()
        orders.answer({"seconds": time.perf_counter() - started, "dials": crowd.dials})


if __name__ == "__main__":
    run(main)
