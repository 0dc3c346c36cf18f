"""Commands that change something leave a record of who did it: real processes."""

import socket

import orjson

from tests.cli.command_line import CommandLine
from tests.support.redis_server import RedisServer
from tests.support.running import KEY


def test_a_decision_is_recorded_with_who_took_it_and_shown(cli: CommandLine, redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.flushall()
    environ = {"GATEWAY_REDIS_URL": redis_server.url, "GATEWAY_KEY": KEY, "GATEWAY_AUDIT": "stream"}
    for words in ("policy set my-agent tools.deny=lamp", "token revoke --agent my-agent --reason lost"):
        done = cli.run(*words.split(), **environ)
        assert done.returncode == 0, done.stderr
    shown = cli.run("inspect", "audit", "--agent", "my-agent", "--json", **environ)
    assert shown.returncode == 0, shown.stderr
    changes = [one for one in orjson.loads(shown.stdout)["audit"] if one["record"] == "change"]
    told = [(one["book"], one["entry"], one["what"]) for one in reversed(changes)]
    assert told == [("policy", "my-agent", "set"), ("revoked", "agent:my-agent", "set")]
    assert {one["by"].partition("@")[2] for one in changes} == {socket.gethostname()}
    assert all(one["version"] > 1_700_000_000_000 for one in changes)


def test_without_redis_a_command_says_it_to_its_own_log(cli: CommandLine) -> None:
    environ = {"GATEWAY_KEY": KEY, "GATEWAY_AUDIT": "log", "GATEWAY_LOG_FORMAT": "json"}
    done = cli.run("policy", "set", "my-agent", "tools.deny=lamp", **environ)
    assert done.returncode == 0, done.stderr
    lines = [orjson.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    [told] = [line for line in lines if line["event"] == "audit_change"]
    assert (told["book"], told["entry"], told["what"]) == ("policy", "my-agent", "set")
    assert told["by"].endswith(f"@{socket.gethostname()}")
