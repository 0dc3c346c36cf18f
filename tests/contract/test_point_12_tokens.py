"""Point 12: deployed tokens open the door in every spelling people produce; others are refused before the upgrade."""

import logging
from collections.abc import Callable
from urllib.parse import quote

import pytest
from websockets.exceptions import InvalidStatus

from gateway import auth
from tests.peers.robot import Robot
from tests.peers.token import console_token, encrypt
from tests.peers.tools import echo
from tests.peers.wire import Peer
from tests.support.gateway import AGENT, Gateway
from tests.support.running import KEY

ROLES = ["mcp", "call"]


async def status_of(gateway: Gateway, role: str, query: str) -> int:
    """The HTTP status of a refusal, or 101."""
    peer = Peer(f"ws://127.0.0.1:{gateway.port}/mcp_endpoint/{role}/{query}")
    try:
        await peer.open()
    except InvalidStatus as refusal:
        return refusal.response.status_code
    await peer.vanish()
    return 101


def awkward_agent() -> str:
    """An agent whose token has both `+` and `/` in it, and padding: all that gets lost in URLs."""
    for number in range(10_000):
        token = console_token(f"agent-{number}", KEY)
        if "+" in token and "/" in token and token.endswith("="):
            return f"agent-{number}"
    raise AssertionError("no such token")


SPELLINGS: dict[str, Callable[[str], str]] = {
    "percent-encoded": lambda token: quote(token, safe=""),
    "twice percent-encoded": lambda token: quote(quote(token, safe=""), safe=""),
    "pasted as it is, so that + is a blank": lambda token: token,
    "blanks for plus": lambda token: quote(token.replace("+", " "), safe=""),
    "url-safe alphabet": lambda token: token.replace("+", "-").replace("/", "_"),
    "without padding": lambda token: quote(token.rstrip("="), safe=""),
    "url-safe without padding": lambda token: token.replace("+", "-").replace("/", "_").rstrip("="),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_a_token_is_understood_however_it_is_spelled(gateway: Gateway, spelling: str) -> None:
    agent = awkward_agent()
    text = SPELLINGS[spelling](console_token(agent, KEY))
    await gateway.tool_server(agent=agent)
    robot = Robot(f"ws://127.0.0.1:{gateway.port}/mcp_endpoint/call/?token={text}")
    await robot.open()
    assert await robot.names() == ["echo"]
    await robot.close()


def test_the_gateways_tokens_are_the_consoles() -> None:
    for agent in (AGENT, "single_module", "0123456789abcdef"):
        assert auth.issue(agent, KEY) == console_token(agent, KEY)


@pytest.mark.parametrize("key", ["short", "k" * 16, "k" * 20, "k" * 24, "k" * 32, "k" * 40])
async def test_keys_of_any_length_are_padded_or_cut_as_the_console_does(key: str) -> None:
    assert auth.verify(console_token("a", key), [key]) == "a"


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("query", ["", "?token=", "?server_id=x"])
async def test_no_token_is_refused_with_400_before_the_upgrade(gateway: Gateway, role: str, query: str) -> None:
    assert await status_of(gateway, role, query) == 400


BAD_TOKENS = {
    "no base64": "not-a-token!",
    "short": "YWJj",
    "another key": quote(console_token(AGENT, "another key of this length......"), safe=""),
    "no JSON": quote(encrypt("hello", KEY), safe=""),
    "no agent": quote(encrypt('{"agent": "x"}', KEY), safe=""),
    "agent null": quote(encrypt('{"agentId": null}', KEY), safe=""),
    "agent empty": quote(encrypt('{"agentId": ""}', KEY), safe=""),
    "agent number": quote(encrypt('{"agentId": 5}', KEY), safe=""),
    "cut": quote(console_token(AGENT, KEY)[:-8], safe=""),
    "chinese": quote("令牌", safe=""),
    "long": "A" * 8000,
}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("kind", BAD_TOKENS)
async def test_a_bad_token_is_refused_with_401_before_the_upgrade(gateway: Gateway, role: str, kind: str) -> None:
    """Accept-then-close makes bridges redial for ever, some every two seconds."""
    assert await status_of(gateway, role, f"?token={BAD_TOKENS[kind]}") == 401


async def test_a_refusal_tells_nothing_about_the_token(gateway: Gateway) -> None:
    bodies = set()
    for kind in ("another key", "no JSON", "cut"):
        with pytest.raises(InvalidStatus) as refusal:
            await Peer(f"ws://127.0.0.1:{gateway.port}/mcp_endpoint/mcp/?token={BAD_TOKENS[kind]}").open()
        bodies.add(bytes(refusal.value.response.body or b""))
    assert len(bodies) == 1


OLD_KEY = "an old key of the cluster"


@pytest.mark.settings(key=(KEY, OLD_KEY))
async def test_tokens_of_every_configured_key_open_the_door(gateway: Gateway) -> None:
    for key in (KEY, OLD_KEY):
        assert await status_of(gateway, "mcp", f"?token={quote(console_token(AGENT, key), safe='')}") == 101


@pytest.mark.parametrize("server_id", ["x" * 65, "a\nb", "a\x00b", "\x7f", "~x"], ids=repr)
async def test_a_server_id_that_is_too_long_or_unprintable_is_refused_with_400(
    gateway: Gateway, server_id: str
) -> None:
    """One that begins with `~` could be mistaken for the row of a handshake."""
    token = quote(console_token(AGENT, KEY), safe="")
    assert await status_of(gateway, "mcp", f"?token={token}&server_id={quote(server_id, safe='')}") == 400


@pytest.mark.parametrize("server_id", ["x" * 64, "厨房", "a b", "a__b", "a~x", "default"], ids=repr)
async def test_any_other_server_id_is_taken(gateway: Gateway, server_id: str) -> None:
    await gateway.tool_server(server_id=server_id, is_awaited=False)
    robot = await gateway.robot()
    await robot.sees("echo")
    assert (await robot.tool("echo"))["server_id"] == server_id


async def test_an_empty_server_id_is_none(gateway: Gateway) -> None:
    await gateway.tool_server("one", [echo("a")], server_id="")
    await gateway.tool_server("two", [echo("b")], server_id="")
    robot = await gateway.robot()
    assert set(await robot.names()) == {"a", "b"}


async def test_no_token_is_ever_logged(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    token = console_token(AGENT, KEY)
    await gateway.tool_server()
    robot = await gateway.robot()
    await robot.call("echo")
    await status_of(gateway, "mcp", f"?token={BAD_TOKENS['another key']}")
    await robot.close()
    secrets = (token, quote(token, safe=""), KEY, BAD_TOKENS["another key"])
    ours = [record for record in caplog.records if record.name.split(".")[0] != "websockets"]
    # Named by place: a failure of this test must not print what it guards.
    told = [f"{record.name}:{record.lineno}" for record in ours if any(one in record.getMessage() for one in secrets)]
    assert told == []
