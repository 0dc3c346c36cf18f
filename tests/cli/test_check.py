"""`mcp-gateway check`: one verdict per line, with the cure, and an exit code for scripts."""

from collections.abc import Iterator

import orjson
import pytest

from tests.cli.command_line import CommandLine
from tests.support.redis_server import RedisServer, engines, running

KEY = "6a369b7f1bcf4d3e8d123ece38bb9627"

READER = "+@read -@dangerous +@connection +@pubsub +@scripting +time ~* &*"
DOCUMENTED = "~mcpgw:* &mcpgw:* -@all +@read +@write +@pubsub +@scripting +@connection +time -@dangerous +info +role"


@pytest.fixture(scope="module", params=sorted(engines().items()), ids=sorted(engines()))
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with running(request.param[1]) as started:
        yield started


def add_user(server: RedisServer, name: str, rules: str) -> str:
    """The server's URL for a new user with these rights."""
    with server.client() as admin:
        admin.execute_command("ACL", "SETUSER", name, "on", ">hunter2", *rules.split())
    return server.url.replace("//", f"//{name}:hunter2@")


def verdicts(cli: CommandLine, url: str = "", **environ: str) -> tuple[int, list[dict[str, str]]]:
    if url:
        environ |= {"GATEWAY_REDIS_URL": url, "GATEWAY_KEY": KEY}
    answer = cli.run_here("check", "--json", **environ)
    content = orjson.loads(answer.stdout)
    assert content["ok"] == (answer.returncode == 0)
    assert KEY not in answer.stdout
    assert "hunter2" not in answer.stdout + answer.stderr
    return answer.returncode, content["findings"]


def failures(findings: list[dict[str, str]]) -> list[dict[str, str]]:
    return [finding for finding in findings if finding["level"] == "FAIL"]


def test_a_fresh_installation_is_ready_and_stays_untouched(cli: CommandLine) -> None:
    answer = cli.run("check")
    assert answer.returncode == 0
    assert all(line.startswith("OK") for line in answer.stdout.splitlines()[:-1])
    assert "ready to start" in answer.stdout.splitlines()[-1]
    assert list(cli.cwd.iterdir()) == []


def test_wrong_settings_are_each_a_failure_with_the_warnings_beside_them(cli: CommandLine) -> None:
    code, findings = verdicts(cli, GATEWAY_PORT="x", GATEWAY_WORKERS="y", GATEWAY_PROT="1")
    assert code == 1
    assert [finding["text"].split("=")[0] for finding in failures(findings)] == ["GATEWAY_PORT", "GATEWAY_WORKERS"]
    assert any("GATEWAY_PROT" in finding["text"] for finding in findings if finding["level"] == "WARN")


def test_a_place_that_cannot_keep_the_key_is_a_failure(cli: CommandLine) -> None:
    (cli.cwd / "data").write_text("in the way")
    code, findings = verdicts(cli)
    assert code == 1
    assert "GATEWAY_KEY" in failures(findings)[0]["text"]


def test_a_good_redis_is_named_with_its_version_and_left_empty(cli: CommandLine, server: RedisServer) -> None:
    code, findings = verdicts(cli, server.url)
    assert (code, failures(findings)) == (0, [])
    texts = " ".join(finding["text"] for finding in findings)
    assert "reachable" in texts
    assert "scripts and pub/sub work" in texts
    with server.client() as admin:
        kept = {key.split(b":")[1] for key in admin.scan_iter()}
    assert kept <= {b"policy", b"revoked"}, "nothing but the books, which were there before"


def test_a_redis_behind_a_socket_file_is_reached(cli: CommandLine, server: RedisServer) -> None:
    assert verdicts(cli, server.unix_url)[0] == 0


def test_the_documented_rights_suffice(cli: CommandLine, server: RedisServer) -> None:
    code, findings = verdicts(cli, add_user(server, "gateway", DOCUMENTED))
    assert (code, failures(findings)) == (0, [])


def test_rights_that_a_worker_needs_and_lacks_are_named_with_the_rule_that_grants_them(
    cli: CommandLine, server: RedisServer
) -> None:
    code, findings = verdicts(cli, add_user(server, "worker", f"{DOCUMENTED} -hset"))
    assert code == 1
    assert "HSET" in failures(findings)[0]["text"]
    assert "redis-cli ACL SETUSER worker '~mcpgw:*'" in failures(findings)[0]["cure"]


def test_who_may_only_look_hears_that_the_rights_of_workers_are_unknown(cli: CommandLine, server: RedisServer) -> None:
    """Neither that they suffice, nor that they don't: it is not the workers' user."""
    url = add_user(server, "reader", READER)
    code, findings = verdicts(cli, url)
    assert (code, failures(findings)) == (0, [])
    [rights] = [finding for finding in findings if "rights" in finding["subject"]]
    assert rights["level"] == "UNKNOWN"
    assert "ready to start as far as is known" in cli.run_here("check", GATEWAY_KEY=KEY, GATEWAY_REDIS_URL=url).stdout


def test_a_right_that_is_missing_for_channels_only_is_found(cli: CommandLine, server: RedisServer) -> None:
    code, findings = verdicts(cli, add_user(server, "deaf", f"{DOCUMENTED} resetchannels"))
    assert code == 1
    assert "PUBLISH" in failures(findings)[0]["text"]


def test_a_wrong_password_is_called_so(cli: CommandLine, server: RedisServer) -> None:
    code, findings = verdicts(cli, server.url.replace("//", "//nobody:hunter2@"))
    assert code == 1
    assert "password" in failures(findings)[0]["cure"]


def test_a_read_only_replica_is_a_failure(cli: CommandLine, server: RedisServer) -> None:
    with running(next(iter(engines().values())), "--replicaof", "127.0.0.1", str(server.port)) as replica:
        code, findings = verdicts(cli, replica.url)
    assert code == 1
    assert "read-only replica" in failures(findings)[0]["text"]


def test_a_server_that_does_not_answer_is_a_failure_in_bounded_time(cli: CommandLine) -> None:
    with running(next(iter(engines().values()))) as server:
        server.freeze()
        code, findings = verdicts(cli, server.url, GATEWAY_REDIS_TIMEOUT_SECONDS="0.3")
    assert code == 1
    assert "can't be reached" in failures(findings)[0]["text"]


def test_a_port_where_nobody_listens_is_a_failure_without_the_password(cli: CommandLine) -> None:
    with running(next(iter(engines().values()))) as server:
        url = server.url
    code, findings = verdicts(cli, url.replace("//", "//:hunter2@"))
    assert code == 1
    assert url.removeprefix("redis://") in failures(findings)[0]["text"]


def test_a_redis_url_without_a_key_is_a_failure(cli: CommandLine, server: RedisServer) -> None:
    code, findings = verdicts(cli, GATEWAY_REDIS_URL=server.url)
    assert code == 1
    assert "GATEWAY_KEY is required" in failures(findings)[0]["text"]
