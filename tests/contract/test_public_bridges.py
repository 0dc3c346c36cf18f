"""The main job on real input: public bridges from PyPI with a stdio MCP server, and a xiaozhi-server that calls it."""

import asyncio
import importlib.util
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest

from tests.peers import stdio_calculator
from tests.support.gateway import Gateway

CALCULATOR = stdio_calculator.__file__


def configured(folder: Path, **environments: dict[str, str]) -> str:
    """Write a configuration with one stdio server for each environment; its path."""
    servers = {
        name: {"type": "stdio", "command": sys.executable, "args": [CALCULATOR], "env": environment}
        for name, environment in environments.items()
    }
    config = folder / "mcp_config.json"
    config.write_bytes(orjson.dumps({"mcpServers": servers}))
    return str(config)


def mcp2xiaozhi(url: str, folder: Path) -> list[str]:
    """The command of mcp2xiaozhi for one server."""
    config = configured(folder, calculator={})
    return [sys.executable, "-m", "mcp2xiaozhi", "--config", config, "run", "calculator", "--endpoint", url]


def xiaozhi_mcp(url: str, folder: Path) -> list[str]:
    """The command of xiaozhi-mcp, a copy of the official `mcp_pipe.py`, in the mode that starts all that is configured.

    Its children print a banner first: this bridge makes a frame of it (mcp2xiaozhi would end its session).
    """
    banner = {"CALCULATOR_BANNER": "Calculator starting ..."}
    configured(folder, calculator=banner, adder={**banner, "CALCULATOR_NAME": "Adder"})
    return [sys.executable, "-m", "xiaozhi_mcp"]


@asynccontextmanager
async def running(command: list[str], url: str, folder: Path) -> AsyncGenerator[None]:
    """The bridge, in a process group of its own that is gone afterwards. What it printed is shown if a test fails."""
    environment = {**os.environ, "MCP_ENDPOINT": url}
    output = folder / "bridge.log"
    with output.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            print(output.read_text(errors="replace").replace(url, "<url>"))  # noqa: T201 - shown by pytest on failure


def needs(module: str) -> None:
    """Skip, and say what is missing, where the bridge is not installed."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed: pip install -e '.[dev]'")


async def test_a_xiaozhi_server_calls_a_tool_behind_mcp2xiaozhi(gateway: Gateway, tmp_path: Path) -> None:
    needs("mcp2xiaozhi")
    url = gateway.mcp_url()
    async with running(mcp2xiaozhi(url, tmp_path), url, tmp_path):
        await gateway.until_connected(1, seconds=40)
        assert list(await gateway.servers()) == ["Calculator"]
        robot = await gateway.xiaozhi()
        for number in range(3):
            assert await robot.call_tool("calculator", {"a": number, "b": 40}) == str(number + 40)
        assert robot.errors == []
        assert await gateway.console().tool_names() == ["calculator"]


async def test_a_xiaozhi_server_calls_two_tools_behind_one_xiaozhi_mcp(gateway: Gateway, tmp_path: Path) -> None:
    """One bridge, one URL, one socket for each server: where the old server let only one of them live."""
    needs("xiaozhi_mcp")
    url = gateway.mcp_url()
    async with running(xiaozhi_mcp(url, tmp_path), url, tmp_path):
        await gateway.until_connected(2, seconds=40)
        assert set(await gateway.servers()) == {"Calculator", "Adder"}
        robot = await gateway.xiaozhi()
        assert set(robot.tools) == {"calculator", "adder"}
        for name in ("calculator", "adder", "calculator"):
            assert await robot.call_tool(name, {"a": 2, "b": 40}) == "42"
        assert robot.errors == []
