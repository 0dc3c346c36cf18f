"""Who may come in: what opens the door, for which path, how often, from where; and that refusals look alike."""

import pytest

from gateway.worker import Worker as Room
from tests.endpoints.knocking import DAY_MS, ISSUED_MS, Answer, knock, legacy, path, signed
from tests.peers.robot import Robot
from tests.peers.tool_server import ToolServer
from tests.peers.tools import echo, text_of
from tests.support.gateway import AGENT, Gateway

ROLES = ("mcp", "call")
STRANGE = "fedcba9876543210fedcba9876543210"


@pytest.fixture
def room(gateway: Gateway) -> Room:
    """The worker behind the door."""
    return gateway.worker.room  # type: ignore[attr-defined,no-any-return]  # a worker of this process


async def status_of(gateway: Gateway, target: str, *headers: str) -> int:
    return (await knock(gateway.port, target, *headers)).status


# Tokens


async def test_a_signed_token_opens_its_own_role_in_the_query_and_as_a_bearer(gateway: Gateway) -> None:
    server = ToolServer(
        gateway.url("/mcp_endpoint/mcp/"),
        tools=[echo()],
        additional_headers={"Authorization": f"Bearer {signed('mcp')}"},
    )
    await gateway.attach(server)
    robot = await Robot(gateway.url("/mcp_endpoint/call/", token=signed("call"))).open()
    assert text_of(await robot.call("echo", {"text": "hello"})) == "hello"
    await robot.close()


async def test_a_bearer_counts_without_a_token_in_the_query_and_breaks_nothing_beside_one(gateway: Gateway) -> None:
    token, other = legacy(), legacy("another")
    assert await status_of(gateway, path("call"), f"authorization: bEARER {token}") == 101
    assert await status_of(gateway, path("call", token), f"Authorization: Bearer {token}") == 101
    assert await status_of(gateway, path("call", token), "Authorization: Basic eDp5") == 101
    assert await status_of(gateway, path("call"), f"Authorization: Basic {token}") == 400
    assert await status_of(gateway, path("call"), "Authorization: Bearer") == 400
    for foreign in (other, signed("mcp"), "a-proxys-own"):
        assert await status_of(gateway, path("call", token), f"Authorization: Bearer {foreign}") == 101
    assert await status_of(gateway, path("call", "bad"), f"Authorization: Bearer {token}") == 401
    assert await status_of(gateway, path("call"), f"X: Bearer {token}", "Cookie: token=x") == 400


async def test_a_token_for_one_role_does_not_open_the_path_of_the_other(gateway: Gateway) -> None:
    assert await status_of(gateway, path("call", signed("mcp"))) == 401
    assert await status_of(gateway, path("mcp", signed("call"))) == 401
    # As a single-module xiaozhi-server rewrites it: what counts is the path that is dialled, not the one in the query.
    assert await status_of(gateway, path("mcp", signed("call")) + "&x=/mcp_endpoint/call/") == 401


async def test_a_token_for_one_tool_server_is_that_tool_server_whatever_it_asks_for(gateway: Gateway) -> None:
    token = signed("mcp", server_id="kitchen")
    assert await status_of(gateway, path("mcp", token, "garage")) == 401
    server = ToolServer(gateway.url("/mcp_endpoint/mcp/", token=token), tools=[echo()])
    await gateway.attach(server)
    assert list(await gateway.servers()) == ["kitchen"]
    assert await status_of(gateway, path("mcp", token, "kitchen")) == 101


@pytest.mark.parametrize(("mode", "opened"), [("mcp", {"mcp"}), ("call", {"call"}), ("none", set())])
async def test_legacy_tokens_can_be_switched_off_for_a_role_for_an_agent_or_for_all(
    gateway: Gateway, room: Room, mode: str, opened: set[str]
) -> None:
    room.rulebook.policies.put("strict", b'{"legacy_tokens":"%s"}' % mode.encode())
    assert {role for role in ROLES if await status_of(gateway, path(role, legacy("strict"))) == 101} == opened
    assert {role for role in ROLES if await status_of(gateway, path(role, legacy("lax"))) == 101} == set(ROLES)
    assert (await gateway.get(f"/mcp_endpoint/status?token={legacy('strict')}")).status == (200 if opened else 401)
    assert await status_of(gateway, path("mcp", signed("mcp", "strict"))) == 101


@pytest.mark.settings(legacy_tokens="none")
async def test_an_agents_policy_may_let_in_what_the_setting_does_not(gateway: Gateway, room: Room) -> None:
    assert await status_of(gateway, path("call", legacy())) == 401
    room.rulebook.policies.put("home", b'{"legacy_tokens":"call"}')
    assert await status_of(gateway, path("call", legacy())) == 101
    assert await status_of(gateway, path("mcp", legacy())) == 401


async def every_401(gateway: Gateway, room: Room) -> dict[str, Answer]:
    """One handshake for each cause that the log tells apart."""
    room.rulebook.revocations.put("token:gone", b'{"until_ms":0}')
    room.rulebook.revocations.put("agent:left", b'{"before_ms":%d}' % ISSUED_MS)
    room.rulebook.policies.put("strict", b'{"legacy_tokens":"none"}')
    good = signed("mcp")
    head, claims, signature = good.split(".")
    tokens = {
        "no base64": "!!!",
        "cut": legacy()[:-5],
        "another key": legacy(key=STRANGE),
        "too long": "A" * 5000,
        "another key, signed": signed("mcp", key=STRANGE),
        "altered": f"{head}.{signed('mcp', 'other').split('.')[1]}.{signature}",
        "no algorithm": f"eyJhbGciOiJub25lIn0.{claims}.",
        "expired": signed("mcp", expires_ms=ISSUED_MS + 1_000),
        "in the future": signed("mcp", issued_ms=ISSUED_MS + 2 * DAY_MS),
        "wrong role": signed("call"),
        "wrong server": signed("mcp", server_id="kitchen"),
        "revoked": signed("mcp", token_id="gone"),
        "revoked agent": signed("mcp", "left", issued_ms=ISSUED_MS - 1),
        "revoked agent, legacy": legacy("left"),
        "legacy switched off": legacy("strict"),
    }
    return {cause: await knock(gateway.port, path("mcp", token, "garage")) for cause, token in tokens.items()}


async def test_every_token_that_is_refused_gets_the_same_bytes_and_the_log_knows_why(
    gateway: Gateway, room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    answers = await every_401(gateway, room)
    assert {cause: answer.status for cause, answer in answers.items()} == dict.fromkeys(answers, 401)
    assert len({answer.raw for answer in answers.values()}) == 1
    assert answers["cut"].headers["www-authenticate"] == "Bearer"
    told = [vars(record) for record in caplog.records if vars(record).get("event") == "connection_refused"]
    assert [line["cause"].partition(" / ")[0] for line in told].count("令牌已吊销") == 3
    assert len({line["cause"] for line in told}) >= 9
    assert told[-1]["agent"] == "strict", "whose token it was is told once it was verified"
    assert await status_of(gateway, path("mcp", signed("mcp", "left", issued_ms=ISSUED_MS))) == 101


async def test_the_status_answer_asks_for_the_same_tokens(gateway: Gateway, room: Room) -> None:
    room.rulebook.revocations.put("token:gone", b'{"until_ms":0}')
    for token in (legacy(), signed("mcp"), signed("call")):
        assert (await gateway.get("/mcp_endpoint/status", headers={"Authorization": f"Bearer {token}"})).status == 200
    bad = (legacy(key=STRANGE), signed("mcp", expires_ms=ISSUED_MS + 1_000), signed("call", token_id="gone"))
    answers = [await gateway.get(f"/mcp_endpoint/status?token={token}") for token in bad]
    assert {answer.status for answer in answers} == {401}
    assert len({answer.body for answer in answers}) == 1
    both = await gateway.get(
        f"/mcp_endpoint/status?token={signed('call')}", headers={"Authorization": f"Bearer {legacy('another')}"}
    )
    assert both.json()["agent"] == AGENT


# How often, from where


@pytest.mark.settings(source_handshakes_per_minute=2, trusted_proxies=("127.0.0.0/8",))
async def test_a_source_that_knocks_too_often_is_told_when_to_come_again_and_no_other_one_is(gateway: Gateway) -> None:
    async def from_(source: str, token: str) -> Answer:
        return await knock(gateway.port, path("call", token), f"X-Forwarded-For: 9.9.9.9, {source}")

    assert [(await from_("203.0.113.5", "bad")).status for _ in range(3)] == [401, 401, 429]
    refused = await from_("203.0.113.5", legacy())
    assert refused.status == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert (await from_("203.0.113.6", legacy())).status == 101


@pytest.mark.settings(source_handshakes_per_minute=1)
async def test_a_header_of_a_stranger_makes_nobody_another_source(gateway: Gateway) -> None:
    statuses = [
        await status_of(gateway, path("call", legacy()), f"X-Forwarded-For: 203.0.113.{number}") for number in range(3)
    ]
    assert statuses == [101, 429, 429]


@pytest.mark.settings(agent_handshakes_per_minute=2)
async def test_an_agent_that_dials_too_often_is_slowed_down_by_its_own_tokens_only(
    gateway: Gateway, room: Room
) -> None:
    for _ in range(5):
        assert await status_of(gateway, path("call", legacy(key=STRANGE))) == 401
    statuses = [await status_of(gateway, path("call", legacy())) for _ in range(3)]
    assert statuses == [101, 101, 429]
    assert await status_of(gateway, path("call", legacy("another"))) == 101
    room.rulebook.policies.put("large", b'{"limits":{"agent_handshakes_per_minute":3}}')
    assert [await status_of(gateway, path("call", legacy("large"))) for _ in range(4)] == [101, 101, 101, 429]


@pytest.mark.settings(trusted_proxies=("127.0.0.1",), admin_key="0123456789abcdef-admin")
async def test_the_address_in_the_log_is_the_one_behind_the_proxy(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    await knock(gateway.port, path("call", legacy()), "X-Forwarded-For: 2001:DB8::7, 127.0.0.1")
    await knock(gateway.port, path("call", "bad"), "X-Forwarded-For: evil event=x, 203.0.113.5")
    told = [vars(record) for record in caplog.records if str(vars(record).get("event")).startswith("connection_")]
    assert [line["address"] for line in told if line["event"] == "connection_opened"] == ["2001:db8::7"]
    assert [line["address"] for line in told if line["event"] == "connection_refused"] == ["203.0.113.5"]
    for target in ("/drain", "/mcp_endpoint/health", "/mcp_endpoint/status"):
        caplog.clear()
        await gateway.get(target, headers={"X-Forwarded-For": "203.0.113.6"})
        assert [vars(record)["address"] for record in caplog.records if "refused" in record.message] == ["203.0.113.6"]


# Web pages


@pytest.mark.settings(origins=("https://Console.Example.com",))
async def test_a_web_page_that_is_not_listed_is_refused_before_its_token_is_looked_at(gateway: Gateway) -> None:
    for token in (legacy(), "bad"):
        for origin in ("https://evil.example", "null", "https://console.example.com:8443"):
            assert await status_of(gateway, path("call", token), f"Origin: {origin}") == 403
    assert await status_of(gateway, path("call", legacy()), "Origin: https://console.example.com") == 101
    assert await status_of(gateway, path("call", legacy())) == 101
    for origin, allowed in (("https://console.example.com", "https://console.example.com"), ("https://evil.net", None)):
        response = await gateway.get("/mcp_endpoint/", headers={"Origin": origin})
        assert response.headers.get("access-control-allow-origin") == allowed
