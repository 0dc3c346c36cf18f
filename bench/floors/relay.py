"""The floor of one worker: parse, swap the id, dump, forward. No MCP, no limits, no deadlines, no errors."""

import itertools
import sys
from typing import Any

import orjson

from bench.floors.serve import serve


class Relay:
    """One tool server per token; answers find their robot by the id that was put in."""

    def __init__(self) -> None:
        self.tool_servers: dict[bytes, Any] = {}
        self.calls: dict[int, tuple[Any, Any]] = {}
        self.ids = itertools.count()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        if "/mcp/" in scope["path"]:
            await self.hear_tool_server(scope["query_string"], receive, send)
        else:
            await self.hear_robot(scope["query_string"], receive, send)

    async def hear_tool_server(self, token: bytes, receive: Any, send: Any) -> None:
        self.tool_servers[token] = send
        while (event := await receive())["type"] == "websocket.receive":
            message = orjson.loads(event["text"])
            robot, message["id"] = self.calls.pop(message["id"])
            await robot({"type": "websocket.send", "text": orjson.dumps(message).decode()})

    async def hear_robot(self, token: bytes, receive: Any, send: Any) -> None:
        while (event := await receive())["type"] == "websocket.receive":
            message = orjson.loads(event["text"])
            if "id" in message:
                id = next(self.ids)
                self.calls[id] = (send, message["id"])
                message["id"] = id
            await self.tool_servers[token]({"type": "websocket.send", "text": orjson.dumps(message).decode()})


if __name__ == "__main__":
    serve(Relay(), int(sys.argv[1]))
