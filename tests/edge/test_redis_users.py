"""Redis as docker-compose.yml starts it: its users, what each of them can do, and what not."""

import re
import shlex
import subprocess
from collections.abc import AsyncGenerator, Iterator
from typing import Any, cast

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from gateway.backplane.redis import RedisBackplane
from tests.docs import markdown
from tests.edge.composed import EXAMPLE, OPTIONAL, SECRETS
from tests.peers.tools import echo, held, text_of, text_result
from tests.project.repository import ROOT
from tests.support.gateway import Gateway, Guests
from tests.support.redis_server import RedisServer, engines, open_books
from tests.support.running import RedisCluster, Worker, settings
from tests.support.waiting import wait_until

START = ROOT / "deploy" / "redis" / "start.sh"


class ComposedRedis(RedisServer):
    """As the compose file starts it: the script, its arguments, and this .env."""

    def __init__(self, command: list[str]) -> None:
        program = next(iter(engines().values()))
        super().__init__(program)
        self._started = [program, *(argument.replace("/data", str(self.folder)) for argument in command[1:])]

    def _command(self) -> list[str]:
        secrets = [f"{name}={value}" for name, value in (SECRETS | OPTIONAL).items()]
        ours = ["--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", self.socket_path]
        return ["env", f"TMPDIR={self.folder}", *secrets, "sh", str(START), *self._started, *ours]

    def user(self, name: str, variable: str) -> "redis.Redis":
        return self.client(username=name, password=(SECRETS | OPTIONAL)[variable])


@pytest.fixture
def composed_redis(services: dict[str, Any]) -> Iterator[ComposedRedis]:
    assert services["redis"]["entrypoint"] == ["sh", "/usr/local/etc/redis/start.sh"]
    server = ComposedRedis(services["redis"]["command"])
    server.start()
    with server.user("gateway", "REDIS_PASSWORD") as gateway:
        open_books(gateway)
    yield server
    server.close()


@pytest.fixture
async def two(composed_redis: ComposedRedis, guests: Guests) -> AsyncGenerator[tuple[Gateway, Gateway]]:
    """Two workers on it, with the URL that the compose file gives them."""
    url = f"redis://gateway:{SECRETS['REDIS_PASSWORD']}@{composed_redis.address}/0"
    cluster = RedisCluster(settings(redis_url=url))
    try:
        yield Gateway(await cluster.add_worker(), guests), Gateway(await cluster.add_worker(), guests)
        await guests.leave()
    finally:
        await cluster.stop()


async def test_workers_live_on_the_rights_that_they_are_given(two: tuple[Gateway, Gateway]) -> None:
    a, b = two
    await a.tool_server("lamp", [echo()])
    robot = await b.robot()
    await robot.sees("echo")
    assert text_of(await robot.call("echo", {"text": "across"})) == "across"


GATEWAYS_LIMITS = (
    *(
        "FLUSHALL",
        "FLUSHDB",
        "KEYS *",
        "CONFIG GET *",
        "CONFIG SET maxmemory 1",
        "ACL LIST",
        "ACL SETUSER x on nopass ~*",
    ),
    *("CLIENT KILL TYPE pubsub", "CLIENT LIST", "MONITOR", "DEBUG SLEEP 0", "SHUTDOWN NOSAVE", "REPLICAOF NO ONE"),
    *("SLOWLOG GET", "MODULE LIST", "SAVE", "SWAPDB 0 1", "MIGRATE h 1 mcpgw:x 0 1"),
    *("GET other", "SET other 1", "DEL mcpgx:workers", "RENAME mcpgw:agents other", "COPY mcpgw:agents other"),
    *("EVAL \"return redis.call('GET', 'other')\" 0", "EVAL \"return redis.call('CONFIG', 'GET', '*')\" 0"),
    *("PUBLISH other x", "SUBSCRIBE other", "PSUBSCRIBE *", "SORT mcpgw:workers BY other_*"),
)
KINDS = {
    *("workers", "worker", "owned", "agents", "rev", "servers", "names", "seen", "robots", "toolset"),
    *("call", "events", "policy", "revoked", "changes", "pins", "rate", "source", "audit"),
}


def is_refused(client: Any, command: str) -> bool:
    try:
        client.execute_command(*shlex.split(command))
    except redis.exceptions.NoPermissionError:
        return True
    except redis.ResponseError as error:  # inside of a script, or by the server's own settings
        return "ACL failure" in str(error) or "not allowed" in str(error)
    return False


def test_the_gateways_user_can_do_nothing_that_workers_do_not(composed_redis: ComposedRedis) -> None:
    with composed_redis.user("gateway", "REDIS_PASSWORD") as gateway:
        assert gateway.info("memory")["maxmemory_policy"] == "noeviction"
        assert gateway.execute_command("ROLE")
        assert [one for one in GATEWAYS_LIMITS if not is_refused(gateway, one)] == []


async def test_all_that_workers_do_is_within_the_rights_of_their_user(
    composed_redis: ComposedRedis, guests: Guests, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls near and far, signed; policies, revocations, pins, shared limits, the audit stream; a gap, a drain."""
    monkeypatch.setattr("gateway.executor.RECORD_AFTER_SECONDS", 0.0)
    cluster = RedisCluster(
        settings(
            redis_url=f"redis://gateway:{SECRETS['REDIS_PASSWORD']}@{composed_redis.address}/0",
            envelope_key=(OPTIONAL["GATEWAY_ENVELOPE_KEY"],),
            **{"pins": "warn", "audit": "stream", "beat_seconds": 0.1, "drain_seconds": 1.0},
            **{"source_handshakes_per_minute": 10, "agent_handshakes_per_minute": 10, "calls_per_second": 5},
        )
    )
    workers = [await cluster.add_worker() for _ in range(2)]
    try:
        await everything(workers, guests)
        with composed_redis.user("operator", "REDIS_OPERATOR_PASSWORD") as operator:
            await wait_until(lambda: not KINDS - kinds(operator), "keys of every kind")
        await guests.leave()
        workers[0].drain()
        await workers[0].ended()
    finally:
        await cluster.stop()
    refused = [worker.room.meters.redis_command_errors_total.of("refused") for worker in workers]
    assert refused == [0, 0], f"a worker was refused something\n{caplog.text}"


async def everything(workers: list[Worker], guests: Guests) -> None:
    a, b = [Gateway(worker, guests) for worker in workers]
    backplane, other = (cast(RedisBackplane, worker.room.backplane) for worker in workers)
    server = await a.tool_server("lamp", [held("slow"), echo()], server_id="lamp")
    for number, robot in enumerate([await a.robot(), await b.robot()]):
        await robot.sees("slow")
        call_id = await robot.start_call("slow")
        call = await server.until_called(number + 1)
        await call.answer(text_result("done"))
        assert text_of(await robot.answer(call_id)) == "done"
    for _ in range(6):
        await robot.call("echo", {"text": "across"})
    version = await backplane.write_entry("policy", "home", b'{"tools":{"deny":["dim"]}}')
    await backplane.write_entry("policy", "home", b"", version)
    version = await backplane.write_entry("revoked", "token:gone", b'{"until_ms":1}')
    await backplane.restore_book("policy", {})
    await backplane.prune_book("revoked", {"token:gone": version or 0})
    await server.change_tools([held("slow"), echo("dim")])
    other._subscriber.drop("a test")
    await wait_until(lambda: workers[1].room.meters.gaps_total.of() > 0, "a gap")
    await robot.sees("dim")


def kinds(client: Any) -> set[str]:
    return {key.decode().split(":")[1] for key in client.scan_iter("mcpgw:*")}


async def test_the_other_people_have_what_they_need_and_no_more(composed_redis: ComposedRedis) -> None:
    with composed_redis.user("doctor", "REDIS_DOCTOR_PASSWORD") as doctor:
        assert doctor.config_get("maxmemory-policy")
        assert doctor.client_list(_type="normal")
        for forbidden in ("CONFIG SET maxmemory 1", "DEL mcpgw:agents", "PUBLISH mcpgw:ctl x", "SUBSCRIBE mcpgw:ctl"):
            assert is_refused(doctor, forbidden)
    with composed_redis.user("foreman", "REDIS_FOREMAN_PASSWORD") as foreman:
        assert foreman.publish("mcpgw:ctl", "x") == 0
        for forbidden in ("CONFIG GET *", "DEL mcpgw:agents", "PUBLISH mcpgw:catalog:{home} 1", "SUBSCRIBE mcpgw:ctl"):
            assert is_refused(foreman, forbidden)


def test_who_has_no_password_does_not_exist_and_redis_sees_no_password(composed_redis: ComposedRedis) -> None:
    environ = {"PATH": "/usr/bin:/bin", "TMPDIR": str(composed_redis.folder)} | SECRETS
    show = ["sh", str(START), "sh", "-c", 'cat "$1"; env', "--aclfile"]
    done = subprocess.run(show[:-1], env=environ, capture_output=True, text=True, timeout=20)
    assert re.findall(r"^user (\w+) on", done.stdout, re.MULTILINE) == ["gateway", "operator"]
    assert not any(secret in done.stdout for secret in SECRETS.values() if secret != SECRETS["GATEWAY_KEY"])


async def test_operators_look_and_nobody_else_gets_in(
    composed_redis: ComposedRedis, two: tuple[Gateway, Gateway]
) -> None:
    await two[0].tool_server("lamp")
    with composed_redis.user("operator", "REDIS_OPERATOR_PASSWORD") as operator:
        assert operator.zcard("mcpgw:workers") == 2
        for forbidden in ("FLUSHALL", "CONFIG GET *", "HDEL mcpgw:servers:{home} lamp", "GET other", "ACL LIST"):
            with pytest.raises(redis.exceptions.NoPermissionError):
                operator.execute_command(*shlex.split(forbidden))
    once = Retry(NoBackoff(), 0)
    for nobody in ({}, {"username": "default", "password": "default"}):
        with composed_redis.client(retry=once, **nobody) as client, pytest.raises(redis.AuthenticationError):
            client.ping()
    with composed_redis.user("gateway", "REDIS_PASSWORD") as gateway:
        assert gateway.ping()
        with pytest.raises(redis.exceptions.NoPermissionError):
            gateway.flushall()


def test_the_rights_are_those_of_the_page_about_redis() -> None:
    block = markdown.read("docs/redis.md").blocks_of("Rights")[0].text
    told = {words[3]: words[6:] for words in map(shlex.split, block.splitlines()) if words[1:3] == ["ACL", "SETUSER"]}
    given = {
        name: rights.split()
        for name, rights in re.findall(r"^ *user (\w+) REDIS_\w+ '(.+)'$", START.read_text(), re.MULTILINE)
    }
    assert given == {name: told[name] for name in ("gateway", "operator", "doctor", "foreman")}


@pytest.mark.parametrize(
    ("changes", "name", "said"),
    [
        ({"REDIS_PASSWORD": ""}, "REDIS_PASSWORD", "is not set"),
        ({"REDIS_PASSWORD": EXAMPLE["REDIS_PASSWORD"]}, "REDIS_PASSWORD", "is still the example"),
        ({"REDIS_OPERATOR_PASSWORD": "change-me-0123456789"}, "REDIS_OPERATOR_PASSWORD", "is still the example"),
        ({"REDIS_PASSWORD": "0123456789abcde"}, "REDIS_PASSWORD", "16 characters"),
        ({"REDIS_PASSWORD": "0123456789abcdef@/"}, "REDIS_PASSWORD", "letters, digits"),
        ({"REDIS_OPERATOR_PASSWORD": SECRETS["REDIS_PASSWORD"]}, "REDIS_OPERATOR_PASSWORD", "must not be the same"),
        ({"REDIS_DOCTOR_PASSWORD": EXAMPLE["REDIS_DOCTOR_PASSWORD"]}, "REDIS_DOCTOR_PASSWORD", "is still the example"),
        ({"REDIS_FOREMAN_PASSWORD": "short"}, "REDIS_FOREMAN_PASSWORD", "16 characters"),
        (
            {"REDIS_FOREMAN_PASSWORD": SECRETS["REDIS_OPERATOR_PASSWORD"]},
            "REDIS_FOREMAN_PASSWORD",
            "must not be the same",
        ),
    ],
)
def test_redis_refuses_passwords_that_are_none(changes: dict[str, str], name: str, said: str) -> None:
    environ = {"PATH": "/usr/bin:/bin"} | SECRETS | changes
    done = subprocess.run(
        ["sh", str(START), "echo", "started"], env=environ, capture_output=True, text=True, timeout=20
    )
    assert (done.returncode, done.stdout) == (78, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(f"{name}: ")
    assert said in line
    assert re.search("[\u4e00-\u9fff]", line)
    assert not changes[name] or changes[name] not in line
