"""A process of tool servers: each runs what it is asked to and notes every execution before it answers."""

import asyncio
from contextlib import suppress
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import WebSocketException

from tests.chaos.logbook import Pen
from tests.chaos.peers import Message, Orders, Redialler, run, send, until
from tests.chaos.plan import Plan, tool_of, worker_of
from tests.chaos.processes import Pipe


class ToolServer(Redialler):
    """One tool, `work_<server>`: waits `pause` seconds, answers with what it was given, `bulk` bytes longer."""

    def __init__(self, plan: Plan, pen: Pen, agent: str, server: str, home: int, *, stays: bool = False) -> None:
        super().__init__(plan, pen, home, stays=stays)
        self.agent, self.server = agent, server
        self.is_mute = False
        """Answers nothing any more, as a hung program does behind a library that still pongs."""

    def __repr__(self) -> str:
        return f"{self.agent}/{self.server}"

    @property
    def url(self) -> str:
        return self.plan.mcp_url(self.agent, self.server, self.slot)

    async def talk(self, socket: ClientConnection) -> None:
        try:
            async with asyncio.TaskGroup() as calls:
                async for frame in socket:
                    await self._hear(socket, orjson.loads(frame), calls)
                raise ConnectionError("closed")  # what still runs has nobody to answer to
        except* (OSError, WebSocketException):
            pass

    async def _hear(self, socket: ClientConnection, message: Message, calls: asyncio.TaskGroup) -> None:
        if self.is_mute or "method" not in message or "id" not in message:
            return
        match message["method"]:
            case "initialize":
                await self._reply(socket, message, self._introduction())
            case "tools/list":
                await self._reply(socket, message, {"tools": [self._tool()]})
                self.is_ready = True
            case "ping":
                await self._reply(socket, message, {})
            case "tools/call":
                calls.create_task(self._run_call(socket, message))

    async def _run_call(self, socket: ClientConnection, message: Message) -> None:
        arguments: dict[str, Any] = message["params"]["arguments"]
        call = arguments["call"]
        worker = worker_of(self.slot)
        self.pen.note("begin", call=call, agent=self.agent, of=arguments["agent"], server=self.server, worker=worker)
        await asyncio.sleep(arguments["pause"])
        self.pen.note("end", call=call)
        text = orjson.dumps({"call": call, "nonce": arguments["nonce"]}).decode()
        bulk = "\n" + "x" * arguments["bulk"] if arguments.get("bulk") else ""
        with suppress(OSError):  # there is nobody to answer to; who reads the socket finds out as well
            await self._reply(socket, message, {"content": [{"type": "text", "text": text + bulk}]})

    async def _reply(self, socket: ClientConnection, request: Message, result: Message) -> None:
        try:
            await send(socket, {"jsonrpc": "2.0", "id": request["id"], "result": result})
        except WebSocketException as error:
            raise ConnectionError(str(error)) from error

    def _introduction(self) -> Message:
        info = {"name": self.server, "version": "1"}
        return {"protocolVersion": "2024-11-05", "capabilities": {"tools": {}}, "serverInfo": info}

    def _tool(self) -> Message:
        return {"name": tool_of(self.server), "description": "works", "inputSchema": {"type": "object"}}


class Crew:
    """The tool servers of this process, and the orders that it takes."""

    def __init__(self, plan: Plan, pen: Pen, tasks: asyncio.TaskGroup, servers: tuple[str, ...]) -> None:
        self._plan, self._pen, self._tasks = plan, pen, tasks
        self._crew: dict[tuple[str, str], ToolServer] = {}
        for agent in plan.agents:
            for server in servers:
                self._hire(agent, server, plan.home(agent, server))

    def _hire(self, agent: str, server: str, home: int, *, stays: bool = False) -> ToolServer:
        hired = ToolServer(self._plan, self._pen, agent, server, home, stays=stays)
        self._crew[agent, server] = hired
        self._tasks.create_task(hired.run())
        return hired

    async def spread(self, seconds: float) -> bool:
        """Everybody to the worker of their home; whether all are connected there."""
        for server in self._crew.values():
            await server.go_home()
        return await until(lambda: all(s.is_ready and s.slot == s.home for s in self._crew.values()), seconds)

    async def twin(self, agent: str, server: str, slot: int, seconds: float) -> None:
        """For so long, a second program with the same server_id fights for its place."""
        twin = ToolServer(self._plan, self._pen, agent, server, slot)
        self._tasks.create_task(twin.run())
        await asyncio.sleep(seconds)
        await twin.leave()

    async def takeover(self, agent: str, server: str, slot: int) -> bool:
        """Another connection takes the place of this one, which does not come back."""
        old = self._crew[agent, server]
        old.is_leaving = True
        newcomer = self._hire(agent, server, slot, stays=True)
        return await until(lambda: newcomer.is_ready and old.socket is None, 5.0)

    async def stay(self, agent: str, server: str, slot: int) -> bool:
        """From now on this one knows only that worker."""
        one = self._crew[agent, server]
        one.home, one.stays = slot, True
        await one.go_home()
        return await until(lambda: one.is_ready and one.slot == slot, 5.0)

    async def mute(self, agent: str, server: str, seconds: float) -> None:
        """For so long, this one answers nothing but WebSocket pings."""
        one = self._crew[agent, server]
        one.is_mute = True
        await asyncio.sleep(seconds)
        one.is_mute = False
        await one.hang_up()  # somebody restarts the program

    async def deaf(self, agent: str, server: str, seconds: float) -> None:
        """For so long, this one does not read from its socket."""
        one = self._crew[agent, server]
        if one.socket is None:
            return
        transport = one.socket.transport
        began = self._pen.note("deaf", agent=agent, server=server)
        transport.pause_reading()
        await asyncio.sleep(seconds)
        if not transport.is_closing():
            transport.resume_reading()
        ended = self._pen.note("hears", agent=agent, server=server)
        self._pen.note("frozen", name=f"{agent}/{server}", since=began, until=ended)

    async def redial(self) -> None:
        """Everybody drops the line at once and dials any worker."""
        for server in self._crew.values():
            server.drop()


def main(pipe: Pipe, plan: Plan, who: str, servers: tuple[str, ...]) -> None:
    """Run the tool servers of these names, of every agent."""

    async def whole() -> None:
        async with asyncio.TaskGroup() as tasks:
            crew = Crew(plan, Pen(plan.folder, who), tasks, servers)
            names = ("spread", "twin", "takeover", "stay", "mute", "deaf", "redial")
            Orders(pipe, tasks, {name: getattr(crew, name) for name in names})

    run(whole())
