"""Robots and tool servers, as far as the gateway's promises concern them."""

from collections.abc import Callable
from random import Random
from typing import Any

import orjson

from tests.simulation.journal import Journal, Request
from tests.simulation.loop import Process
from tests.simulation.sockets import Peer, Socket

Dial = Callable[[Peer, str, str, str], Socket | None]
"""Peer, kind (`mcp`, `call`), agent, server_id → a socket to some worker that takes one, None if there is none."""

KINDS = ("fast", "slow", "never")
SLOWEST_SECONDS = 1.2
"""What a slow tool may take; `never` takes for ever."""


def dumps(**message: Any) -> bytes:
    return orjson.dumps({"jsonrpc": "2.0", **message})


class Device:
    """A machine with a tool server, which dials again whenever it has no socket left."""

    def __init__(
        self, journal: Journal, process: Process, dial: Dial, random: Random, agent: str, name: str, server_id: str
    ) -> None:
        self.name, self.agent, self.server_id = name, agent, server_id
        self.sockets: list[Socket] = []
        self.has_extra = False
        """Whether one more tool is on offer."""
        self._journal, self._process, self._dial, self._random = journal, process, dial, random

    @property
    def tools(self) -> list[str]:
        return [f"{self.name}_{kind}" for kind in (*KINDS, *(["extra"] if self.has_extra else []))]

    @property
    def open_sockets(self) -> list[Socket]:
        return [socket for socket in self.sockets if socket.is_open_there]

    def dial(self) -> None:
        """One more socket."""
        socket = self._dial(self, "mcp", self.agent, self.server_id)
        if socket is None:
            self._later(0.2, self.dial_again)
        else:
            self.sockets = [*self.open_sockets, socket]
            self._journal.note(self.name, f"dials {socket.connection_id}")

    def dial_again(self) -> None:
        if not self.open_sockets:
            self.dial()

    def hang_up(self) -> None:
        for socket in self.open_sockets:
            socket.hang_up()
        self._later(0.05 + 0.6 * self._random.random(), self.dial_again)

    def vanish(self) -> None:
        for socket in self.open_sockets:
            socket.vanish(1.0 + 2.0 * self._random.random())
        self._later(0.05 + 0.6 * self._random.random(), self.dial_again)

    def change_tools(self) -> None:
        self.has_extra = not self.has_extra
        for socket in self.open_sockets:
            socket.say(dumps(method="notifications/tools/list_changed"))

    def on_closed(self, socket: Socket, code: int) -> None:
        if code not in (1000, 1006, 1012, 1013):
            self._journal.complain(f"{self.name} closed with {code}")
        self._later(0.05 + 0.6 * self._random.random(), self.dial_again)

    def on_frame(self, socket: Socket, frame: bytes) -> None:
        message = orjson.loads(frame)
        match message.get("method"):
            case "initialize":
                result: dict[str, Any] = {
                    "protocolVersion": message["params"]["protocolVersion"],
                    "capabilities": {"tools": {"listChanged": True}},
                    "serverInfo": {"name": self.name, "version": "1"},
                }
                self._answer(socket, message, result)
            case "tools/list":
                schema = {"type": "object"}
                self._answer(socket, message, {"tools": [{"name": n, "inputSchema": schema} for n in self.tools]})
            case "ping":
                self._answer(socket, message, {})
            case "tools/call":
                self._run(socket, message)

    def _answer(self, socket: Socket, message: dict[str, Any], result: dict[str, Any]) -> None:
        socket.say(dumps(id=message["id"], result=result))

    def _run(self, socket: Socket, message: dict[str, Any]) -> None:
        params = message["params"]
        number, kind = params["arguments"]["n"], params["name"].rpartition("_")[2]
        self._journal.execute(number, self.name, socket.connection_id)
        self._journal.note(self.name, f"runs call {number}")
        result = {"content": [{"type": "text", "text": f"{self.name} {number}"}]}
        if kind != "never":
            seconds = 0.01 if kind != "slow" else 0.3 + (SLOWEST_SECONDS - 0.3) * self._random.random()
            self._later(seconds, lambda: self._answer(socket, message, result))

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        self._process.at(self._process.loop.time() + seconds, act)


class Robot:
    """One conversation: it comes, lists, calls, and goes."""

    def __init__(
        self, journal: Journal, process: Process, dial: Dial, random: Random, agent: str, name: str, call_seconds: float
    ) -> None:
        self.name, self.agent = name, agent
        self.tools: list[str] = []
        self.pushed = 0
        self.is_over = False
        self.socket: Socket | None = None
        self._journal, self._process, self._dial, self._random = journal, process, dial, random
        self._call_seconds = call_seconds
        self._ids = 10
        self._open: dict[int, Request] = {}
        self._lists: set[int] = set()

    def dial(self) -> None:
        if self.is_over:
            return
        self.socket = self._dial(self, "call", self.agent, "")
        if self.socket is None:
            self._process.at(self._process.loop.time() + 0.2, self.dial)
            return
        self._journal.note(self.name, f"dials {self.socket.connection_id}")
        params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "sim", "version": "1"}}
        self.socket.say(dumps(id=1, method="initialize", params=params))
        self.socket.say(dumps(method="notifications/initialized"))
        self.list_tools()

    def is_on(self, worker: str) -> bool:
        return self.socket is not None and self.socket.is_open_there and self.socket.worker_name == worker

    def list_tools(self) -> None:
        self._ids += 1
        self._lists.add(self._ids)
        if self.socket is not None:
            self.socket.say(dumps(id=self._ids, method="tools/list"))

    def call(self, tool: str) -> Request | None:
        """Ask for the tool; None while there is no socket."""
        socket = self.socket
        if socket is None or not socket.is_open_there:
            return None
        self._ids += 1
        request = self._journal.new_request(self.name, self._ids, tool, socket.worker_name, self._call_seconds)
        self._open[self._ids] = request
        self._journal.note(self.name, f"asks for call {request.number}: {tool}")
        params = {"name": tool, "arguments": {"n": request.number}}
        socket.say(dumps(id=self._ids, method="tools/call", params=params))
        return request

    def cancel_one(self) -> None:
        for request in self._open.values():
            if not request.answers and request.cancelled_at is None and self.socket is not None:
                request.cancelled_at = self._process.loop.time()
                self._journal.note(self.name, f"cancels call {request.number}")
                self.socket.say(dumps(method="notifications/cancelled", params={"requestId": request.rpc_id}))
                return

    def leave(self, *, is_told: bool = True) -> None:
        """The conversation is over."""
        self.is_over = True
        if self.socket is not None and self.socket.is_open_there:
            if is_told:
                self.socket.hang_up()
            else:
                self.socket.vanish(2.0)
            self._gone()

    def _gone(self) -> None:
        now = self._process.loop.time()
        for request in self._open.values():
            if not request.answers:
                request.robot_gone_at = now
        self._open.clear()
        self._lists.clear()

    def on_closed(self, socket: Socket, code: int) -> None:
        if code not in (1006, 1012):
            self._journal.complain(f"{self.name} closed with {code}")
        self._gone()
        self._process.at(self._process.loop.time() + 0.1 + 0.5 * self._random.random(), self.dial)

    def on_frame(self, socket: Socket, frame: bytes) -> None:
        message = orjson.loads(frame)
        if "method" in message:
            if message["method"] == "notifications/tools/list_changed":
                self.list_tools()
            return
        rpc_id = message.get("id")
        request = self._open.get(rpc_id)
        if request is not None:
            self._on_answer(request, message)
        elif rpc_id in self._lists:
            self._lists.discard(rpc_id)
            self.tools = [tool["name"] for tool in message["result"]["tools"]]
        elif rpc_id != 1:
            self._journal.complain(f"{self.name} was sent an answer that it did not ask for: {message}")

    def _on_answer(self, request: Request, message: dict[str, Any]) -> None:
        request.answers.append((self._process.loop.time(), message))
        if "result" in message:
            text = message["result"]["content"][0]["text"]
            if text.split(" ")[-1] != str(request.number):
                self._journal.complain(f"{request} was given another call's answer: {text}")
