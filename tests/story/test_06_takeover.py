"""With an explicit `server_id` the newest connection is the tool server, wherever it dialled in."""

from tests.conftest import StartCluster
from tests.peers.tools import echo, text_of


async def test_a_newer_connection_takes_over(cluster: StartCluster) -> None:
    a, b = await cluster(2)
    older = await a.tool_server("lights", [echo("switch")], server_id="kitchen")
    newer = await b.tool_server("lights", [echo("switch")], server_id="kitchen", is_awaited=False)

    assert (await older.until_closed()).code == 1000

    robot = await a.robot()
    assert text_of(await robot.call("switch", {"text": "on"})) == "on"
    assert len(newer.calls) == 1
    assert older.calls == []
