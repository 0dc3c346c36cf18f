"""Point 10: a tool server's own requests are answered: `initialize` and `ping`, empty roots, −32601 for the rest."""

from tests.peers.node_red import NodeRed
from tests.peers.tool_server import ToolServer
from tests.peers.tools import echo, text_of
from tests.support.gateway import Gateway

INITIALIZE = {"protocolVersion": "2024-11-05", "capabilities": {"tools": {}}, "clientInfo": {"name": "both ways"}}


async def test_its_initialize_gets_a_result_under_its_own_id(gateway: Gateway) -> None:
    server = await gateway.tool_server()
    answer = await server.ask("init_1", "initialize", INITIALIZE)
    assert answer["id"] == "init_1"
    assert answer["result"]["protocolVersion"] == "2024-11-05"
    assert answer["result"]["serverInfo"]["name"]
    assert "error" not in answer


async def test_its_initialize_may_come_before_ours(gateway: Gateway) -> None:
    class BothWays(ToolServer):
        async def on_open(self) -> None:
            await self.send({"jsonrpc": "2.0", "id": "init_1", "method": "initialize", "params": INITIALIZE})

    server = await gateway.attach(BothWays(gateway.mcp_url(), tools=[echo()]))
    await server.until(lambda: any(message.get("id") == "init_1" for message in server.messages), "it is answered")
    robot = await gateway.robot()
    assert "result" in await robot.call("echo")


async def test_its_ping_is_answered_also_before_the_handshake(gateway: Gateway) -> None:
    server = ToolServer(gateway.mcp_url())
    server.answers_initialize = False
    await gateway.attach(server, is_awaited=False)
    assert (await server.ask("ping_1", "ping"))["result"] == {}


async def test_roots_are_empty_and_everything_else_is_refused(gateway: Gateway) -> None:
    server = await gateway.tool_server()
    assert (await server.ask(1, "roots/list"))["result"] == {"roots": []}
    for method in ("sampling/createMessage", "elicitation/create", "tools/call", "anything"):
        assert (await server.ask(method, method))["error"]["code"] == -32601


async def test_node_red_is_content(gateway: Gateway) -> None:
    """Against the old servers it said "Handshake failed" and its pings timed out."""
    flow = await NodeRed(gateway.mcp_url()).open()
    robot = await gateway.robot()
    await robot.sees("inject")
    ping_id = await flow.ping()
    assert text_of(await robot.call("inject")) == "injected"
    assert "result" in flow.answers["init_1"]
    assert flow.answers[ping_id]["result"] == {}
    await flow.close()
