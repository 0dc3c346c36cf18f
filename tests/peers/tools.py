"""Tools of a scripted tool server: what they are called, how they are listed, and what a call of them does."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.peers.wire import Message

if TYPE_CHECKING:
    from tests.peers.tool_server import ToolServer


@dataclass(slots=True)
class Call:
    """One `tools/call` that arrived at a tool server, until that has answered it."""

    server: "ToolServer"
    message: Message
    is_answered: bool = False

    @property
    def id(self) -> Any:
        return self.message["id"]

    @property
    def params(self) -> Message:
        params = self.message["params"]
        assert isinstance(params, dict)
        return params

    @property
    def tool(self) -> str:
        return str(self.params["name"])

    @property
    def arguments(self) -> Message:
        arguments = self.params.get("arguments", {})
        assert isinstance(arguments, dict)
        return arguments

    @property
    def progress_token(self) -> Any:
        return self.params.get("_meta", {}).get("progressToken")

    async def answer(self, result: Any) -> None:
        """Answer with a result: a whole one, or a text to make one of."""
        body = {"result": text_result(result) if isinstance(result, str) else result}
        await self._finish({"jsonrpc": "2.0", "id": self.id, **body})

    async def fail(self, code: int, message: str, data: Any = None) -> None:
        """Answer with a JSON-RPC error."""
        error: Message = {"code": code, "message": message}
        if data is not None:
            error["data"] = data
        await self._finish({"jsonrpc": "2.0", "id": self.id, "error": error})

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        """Tell how far the call has come, under the token that came with it."""
        params: Message = {"progressToken": self.progress_token, "progress": progress}
        if total is not None:
            params["total"] = total
        if message is not None:
            params["message"] = message
        await self.server.send({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})

    async def _finish(self, message: Message) -> None:
        self.is_answered = True
        await self.server.send(message)
        await self.server.on_answered()


Handler = Callable[[Call], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool: its entry in the list, and what happens when it is called."""

    name: str
    handler: Handler
    description: str = "a tool"
    schema: Any = field(default_factory=lambda: {"type": "object", "properties": {}})
    extra: Message = field(default_factory=dict)

    @property
    def listed(self) -> Message:
        return {"name": self.name, "description": self.description, "inputSchema": self.schema, **self.extra}


def text_result(text: str, *, is_error: bool = False) -> Message:
    """A result with one text block."""
    result: Message = {"content": [{"type": "text", "text": text}]}
    return {**result, "isError": True} if is_error else result


def text_of(answer: Message) -> str:
    """The first text of an answer; fails with the whole answer if there is none."""
    assert "result" in answer, answer
    return str(answer["result"]["content"][0]["text"])


async def _echo(call: Call) -> None:
    await call.answer(call.arguments.get("text", "") or f"{call.server.name}:{call.tool}")


async def _hold(call: Call) -> None:
    """Never answered, unless the test does it."""


async def _add(call: Call) -> None:
    await call.answer(str(call.arguments["a"] + call.arguments["b"]))


def echo(name: str = "echo", **options: Any) -> Tool:
    """Answers with the argument `text`, or with `<server>:<tool>` if there is none."""
    return Tool(name, _echo, **options)


def held(name: str = "slow", **options: Any) -> Tool:
    """Answers only when the test does it, by the Call in the tool server's `calls`."""
    return Tool(name, _hold, **options)


def adder(name: str = "add") -> Tool:
    """Adds `a` and `b`."""
    number = {"type": "number"}
    schema = {"type": "object", "properties": {"a": number, "b": number}, "required": ["a", "b"]}
    return Tool(name, _add, "adds two numbers", schema)


def answering(name: str, result: Message) -> Tool:
    """Always answers with this result."""

    async def handler(call: Call) -> None:
        await call.answer(result)

    return Tool(name, handler)


def failing(name: str, code: int, message: str, data: Any = None) -> Tool:
    """Always answers with this JSON-RPC error."""

    async def handler(call: Call) -> None:
        await call.fail(code, message, data)

    return Tool(name, handler)


def reporting(name: str, steps: Sequence[float], text: str = "done") -> Tool:
    """Sends a progress notification for each step, then answers with the text."""

    async def handler(call: Call) -> None:
        for step in steps:
            await call.progress(step, total=steps[-1])
        await call.answer(text)

    return Tool(name, handler)


def sleeping(name: str, seconds: float, text: str = "slept") -> Tool:
    """Takes its time and does nothing else meanwhile, as a strictly serial server does."""

    async def handler(call: Call) -> None:
        await asyncio.sleep(seconds)
        await call.answer(text)

    return Tool(name, handler)
