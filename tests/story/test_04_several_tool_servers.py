"""An agent may have many tool servers; their tools become one list, and each call finds its way."""

from tests.peers.tools import echo, text_of
from tests.support.gateway import Gateway


async def test_the_tools_of_all_tool_servers_are_one_list(gateway: Gateway) -> None:
    await gateway.tool_server("weather", [echo("forecast")])
    await gateway.tool_server("music", [echo("play")])
    robot = await gateway.robot()

    assert set(await robot.names()) == {"forecast", "play"}
    assert text_of(await robot.call("play", {"text": "song"})) == "song"


async def test_a_name_that_is_taken_is_listed_with_the_tool_servers_id_in_front(gateway: Gateway) -> None:
    """The first holder keeps the plain name, which people and prompts know."""
    await gateway.tool_server("web", [echo("search")])
    await gateway.tool_server("files", [echo("search")])
    robot = await gateway.robot()

    assert set(await robot.names()) == {"search", "files__search"}
    assert text_of(await robot.call("search")) == "web:search"
    assert text_of(await robot.call("files__search")) == "files:search"


async def test_robots_hear_of_new_tools(gateway: Gateway) -> None:
    robot = await gateway.robot()
    assert await robot.names() == []

    await gateway.tool_server("weather", [echo("forecast")])

    await robot.until_received("notifications/tools/list_changed")
    assert await robot.names() == ["forecast"]
