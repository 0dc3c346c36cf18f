"""README.md is executed, command by command; README.zh-CN.md has the same blocks (`test_documents.py`)."""

import asyncio
import contextlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest
import yaml
from dotenv import dotenv_values

from gateway import __version__, auth
from gateway.banner import banner
from gateway.configuration import load
from gateway.settings import Settings
from tests.cli.command_line import CommandLine, Started
from tests.cluster.inside import id_of
from tests.cluster.inside import served as served_by
from tests.conftest import StartCluster
from tests.docs.markdown import read
from tests.peers.tools import echo, text_of
from tests.project.repository import ROOT
from tests.support import http
from tests.support.gateway import Gateway
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

README = read("README.md")
COMMANDS = [(block.section, line.strip()) for block in README.blocks for line in block.commands]
PROGRAM = ".venv/bin/mcp-gateway"
WATCHING = "Watching it"
KEY = "0123456789abcdef0123456789abcdef"
BASE = "http://192.168.1.20:8004"
HEALTH = r"http://127\.0\.0\.1:\d+/mcp_endpoint/health\?key=\w+"
LOCAL = {"GATEWAY_HOST": "127.0.0.1", "GATEWAY_PORT": "0"}
AGENT = "single_module"


@pytest.fixture
async def cli(tmp_path: Path) -> AsyncIterator[CommandLine]:
    """A command line in an empty directory, as in a fresh checkout."""
    cwd = tmp_path / "gateway"
    cwd.mkdir()
    line = CommandLine(cwd)
    yield line
    await line.stop_all()


def shell(cwd: Path, *lines: str) -> None:
    """Run the lines as a person's shell would."""
    subprocess.run(["sh", "-ec", "\n".join(lines)], cwd=cwd, check=True, timeout=20)


def commands(section: str, *beginnings: str) -> list[str]:
    """A section's commands that begin so, in their order."""
    return [line for of, line in COMMANDS if of == section and line.startswith(beginnings)]


def block(section: str, language: str, number: int = 0) -> str:
    return README.blocks_of(section, language)[number].text


def arguments(line: str) -> list[str]:
    program, *words = shlex.split(line)
    assert program == PROGRAM
    return words


# Every command

HANDLED = (
    f"{PROGRAM} ",  # test_the_gateways_own_commands, test_several_workers
    "make ",  # test_make_has_the_verb
    "curl ",  # test_the_health_answer, test_the_probes
    "mkdir ",  # test_the_existing_configuration_is_taken_over
    "cp ",
    "for name in ",  # test_the_secrets_for_docker_compose
    "docker compose ",  # test_the_deployment_files
    "helm install ",
    "pip install ",  # test_a_bridge_brings_its_tool
    "export MCP_ENDPOINT=",
    "mcp2xiaozhi ",
    "xiaozhi-mcp",
)


@pytest.mark.parametrize(("section", "line"), COMMANDS)
def test_no_command_goes_unread(section: str, line: str) -> None:
    assert line.startswith(HANDLED), f"{section}: no test runs {line!r}"


@pytest.mark.parametrize("line", sorted({line for _, line in COMMANDS if line.startswith("make ")}))
def test_make_has_the_verb(line: str) -> None:
    [phony] = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(line.split()[1:]) <= set(phony.split())


@pytest.mark.parametrize(
    "line",
    sorted({line for of, line in COMMANDS if line.startswith(PROGRAM) and " serve" not in line and of != WATCHING}),
)
def test_the_gateways_own_commands(line: str, cli: CommandLine) -> None:
    done = cli.run(*arguments(line), GATEWAY_KEY=KEY, GATEWAY_PUBLIC_URL="https://mcp.example.com")
    assert done.returncode == 0, done.stderr
    assert done.stdout
    if "--json" in line:
        assert orjson.loads(done.stdout)["agent"] == arguments(line)[-2]
    if "--version" in line:
        assert done.stdout.strip() == f"mcp-gateway {__version__}"


# Two commands


def test_the_start_prints_what_is_shown() -> None:
    shown = re.sub(r"\d+\.\d+\.\d+ (?=/)|\d+\.\d+\.\d+$", "", block("Two commands", "text"), flags=re.MULTILINE)
    printed = banner(Settings(key=(KEY,), host=urlsplit(BASE).hostname or "")).replace(f"{__version__} ", "")
    assert shown.strip() == printed.replace(__version__, "").strip()


def test_every_url_that_is_shown_carries_a_token_or_key_that_works() -> None:
    text = (ROOT / "README.md").read_text()
    for url in re.findall(r"(?:ws|http)://[\d.]+:8004/mcp_endpoint/[^\s'`]+", text):
        query = parse_qs(urlsplit(url).query)
        if "key" in query:
            assert query["key"] == [KEY]
        else:
            assert auth.verify(query["token"][0], (KEY,)) == AGENT


# Replacing mcp-endpoint-server


async def test_the_existing_configuration_is_taken_over(cli: CommandLine) -> None:
    section = "Replacing mcp-endpoint-server"
    old = cli.cwd.parent / "mcp-endpoint-server" / "data"
    old.mkdir(parents=True)
    key = "c0ffee00c0ffee00c0ffee00c0ffee00"
    (old / ".mcp-endpoint-server.cfg").write_text(
        f"[server]\nhost = 127.0.0.1\nport = 0\ndebug = false\nlog_level = INFO\nkey = {key}\n"
    )
    shell(cli.cwd, *commands(section, "mkdir ", "cp "))
    assert commands(section, "make ") == ["make run"]
    port, shown = await served(await cli.start("serve"))
    assert shown == key
    answer = await http.get(port, f"/mcp_endpoint/health?key={key}")
    assert answer.json()["result"]["status"] == "success"


def test_the_single_modules_url_is_one_that_a_xiaozhi_server_accepts() -> None:
    """`validate_mcp_endpoint` of xiaozhi-esp32-server."""
    url = yaml.safe_load(block("Replacing mcp-endpoint-server", "yaml"))["mcp_endpoint"]
    assert url.startswith("ws")
    assert "/mcp/" in url
    assert not any(word in url.lower() for word in ("key", "call"))


async def served(started: Started) -> tuple[int, str]:
    """The port and the key that the gateway printed, once it answers."""
    [url] = await started.until(HEALTH)
    port, _, key = url.removeprefix("http://127.0.0.1:").partition("/mcp_endpoint/health?key=")

    async def is_ready() -> bool:
        with contextlib.suppress(OSError):
            return (await http.get(int(port), "/readyz")).status == 200
        return False

    await wait_until(is_ready, "the gateway is ready", seconds=20)
    return int(port), key


# Connecting a tool server


@pytest.fixture
async def bridge(request: pytest.FixtureRequest, gateway: Gateway, tmp_path: Path) -> AsyncGenerator[Gateway]:
    """A gateway, and beside it the bridge with the files of the README, run by its own commands."""
    section = "Connecting a tool server"
    (tmp_path / "calculator.py").write_text(block(section, "python"))
    (tmp_path / "mcp_config.json").write_text(block(section, "json"))
    [export] = commands(section, "export ")
    [run] = commands(section, request.param)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MCP_", "PYTHON"))}
    environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environ['PATH']}"
    here = export.replace(BASE.removeprefix("http://"), f"127.0.0.1:{gateway.port}")
    process = await asyncio.create_subprocess_exec(
        *["sh", "-ec", f"{here}\nexec {run}"],
        cwd=tmp_path,
        env=environ,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield gateway
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


@pytest.mark.parametrize("bridge", ["mcp2xiaozhi ", "xiaozhi-mcp"], indirect=True)
async def test_a_bridge_brings_its_tool(bridge: Gateway) -> None:
    await bridge.until_connected(1, AGENT, seconds=60)
    robot = await bridge.robot(agent=AGENT)
    assert await robot.names() == ["calculator"]
    assert text_of(await robot.call("calculator", {"a": 1, "b": 2}, seconds=10)) == "3.0"


def test_the_bridges_that_are_installed_are_those_that_are_tested() -> None:
    development = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["dev"]
    declared = {re.split(r"[<>=]", one)[0] for one in development}
    for line in commands("Connecting a tool server", "pip install "):
        assert {re.split(r"[<>=]", word)[0] for word in shlex.split(line)[2:]} <= declared


# Several tool servers on one agent


async def test_two_servers_are_listed_as_shown(gateway: Gateway) -> None:
    await gateway.tool_server("Calculator", [echo("calculator")])
    await gateway.tool_server("Desk", [echo("calculator"), echo("weather")])
    robot = await gateway.robot()
    listed = [{"name": tool["name"], "server_id": tool["server_id"]} for tool in await robot.list_tools()]
    assert listed == orjson.loads(block("Several tool servers on one agent", "json"))
    assert text_of(await robot.call("Calculator__calculator")) == "Calculator:calculator"


# Many workers


async def test_several_workers(cli: CommandLine, redis_server: RedisServer) -> None:
    section = "Many workers"
    shown = block(section, "ini")
    settings, warnings = load({}, dotenv=env_file(cli.cwd, shown), cwd=cli.cwd)
    assert warnings == []
    env_file(cli.cwd, shown.replace(settings.redis_url, redis_server.url).replace(settings.public_url, ""))
    check, serve = commands(section, PROGRAM)
    done = cli.run(*arguments(check))
    assert done.returncode == 0, done.stdout
    port, key = await served(await cli.start(*arguments(serve), **LOCAL))

    async def workers() -> bool:
        answer = await http.get(port, f"/mcp_endpoint/health?key={key}")
        return answer.status == 200 and answer.json()["result"]["connections"]["workers"] == int(serve.split()[-1])

    await wait_until(workers, "all workers serve", seconds=20)


@pytest.mark.parametrize("cluster", ["redis"], indirect=True)
async def test_the_operators_commands(cluster: StartCluster, cli: CommandLine) -> None:
    [gateway] = await cluster(1)
    lamp = await gateway.tool_server("lamp", [echo("lamp_on")], agent="my-agent", server_id="lamp")
    words = {"GATEWAY_REDIS_URL": gateway.settings.redis_url, "COLUMNS": "0"}
    for line in commands(WATCHING, PROGRAM):
        *rest, last = arguments(line.replace("gw-1", id_of(gateway)))
        started = await cli.start(*rest, last, **words)
        code = await started.ended()
        if "drain" in line:
            await wait_until(lambda: not served_by(gateway).is_running, "the worker has left")
        assert code == 0 or ("doctor" in line and code == 1), started.text
    assert (await lamp.until_closed()).code == 1012


def env_file(cwd: Path, text: str) -> Path:
    path = cwd / ".env"
    path.write_text(text + "\n")
    return path


def test_the_secrets_for_docker_compose(tmp_path: Path) -> None:
    [line] = commands("Many workers", "for name in ")
    shell(tmp_path, line)
    settings, _ = load({}, dotenv=tmp_path / ".env", cwd=tmp_path)
    assert len(settings.key[0]) == 32
    given = set(dotenv_values(tmp_path / ".env"))
    required = set(re.findall(r"\$\{([A-Z_]+):\?", (ROOT / "docker-compose.yml").read_text()))
    assert given == required


def test_the_deployment_files() -> None:
    assert commands("Many workers", "docker compose ") == ["docker compose up --build --detach --wait"]
    assert yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"].keys() >= {"nginx", "redis"}
    [install] = commands("Many workers", "helm install ")
    assert all((ROOT / path).exists() for path in re.findall(r"deploy/[\w./-]+", install))


# Health


def documented_paths() -> list[str]:
    urls = [urlsplit(shlex.split(line)[1]) for _, line in COMMANDS if line.startswith("curl ")]
    return sorted({f"{url.path}?{url.query}".rstrip("?") for url in urls})


def test_the_documented_addresses_are_those_of_the_endpoints() -> None:
    assert documented_paths() == ["/livez", f"/mcp_endpoint/health?key={KEY}", "/readyz"]


async def test_the_health_answer(gateway: Gateway) -> None:
    assert gateway.key == KEY
    await gateway.tool_server("Calculator", [echo("calculator")], agent=AGENT)
    await gateway.robot(agent=AGENT)
    shown = orjson.loads(block("Health", "json"))

    async def answered() -> Any:
        [path] = [path for path in documented_paths() if "health" in path]
        real = (await gateway.get(path)).json()
        server = real["result"]["connections"]["mcp_servers"][AGENT]["Calculator"]
        told = shown["result"]["connections"]["mcp_servers"][AGENT]["Calculator"]
        server["worker"], server["connected_since"] = told["worker"], told["connected_since"]
        return real == shown or None

    await wait_until(answered, "the health answer is as shown")


async def test_the_probes(gateway: Gateway) -> None:
    for path in documented_paths():
        assert (await gateway.get(path)).status == 200
    assert (await gateway.get("/mcp_endpoint/health?key=wrong")).status == 401
