"""Point 14: changes of the tools reach running conversations, also those of a xiaozhi-server, by a result with id 2."""

import asyncio

import pytest

from tests.peers.tool_server import ToolServer
from tests.peers.tools import adder, echo, held
from tests.peers.xiaozhi_robot import XiaozhiRobot
from tests.support.gateway import Gateway

CHANGED = "notifications/tools/list_changed"


async def change_and_tell(gateway: Gateway, robot: XiaozhiRobot, server: ToolServer) -> None:
    """Add a tool, and return once everybody who is to be told now has been told."""
    watcher = await gateway.robot()
    await watcher.names()
    await server.change_tools([*server.tools, adder()])
    await watcher.until_received(CHANGED)
    await robot.send({"jsonrpc": "2.0", "id": 9999, "method": "ping"})
    await robot.until(lambda: any(message.get("id") == 9999 for message in robot.messages), "the fence is answered")


def pushes(robot: XiaozhiRobot) -> int:
    """Tool lists with id 2 beyond the one that was asked for."""
    lists = [message for message in robot.messages if "tools" in (message.get("result") or {})]
    assert all(message["id"] == 2 for message in lists)
    return len(lists) - 1


async def test_a_tool_that_comes_late_is_pushed_into_a_running_conversation(gateway: Gateway) -> None:
    robot = await gateway.xiaozhi()
    assert robot.tools == {}
    await gateway.tool_server(tools=[echo("calculator")])
    await robot.until(lambda: "calculator" in robot.tools, "the tool is pushed")
    assert await robot.call_tool("calculator", {"text": "2"}) == "2"
    assert robot.errors == []


async def test_a_push_is_a_clean_list_answer(gateway: Gateway) -> None:
    robot = await gateway.xiaozhi()
    await gateway.tool_server(tools=[echo("calculator")])
    await robot.until(lambda: pushes(robot) == 1, "the list is pushed")
    push = robot.messages[-1] if "result" in robot.messages[-1] else robot.messages[-2]
    assert set(push) == {"jsonrpc", "id", "result"}
    assert [tool["name"] for tool in push["result"]["tools"]] == ["calculator"]


async def test_nothing_is_pushed_between_the_first_and_the_second_call(gateway: Gateway) -> None:
    """The second call has id 2: a push while it may be in flight would be taken for its answer."""
    server = await gateway.tool_server(tools=[echo(), held()])
    robot = await gateway.xiaozhi()
    await robot.call_tool("echo")
    await change_and_tell(gateway, robot, server)
    assert pushes(robot) == 0
    await robot.call_tool("echo")
    await robot.until(lambda: "add" in robot.tools, "the list is pushed once call 2 is answered")
    assert robot.errors == []


async def test_nothing_is_pushed_while_the_first_call_runs(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[echo(), held()])
    robot = await gateway.xiaozhi()
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(robot.call_tool("slow"))
        call = await server.until_called()
        await change_and_tell(gateway, robot, server)
        assert pushes(robot) == 0
        await call.answer("done")
    assert first.result() == "done"


async def test_every_later_change_is_pushed_once_the_second_call_is_answered(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[echo()])
    robot = await gateway.xiaozhi()
    for _ in range(2):
        await robot.call_tool("echo")
    await server.change_tools([echo(), adder()])
    await robot.until(lambda: "add" in robot.tools, "the first change is pushed")
    await server.change_tools([echo(), adder(), echo("third")])
    await robot.until(lambda: "third" in robot.tools, "the second change is pushed")


async def test_other_robots_get_no_push(gateway: Gateway) -> None:
    robot = await gateway.robot()
    await robot.names()
    await gateway.tool_server()
    await robot.until_received(CHANGED)
    await robot.ping()
    assert not robot.answers(2)


async def test_an_unchanged_list_is_not_pushed(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[echo()])
    robot = await gateway.xiaozhi()
    await server.change_tools([echo()])
    await server.until_listed(2)
    await server.change_tools([echo(), adder()])
    await robot.until(lambda: "add" in robot.tools, "the real change is pushed")
    assert pushes(robot) == 1


@pytest.mark.settings(result_bytes=16 * 1024)
async def test_a_pushed_list_in_pages_is_read_to_its_end(gateway: Gateway) -> None:
    """The robot follows `nextCursor` with id 2 again."""
    robot = await gateway.xiaozhi()
    await gateway.tool_server(tools=[echo(f"tool_{number}", description="d" * 500) for number in range(60)])
    await robot.until(lambda: len(robot.tools) == 60, "all pages are read")
    assert robot.errors == []


@pytest.mark.settings(reread_seconds=0.3)
async def test_a_server_that_never_notifies_is_read_again(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[echo()])
    robot = await gateway.xiaozhi()
    await server.change_tools([echo(), adder()], notify=False)
    await robot.until(lambda: "add" in robot.tools, "the tool is found by itself")


@pytest.mark.settings(reread_seconds=0.2)
async def test_a_server_is_not_read_again_while_a_call_runs(gateway: Gateway) -> None:
    """A strictly serial one could not answer."""
    server = await gateway.tool_server(tools=[held()])
    robot = await gateway.robot()
    request_id = await robot.start_call("slow")
    call = await server.until_called()
    listed = len(server.received("tools/list"))
    await asyncio.sleep(0.7)
    assert len(server.received("tools/list")) <= listed + 1
    await call.answer("done")
    await robot.answer(request_id)
    await server.until_listed(listed + 1)
