"""Decisions of people reach every worker and every live socket, and losing Redis never opens a door."""

import time
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
from websockets.exceptions import InvalidStatus

from gateway.bookkeeping import opened
from gateway.credential import Credential, Role
from gateway.revocations import of_agent, of_token
from gateway.settings import Settings
from gateway.tokens import Keyring
from tests.conftest import StartCluster
from tests.peers.robot import Robot
from tests.peers.tool_server import ToolServer
from tests.peers.tools import echo
from tests.support.gateway import AGENT, Gateway, Guests
from tests.support.redis_server import RedisServer
from tests.support.running import KEY, Cluster, MemoryCluster, RedisCluster, settings
from tests.support.waiting import wait_until

BOOK = "revoked"
POLICY_VIOLATED = 1008
BEATS = {"beat_seconds": 0.2, "lease_seconds": 2.0}


def token(
    token_id: str, role: Role = "call", agent: str = AGENT, *, seconds: float = 600.0, age_seconds: float = 0
) -> str:
    now_ms = int(time.time() * 1000)
    issued_ms = now_ms - int(age_seconds * 1000)
    return Keyring((KEY,)).issue(Credential(agent, role, "", token_id, issued_ms, now_ms + int(seconds * 1000)))


async def robot_with(gateway: Gateway, guests: Guests, token: str) -> Robot:
    robot = Robot(gateway.url("/mcp_endpoint/call/", token=token))
    guests.add(robot)
    await robot.open()
    await robot.initialize()
    return robot


async def server_with(gateway: Gateway, guests: Guests, token: str, server_id: str) -> ToolServer:
    url = gateway.url("/mcp_endpoint/mcp/", token=token, server_id=server_id)
    server = ToolServer(url, name=server_id, tools=[echo(server_id)])
    guests.add(server)
    await server.open()
    return server


async def status_of(gateway: Gateway, guests: Guests, token: str) -> int:
    """What the handshake of a robot is answered with."""
    robot = Robot(gateway.url("/mcp_endpoint/call/", token=token))
    guests.add(robot)
    try:
        await robot.open()
    except InvalidStatus as refusal:
        return refusal.response.status_code
    return 101


async def write(settings: Settings, name: str, entry: dict[str, Any] | None, book: str = BOOK) -> None:
    """As a command does."""
    async with opened(settings) as books:
        await books.write_entry(book, name, orjson.dumps(entry) if entry is not None else b"")


@pytest.mark.parametrize("cluster", ["redis"], indirect=True)
async def test_a_revoked_token_closes_its_sockets_on_every_worker_and_opens_no_door(
    cluster: StartCluster, guests: Guests
) -> None:
    a, b = await cluster(2)
    lost, other = token("lost"), token("other")
    robots = [await robot_with(gateway, guests, lost) for gateway in (a, b)]
    stays = await robot_with(b, guests, other)
    await write(a.settings, of_token("lost"), {"until_ms": int(time.time() * 1000) + 600_000, "reason": "test"})
    for robot in robots:
        closed = await robot.until_closed(2)
        assert (closed.code, closed.reason) == (POLICY_VIOLATED, "令牌已吊销 / token revoked")
    for gateway in (a, b):
        assert await status_of(gateway, guests, lost) == 401
    assert stays.is_open
    await write(a.settings, of_token("lost"), None)
    await wait_until(lambda: _is_let_in(a, guests, lost), "what was taken back counts no more")


async def _is_let_in(gateway: Gateway, guests: Guests, token: str) -> bool:
    return await status_of(gateway, guests, token) == 101


@pytest.mark.parametrize("cluster", ["redis"], indirect=True)
async def test_revoking_an_agent_ends_all_that_was_issued_before_and_its_old_tokens(
    cluster: StartCluster, guests: Guests
) -> None:
    a, b = await cluster(2)
    old = await robot_with(a, guests, token("old", age_seconds=60))
    lamp = await server_with(b, guests, token("lamp", "mcp", age_seconds=60), "lamp")
    legacy = await b.robot()
    stranger = await a.robot(agent="other")
    now_ms = int(time.time() * 1000)
    await write(a.settings, of_agent(AGENT), {"before_ms": now_ms - 1000, "reason": "test"})
    for peer in (old, lamp, legacy):
        assert (await peer.until_closed(2)).code == POLICY_VIOLATED
    with pytest.raises(InvalidStatus, match="401"):
        await a.robot()
    assert await status_of(b, guests, token("new")) == 101
    assert stranger.is_open


@pytest.mark.settings(**BEATS)
@pytest.mark.parametrize("cluster", ["redis"], indirect=True)
async def test_what_expires_is_closed_at_the_next_beat(cluster: StartCluster, guests: Guests) -> None:
    (a,) = await cluster(1)
    robot = await robot_with(a, guests, token("short", seconds=1.5))
    closed = await robot.until_closed(8)
    assert (closed.code, closed.reason) == (POLICY_VIOLATED, "令牌已过期 / token expired")


@pytest.mark.settings(**BEATS)
async def test_what_expires_is_closed_also_while_redis_is_away(
    pair: tuple[Gateway, Gateway], guests: Guests, own_server: RedisServer
) -> None:
    robot = await robot_with(pair[0], guests, token("short", seconds=1.5))
    own_server.stop()
    assert (await robot.until_closed(8)).reason == "令牌已过期 / token expired"


@pytest.mark.parametrize("cluster", ["redis"], indirect=True)
async def test_old_tokens_switched_off_by_policy_close_what_came_in_with_them(
    cluster: StartCluster, guests: Guests
) -> None:
    a, b = await cluster(2)
    robot, signed = await a.robot(), await robot_with(a, guests, token("new"))
    lamp = await b.tool_server("lamp", agent=AGENT)
    await write(a.settings, AGENT, {"legacy_tokens": "mcp"}, "policy")
    assert (await robot.until_closed(2)).code == POLICY_VIOLATED
    with pytest.raises(InvalidStatus, match="401"):
        await b.robot()
    assert lamp.is_open
    assert signed.is_open


@pytest.mark.settings(**BEATS)
@pytest.mark.parametrize("cluster", ["redis"], indirect=True)
async def test_losing_redis_never_opens_a_door_also_of_a_worker_that_starts_just_then(
    cluster: StartCluster, guests: Guests, store: Any
) -> None:
    a, b = await cluster(2)
    lost = token("lost")
    await write(a.settings, of_token("lost"), {"until_ms": int(time.time() * 1000) + 600_000})
    await write(a.settings, of_agent("banned"), {"before_ms": 1})
    for gateway in (a, b):
        await wait_until(partial(_is_refused, gateway, guests, lost), "it is known")

    store.flushall()
    (c,) = await cluster(1)

    for gateway in (a, b, c):
        assert await status_of(gateway, guests, lost) == 401
        with pytest.raises(InvalidStatus, match="401"):
            await gateway.robot(agent="banned")
    assert orjson.loads(store.hget("mcpgw:revoked", "token:lost"))["version"] > 0


async def _is_refused(gateway: Gateway, guests: Guests, token: str) -> bool:
    return await status_of(gateway, guests, token) == 401


@pytest.mark.settings(**BEATS)
@pytest.mark.parametrize("cluster", ["redis"], indirect=True)
async def test_a_worker_that_can_not_read_the_books_takes_nobody_and_says_why(
    cluster: StartCluster, guests: Guests, store: Any, redis_server: RedisServer
) -> None:
    (a,) = await cluster(1)
    store.delete("mcpgw:revoked")
    store.set("mcpgw:revoked", "no hash")
    more = RedisCluster(settings(redis_url=redis_server.url, redis_timeout_seconds=0.5))
    try:
        gateway = Gateway(await more.add_worker(is_awaited=False), guests)
        await wait_until(lambda: "WRONGTYPE" in gateway.worker.room.trouble, "it says why")  # type: ignore[attr-defined]
        assert (await gateway.get("/readyz")).status == 503
        with pytest.raises(InvalidStatus, match="503"):
            await gateway.robot()
        assert await a.robot(), "who was ready before keeps what it knows"
        store.delete("mcpgw:revoked")
        await wait_until(lambda: gateway.worker.room.is_ready, "it opens", 10)  # type: ignore[attr-defined]
    finally:
        await guests.leave()
        await more.stop()


async def test_while_redis_is_away_the_revoked_stay_out(
    pair: tuple[Gateway, Gateway], own_server: RedisServer, guests: Guests
) -> None:
    a, b = pair
    lost = token("lost")
    await write(a.settings, of_token("lost"), {"until_ms": int(time.time() * 1000) + 600_000})
    await wait_until(lambda: _is_refused(b, guests, lost), "it is known")
    own_server.stop()
    for gateway in (a, b):
        assert await status_of(gateway, guests, lost) == 401
        assert await status_of(gateway, guests, token("good")) == 101


async def test_without_redis_the_books_are_files_that_a_command_writes_and_a_restart_reads(
    tmp_path: Path, guests: Guests
) -> None:
    home = settings(data_dir=str(tmp_path / "data"))
    lost = token("lost")
    first: Cluster = MemoryCluster(home, is_shared=False)
    try:
        gateway = Gateway(await first.add_worker(), guests)
        assert not (tmp_path / "data").exists(), "who decides nothing gets no files"
        robot = await robot_with(gateway, guests, lost)
        await write(home, of_token("lost"), {"until_ms": int(time.time() * 1000) + 600_000})
        assert (await robot.until_closed(3)).code == POLICY_VIOLATED
        (tmp_path / "data" / "revoked.json").unlink()
        await wait_until((tmp_path / "data" / "revoked.json").exists, "it is put back", 10)
    finally:
        await guests.leave()
        await first.stop()
    assert (tmp_path / "data" / "revoked.json").stat().st_mode & 0o777 == 0o600
    for name in ("policy.json", "pins.json"):
        (tmp_path / "data" / name).write_text("{")
    second = MemoryCluster(home, is_shared=False)
    try:
        worker = await second.add_worker(is_awaited=False)
        await wait_until(lambda: "policy.json" in worker.room.trouble, "a file that can't be read is named")
        (tmp_path / "data" / "policy.json").unlink()
        await wait_until(lambda: "pins.json" in worker.room.trouble, "and the next one")
        assert not worker.room.is_ready
        (tmp_path / "data" / "pins.json").unlink()
        await wait_until(lambda: worker.room.is_ready, "it opens")
        assert await status_of(Gateway(worker, guests), guests, lost) == 401
    finally:
        await second.stop()


async def test_without_rights_to_its_directory_a_gateway_with_a_key_starts_and_says_what_is_not_in_force(
    tmp_path: Path, guests: Guests, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hidden, look = tmp_path / "data", Path.stat

    def stat(path: Path, **how: Any) -> Any:
        if path.parent == hidden:
            raise PermissionError(13, "Permission denied")
        return look(path, **how)

    home = settings(data_dir=str(hidden))
    await write(home, of_token("lost"), {"until_ms": int(time.time() * 1000) + 600_000})
    monkeypatch.setattr(Path, "stat", stat)
    alone = MemoryCluster(home, is_shared=False)
    try:
        gateway = Gateway(await alone.add_worker(), guests)
        assert await gateway.robot()
        told = [one.getMessage() for one in caplog.records if one.__dict__.get("event") == "data_hidden"]
        assert len(told) == 3, "once for each file"
        assert all(str(hidden) in text and "not in force" in text for text in told)
        monkeypatch.undo()
        await wait_until(lambda: _is_refused(gateway, guests, token("lost")), "what is there is read once it can be")
    finally:
        await alone.stop()
