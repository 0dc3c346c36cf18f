"""A robot changes its mind, or leaves: the tool server is told, and nothing more is said."""

from tests.conftest import StartCluster
from tests.peers.tools import held
from tests.support.gateway import Gateway


async def test_a_cancelled_call_is_cancelled_at_the_tool_server(gateway: Gateway) -> None:
    server = await gateway.tool_server("oven", [held("bake")])
    robot = await gateway.robot()
    request_id = await robot.start_call("bake")
    call = await server.until_called()

    await robot.cancel(request_id)

    await server.until_cancelled(call)
    await robot.ping()
    assert robot.answers(request_id) == []


async def test_a_robot_that_leaves_cancels_what_it_asked_for(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    server = await b.tool_server("oven", [held("bake")])
    robot = await a.robot()
    await robot.sees("bake")
    await robot.start_call("bake")
    call = await server.until_called()

    await robot.close()

    await server.until_cancelled(call)
