"""The peers that generators play: tool servers that answer at once, and robots that shake hands."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import orjson

from bench.load.sockets import Socket

T = TypeVar("T")

CONNECTING_AT_ONCE = 64
_HELLO = {"name": "bench", "version": "1"}


def tool_name(number: int) -> str:
    return f"set_light_{number}"


def tools(count: int) -> list[dict[str, Any]]:
    """A list of tools as real ones are: a sentence of description, two parameters; about 330 bytes each."""
    properties = {
        "room": {"type": "string", "description": "The room, as the people who live there call it"},
        "level": {"type": "integer", "minimum": 0, "maximum": 100, "description": "Per cent, 0 is off"},
    }
    return [
        {
            "name": tool_name(number),
            "description": f"Sets the brightness of light {number}. Use it when somebody asks for more or less light.",
            "inputSchema": {"type": "object", "properties": properties, "required": ["room"]},
        }
        for number in range(count)
    ]


def result_of(size_bytes: int) -> bytes:
    """The result of a call, so many bytes of JSON."""
    content = {"type": "text", "text": ""}
    result = {"content": [content], "isError": False}
    content["text"] = "r" * (size_bytes - len(orjson.dumps(result)))
    return orjson.dumps(result)


class ToolServer:
    """Answers at once, in the process of the load."""

    def __init__(self, socket: Socket, tool_list: bytes, result: bytes = b"{}") -> None:
        self.socket = socket
        self.listed = asyncio.Event()
        self._list = tool_list
        self._result = result
        socket.hear(self.on_text)

    def on_text(self, text: bytes) -> None:
        message = orjson.loads(text)
        if "id" in message:
            self.socket.send(b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (message["id"], self._answer(message)))

    def _answer(self, message: dict[str, Any]) -> bytes:
        match message["method"]:
            case "tools/call":
                return self._result
            case "initialize":
                return orjson.dumps(
                    {"protocolVersion": "2024-11-05", "capabilities": {"tools": {}}, "serverInfo": _HELLO}
                )
            case "tools/list":
                self.listed.set()
                return self._list
            case _:
                return b"{}"


class Robot:
    """Shakes hands."""

    def __init__(self, socket: Socket) -> None:
        self.socket = socket
        self.last_id = 0
        self._answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def shake_hands(self) -> None:
        """Return when tools are listed."""
        self.socket.hear(self._on_text)
        params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": _HELLO}
        await self._ask("initialize", params)
        self.socket.send(b'{"jsonrpc":"2.0","method":"notifications/initialized"}')
        while not (await self._ask("tools/list", {}))["tools"]:
            await asyncio.sleep(0.1)

    async def _ask(self, method: str, params: Any) -> Any:
        self.last_id += 1
        self._answer = asyncio.get_running_loop().create_future()
        self.socket.send(orjson.dumps({"jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params}))
        self.socket.flush()
        return (await self._answer)["result"]

    def _on_text(self, text: bytes) -> None:
        message = orjson.loads(text)
        if message.get("id") == self.last_id and not self._answer.done():
            self._answer.set_result(message)


def encoded_list(count: int) -> bytes:
    """The answer to `tools/list`."""
    return orjson.dumps({"tools": tools(count)})


async def each(items: Iterable[T], work: Callable[[T], Awaitable[None]], at_once: int = CONNECTING_AT_ONCE) -> None:
    """Do the work for each item, that many at a time."""
    rest = iter(items)

    async def worker() -> None:
        for item in rest:
            await work(item)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(at_once):
            tasks.create_task(worker())
