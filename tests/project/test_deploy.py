"""The deployment files, as far as files can be tested: they parse, agree with each other and with the settings."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import gateway
from gateway import configuration
from gateway.settings import Settings, env_name, specs
from tests.project.repository import ROOT

COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
NGINX = ROOT / "deploy" / "nginx.conf"
K8S = ROOT / "deploy" / "k8s"
MANIFESTS = sorted(K8S.rglob("*.yaml"))

PORT = Settings().port
SETTING_NAMES = {env_name(name) for name in specs()}


def documents(path: Path) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(path.read_text()) if one is not None]


def manifest(path: str, kind: str) -> dict[str, Any]:
    """The one object of this kind in a file below deploy/k8s."""
    (found,) = [one for one in documents(K8S / path) if one["kind"] == kind]
    return found


def compose() -> dict[str, Any]:
    (found,) = documents(COMPOSE)
    return found


def container() -> dict[str, Any]:
    """The gateway's container in the Deployment."""
    (found,) = manifest("deployment.yaml", "Deployment")["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def pod_specs() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in MANIFESTS:
        for one in documents(path):
            if one["kind"] in ("Deployment", "StatefulSet"):
                yield one["metadata"]["name"], one["spec"]["template"]["spec"]


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, continued lines joined, without comments."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    pairs = (line.split(maxsplit=1) for line in text.splitlines() if line.strip())
    return [(name, " ".join(rest.split())) for name, rest in pairs]


def last(instruction: str) -> str:
    return [rest for name, rest in instructions() if name == instruction][-1]


class TestEnvironment:
    @pytest.mark.parametrize(
        "path", [COMPOSE, DOCKERFILE, *MANIFESTS, K8S / "README.md"], ids=lambda path: str(path.relative_to(ROOT))
    )
    def test_every_variable_is_a_setting(self, path: Path) -> None:
        code = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE)
        assert set(re.findall(r"\bGATEWAY_[A-Z_]+\b", code)) <= SETTING_NAMES

    def test_what_compose_sets_is_accepted(self, tmp_path: Path) -> None:
        given = compose()["services"]["gateway"]["environment"] | {"GATEWAY_KEY": "0123456789abcdef"}
        settings, warnings = configuration.load(given, dotenv=None, cwd=tmp_path)
        assert (settings.port, settings.workers, warnings) == (PORT, 1, [])

    def test_compose_does_not_start_without_a_key(self) -> None:
        assert compose()["services"]["gateway"]["environment"]["GATEWAY_KEY"].startswith("${GATEWAY_KEY:?")

    def test_what_kubernetes_sets_is_accepted(self, tmp_path: Path) -> None:
        given = manifest("configmap.yaml", "ConfigMap")["data"]
        given |= {one["name"]: one["value"] for one in container()["env"]}
        given |= manifest("trial/secret.example.yaml", "Secret")["stringData"] | {"GATEWAY_KEY": "0123456789abcdef"}
        settings, warnings = configuration.load(given, dotenv=None, cwd=tmp_path)
        assert (settings.port, settings.log_format, warnings) == (PORT, "json", [])

    def test_the_example_key_is_refused(self, tmp_path: Path) -> None:
        given = manifest("trial/secret.example.yaml", "Secret")["stringData"]
        with pytest.raises(configuration.SettingsError, match="GATEWAY_KEY"):
            configuration.load(given, dotenv=None, cwd=tmp_path)


class TestCompose:
    def test_it_has_a_proxy_two_workers_and_redis(self) -> None:
        services = compose()["services"]
        assert set(services) == {"nginx", "gateway", "redis"}
        assert services["gateway"]["deploy"]["replicas"] == 2

    @pytest.mark.parametrize("service", ["nginx", "gateway", "redis"])
    def test_every_service_comes_back_and_says_how_it_is(self, service: str) -> None:
        described = compose()["services"][service]
        assert described["restart"] == "unless-stopped"
        assert described["healthcheck"]["test"][0] == "CMD"
        assert "curl" not in " ".join(described["healthcheck"]["test"])

    def test_the_gateway_is_asked_whether_it_is_ready_on_its_own_port(self) -> None:
        assert f"http://127.0.0.1:{PORT}/readyz" in compose()["services"]["gateway"]["healthcheck"]["test"][-1]

    def test_the_gateway_has_time_to_stop(self) -> None:
        seconds = int(compose()["services"]["gateway"]["stop_grace_period"].removesuffix("s"))
        assert seconds > Settings().drain_seconds + Settings().close_seconds + 10

    def test_services_start_after_what_they_need_is_healthy(self) -> None:
        services = compose()["services"]
        assert services["nginx"]["depends_on"] == {"gateway": {"condition": "service_healthy"}}
        assert services["gateway"]["depends_on"] == {"redis": {"condition": "service_healthy"}}

    def test_only_the_proxy_is_reachable_from_outside(self) -> None:
        published = {name: one["ports"] for name, one in compose()["services"].items() if "ports" in one}
        assert published == {"nginx": [f"{PORT}:{PORT}"]}

    def test_the_files_it_names_are_there(self) -> None:
        services = compose()["services"]
        build = services["gateway"]["build"]
        assert (ROOT / build["context"] / build["dockerfile"]).samefile(DOCKERFILE)
        assert (ROOT / services["nginx"]["volumes"][0].split(":")[0]).samefile(NGINX)

    def test_redis_never_evicts(self) -> None:
        command = compose()["services"]["redis"]["command"]
        assert command[command.index("--maxmemory-policy") + 1] == "noeviction"


class TestDockerfile:
    def test_the_gateway_runs_as_an_ordinary_user(self) -> None:
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last("USER"))

    @pytest.mark.parametrize(("instruction", "expected"), [("ENTRYPOINT", ["mcp-gateway"]), ("CMD", ["serve"])])
    def test_signals_reach_the_gateway_itself(self, instruction: str, expected: list[str]) -> None:
        assert json.loads(last(instruction)) == expected

    def test_it_checks_health_without_curl(self) -> None:
        command = json.loads(last("HEALTHCHECK").partition("CMD ")[2])
        assert command[:2] == ["python", "-c"]
        compile(command[2], "HEALTHCHECK", "exec")
        assert "/livez" in command[2]

    def test_it_is_built_in_stages_and_copies_only_what_the_context_has(self) -> None:
        stages = [rest for name, rest in instructions() if name == "FROM"]
        assert stages == ["python:3.13-slim AS build", "python:3.13-slim"]
        copied = {
            source.rstrip("*")
            for name, rest in instructions()
            if name == "COPY" and "--from" not in rest
            for source in rest.split()[:-1]
        }
        allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
        assert {source.removesuffix(".md") for source in copied} == {name.removesuffix(".md") for name in allowed}

    def test_it_exposes_the_port_of_the_gateway(self) -> None:
        assert last("EXPOSE") == str(PORT)


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
            f"listen {PORT}",
            f"set $workers gateway:{PORT}",
        ],
    )
    def test_it_has_what_websockets_need(self, directive: str) -> None:
        assert re.search(rf"^\s*{re.escape(directive)};", NGINX.read_text(), re.MULTILINE)

    def test_no_token_gets_into_its_logs(self) -> None:
        text = NGINX.read_text()
        (log_format,) = re.findall(r"log_format [^;]+;", text)
        with_query = r"\$(request|request_uri|args|query_string|http_referer)\b"
        assert not re.search(with_query, log_format)
        assert re.findall(r"^\s*access_log ([^;]+);", text, re.MULTILINE) == ["/dev/stdout gateway"]
        assert re.findall(r"^\s*error_log ([^;]+);", text, re.MULTILINE) == ["/dev/stderr crit"]

    @pytest.mark.skipif(
        shutil.which("nginx") is None, reason="no nginx on PATH: its own check of nginx.conf is left out"
    )
    def test_nginx_itself_accepts_the_file(self, tmp_path: Path) -> None:
        config = tmp_path / "nginx.conf"
        config.write_text(NGINX.read_text().replace("/tmp/", f"{tmp_path}/"))
        checked = subprocess.run(
            ["nginx", "-t", "-p", str(tmp_path), "-c", str(config)], capture_output=True, text=True, timeout=20
        )
        assert checked.returncode == 0, checked.stderr


class TestKubernetes:
    def test_the_kinds_are_all_there(self) -> None:
        kinds = {one["kind"] for path in K8S.glob("*.yaml") for one in documents(path)}
        assert kinds == {"ConfigMap", "Deployment", "PodDisruptionBudget", "Service"}

    def test_there_are_three_workers(self) -> None:
        assert manifest("deployment.yaml", "Deployment")["spec"]["replicas"] == 3

    def test_the_image_has_the_version_of_the_gateway(self) -> None:
        assert container()["image"] == f"xiaozhi-mcp-gateway:{gateway.__version__}"

    def test_every_selector_finds_the_pods(self) -> None:
        deployment = manifest("deployment.yaml", "Deployment")["spec"]
        labels = deployment["template"]["metadata"]["labels"]
        assert deployment["selector"]["matchLabels"] == labels
        assert manifest("service.yaml", "Service")["spec"]["selector"] == labels
        assert manifest("pdb.yaml", "PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
        spread = deployment["template"]["spec"]["topologySpreadConstraints"]
        assert [one["labelSelector"]["matchLabels"] for one in spread] == [labels, labels]

    def test_the_ports_agree(self) -> None:
        (service_port,) = manifest("service.yaml", "Service")["spec"]["ports"]
        assert container()["ports"] == [{"name": "http", "containerPort": PORT}]
        assert (service_port["port"], service_port["targetPort"]) == (PORT, "http")
        (rule,) = manifest("optional/httproute.yaml", "HTTPRoute")["spec"]["rules"]
        assert rule["backendRefs"] == [{"name": "mcp-gateway", "port": PORT}]

    def test_the_probes_ask_for_readiness_and_for_life(self) -> None:
        asked = {
            probe: container()[probe]["httpGet"]["path"]
            for probe in ("startupProbe", "livenessProbe", "readinessProbe")
        }
        assert asked == {"startupProbe": "/readyz", "livenessProbe": "/livez", "readinessProbe": "/readyz"}

    def test_a_start_may_take_a_minute(self) -> None:
        probe = container()["startupProbe"]
        assert probe["periodSeconds"] * probe["failureThreshold"] >= 60

    def test_a_pod_has_time_to_leave(self) -> None:
        pod = manifest("deployment.yaml", "Deployment")["spec"]["template"]["spec"]
        pause_seconds = container()["lifecycle"]["preStop"]["sleep"]["seconds"]
        end_seconds = Settings().drain_seconds + Settings().close_seconds + 10
        assert pod["terminationGracePeriodSeconds"] > pause_seconds + end_seconds

    def test_a_rollout_has_time_for_the_drain_of_every_pod(self) -> None:
        deployment = manifest("deployment.yaml", "Deployment")["spec"]
        pod_seconds = deployment["template"]["spec"]["terminationGracePeriodSeconds"] + deployment["minReadySeconds"]
        assert deployment["progressDeadlineSeconds"] > deployment["replicas"] * pod_seconds

    def test_load_balancers_hear_of_a_leaving_pod_before_it_closes_anything(self) -> None:
        """In the time until the probe has failed, sockets that it closed could come back to it or its next victim."""
        probe = container()["readinessProbe"]
        noticed_seconds = probe["periodSeconds"] * probe["failureThreshold"]
        pause_seconds = container()["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert pause_seconds + Settings().drain_grace_seconds >= noticed_seconds

    def test_a_rollout_never_has_fewer_workers(self) -> None:
        strategy = manifest("deployment.yaml", "Deployment")["spec"]["strategy"]
        assert strategy["rollingUpdate"]["maxUnavailable"] == 0

    @pytest.mark.parametrize(
        ("name", "pod"), list(pod_specs()), ids=lambda value: value if isinstance(value, str) else ""
    )
    def test_no_pod_has_more_rights_than_it_needs(self, name: str, pod: dict[str, Any]) -> None:
        assert pod["enableServiceLinks"] is False
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for one in pod["containers"]:
            assert one["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert set(one["resources"]) == {"requests", "limits"}

    def test_the_user_of_the_pod_is_the_user_of_the_image(self) -> None:
        context = manifest("deployment.yaml", "Deployment")["spec"]["template"]["spec"]["securityContext"]
        assert last("USER") == f"{context['runAsUser']}:{context['runAsGroup']}"

    def test_the_trial_redis_is_where_the_example_secret_says(self) -> None:
        url = manifest("trial/secret.example.yaml", "Secret")["stringData"]["GATEWAY_REDIS_URL"]
        service = manifest("trial/redis.yaml", "Service")
        assert url == f"redis://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}/0"
