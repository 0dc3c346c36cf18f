"""`mcp-gateway pins`: beside a gateway without Redis, over its restart, and on a Redis with several workers."""

from argparse import Namespace
from typing import Any

import orjson
import pytest

from gateway import pin_command
from gateway.operating import CannotOperate
from tests.cli.command_line import CommandLine
from tests.peers.tools import echo
from tests.support.gateway import AGENT, Gateway, Guests
from tests.support.processes import serve

OTHER = "a tool that reads your letters"


async def test_what_changed_is_shown_and_approved_without_redis_and_pins_outlive_the_gateway(
    cli: CommandLine, guests: Guests
) -> None:
    process = await serve(cli, "", pins="block")
    gateway = Gateway(process, guests)
    server = await gateway.tool_server("lamp", [echo("on"), echo("off")], server_id="lamp")
    robot = await gateway.robot()
    await robot.sees("on", "off")
    await process.stop()
    await server.until(lambda: server.closed is not None, "the gateway is gone")

    gateway = Gateway(await serve(cli, "", pins="block"), guests)
    await gateway.tool_server("lamp", [echo("on", description=OTHER), echo("off")], server_id="lamp")
    robot = await gateway.robot()
    await robot.sees("off", without=["on"])

    show = await cli.start("pins", "show", AGENT)
    assert await show.ended() == 1, "something waits"
    assert "on  变了 / changed: 描述 / description" in show.text
    assert await (await cli.start("pins", "approve", AGENT, "lamp", "on")).ended() == 0
    await robot.sees("on", "off")


def asked(verb: str, **words: Any) -> Namespace:
    return Namespace(**{"verb": verb, "agent": AGENT, "server": "", "tools": [], "offer": "", "json": False, **words})


@pytest.mark.settings(pins="block")
async def test_with_redis_people_look_approve_and_forget_while_workers_run(pair: tuple[Gateway, Gateway]) -> None:
    a, b = pair
    said: list[str] = []
    settings = b.settings

    async def run(verb: str, **words: Any) -> int:
        said.clear()
        return await pin_command.run(settings, asked(verb, **words), said.append)

    assert await run("show") == 0
    assert "nothing is pinned" in said[0]
    server = await a.tool_server("lamp", [echo("on"), echo("old")], server_id="lamp")
    robot = await b.robot()
    await robot.sees("on", "old")
    assert await run("show") == 0

    await server.change_tools([echo("on", description=OTHER), echo("new")])

    await robot.sees(without=["on", "old", "new"])
    assert await run("show", server="lamp", json=True) == 1
    [told] = orjson.loads(said[0])["servers"]
    found = {one["tool"]: (one["kind"], one["parts"], one["like"]) for one in told["differences"]}
    assert found == {"on": ("changed", ["description"], ""), "new": ("new", [], "old"), "old": ("removed", [], "")}
    with pytest.raises(CannotOperate, match="has changed"):
        await run("approve", server="lamp", offer="0" * 12)
    assert await run("approve", server="lamp", tools=["new"], offer=told["offer"]) == 1
    await robot.sees("new", without=["on"])
    assert await run("approve", server="lamp", json=True) == 0
    await robot.sees("new", "on")

    await server.change_tools([echo("on", description="yet another")])
    await robot.sees(without=["on", "new"])
    assert await run("forget", server="lamp") == 0
    assert "forgotten" in said[0]
    await robot.sees("on")
    assert (await robot.tool("on"))["description"] == "yet another", "what it has now counts as its first"
    for verb in ("approve", "forget"):
        with pytest.raises(CannotOperate, match="there are: lamp"):
            await run(verb, server="lmap")
