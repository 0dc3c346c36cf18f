"""A tool server that dials in: a plain MCP server over a WebSocket, scriptable in every respect a test needs."""

from collections.abc import Sequence
from typing import Any

from tests.peers.tools import Call, Tool
from tests.peers.wire import Message, Peer


class ToolServer(Peer):
    """An MCP server that answers what it is asked, and remembers what that was.

    `calls` are the tool calls in the order of arrival; `cancelled` the request ids of `notifications/cancelled`.
    Set the attributes of the first block at any time to change how it behaves from then on.
    """

    protocol_version = "2024-11-05"

    def __init__(
        self,
        url: str,
        *,
        name: str = "server",
        version: str = "1.0",
        tools: Sequence[Tool] = (),
        page_size: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(url, **{"max_size": 16 * 1024 * 1024, **options})
        self.name = name
        self.version = version
        self.tools = list(tools)
        self.page_size = page_size
        self.answers_initialize = True
        self.answers_list = True
        self.answers_ping = True
        self.capabilities: Message = {"tools": {"listChanged": True}}
        self.calls: list[Call] = []

    # What the gateway asked, so far.

    @property
    def cancelled(self) -> list[Any]:
        return [message["params"]["requestId"] for message in self.received("notifications/cancelled")]

    @property
    def open_calls(self) -> list[Call]:
        return [call for call in self.calls if not call.is_answered]

    @property
    def request_ids(self) -> list[Any]:
        return [message["id"] for message in self.messages if "method" in message and "id" in message]

    async def until_called(self, count: int = 1, seconds: float = 5) -> Call:
        """Wait for the `count`-th tool call and return it."""
        await self.until(lambda: len(self.calls) >= count, f"{self.name} is called ({count}×)", seconds)
        return self.calls[count - 1]

    async def until_cancelled(self, call: Call, seconds: float = 5) -> None:
        """Wait until the gateway has cancelled the call."""
        await self.until(lambda: call.id in self.cancelled, f"the call of {call.tool} is cancelled", seconds)

    async def until_listed(self, count: int = 1, seconds: float = 5) -> None:
        """Wait until the tools have been asked for `count` times."""
        await self.until_received("tools/list", count, seconds)

    # What it says of its own.

    async def change_tools(self, tools: Sequence[Tool], *, notify: bool = True) -> None:
        """Have other tools from now on, and say so (most real servers do not)."""
        self.tools = list(tools)
        if notify:
            await self.send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})

    async def ask(self, request_id: Any, method: str, params: Any = None) -> Message:
        """Send a request to the gateway and wait for its answer."""
        request: Message = {"jsonrpc": "2.0", "id": request_id, "method": method}
        if params is not None:
            request["params"] = params
        start = len(self.messages)
        await self.send(request)
        await self.until(
            lambda: any(is_answer_to(message, request_id) for message in self.messages[start:]),
            f"the gateway answers {method} of {self.name}",
        )
        return next(message for message in self.messages[start:] if is_answer_to(message, request_id))

    # How it answers.

    async def on_message(self, message: Message) -> None:
        if not isinstance(message, dict) or "method" not in message or "id" not in message:
            return
        match message["method"]:
            case "initialize":
                await self.on_initialize(message)
            case "tools/list":
                await self.on_list(message)
            case "ping":
                await self.on_ping(message)
            case "tools/call":
                await self.on_call(message)
            case method:
                await self.refuse(message, -32601, f"Method not found: {method}")

    async def on_answered(self) -> None:
        """Called after a call has been answered."""

    async def on_initialize(self, message: Message) -> None:
        if self.answers_initialize:
            await self.reply(
                message,
                {
                    "protocolVersion": self.protocol_version,
                    "capabilities": self.capabilities,
                    "serverInfo": {"name": self.name, "version": self.version},
                },
            )

    async def on_list(self, message: Message) -> None:
        if self.answers_list:
            await self.reply(message, self.page((message.get("params") or {}).get("cursor")))

    def page(self, cursor: Any) -> Message:
        """One page of the list; the cursor is the index of its first tool."""
        start = int(cursor or 0)
        end = len(self.tools) if self.page_size is None else start + self.page_size
        result: Message = {"tools": [tool.listed for tool in self.tools[start:end]]}
        return {**result, "nextCursor": str(end)} if end < len(self.tools) else result

    async def on_ping(self, message: Message) -> None:
        if self.answers_ping:
            await self.reply(message, {})

    async def on_call(self, message: Message) -> None:
        call = Call(self, message)
        self.calls.append(call)
        tool = next((tool for tool in self.tools if tool.name == call.tool), None)
        if tool is None:
            await call.fail(-32602, f"Unknown tool: {call.tool}")
        else:
            await tool.handler(call)

    async def reply(self, request: Message, result: Any) -> None:
        await self.send({"jsonrpc": "2.0", "id": request["id"], "result": result})

    async def refuse(self, request: Message, code: int, text: str) -> None:
        await self.send({"jsonrpc": "2.0", "id": request["id"], "error": {"code": code, "message": text}})


def is_answer_to(message: Message, request_id: Any) -> bool:
    """Whether this is the answer to a request of that id (value and type)."""
    is_answer = "method" not in message and "id" in message
    return is_answer and type(message["id"]) is type(request_id) and bool(message["id"] == request_id)
