"""Workers share a backplane: a robot on one calls a tool whose server is on another, and notices nothing."""

from tests.conftest import StartCluster
from tests.peers.tools import adder, text_of


async def test_a_call_finds_the_worker_that_holds_the_tool_server(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    await b.tool_server("calculator", [adder("add")])
    robot = await a.robot()
    await robot.sees("add")

    assert text_of(await robot.call("add", {"a": 2, "b": 3})) == "5"


async def test_every_worker_tells_about_the_whole_cluster(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    await b.tool_server("calculator", [adder("add")])

    assert list(await a.servers()) == ["calculator"]
