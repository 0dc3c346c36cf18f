"""The server's end: told to every peer, bounded whatever they do, and a success."""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import orjson
import pytest
from starlette.applications import Starlette
from websockets.asyncio.client import connect

from gateway.errors import RESTART_REASON
from gateway.server import GatewayServer, serve
from gateway.settings import Settings
from tests.peers.raw import RawSocket
from tests.support.waiting import wait_until
from tests.wire.little_app import BASE, Site, running

ROOT = Path(__file__).parents[2]


async def no_hook() -> None:
    """Do nothing before the end."""


@contextlib.asynccontextmanager
async def process(*arguments: str, **settings: float) -> AsyncGenerator[tuple[Process, int]]:
    """A served process and its port."""
    command = (sys.executable, "-m", "tests.wire.process", orjson.dumps(settings).decode(), *arguments)
    child = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=PIPE, stderr=PIPE)
    try:
        yield child, int(await line_of(child))
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


async def line_of(child: Process) -> str:
    assert child.stdout is not None
    async with asyncio.timeout(15):
        return (await child.stdout.readline()).decode().strip()


async def end_of(child: Process, seconds: float) -> tuple[int | None, str]:
    async with asyncio.timeout(seconds):
        _, log = await child.communicate()
    return child.returncode, log.decode()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_closes_every_peer_with_1012_and_ends_with_exit_code_0(end: signal.Signals) -> None:
    async with process() as (child, port), connect(f"ws://127.0.0.1:{port}/echo?token=c2VjcmV0") as client:
        await client.send("hello")
        assert await client.recv() == "hello"
        child.send_signal(end)
        await client.wait_closed()
        assert (client.close_code, client.close_reason) == (1012, RESTART_REASON)
        code, log = await end_of(child, 15)
        assert code == 0, log
        assert "c2VjcmV0" not in log
        assert "Traceback" not in log


async def test_the_end_does_not_wait_for_peers_that_read_nothing_or_never_shake_hands() -> None:
    async with process(close_seconds=0.5) as (child, port):
        silent = socket.create_connection(("127.0.0.1", port))
        peer = await RawSocket(f"ws://127.0.0.1:{port}/echo").open()
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport that also writes
        for _ in range(64):
            await peer.send_text(b"x" * 100_000)
        child.terminate()
        code, log = await end_of(child, 15)
        assert code == 0, log
        await peer.close()
        silent.close()


async def test_a_second_ctrl_c_ends_it_at_once() -> None:
    async with process("hang", close_seconds=3600) as (child, _):
        child.send_signal(signal.SIGINT)
        assert await line_of(child) == "hanging"
        child.send_signal(signal.SIGINT)
        code, log = await end_of(child, 15)
        assert code == 0, log


async def test_connections_work_and_new_ones_are_refused_while_the_hook_runs() -> None:
    seen: list[bytes] = []
    async with running() as site:
        peer, _ = await site.raw()

        async def hook() -> None:
            await peer.send_text(b"still works")
            seen.append((await peer.read_data()).payload)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", site.port)
            seen.append(b"refused")

        site.hook = hook
        site.server.stop()
        await wait_until(lambda: site.sessions[0].ended is not None, "the app is told of the end")
        assert seen == [b"still works", b"refused"]
        assert site.sessions[0].ended == (1012, RESTART_REASON)
        await peer.close()


async def test_a_hook_that_fails_is_logged_and_the_end_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as site:

        async def hook() -> None:
            raise ValueError("the hook fails")

        site.hook = hook
        client = await connect(site.url("/echo"))
        site.server.stop()
        await client.wait_closed()
        assert client.close_code == 1012
    assert "the hook fails" in caplog.text


async def test_a_hook_that_hangs_does_not_hold_up_the_end() -> None:
    async with running(close_seconds=0.1) as site:

        async def hook() -> None:
            await asyncio.Event().wait()

        site.hook = hook
        client = await connect(site.url("/echo"))
        site.server.stop()
        await client.wait_closed()
        assert client.close_code == 1012


async def test_an_app_that_never_shuts_down_does_not_hold_up_the_end(caplog: pytest.LogCaptureFixture) -> None:
    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.Event().wait()

    settings = Settings(close_seconds=0.1)
    server = GatewayServer(Starlette(lifespan=lifespan), settings, on_shutdown=no_hook, takes_signals=False)
    async with asyncio.timeout(15), asyncio.TaskGroup() as group:
        task = group.create_task(server.serve([socket.create_server(("127.0.0.1", 0))]))
        await wait_until(lambda: server.started, "the server has started")
        server.stop()
        await wait_until(task.done, "the server has ended", 10)
    assert "did not end in time" in caplog.text


async def test_a_cancelled_server_leaves_no_socket_open() -> None:
    site = Site(BASE)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(site.server.serve([site.socket]))
        await wait_until(lambda: site.server.started, "the server has started")
        peer, session = await site.raw()
        task.cancel()
        assert (await session.until_ended())[0] == 1006
        await site.until_empty()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", site.port)
        await peer.close()


def test_a_port_in_use_is_named_with_its_setting(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = Settings(host="127.0.0.1", port=taken.getsockname()[1])
        assert serve(Starlette(), settings, on_shutdown=no_hook) == 3
    assert "GATEWAY_PORT" in caplog.text
    assert str(settings.port) in caplog.text


def test_a_lifespan_that_fails_to_start_is_exit_code_3(caplog: pytest.LogCaptureFixture) -> None:
    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        raise ValueError("no backplane")
        yield

    caplog.set_level(logging.ERROR)
    settings = Settings(host="127.0.0.1", port=0)
    assert serve(Starlette(lifespan=lifespan), settings, on_shutdown=no_hook) == 3
    assert "no backplane" in caplog.text
