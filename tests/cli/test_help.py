"""What the command line says about itself."""

import re

import pytest

import gateway
from gateway.settings import env_name, specs
from tests.cli.command_line import CommandLine

COMMANDS = ("serve", "token", "policy", "pins", "check", "inspect", "doctor", "drain", "kick")


def test_the_version_is_that_of_the_package(cli: CommandLine) -> None:
    for module in ("gateway.cli", "gateway"):
        answer = cli.run("--version", module=module)
        assert (answer.returncode, answer.stdout) == (0, f"mcp-gateway {gateway.__version__}\n")


def test_help_names_the_commands_and_teaches_by_examples(cli: CommandLine) -> None:
    answer = cli.run("--help")
    assert answer.returncode == 0
    assert re.search(r"examples:\n  mcp-gateway serve", answer.stdout)
    assert all(f"mcp-gateway {command}" in answer.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_names_settings_that_exist(command: str, cli: CommandLine) -> None:
    answer = cli.run_here(command, "--help")
    assert answer.returncode == 0
    named = set(re.findall(r"GATEWAY_[A-Z_]+[A-Z]", answer.stdout))
    assert named
    assert named <= {env_name(name) for name in specs()}


def test_what_can_be_inspected_is_listed_and_each_noun_explains_itself(cli: CommandLine) -> None:
    nouns = ("workers", "agents", "agent", "servers", "robots", "tools", "calls", "events")
    listed = cli.run_here("inspect", "--help").stdout
    assert all(re.search(rf"^ +{noun} ", listed, re.MULTILINE) for noun in nouns)
    answer = cli.run_here("inspect", "servers", "--help").stdout
    assert all(option in answer for option in ("--json", "--watch", "--limit", "--agent", "--redis-url"))


@pytest.mark.parametrize("words", ["inspect workers --limit 0", "inspect agent", "drain", "kick home", "inspect x"])
def test_what_can_t_be_meant_is_refused_with_the_usage(words: str, cli: CommandLine) -> None:
    answer = cli.run_here(*words.split())
    assert answer.returncode == 2
    assert "usage: mcp-gateway" in answer.stderr


def test_no_command_is_a_mistake_that_shows_the_commands(cli: CommandLine) -> None:
    answer = cli.run()
    assert answer.returncode == 2
    assert "usage: mcp-gateway" in answer.stderr


def test_help_comes_out_on_a_terminal_without_chinese(cli: CommandLine) -> None:
    answer = cli.run("--help", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert answer.returncode == 0
    assert "The MCP gateway" in answer.stdout


def test_help_does_not_load_the_server(cli: CommandLine) -> None:
    answer = cli.run("--help", PYTHONPROFILEIMPORTTIME="1")
    loaded = set(re.findall(r"\| +([a-z_0-9.]+)$", answer.stderr, re.MULTILINE))
    assert "gateway.cli" in loaded or "argparse" in loaded
    assert loaded.isdisjoint({"uvicorn", "starlette", "redis", "cryptography"})
