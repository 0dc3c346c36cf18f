"""A robot: a plain, modern MCP client over a WebSocket, with free choice of ids and of every byte."""

from collections.abc import Sequence
from typing import Any, Self

from tests.peers.wire import Message, Peer, same_id


class Robot(Peer):
    """An MCP client. `open()` dials only; `initialize()` does the handshake.

    Requests get ids of their own (`r-1`, `r-2` …) unless one is given, so that no test depends on small integers.
    """

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **{"max_size": 16 * 1024 * 1024, **options})
        self._minted = 0

    def new_id(self) -> str:
        self._minted += 1
        return f"r-{self._minted}"

    async def start(self, method: str, params: Any = None, *, id: Any = None, **extra: Any) -> Any:
        """Send a request without waiting for its answer; returns its id."""
        request_id = self.new_id() if id is None else id
        message: Message = {"jsonrpc": "2.0", "id": request_id, "method": method, **extra}
        if params is not None:
            message["params"] = params
        await self.send(message)
        return request_id

    async def request(self, method: str, params: Any = None, *, id: Any = None, seconds: float = 5) -> Message:
        """Send a request and return its answer, result or error."""
        position = len(self.messages)
        request_id = await self.start(method, params, id=id)
        return await self.answer(request_id, position, seconds)

    async def notify(self, method: str, params: Any = None) -> None:
        message: Message = {"jsonrpc": "2.0", "method": method}
        if params is not None:
            message["params"] = params
        await self.send(message)

    def answers(self, request_id: Any, position: int = 0) -> list[Message]:
        """All answers under this id (value and type) that came after `position` in `messages`."""
        return [
            message
            for message in self.messages[position:]
            if isinstance(message, dict) and "method" not in message and same_id(message.get("id"), request_id)
        ]

    async def answer(self, request_id: Any, position: int = 0, seconds: float = 5) -> Message:
        """Wait for the answer under this id."""
        await self.until(
            lambda: bool(self.answers(request_id, position)), f"the robot's request {request_id!r} is answered", seconds
        )
        return self.answers(request_id, position)[0]

    async def initialize(
        self, version: str = "2025-11-25", *, name: str = "test-robot", capabilities: Message | None = None
    ) -> Message:
        """The whole handshake; returns the answer to `initialize`."""
        params = {
            "protocolVersion": version,
            "capabilities": capabilities or {},
            "clientInfo": {"name": name, "version": "1.0"},
        }
        answer = await self.request("initialize", params)
        await self.notify("notifications/initialized")
        return answer

    async def list_tools(self) -> list[Message]:
        """All tools, over as many pages as there are."""
        tools: list[Message] = []
        params: Message | None = None
        while True:
            answer = await self.request("tools/list", params)
            assert "result" in answer, answer
            tools.extend(answer["result"]["tools"])
            if "nextCursor" not in answer["result"]:
                return tools
            params = {"cursor": answer["result"]["nextCursor"]}

    async def names(self) -> list[str]:
        """The names of all tools, in the order of the list."""
        return [tool["name"] for tool in await self.list_tools()]

    async def tool(self, name: str) -> Message:
        """The listed tool of this name."""
        return next(tool for tool in await self.list_tools() if tool["name"] == name)

    async def sees(self, *names: str, without: Sequence[str] = (), seconds: float = 5) -> Self:
        """Wait until the list has all these names, and none of `without`."""
        listed: list[str] = []

        async def holds() -> bool:
            listed[:] = await self.names()
            return set(names) <= set(listed) and not set(without) & set(listed)

        await self.until_async(holds, lambda: f"the list has {names}, not {without}: {listed}", seconds)
        return self

    async def call(
        self, tool: str, arguments: Any = None, *, id: Any = None, seconds: float = 5, **more: Any
    ) -> Message:
        """Call a tool and return the answer; further keys go into `params`."""
        params = {"name": tool, "arguments": {} if arguments is None else arguments, **more}
        return await self.request("tools/call", params, id=id, seconds=seconds)

    async def start_call(self, tool: str, arguments: Any = None, *, id: Any = None, **more: Any) -> Any:
        """Call a tool without waiting; returns the id."""
        params = {"name": tool, "arguments": {} if arguments is None else arguments, **more}
        return await self.start("tools/call", params, id=id)

    async def cancel(self, request_id: Any, reason: str = "changed my mind") -> None:
        await self.notify("notifications/cancelled", {"requestId": request_id, "reason": reason})

    async def ping(self, *, id: Any = None) -> Message:
        """Ask for a sign of life. Since answers of the gateway itself come in order, also a fence: what was due to
        this robot before is now in `messages`."""
        return await self.request("ping", id=id)

    async def until_progress(self, count: int = 1, seconds: float = 5) -> list[Message]:
        """Wait for `count` progress notifications and return the parameters of all so far."""
        await self.until_received("notifications/progress", count, seconds)
        return [message["params"] for message in self.received("notifications/progress")]
