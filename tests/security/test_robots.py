"""What a hostile robot tries: other agents' tools, other robots' calls, other people's answers."""

import pytest

from tests.conftest import StartCluster
from tests.peers.raw import TEXT, RawSocket, masked_frame
from tests.peers.tools import echo, held, text_of
from tests.peers.wire import Message
from tests.support.gateway import AGENT, Gateway

OTHER = "neighbour"


async def test_it_can_cancel_no_call_of_another_robot_on_any_worker_or_agent(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    server = await a.tool_server("victim", [held()])
    mine = await a.robot()
    await mine.sees("slow")
    await mine.start_call("slow", id=1)
    call = await server.until_called()
    for gateway, agent in ((a, AGENT), (b, AGENT), (a, OTHER)):
        hostile = await gateway.robot(agent=agent)
        for guess in (1, "1", 0, call.id, str(call.id)):
            await hostile.cancel(guess)
        await hostile.ping()
    assert server.cancelled == []
    await call.answer("done")
    assert text_of(await mine.answer(1)) == "done"


async def test_it_can_answer_nothing_and_report_on_nothing(gateway: Gateway) -> None:
    """Answers and progress are a tool server's; from a robot they are noise, whatever they name."""
    server = await gateway.tool_server("victim", [held()])
    mine, hostile = await gateway.robot(), await gateway.robot()
    await mine.sees("slow")
    await mine.start_call("slow", id=1, _meta={"progressToken": 1})
    call = await server.until_called()
    for guess in range(10):
        await hostile.send({"jsonrpc": "2.0", "id": guess, "result": {"content": []}})
        await hostile.notify("notifications/progress", {"progressToken": guess, "progress": 1})
    await hostile.ping()
    await mine.ping()
    assert not mine.received("notifications/progress")
    assert not mine.answers(1)
    await call.answer("done")
    assert text_of(await mine.answer(1)) == "done"


@pytest.mark.parametrize("name", ["lamp", "victim/lamp", "victim_lamp", "victim__lamp", "neighbour/lamp"])
async def test_it_reaches_no_tool_of_another_agent_by_any_name(gateway: Gateway, name: str) -> None:
    server = await gateway.tool_server("victim", [echo("lamp")], agent=OTHER, server_id="victim")
    await gateway.tool_server("own", [echo("own")])
    robot = await gateway.robot()
    await robot.sees("own")
    answer: Message = await robot.call(name, {"text": "x"})
    assert answer["error"]["code"] == -32602
    assert server.calls == []


async def test_what_was_compressed_is_never_inflated(gateway: Gateway) -> None:
    """A decompression bomb needs a decompressor: the offer is not taken, and a frame that is compressed is refused."""
    offered = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}
    bomber = await RawSocket(gateway.call_url(), headers=offered).open()
    assert "101" in bomber.status_line
    assert b"extensions" not in bomber.head.lower()
    frame = bytearray(masked_frame(TEXT, b"\x00\x00\x00\xff\xff" * 20))
    frame[0] |= 0x40  # RSV1: this message is compressed
    await bomber.write(bytes(frame))
    closed = await bomber.read_data()
    assert closed.payload[:2] == (1002).to_bytes(2)
    await bomber.close()
    assert (await gateway.robot()).is_open
