"""nginx alone: its own check of what is shipped, what it tells the workers, its patience, the secrets in its logs."""

import contextlib
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.exceptions import WebSocketException

from tests.edge.fleet import Fleet, Front
from tests.edge.listener import Listener
from tests.edge.nginx import BALANCES, MISSING, Nginx, program, upstream
from tests.peers.token import console_token
from tests.peers.tools import echo, text_of
from tests.peers.wire import Peer
from tests.support import http
from tests.support.gateway import Gateway, Guests
from tests.support.ports import own_port
from tests.support.running import KEY
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(program() is None, reason=MISSING)
HOUR = "3600s"


@asynccontextmanager
async def running(nginx: Nginx) -> AsyncGenerator[Nginx]:
    try:
        await nginx.start()
        yield nginx
    finally:
        nginx.stop()


@pytest.mark.parametrize("balance", BALANCES)
def test_nginx_itself_accepts_the_configuration(tmp_path: Path, balance: str) -> None:
    checked = Nginx(tmp_path, upstream(balance, ["127.0.0.1:8004", "127.0.0.2:8004"])).check()
    assert checked.returncode == 0, checked.stderr


# What it tells the workers


@pytest.mark.parametrize(
    ("said", "address", "scheme"),
    [
        ({}, "127.0.0.1", "http"),
        ({"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https"}, "203.0.113.7, 127.0.0.1", "https"),
    ],
    ids=["alone", "behind another proxy"],
)
async def test_a_worker_is_told_where_the_client_comes_from(
    tmp_path: Path, said: dict[str, str], address: str, scheme: str
) -> None:
    listener = Listener()
    async with listener.listening(), running(Nginx(tmp_path, upstream("hash", [listener.address]))) as nginx:
        path = "/mcp_endpoint/call/?token=a+b%2Fc%3D&server_id=%E7%81%AF"
        peer = await Peer(f"ws://127.0.0.1:{nginx.port}{path}", additional_headers=said, subprotocols=["mcp"]).open()
        await wait_until(lambda: listener.heads, "the worker is asked")
        await peer.vanish()
    [head] = listener.heads
    assert (head["x-forwarded-for"], head["x-forwarded-proto"]) == (address, scheme)
    assert head["host"] == f"127.0.0.1:{nginx.port}"
    assert head["path"] == path
    assert head["sec-websocket-protocol"] == "mcp"


# Patience


async def test_an_idle_connection_lives_longer_than_nginx_waits(fleet: Fleet, guests: Guests, tmp_path: Path) -> None:
    """The workers' pings do it: beside it, a connection through the same nginx to somebody who says nothing is cut."""
    mute = Listener()
    impatient = {HOUR: "2s"}
    workers = upstream("hash", [worker.address for worker in fleet.workers])
    async with (
        mute.listening(),
        running(Nginx(tmp_path / "mute", upstream("hash", [mute.address]), **impatient)) as to_mute,
        running(Nginx(tmp_path / "workers", workers, **impatient)) as nginx,
    ):
        edge = Gateway(Front(fleet, nginx.port), guests)
        await edge.tool_server("lamp", [echo()], agent="patient")
        robot = await edge.robot(agent="patient")
        frames = len(robot.frames)
        idle = await Peer(f"ws://127.0.0.1:{to_mute.port}/", ping_interval=None).open()

        assert (await idle.until_closed(seconds=20)).code == 1006

        assert len(robot.frames) == frames
        assert text_of(await robot.call("echo", {"text": "still here"})) == "still here"
        await guests.leave()


# Secrets


async def test_no_token_gets_into_a_log_whatever_goes_wrong(tmp_path: Path) -> None:
    """nginx tells the whole request with every trouble: a worker that refuses (error), one that can't be (critical),
    and no connection left to ask one (alert)."""
    listener = Listener()
    workers = upstream("round-robin", [listener.address, f"127.0.0.1:{own_port()}", f"unix:{tmp_path}/none"])
    # Besides nginx' own two: three connections and what belongs to them, and one that stays alone.
    small = {"worker_processes 2": "worker_processes 1", "worker_connections 40000": "worker_connections 9"}
    token = console_token("secret", KEY).rstrip("=")
    async with listener.listening(), running(Nginx(tmp_path, workers, **small)) as nginx:
        peers = [Peer(f"ws://127.0.0.1:{nginx.port}/mcp_endpoint/call/?token={token}") for _ in range(6)]
        for peer in peers:
            with contextlib.suppress(OSError, WebSocketException):
                await peer.open()
        for peer in peers:
            if peer.is_open:
                await peer.vanish()
        await wait_until(lambda: {"101", "500"} <= set(statuses(nginx)), "both ends are logged")
    assert "unix:" in nginx.access_log
    assert token[:20] not in nginx.access_log + nginx.error_log


@pytest.mark.parametrize("mark", ["?", "%3F", "%253F", ";", ""])
async def test_a_token_that_came_into_the_path_is_not_logged_either(tmp_path: Path, mark: str) -> None:
    """Somebody encodes the whole of what follows the host, or forgets the question mark."""
    listener = Listener()
    token = console_token("secret", KEY).rstrip("=")
    async with listener.listening(), running(Nginx(tmp_path, upstream("hash", [listener.address]))) as nginx:
        await http.get(nginx.port, f"/mcp_endpoint/call/{mark}token={token}")
        await wait_until(lambda: "/mcp_endpoint/call/" in nginx.access_log, "the request is logged")
    assert token[:20] not in nginx.access_log + nginx.error_log


def statuses(nginx: Nginx) -> list[str]:
    return re.findall(r'"GET /mcp_endpoint/call/" (\d+) ', nginx.access_log)
