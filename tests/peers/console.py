"""The Java console as a robot: manager-api's `AgentMcpAccessPointServiceImpl` and `WebSocketClientManager`.

It dials anew at each click on "refresh", waits for the answer to `initialize`, asks for the first page of the list
with `"params": null`, shows the names, and closes with 1000.
"""

from tests.peers.wire import Message, Peer

WAIT_SECONDS = 10.0


class ConsoleTimeout(Exception):
    """The console's 等待批量消息超时: nobody answered as it expects within ten seconds."""


class Console(Peer):
    """One click on "refresh". Buffers are set to 1 MiB there, so a larger message ends the connection."""

    def __init__(self, url: str, *, wait_seconds: float = WAIT_SECONDS) -> None:
        super().__init__(url, max_size=1024 * 1024, compression=None, ping_interval=None)
        self.wait_seconds = wait_seconds

    async def tool_names(self) -> list[str]:
        """Dial, ask, close; the names it shows, sorted out of the first page only."""
        await self.open()
        try:
            await self._initialize()
            await self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
            await self.send({"jsonrpc": "2.0", "method": "tools/list", "params": None, "id": 2})
            answer = await self._wait_for(2)
            return [tool["name"] for tool in answer["result"]["tools"]]
        finally:
            await self.close(1000)

    async def _initialize(self) -> None:
        await self.send(
            {
                "jsonrpc": "2.0",
                "method": "initialize",
                "params": {
                    "protocolVersion": "2024-11-05",
                    "capabilities": {"roots": {"listChanged": False}, "sampling": {}},
                    "clientInfo": {"name": "xz-mcp-broker", "version": "0.0.1"},
                },
                "id": 1,
            }
        )
        await self._wait_for(1)

    async def _wait_for(self, message_id: int) -> Message:
        try:
            await self.until(lambda: self._answer(message_id) is not None, f"answer {message_id}", self.wait_seconds)
        except AssertionError as error:
            raise ConsoleTimeout(str(error)) from error
        answer = self._answer(message_id)
        assert answer is not None
        return answer

    def _answer(self, message_id: int) -> Message | None:
        """`new Integer(1).equals(map.get("id")) && map.containsKey("result") && !map.containsKey("error")`."""
        for message in self.messages:
            is_same = type(message.get("id")) is int and message["id"] == message_id
            if is_same and "result" in message and "error" not in message:
                return message
        return None
