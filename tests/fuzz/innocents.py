"""A robot and a tool server that do everything right, call after call, whoever else is there."""

import asyncio

from tests.fuzz.cast import ROBOT, TOOL_SERVER, target
from tests.fuzz.messages import STEADY
from tests.peers.robot import Robot
from tests.peers.tool_server import ToolServer
from tests.peers.tools import Call, Tool

SERVER_ID = "good"
PAUSE_SECONDS = 0.04
LIST_EVERY = 40


async def _repeat(call: Call) -> None:
    """Whatever attackers call it with."""
    arguments = call.params.get("arguments")
    said = arguments.get("text") if isinstance(arguments, dict) else None
    await call.answer(said if isinstance(said, str) and said.startswith("call ") else "something")


class Innocents:
    """One pair, of one agent. `faults` is what went wrong for them."""

    def __init__(self, port: int, agent: str, *, bound_seconds: float) -> None:
        url = f"ws://127.0.0.1:{port}"
        self.agent = agent
        self.server = ToolServer(
            url + target(TOOL_SERVER, agent, SERVER_ID), name=SERVER_ID, tools=[Tool(STEADY, _repeat)]
        )
        self.robot = Robot(url + target(ROBOT, agent))
        self.faults: list[str] = []
        self.calls = 0
        self.slowest_seconds = 0.0
        self._bound_seconds = bound_seconds

    async def come(self) -> None:
        """Dial in, both, until the robot sees the tool."""
        await self.server.open()
        await self.robot.open()
        await self.robot.initialize()
        await self.robot.sees(STEADY, seconds=10)

    async def work(self, is_over: asyncio.Event) -> None:
        """Call until it is over, or something has gone wrong."""
        while not is_over.is_set() and not self.faults:
            try:
                await self._call()
            except (AssertionError, OSError, KeyError) as error:
                self.faults.append(f"{self.agent}: call {self.calls}: {type(error).__name__}: {str(error)[:300]}")
            except Exception as error:  # noqa: BLE001 - of the client's library: its connection is gone
                self.faults.append(f"{self.agent}: call {self.calls}: {type(error).__name__}: {str(error)[:300]}")
            await asyncio.sleep(PAUSE_SECONDS)

    async def _call(self) -> None:
        loop = asyncio.get_running_loop()
        self.calls += 1
        text, began = f"call {self.calls}", loop.time()
        answer = await self.robot.call(STEADY, {"text": text}, seconds=self._bound_seconds)
        self.slowest_seconds = max(self.slowest_seconds, loop.time() - began)
        got = answer.get("result", {}).get("content", [{}])[0].get("text")
        assert got == text, f"instead of {text!r}: {str(answer)[:200]}"
        if self.calls % LIST_EVERY == 0:
            tools = await self.robot.list_tools()
            own = [tool for tool in tools if tool["name"] == STEADY]
            assert [tool.get("server_id") for tool in own] == [SERVER_ID], f"the tool is listed as {own}"
        self._forget()

    def _forget(self) -> None:
        """Peers keep all they get; these stay for hours."""
        for peer in (self.robot, self.server):
            if len(peer.messages) > 2000:
                peer.messages.clear()
                peer.frames.clear()
                peer.seen.clear()
        self.server.calls.clear()

    async def leave(self) -> None:
        for peer in (self.robot, self.server):
            if peer.is_open:
                peer.socket.transport.abort()
            if peer._socket is not None:
                await peer.close()
