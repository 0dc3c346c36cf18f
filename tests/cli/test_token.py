"""`mcp-gateway token`: what people paste."""

import re
import stat

import orjson
import pytest

from gateway.auth import issue, verify
from gateway.urls import bridge_url
from tests.cli.command_line import CommandLine

KEY = "6a369b7f1bcf4d3e8d123ece38bb9627"
PUBLIC = "https://mcp.example.com"


def test_it_prints_the_token_and_every_url_that_is_made_of_it(cli: CommandLine) -> None:
    answer = cli.run("token", "--agent", "home", GATEWAY_KEY=KEY, GATEWAY_PUBLIC_URL=PUBLIC)
    token = issue("home", KEY)
    assert answer.returncode == 0
    assert f"\n  {token}\n" in answer.stdout
    assert bridge_url(PUBLIC, token) in answer.stdout
    assert f"{PUBLIC}/mcp_endpoint/health?key={KEY}" in answer.stdout
    assert answer.stderr == ""


def test_it_prints_them_for_machines_too(cli: CommandLine) -> None:
    answer = cli.run_here(
        "token", "--agent", "智能体", "--json", GATEWAY_KEY=f"{KEY},{'f' * 32}", GATEWAY_PUBLIC_URL=PUBLIC
    )
    content = orjson.loads(answer.stdout)
    assert verify(content["token"], [KEY]) == "智能体"
    assert content["agent"] == "智能体"
    assert content["bridge_url"].startswith("wss://mcp.example.com/mcp_endpoint/mcp/?token=")
    assert content["robot_url"] == content["bridge_url"].replace("/mcp/", "/call/")
    assert content["health_url"] == f"{PUBLIC}/mcp_endpoint/health?key={KEY}"


def test_json_is_utf8_whatever_the_terminal_takes(cli: CommandLine) -> None:
    answer = cli.run("token", "--agent", "智能体", "--json", GATEWAY_KEY=KEY, PYTHONIOENCODING="ascii")
    assert orjson.loads(answer.stdout)["agent"] == "智能体"


def test_it_never_prints_a_url_that_xiaozhi_server_refuses(cli: CommandLine) -> None:
    agents = (f"{number:032x}" for number in range(20_000))
    agent = next(agent for agent in agents if re.search("key|call", bridge_url("", issue(agent, KEY)).lower()))
    answer = cli.run_here("token", "--agent", agent, "--json", GATEWAY_KEY=KEY, GATEWAY_PUBLIC_URL=PUBLIC)
    content = orjson.loads(answer.stdout)
    assert not re.search("key|call", content["bridge_url"].lower())
    assert verify(content["token"], [KEY]) == agent


def test_a_host_that_xiaozhi_server_refuses_is_warned_about(cli: CommandLine) -> None:
    answer = cli.run_here("token", "--agent", "home", GATEWAY_KEY=KEY, GATEWAY_PUBLIC_URL="https://monkey.example.com")
    assert answer.returncode == 0
    assert answer.stderr.count("monkey.example.com contains key") == 1


def test_without_a_key_one_is_made_and_the_next_time_it_is_the_same(cli: CommandLine) -> None:
    first, second = (cli.run("token", "--agent", "home") for _ in range(2))
    assert first.returncode == second.returncode == 0
    assert first.stdout == second.stdout
    assert "a key was generated" in first.stderr
    assert "a key was generated" not in second.stderr
    assert stat.S_IMODE((cli.cwd / "data" / ".gateway-key").stat().st_mode) == 0o600


def test_the_key_of_an_existing_installation_is_used(cli: CommandLine) -> None:
    (cli.cwd / "data").mkdir()
    (cli.cwd / "data" / ".mcp-endpoint-server.cfg").write_text(f"[server]\nkey = {KEY}\n")
    assert issue("home", KEY) in cli.run_here("token", "--agent", "home").stdout


def test_a_key_in_the_env_file_is_used_and_another_file_can_be_named(cli: CommandLine) -> None:
    (cli.cwd / ".env").write_text(f"GATEWAY_KEY={KEY}\n")
    (cli.cwd / "other.env").write_text(f"GATEWAY_KEY={'f' * 32}\n")
    assert issue("home", KEY) in cli.run_here("token", "--agent", "home").stdout
    assert issue("home", "f" * 32) in cli.run_here("token", "--agent", "home", "--env-file", "other.env").stdout


@pytest.mark.parametrize("agent", ["", "a\nb", "x" * 257])
def test_what_cannot_be_an_agent_is_refused(agent: str, cli: CommandLine) -> None:
    answer = cli.run_here("token", "--agent", agent, GATEWAY_KEY=KEY)
    assert answer.returncode == 2
    assert "an agent id is" in answer.stderr
