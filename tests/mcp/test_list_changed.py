"""`notifications/tools/list_changed`, both ways: read again on it, told only when the merged list really changed."""

import pytest

from tests.peers.tools import adder, echo
from tests.support.gateway import Gateway

CHANGED = "notifications/tools/list_changed"


async def test_a_robot_is_told_when_a_tool_server_changes_its_tools(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[echo()])
    robot = await gateway.robot()
    assert await robot.names() == ["echo"]
    await server.change_tools([echo(), adder()])
    await robot.until_received(CHANGED)
    assert await robot.names() == ["echo", "add"]


async def test_a_robot_is_told_when_a_tool_server_joins(gateway: Gateway) -> None:
    robot = await gateway.robot()
    assert await robot.names() == []
    await gateway.tool_server(tools=[echo()])
    await robot.until_received(CHANGED)
    assert await robot.names() == ["echo"]


@pytest.mark.settings(grace_seconds=0.1)
async def test_a_robot_is_told_when_a_tool_server_has_left_for_good(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[echo()])
    robot = await gateway.robot()
    assert await robot.names() == ["echo"]
    await server.close()
    await robot.until_received(CHANGED)
    assert await robot.names() == []


async def test_the_notification_is_not_relayed_when_nothing_changed(gateway: Gateway) -> None:
    """It describes the tool server's own list; robots hear only of real change of theirs."""
    server = await gateway.tool_server(tools=[echo()])
    robot = await gateway.robot()
    assert await robot.names() == ["echo"]
    await server.change_tools([echo()])
    await server.until_listed(2)
    await server.change_tools([echo(), adder()])
    await robot.until_received(CHANGED)
    assert await robot.names() == ["echo", "add"]
    assert len(robot.received(CHANGED)) == 1


@pytest.mark.settings(debounce_seconds=0.4)
async def test_many_changes_in_a_row_are_told_once(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[])
    robot, watcher = await gateway.robot(), await gateway.robot()
    assert await robot.names() == []
    for number in range(1, 6):
        await server.change_tools([echo(f"tool_{number}")])
        await watcher.sees(f"tool_{number}")
    await robot.until_received(CHANGED)
    assert await robot.names() == ["tool_5"]
    assert len(robot.received(CHANGED)) <= 2


@pytest.mark.settings(reread_seconds=0.3)
async def test_tools_are_read_again_from_time_to_time(gateway: Gateway) -> None:
    """Most tool servers never notify (xiaozhi-ecosystem §5, point 14)."""
    server = await gateway.tool_server(tools=[echo()])
    robot = await gateway.robot()
    await robot.sees("echo")
    await server.change_tools([echo(), adder()], notify=False)
    await robot.until_received(CHANGED)
    assert await robot.names() == ["echo", "add"]


async def test_a_robot_that_is_not_initialized_yet_is_not_notified(gateway: Gateway) -> None:
    robot = await gateway.robot(is_ready=False)
    watcher = await gateway.robot()
    await robot.ping()
    await watcher.names()
    await gateway.tool_server(tools=[echo()])
    await watcher.until_received(CHANGED)
    await robot.ping()
    assert not robot.received(CHANGED)


async def test_only_robots_of_the_same_agent_are_told(gateway: Gateway) -> None:
    mine, other = await gateway.robot(), await gateway.robot(agent="another")
    assert await mine.names() == await other.names() == []
    await gateway.tool_server(tools=[echo()])
    await mine.until_received(CHANGED)
    await other.ping()
    assert not other.received(CHANGED)


@pytest.mark.settings(result_bytes=4096, debounce_seconds=0.5)
async def test_a_robot_that_reads_pages_of_two_catalogs_is_told(gateway: Gateway) -> None:
    """Its first page is of the catalog before, its second of the one after: it has to begin again."""
    tools = [echo(f"tool_{number:03}", description="x" * 300) for number in range(20)]
    server = await gateway.tool_server("calc", tools)
    robot, other = await gateway.robot(), await gateway.robot()
    first = (await robot.request("tools/list"))["result"]
    await server.change_tools([echo("another"), *tools])
    await other.sees("another")
    assert "result" in await robot.request("tools/list", {"cursor": first["nextCursor"]})
    await robot.until_received(CHANGED)
