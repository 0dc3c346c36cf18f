"""`mcp-gateway serve`: from the command to the first answer, and back."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from contextlib import closing

import pytest

from gateway.listening import listen
from tests.cli.command_line import CommandLine, Started
from tests.support import http
from tests.support.ports import own_port
from tests.support.redis_server import engines, running

KEY = "6a369b7f1bcf4d3e8d123ece38bb9627"
LOCAL = {"GATEWAY_HOST": "127.0.0.1", "GATEWAY_PORT": "0"}
HEALTH = r"http://127\.0\.0\.1:\d+/mcp_endpoint/health\?key=\w+"


async def served(started: Started) -> tuple[int, str]:
    """The port and the key of the URLs that it printed."""
    [url] = await started.until(HEALTH)
    port, _, key = url.removeprefix("http://127.0.0.1:").partition("/mcp_endpoint/health?key=")
    return int(port), key


async def until_healthy(port: int, key: str) -> None:
    """Return once somebody listens, and has found its place in the cluster."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(OSError):
                if (await http.get(port, f"/mcp_endpoint/health?key={key}")).status == 200:
                    return
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("module", ["gateway", "gateway.cli"])
async def test_the_first_start_prints_the_two_urls_and_serves(module: str, cli: CommandLine) -> None:
    started = await cli.start(*(["serve"] if module == "gateway.cli" else []), module=module, **LOCAL)
    port, key = await served(started)
    await started.until(rf"ws://127\.0\.0\.1:{port}/mcp_endpoint/mcp/\?token=\S+")
    await until_healthy(port, key)
    assert (cli.cwd / "data" / ".gateway-key").read_text().strip() == key
    assert await started.stop() == 0


async def test_the_urls_are_built_from_the_public_address(cli: CommandLine) -> None:
    started = await cli.start("serve", **LOCAL, GATEWAY_KEY=KEY, GATEWAY_PUBLIC_URL="https://mcp.example.com/house")
    await started.until(rf"https://mcp\.example\.com/house/mcp_endpoint/health\?key={KEY}")
    await started.until(r"wss://mcp\.example\.com/house/mcp_endpoint/mcp/\?token=\S+")


async def test_ctrl_c_ends_it_with_0(cli: CommandLine) -> None:
    started = await cli.start("serve", **LOCAL)
    port, key = await served(started)
    await until_healthy(port, key)
    assert await started.stop(signal.SIGINT) == 0


async def test_it_serves_and_ends_in_order_where_nobody_reads_what_it_prints(cli: CommandLine) -> None:
    """As behind `| head -0`."""
    unread = (
        "import os, sys; read, write = os.pipe(); os.close(read); os.dup2(write, 1);"
        "os.execv(sys.executable, [sys.executable, '-m', 'gateway.cli', 'serve'])"
    )
    port = own_port()
    environ = {**LOCAL, "GATEWAY_PORT": str(port), "GATEWAY_KEY": KEY}
    started = await cli.start_program([sys.executable, "-c", unread], **environ)
    await until_healthy(port, KEY)
    assert await started.stop(signal.SIGINT) == 0
    assert "Traceback" not in started.text
    assert "Exception" not in started.text


async def test_flags_win_over_the_environment(cli: CommandLine) -> None:
    started = await cli.start("serve", "--host", "127.0.0.1", "--port", "0", GATEWAY_HOST="192.0.2.1", GATEWAY_PORT="1")
    await started.until(HEALTH)


async def test_the_log_has_no_key_and_no_token(cli: CommandLine) -> None:
    started = await cli.start("serve", **LOCAL, GATEWAY_KEY=KEY, GATEWAY_LOG_LEVEL="DEBUG")
    port, _ = await served(started)
    await started.until("keep these URLs")
    said = len(started.text)
    await until_healthy(port, KEY)
    await http.get(port, "/mcp_endpoint/mcp/?token=hunter2")
    await started.stop()
    banner_ends = started.text.index("\n\n", said - 200)
    assert KEY not in started.text[banner_ends:]
    assert "hunter2" not in started.text


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_logs_for_machines_have_no_urls_before_them(cli: CommandLine, workers: str) -> None:
    """They hold the key, and whoever collects logs keeps all output. `mcp-gateway token` prints them on demand."""
    with running(next(iter(engines().values()))) as server:
        told = {"GATEWAY_KEY": KEY, "GATEWAY_LOG_FORMAT": "json", "GATEWAY_REDIS_URL": server.url}
        started = await cli.start("serve", "--workers", workers, **LOCAL, **told)
        await started.until(r'"event":"worker_ready"', int(workers))
        assert [line for line in started.text.splitlines() if not line.startswith("{")] == []
        assert await started.stop() == 0
    assert KEY not in started.text


async def test_an_unknown_setting_is_warned_about_in_the_log(cli: CommandLine) -> None:
    started = await cli.start("serve", **LOCAL, GATEWAY_PROT="1", GATEWAY_LOG_FORMAT="json")
    await started.until(r'"level":"WARNING".*did you mean GATEWAY_PORT')


def test_wrong_settings_stop_the_start_with_all_reasons(cli: CommandLine) -> None:
    answer = cli.run("serve", GATEWAY_PORT="x", GATEWAY_RESULT_BYTES="2MiB")
    assert answer.returncode == 2
    assert "GATEWAY_PORT='x'" in answer.stderr
    assert "GATEWAY_RESULT_BYTES='2MiB'" in answer.stderr
    assert answer.stdout == ""


def test_two_workers_without_redis_are_refused_with_what_to_set(cli: CommandLine) -> None:
    answer = cli.run("serve", "--workers", "2")
    assert answer.returncode == 2
    assert "set GATEWAY_REDIS_URL" in answer.stderr


def test_a_port_that_is_taken_stops_the_start_with_the_cure(cli: CommandLine) -> None:
    with closing(listen("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        answer = cli.run("serve", "--host", "127.0.0.1", "--port", port)
    assert answer.returncode == 2
    assert f"127.0.0.1:{port}" in answer.stderr
    assert "GATEWAY_PORT" in answer.stderr


async def test_several_workers_share_one_port_and_end_together(cli: CommandLine) -> None:
    with running(next(iter(engines().values()))) as server:
        started = await cli.start("serve", "--workers", "2", "--redis-url", server.url, **LOCAL, GATEWAY_KEY=KEY)
        port, _ = await served(started)
        await until_healthy(port, KEY)
        assert await started.stop() == 0
        assert len(started.text.split("/mcp_endpoint/health?key=")) == 2, "the URLs are printed once"
    with pytest.raises(ConnectionRefusedError), closing(socket.create_connection(("127.0.0.1", port), timeout=5)):
        pass


async def test_workers_do_not_outlive_a_supervisor_that_was_killed(cli: CommandLine) -> None:
    with running(next(iter(engines().values()))) as server:
        started = await cli.start("serve", "--workers", "2", "--redis-url", server.url, **LOCAL, GATEWAY_KEY=KEY)
        port, _ = await served(started)
        await until_healthy(port, KEY)
        assert await started.stop(signal.SIGKILL) == -signal.SIGKILL


async def test_a_worker_that_was_killed_comes_back_on_the_same_port(cli: CommandLine) -> None:
    with running(next(iter(engines().values()))) as server:
        started = await cli.start("serve", "--workers", "2", "--redis-url", server.url, **LOCAL, GATEWAY_KEY=KEY)
        port, _ = await served(started)
        pids = await started.until(r"was started slot=\d pid=(\d+)", 2)
        await until_healthy(port, KEY)
        for pid in pids:
            os.kill(int(pid), signal.SIGKILL)
        await started.until(r"was started slot=\d pid=(\d+)", 4)
        await until_healthy(port, KEY)
        assert await started.stop() == 0
