"""Point 12: deployed tokens open the door in every spelling people produce; others are refused before the upgrade."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal
from urllib.parse import quote

import pytest
from websockets.exceptions import InvalidStatus

from gateway import auth, revocations
from gateway.auth import TokenCause
from gateway.credential import Credential
from gateway.tokens import Keyring
from gateway.urls import bridge_url
from tests.peers.robot import Robot
from tests.peers.token import console_token, encrypt
from tests.peers.tool_server import ToolServer
from tests.peers.tools import echo
from tests.peers.wire import Peer
from tests.support.gateway import AGENT, Gateway
from tests.support.running import KEY
from tests.support.waiting import wait_until

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


# Signed tokens

KEYS = Keyring([KEY])
DAY_MS = 86_400_000


def credential(role: Literal["mcp", "call"], server_id: str = "", **more: Any) -> Credential:
    """What a token that was issued a minute ago says."""
    now_ms = time.time_ns() // 1_000_000
    issued = Credential(AGENT, role, server_id, f"id-of-{role}", now_ms - 60_000, now_ms + DAY_MS)
    return replace(issued, **more)


def signed(role: Literal["mcp", "call"], server_id: str = "", **more: Any) -> str:
    return KEYS.issue(credential(role, server_id, **more))


async def test_a_signed_token_opens_the_path_of_its_role_and_no_other(gateway: Gateway) -> None:
    """A bridge's token that has leaked can't listen in as a robot, and a robot's can't pose as a tool server."""
    for role, other in (("mcp", "call"), ("call", "mcp")):
        token = signed(role)  # type: ignore[arg-type]
        assert await status_of(gateway, role, f"?token={token}") == 101
        assert await status_of(gateway, other, f"?token={token}") == 401


async def test_a_single_modules_url_carries_the_robots_token_on_the_bridges_path(gateway: Gateway) -> None:
    """It is pasted as a `/mcp/` URL; the xiaozhi-server puts `/call/` there and leaves the token as it is."""
    await gateway.tool_server()
    pasted = bridge_url(f"http://127.0.0.1:{gateway.port}", signed("call"))
    robot = Robot(pasted.replace("/mcp/", "/call/"))
    await robot.open()
    assert await robot.names() == ["echo"]
    await robot.close()
    with pytest.raises(InvalidStatus):
        await Peer(pasted).open()


async def test_a_token_for_one_tool_server_gives_it_its_name_and_admits_no_other(gateway: Gateway) -> None:
    token = signed("mcp", "lamp")
    assert await status_of(gateway, "mcp", f"?token={token}&server_id=fan") == 401
    assert await status_of(gateway, "mcp", f"?token={token}&server_id=~x") == 400
    server = ToolServer(gateway.url("/mcp_endpoint/mcp/", token=token), name="Lamp", tools=[echo()])
    await gateway.attach(server)
    robot = await gateway.robot()
    assert (await robot.tool("echo"))["server_id"] == "lamp"


@pytest.mark.settings(key=(KEY, OLD_KEY))
async def test_signed_tokens_of_every_configured_key_open_the_door(gateway: Gateway) -> None:
    for key in (KEY, OLD_KEY):
        token = Keyring([key]).issue(credential("mcp"))
        assert await status_of(gateway, "mcp", f"?token={token}") == 101


@pytest.mark.parametrize(
    "good",
    [
        pytest.param(roles, id=mode, marks=pytest.mark.settings(legacy_tokens=mode))
        for mode, roles in (("mcp", ["mcp"]), ("call", ["call"]), ("none", []))
    ],
)
async def test_legacy_tokens_can_be_switched_off_and_signed_ones_go_on_working(
    good: list[str], gateway: Gateway
) -> None:
    legacy = quote(console_token(AGENT, KEY), safe="")
    for role in ROLES:
        assert await status_of(gateway, role, f"?token={legacy}") == (101 if role in good else 401)
        assert await status_of(gateway, role, f"?token={signed(role)}") == 101  # type: ignore[arg-type]


@pytest.mark.settings(legacy_tokens="call")
async def test_every_cause_looks_alike_to_the_peer_and_has_its_own_name_in_the_log(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    revoked, issued_ms = signed("mcp", token_id="revoked"), credential("mcp").issued_ms
    books = gateway.worker.room.backplane  # type: ignore[attr-defined]  # a worker of this process
    await books.write_entry("revoked", revocations.of_token("revoked"), b'{"until_ms": 0}')
    await wait_until(lambda: gateway.worker.room.rulebook.revocations, "the worker knows")  # type: ignore[attr-defined]
    bad = {
        TokenCause.EXPIRED: signed("mcp", expires_ms=issued_ms + 30_000),
        TokenCause.NOT_YET: signed("mcp", issued_ms=issued_ms + DAY_MS // 2),
        TokenCause.BAD_SIGNATURE: signed("mcp")[:-8] + "AAAAAAAA",
        TokenCause.NO_KEY_FITS: Keyring(["x" * 32]).issue(credential("mcp")),
        TokenCause.WRONG_ROLE: signed("call"),
        TokenCause.WRONG_SERVER: signed("mcp", "lamp"),
        TokenCause.LEGACY_OFF: quote(console_token(AGENT, KEY), safe=""),
        TokenCause.REVOKED: revoked,
        TokenCause.FOREIGN: "eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.e30.AAAA",
        TokenCause.NOT_BASE64: "not-a-token!",
        TokenCause.TOO_LONG: "A" * 5000,
    }
    seen = set()
    for cause, token in bad.items():
        caplog.clear()
        with pytest.raises(InvalidStatus) as refusal:
            await Peer(gateway.url("/mcp_endpoint/mcp/") + f"?token={token}&server_id=fan").open()
        response = refusal.value.response
        headers = sorted((name, value) for name, value in response.headers.raw_items() if name.lower() != "date")
        seen.add((response.status_code, bytes(response.body or b""), str(headers)))
        logged = [record.cause for record in caplog.records if getattr(record, "event", "") == "connection_refused"]  # type: ignore[attr-defined]
        assert logged == [cause.value]
    assert len(seen) == 1
    assert {status for status, _, _ in seen} == {401}


async def test_no_part_of_a_signed_token_is_ever_logged(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    good, bad = signed("mcp"), signed("call")
    assert await status_of(gateway, "mcp", f"?token={good}") == 101
    assert await status_of(gateway, "mcp", f"?token={bad}") == 401
    secrets = [part for token in (good, bad) for part in token.split(".")[1:]]
    ours = [record for record in caplog.records if record.name.split(".")[0] != "websockets"]
    told = [f"{record.name}:{record.lineno}" for record in ours if any(one in str(vars(record)) for one in secrets)]
    assert told == []
