"""Which worker a connection gets, and what becomes of it when one dies, leaves or is full."""

import signal
from collections.abc import Callable
from urllib.parse import quote

import pytest
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response

from tests.edge.fleet import ROBOTS_PER_AGENT, Fleet
from tests.peers.redialler import Redialler
from tests.peers.robot import Robot
from tests.peers.token import console_token
from tests.peers.tools import echo, text_of
from tests.support import http
from tests.support.gateway import Gateway, Guests
from tests.support.running import KEY
from tests.support.waiting import wait_until

SPELLINGS: list[Callable[[str], str]] = [
    lambda token: quote(token, safe=""),
    lambda token: quote(quote(token, safe=""), safe=""),
    lambda token: token,
    lambda token: quote(token.replace("+", " "), safe=""),
    lambda token: token.replace("+", "-").replace("/", "_"),
    lambda token: quote(token.rstrip("="), safe="/"),
]


def awkward_agents(count: int) -> list[str]:
    """Agents whose tokens have all that gets lost in URLs."""
    names = (f"awkward-{number}" for number in range(100_000))
    tokens = ((name, console_token(name, KEY)) for name in names)
    found = (name for name, token in tokens if token.count("+") > 1 and "/" in token and token.endswith("="))
    return [next(found) for _ in range(count)]


async def robots_of(fleet: Fleet, agent: str, count: int) -> list[str]:
    """The workers of the agent's robots, one for each, once Redis knows so many."""
    key = f"mcpgw:robots:{{{agent}}}"
    with fleet.redis.client() as client:
        await wait_until(lambda: client.hlen(key) == count, f"{count} robots are known")
        return [row.decode().rpartition(".")[0] for row in client.hkeys(key)]


async def workers_of(edge: Gateway, agent: str) -> list[str]:
    """The workers of the agent's tool servers, one for each."""
    return [server["worker"] for server in (await edge.servers(agent)).values()]


@pytest.mark.parametrize("balance", ["hash"])
async def test_an_agents_robots_and_tool_servers_meet_on_one_worker_however_they_spell_the_token(
    fleet: Fleet, edge: Gateway, guests: Guests
) -> None:
    for agent in awkward_agents(3):
        token = console_token(agent, KEY)
        await edge.tool_server(agent=agent)
        for spelled in SPELLINGS:
            robot = Robot(f"ws://127.0.0.1:{edge.port}/mcp_endpoint/call/?token={spelled(token)}")
            guests.add(robot)
            await robot.open()
            await robot.initialize()
            assert await robot.names() == ["echo"]
        assert await robots_of(fleet, agent, len(SPELLINGS)) == await workers_of(edge, agent) * len(SPELLINGS)


@pytest.mark.parametrize("balance", ["hash"])
async def test_many_agents_are_spread_over_all_workers(edge: Gateway) -> None:
    # The ring is made of ports, which are others every time: with few agents one worker might get none by chance.
    agents = [f"spread-{number}" for number in range(40)]
    for agent in agents:
        await edge.tool_server(agent=agent, is_awaited=False)
    owners: list[str] = []

    async def is_everybody_there() -> bool:
        owners[:] = [worker for agent in agents for worker in await workers_of(edge, agent)]
        return len(owners) == len(agents)

    await wait_until(is_everybody_there, "every tool server is known", seconds=10)
    assert len(set(owners)) == 3


@pytest.mark.parametrize("balance", ["round-robin"])
async def test_in_turns_one_agents_connections_are_spread_and_find_each_other(fleet: Fleet, edge: Gateway) -> None:
    names = [f"turn{number}" for number in range(6)]
    for name in names:
        await edge.tool_server(name, [echo(name)], agent="turns")
    robots = [await edge.robot(agent="turns") for _ in range(6)]
    assert len(set(await workers_of(edge, "turns"))) == 3
    for robot in robots:
        await robot.sees(*names)
        for name in names:
            assert text_of(await robot.call(name, {"text": name})) == name
    assert len(set(await robots_of(fleet, "turns", len(robots)))) == 3


async def test_a_full_agent_takes_no_worker_from_the_others(edge: Gateway, balance: str) -> None:
    """Each refusal is a 503 of each worker; three such must not make nginx believe that there is none."""
    agent = f"crowd-{balance}"
    refusals: list[Response] = []
    for _ in range(10 * ROBOTS_PER_AGENT):
        try:
            await edge.robot(agent=agent, is_ready=False)  # one too many that is let in is sent away a moment later
        except InvalidStatus as refused:
            refusals.append(refused.response)
            await edge.robot(agent=f"other-{balance}")
        if len(refusals) == 3:
            break
    assert [(one.status_code, one.headers["Retry-After"]) for one in refusals] == [(503, "5")] * 3


async def test_when_a_worker_is_killed_the_others_take_over(fleet: Fleet, edge: Gateway, balance: str) -> None:
    agent = f"bereft-{balance}"
    server = await edge.tool_server("lamp", [echo()], agent=agent, server_id="lamp")
    [owner] = await workers_of(edge, agent)
    victim = (await fleet.ids())[owner]

    victim.stop()

    assert (await server.until_closed()).code == 1006
    again = await edge.tool_server("lamp", [echo()], agent=agent, server_id="lamp", is_awaited=False)
    for _ in range(4):
        robot = await edge.robot(agent=agent)
        assert text_of(await robot.call("echo", {"text": "back"}, seconds=10)) == "back"
    assert again.is_open
    assert [worker for worker in await workers_of(edge, agent) if worker != owner]


async def test_a_worker_that_leaves_is_not_asked_for_new_connections(fleet: Fleet, edge: Gateway, balance: str) -> None:
    """Its 503 goes to nginx, which asks the next one; what is connected is closed with 1012 and finds another one."""
    agent = f"moved-{balance}"
    url = edge.mcp_url(agent, "lamp")
    server = await edge.attach(Redialler(lambda: url, name="lamp", tools=[echo()]), agent=agent)
    [owner] = await workers_of(edge, agent)
    leaver = (await fleet.ids())[owner]
    robot = await edge.robot(agent=agent)

    leaver.signal(signal.SIGTERM)

    await wait_until(lambda: is_leaving(leaver.port), "the worker leaves")
    for _ in range(6):
        other = await edge.robot(agent=agent)
        assert text_of(await other.call("echo", {"text": "here"})) == "here"
        await other.close()
    await wait_until(lambda: not leaver.is_running, "the worker has left", seconds=15)
    assert (server.codes, server.refusals) == ([1012], 0)
    assert text_of(await (await edge.robot(agent=agent)).call("echo", {"text": "there"}, seconds=10)) == "there"
    assert robot.closed is None or robot.closed.code == 1012


async def is_leaving(port: int) -> bool:
    try:
        return (await http.get(port, "/readyz")).status == 503
    except OSError:
        return True
