"""docker-compose.yml as docker compose itself understands it, and what of it can run without an engine."""

import asyncio
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway import configuration
from gateway.settings import Settings
from tests.docs import markdown
from tests.edge.composed import EXAMPLE, GRAFANA, OPTIONAL, SECRETS, compose, config
from tests.edge.nginx import BALANCES
from tests.project.repository import ROOT
from tests.support.gateway import Gateway

WORKERS = ["gateway-1", "gateway-2", "gateway-3"]
WATCHERS = ["grafana", "prometheus"]
ALL = sorted([*WORKERS, *WATCHERS, "nginx", "redis"])


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
    assert EXAMPLE.keys() == (SECRETS | GRAFANA | OPTIONAL).keys()


@pytest.mark.parametrize("name", ["GATEWAY_KEY", "GATEWAY_ENVELOPE_KEY"])
def test_the_gateway_refuses_the_examples_keys(tmp_path: Path, name: str) -> None:
    environ = config(tmp_path, SECRETS | {name: EXAMPLE[name]})["services"]["gateway-1"]["environment"]
    with pytest.raises(configuration.SettingsError, match=name):
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
    env = (
        SECRETS
        | GRAFANA
        | OPTIONAL
        | {"GATEWAY_PORT": "9000", "GATEWAY_LOG_FORMAT": "text", "GATEWAY_REDIS_PREFIX": "other:"}
    )
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
    assert loaded.envelope_key == (OPTIONAL["GATEWAY_ENVELOPE_KEY"],)
    people = [value for name, value in (SECRETS | OPTIONAL).items() if re.fullmatch("REDIS_[A-Z]+_PASSWORD", name)]
    for secret in (*people, GRAFANA["GRAFANA_PASSWORD"], env["PIP_INDEX_URL"]):
        assert secret not in environ.values()
    assert {name for name, one in found.items() if loaded.envelope_key[0] in str(one)} == set(WORKERS)
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
