"""The Python xiaozhi-server as a robot: `core/providers/tools/mcp_endpoint/` of xinnan-tech/xiaozhi-esp32-server.

Read from `mcp_endpoint_handler.py` and `mcp_endpoint_client.py`; what looks careless here is careless there, and the
gateway has to live with it: one id counter that starts again at 1 for the calls, `"result" in payload` asked before
anything else, no answer to any request, no reaction to `list_changed`, no second connection.
"""

import asyncio
import re
from typing import Any, Self

import orjson

from tests.peers.wire import Message, Peer

INITIALIZE_ID = 1
TOOLS_LIST_ID = 2


class XiaozhiRobot(Peer):
    """One device conversation. Options are the defaults of `websockets.connect`, as there.

    `tools` is keyed by the sanitised names that the language model is given.
    """

    call_timeout_seconds = 30.0

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self.tools: dict[str, Message] = {}
        self.name_mapping: dict[str, str] = {}
        self.is_ready = False
        self.refreshes = 0
        self.errors: list[str] = []
        self._call_results: dict[int, asyncio.Future[Any]] = {}
        self._next_id = 1

    async def on_open(self) -> None:
        """Three messages back to back, without waiting for an answer."""
        await self.send(
            {
                "jsonrpc": "2.0",
                "id": INITIALIZE_ID,
                "method": "initialize",
                "params": {
                    "protocolVersion": "2024-11-05",
                    "capabilities": {"roots": {"listChanged": True}, "sampling": {}},
                    "clientInfo": {"name": "XiaozhiMCPEndpointClient", "version": "1.0.0"},
                },
            }
        )
        await self.send({"jsonrpc": "2.0", "method": "notifications/initialized", "params": {}})
        await self.send({"jsonrpc": "2.0", "id": TOOLS_LIST_ID, "method": "tools/list"})

    async def until_ready(self, seconds: float = 5) -> Self:
        """Wait until the list has been taken: only then does the real one let the model call anything."""
        await self.until(lambda: self.is_ready, "the xiaozhi-server is ready", seconds)
        return self

    async def _take(self, frame: str | bytes) -> None:
        self.frames.append(frame)
        try:
            payload = orjson.loads(frame)
        except orjson.JSONDecodeError as error:
            self.errors.append(f"JSON: {error}")
            return
        if not isinstance(payload, dict):
            self.errors.append("not an object")
            return
        self.messages.append(payload)
        try:
            await self.on_message(payload)
        except Exception as error:  # noqa: BLE001 - the real one logs whatever goes wrong in a message and goes on
            self.errors.append(f"{type(error).__name__}: {error}")

    async def on_message(self, payload: Message) -> None:
        if "result" in payload:
            await self._on_result(payload)
        elif "method" in payload:
            pass  # logged and never answered
        elif "error" in payload:
            self._on_error(payload)

    async def on_close(self) -> None:
        self.is_ready = False

    async def _on_result(self, payload: Message) -> None:
        result = payload["result"]
        message_id = _id_of(payload)
        if message_id in self._call_results:
            future = self._call_results.pop(message_id)
            if not future.done():
                future.set_result(result)
        elif message_id == TOOLS_LIST_ID:
            await self._on_tools(result)

    async def _on_tools(self, result: Any) -> None:
        if not isinstance(result, dict) or "tools" not in result:
            self.errors.append("empty or malformed tool list")
            return
        if not isinstance(result["tools"], list):
            self.errors.append("tools is not a list")
            return
        for tool in result["tools"]:
            if isinstance(tool, dict):
                self._add(tool)
        self._replace_names_in_descriptions()
        cursor = result.get("nextCursor", "")
        if cursor:
            request = {"jsonrpc": "2.0", "id": TOOLS_LIST_ID, "method": "tools/list", "params": {"cursor": cursor}}
            await self.send(request)
        else:
            self.is_ready = True
            self.refreshes += 1

    def _add(self, tool: Message) -> None:
        schema: Message = {"type": "object", "properties": {}, "required": []}
        if isinstance(tool.get("inputSchema"), dict):
            given = tool["inputSchema"]
            schema["type"] = given.get("type", "object")
            schema["properties"] = given.get("properties", {})
            # Iterating over None raises, as it does there: one such tool ends the reading of the whole list.
            schema["required"] = [name for name in given.get("required", []) if isinstance(name, str)]
        name = tool.get("name", "")
        sanitised = sanitize_tool_name(name)
        self.tools[sanitised] = {"name": name, "description": tool.get("description", ""), "inputSchema": schema}
        self.name_mapping[sanitised] = name

    def _replace_names_in_descriptions(self) -> None:
        for tool in self.tools.values():
            for sanitised, original in self.name_mapping.items():
                tool["description"] = tool["description"].replace(original, sanitised)

    def _on_error(self, payload: Message) -> None:
        text = payload["error"].get("message", "未知错误")
        self.errors.append(text)
        message_id = _id_of(payload)
        if message_id in self._call_results:
            future = self._call_results.pop(message_id)
            if not future.done():
                future.set_exception(RuntimeError(f"MCP接入点错误: {text}"))

    async def call_tool(self, name: str, arguments: Message | None = None) -> str:
        """What the language model gets as the answer; raises what the real one raises."""
        if not self.is_ready:
            raise RuntimeError("MCP接入点客户端尚未准备就绪")
        if name not in self.tools:
            raise ValueError(f"工具 {name} 不存在")
        call_id = self._next_id
        self._next_id += 1
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._call_results[call_id] = future
        params = {"name": self.name_mapping.get(name, name), "arguments": arguments or {}}
        await self.send({"jsonrpc": "2.0", "id": call_id, "method": "tools/call", "params": params})
        try:
            async with asyncio.timeout(self.call_timeout_seconds):
                return _text_for_the_model(await future)
        except TimeoutError:
            raise TimeoutError("工具调用请求超时") from None
        finally:
            self._call_results.pop(call_id, None)


def sanitize_tool_name(name: str) -> str:
    """Letters, digits, underscore, hyphen and CJK stay; every other character becomes an underscore."""
    return re.sub(r"[^a-zA-Z0-9_\-\u4e00-\u9fff]", "_", name)


def _id_of(payload: Message) -> int:
    raw = payload.get("id")
    return int(raw) if raw is not None else 0


def _text_for_the_model(result: Any) -> str:
    if isinstance(result, dict):
        if result.get("isError") is True:
            raise RuntimeError(f"工具调用错误: {result.get('error', '工具调用返回错误，但未提供具体错误信息')}")
        content = result.get("content")
        if isinstance(content, list) and content and isinstance(content[0], dict) and "text" in content[0]:
            return str(content[0]["text"])
    return str(result)
