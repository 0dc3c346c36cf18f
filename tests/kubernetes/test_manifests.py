"""The manifests agree with each other, with the image and with the gateway, whatever they were made with."""

import inspect
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gateway
from gateway import configuration
from gateway.backplane.redis import address
from gateway.counting import Peak
from gateway.meters import METRICS
from gateway.settings import Settings, env_name, specs
from tests.kubernetes import schema
from tests.kubernetes.chart import CHART, EXAMPLES, KEY, Manifest
from tests.kubernetes.manifest_files import (
    RELEASES,
    container,
    deployment,
    environment,
    matches,
    of_kind,
    pause_seconds,
    pods,
    release,
    selected,
)
from tests.kubernetes.renew import KUSTOMIZE
from tests.project.repository import ROOT, texts

every_release = pytest.mark.parametrize("name", RELEASES)
DEPLOY = [path for path, _ in texts() if path.is_relative_to(CHART.parent) or path.is_relative_to(KUSTOMIZE)]
WRITTEN = [path for path in DEPLOY if path.suffix in (".yaml", ".md", ".tpl", ".txt", ".env", ".example")]
HANDMADE = {"GATEWAY_KEY": KEY, "GATEWAY_REDIS_URL": "redis://redis:6379/0"}
"""What the Secret has that is made by hand."""


def settings(name: str, tmp_path: Path) -> Settings:
    """What the gateway makes of a pod's environment."""
    found, warnings = configuration.load(HANDMADE | environment(name), dotenv=None, cwd=tmp_path)
    assert warnings == []
    return found


class TestSettings:
    @pytest.mark.parametrize(
        "path", [*WRITTEN, ROOT / "docs/kubernetes.md"], ids=lambda path: str(path.relative_to(ROOT))
    )
    def test_every_variable_is_a_setting(self, path: Path) -> None:
        named = set(re.findall(r"\bGATEWAY_[A-Z_]*[A-Z]\b", path.read_text(encoding="utf-8")))
        assert named <= {env_name(field) for field in specs()}

    @every_release
    def test_the_gateway_accepts_its_environment(self, name: str, tmp_path: Path) -> None:
        found = settings(name, tmp_path)
        assert (found.port, found.admin_port, found.workers) == (8004, 8005, 1)

    @every_release
    def test_no_secret_is_outside_of_a_secret(self, name: str) -> None:
        secret = set(schema.secret_names())
        for one in of_kind(name, "ConfigMap"):
            assert not secret & one["data"].keys()
        for _, _, pod in pods(name):
            entries = [one for part in pod["containers"] for one in part.get("env", [])]
            named = {one["name"]: one["value"] for one in entries if "value" in one}
            assert secret & named.keys() <= {"GATEWAY_REDIS_URL"}
            assert "@" not in named.get("GATEWAY_REDIS_URL", "")

    @every_release
    def test_no_pod_starts_without_the_redis_that_all_of_them_share(self, name: str) -> None:
        """Each would be a gateway of its own then, on its memory, and `envFrom` alone doesn't mind what is missing."""
        gateways = [part for _, _, pod in pods(name) for part in pod["containers"] if "envFrom" in part]
        for part in gateways:
            (entry,) = [one for one in part["env"] if one["name"] == "GATEWAY_REDIS_URL"]
            secrets = [source["secretRef"]["name"] for source in part["envFrom"] if "secretRef" in source]
            if of_kind(name, "StatefulSet"):
                assert "valueFrom" not in entry
            else:
                assert entry == {
                    "name": "GATEWAY_REDIS_URL",
                    "valueFrom": {"secretKeyRef": {"name": secrets[0], "key": "GATEWAY_REDIS_URL"}},
                }

    @pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: str(path.name))
    def test_the_redis_urls_of_the_examples_name_the_mounted_certificates(self, path: Path) -> None:
        for url in re.findall(r"rediss\S*://[^\s']+", path.read_text()):
            options = address.parse(url).options
            files = {
                key: value for key, value in options.items() if key in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
            }
            assert files
            assert {str(Path(file).parent) for file in files.values()} == {"/etc/mcp-gateway/redis-tls"}

    def test_a_release_with_certificates_mounts_them_where_its_url_says(self) -> None:
        (mount,) = [one for one in container("cluster-tls")["volumeMounts"] if one["name"] == "redis-tls"]
        assert f"ssl_ca_certs={mount['mountPath']}/ca.crt" in environment("cluster-tls")["GATEWAY_REDIS_URL"]


class TestShutdown:
    @every_release
    def test_a_pod_has_time_to_leave(self, name: str, tmp_path: Path) -> None:
        """The grace of the drain is a part of the drain."""
        given = settings(name, tmp_path)
        pod = deployment(name)["spec"]["template"]["spec"]
        needed_seconds = pause_seconds(name) + given.drain_seconds + given.close_seconds
        assert pod["terminationGracePeriodSeconds"] >= needed_seconds + 10

    @every_release
    def test_a_rollout_has_time_for_every_pod(self, name: str) -> None:
        spec = deployment(name)["spec"]
        scalers = of_kind(name, "HorizontalPodAutoscaler")
        count = scalers[0]["spec"]["maxReplicas"] if scalers else spec["replicas"]
        each_seconds = spec["template"]["spec"]["terminationGracePeriodSeconds"] + spec["minReadySeconds"]
        assert spec["progressDeadlineSeconds"] > count * each_seconds

    @every_release
    def test_load_balancers_hear_of_a_leaving_pod_before_it_closes_anything(self, name: str, tmp_path: Path) -> None:
        """In the time until the probe has failed, sockets that it closed could come back to it or its next victim."""
        given = settings(name, tmp_path)
        probe = container(name)["readinessProbe"]
        if given.drain_seconds:
            noticed_seconds = probe["periodSeconds"] * probe["failureThreshold"]
            assert pause_seconds(name) + given.drain_grace_seconds >= noticed_seconds

    @every_release
    def test_a_rollout_never_has_fewer_workers(self, name: str) -> None:
        assert deployment(name)["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


class TestPods:
    @every_release
    def test_no_pod_has_more_rights_than_it_needs(self, name: str) -> None:
        for _, _, pod in pods(name):
            assert (pod["enableServiceLinks"], pod["automountServiceAccountToken"]) == (False, False)
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert pod["securityContext"]["runAsUser"] >= 10_000
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            for one in pod["containers"]:
                assert one["securityContext"] == {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "runAsNonRoot": True,
                    "capabilities": {"drop": ["ALL"]},
                }
                assert set(one["resources"]) == {"requests", "limits"}

    @every_release
    def test_the_user_is_that_of_the_image(self, name: str) -> None:
        (user,) = set(re.findall(r"^USER (\S+)$", (ROOT / "deploy/Dockerfile").read_text(), re.MULTILINE))
        context = deployment(name)["spec"]["template"]["spec"]["securityContext"]
        assert user == f"{context['runAsUser']}:{context['runAsGroup']}"

    @pytest.mark.parametrize("name", ["default", "trial", "cluster-tls", "kustomize-trial"])
    def test_the_image_has_the_version_of_the_gateway(self, name: str) -> None:
        assert container(name)["image"] == f"xiaozhi-mcp-gateway:{gateway.__version__}"

    @every_release
    def test_the_labels_tell_the_version_of_the_gateway(self, name: str) -> None:
        key = "app.kubernetes.io/version"
        told = {one["metadata"]["labels"].get(key) for one in release(name) if one["kind"] != "Namespace"}
        assert told == {gateway.__version__}

    @every_release
    def test_the_probes_ask_the_admin_port(self, name: str) -> None:
        asked = {probe: container(name)[f"{probe}Probe"]["httpGet"] for probe in ("startup", "liveness", "readiness")}
        assert asked == {
            "startup": {"path": "/readyz", "port": "admin"},
            "liveness": {"path": "/livez", "port": "admin"},
            "readiness": {"path": "/readyz", "port": "admin"},
        }

    @every_release
    def test_a_start_may_wait_for_redis_for_ten_minutes(self, name: str) -> None:
        probe = container(name)["startupProbe"]
        assert probe["periodSeconds"] * probe["failureThreshold"] == 600

    @pytest.mark.parametrize("name", ["trial", "kustomize-trial", "minimal"])
    def test_the_bundled_redis_is_where_the_gateway_looks_and_never_evicts(self, name: str) -> None:
        (service,) = [one for one in of_kind(name, "Service") if one["metadata"]["name"].endswith("-redis")]
        port = service["spec"]["ports"][0]["port"]
        assert environment(name)["GATEWAY_REDIS_URL"] == f"redis://{service['metadata']['name']}:{port}/0"
        (redis,) = of_kind(name, "StatefulSet")[0]["spec"]["template"]["spec"]["containers"]
        told = dict(itertools.pairwise(redis["args"]))
        assert told["--maxmemory-policy"] == "noeviction"
        assert told["--save"] == "", "a snapshot that fails would stop all writes"
        limit_mib = int(redis["resources"]["limits"]["memory"].removesuffix("Mi"))
        assert int(told["--maxmemory"].removesuffix("mb")) * 2 <= limit_mib, "else it is killed before it is full"


class TestSelectors:
    @every_release
    def test_everything_that_selects_pods_finds_those_of_one_kind(self, name: str) -> None:
        for one, selector in selectors(name):
            kind = one["metadata"]["labels"]["app.kubernetes.io/component"]
            wanted = {"redis": "StatefulSet", "test": "Pod"}.get(kind, "Deployment")
            assert selected(name, selector) == [pod["metadata"]["name"] for pod in of_kind(name, wanted)]

    @every_release
    def test_the_pods_are_spread_among_their_own_kind(self, name: str) -> None:
        template = deployment(name)["spec"]["template"]
        spread = template["spec"]["topologySpreadConstraints"]
        assert spread
        assert all(matches(one["labelSelector"], template["metadata"]["labels"]) for one in spread)

    @pytest.mark.parametrize("name", [one for one in RELEASES if one != "minimal"])
    def test_no_pod_is_without_a_network_policy_for_both_directions(self, name: str) -> None:
        policies = of_kind(name, "NetworkPolicy")
        assert all(one["spec"]["policyTypes"] == ["Ingress", "Egress"] for one in policies)
        covered = [pod for one in policies for pod in selected(name, one["spec"]["podSelector"])]
        assert sorted(covered) == sorted(pod for pod, _, _ in pods(name))

    @pytest.mark.parametrize("name", ["everything", "ingress"])
    def test_a_service_monitor_finds_the_admin_service_only(self, name: str) -> None:
        (monitor,) = of_kind(name, "ServiceMonitor")
        found = [
            one["metadata"]["name"]
            for one in of_kind(name, "Service")
            if matches(monitor["spec"]["selector"], one["metadata"]["labels"])
        ]
        assert found == [f"{deployment(name)['metadata']['name']}-admin"]

    @pytest.mark.parametrize("name", ["everything", "production", "kustomize-production"])
    def test_the_autoscaler_looks_at_metrics_that_there_are_and_is_slow_to_take_pods_away(self, name: str) -> None:
        (scaler,) = of_kind(name, "HorizontalPodAutoscaler")
        spec = scaler["spec"]
        assert spec["scaleTargetRef"]["name"] == deployment(name)["metadata"]["name"]
        assert "replicas" not in deployment(name)["spec"]
        gauges = {one.full_name for one in METRICS.values() if one.kind == "gauge"}
        assert {one["pods"]["metric"]["name"] for one in spec["metrics"]} <= gauges
        lag_window_seconds = inspect.signature(Peak).parameters["seconds"].default
        calm_seconds = spec["behavior"]["scaleUp"]["stabilizationWindowSeconds"]
        assert calm_seconds >= 2 * lag_window_seconds, "else one hiccup starts pods for half an hour"
        down = spec["behavior"]["scaleDown"]
        assert down["stabilizationWindowSeconds"] >= 600
        assert [(one["type"], one["value"]) for one in down["policies"]] == [("Pods", 1)]


def selectors(name: str) -> Iterator[tuple[Manifest, dict[str, Any]]]:
    """Everything that selects pods, with the selector."""
    for one in of_kind(name, "Service"):
        yield one, {"matchLabels": one["spec"]["selector"]}
    for one in of_kind(name, "Deployment", "StatefulSet", "PodDisruptionBudget", "PodMonitor"):
        yield one, one["spec"]["selector"]
    for one in of_kind(name, "NetworkPolicy"):
        yield one, one["spec"]["podSelector"]


class TestPorts:
    @every_release
    def test_the_gateway_listens_where_its_ports_are(self, name: str) -> None:
        ports = {one["name"]: str(one["containerPort"]) for one in container(name)["ports"]}
        given = environment(name)
        assert ports == {"http": given["GATEWAY_PORT"], "admin": given["GATEWAY_ADMIN_PORT"]}
        assert ports["http"] == str(Settings().port)

    @every_release
    def test_every_port_that_is_named_is_one_of_the_pod(self, name: str) -> None:
        ports = {
            pod: {port["name"] for one in spec["containers"] for port in one.get("ports", [])}
            for pod, _, spec in pods(name)
        }
        for service in of_kind(name, "Service"):
            (pod,) = selected(name, {"matchLabels": service["spec"]["selector"]})
            assert {one["targetPort"] for one in service["spec"]["ports"]} <= ports[pod]
        for policy in of_kind(name, "NetworkPolicy"):
            (pod,) = selected(name, policy["spec"]["podSelector"])
            named = {port["port"] for rule in policy["spec"].get("ingress", []) for port in rule["ports"]}
            assert named <= ports[pod]

    @every_release
    def test_the_way_out_leads_to_ports_that_pods_have(self, name: str) -> None:
        """Numbers, since not every network plug-in knows other pods' names of ports."""
        ports = {
            pod: {port["containerPort"] for one in spec["containers"] for port in one.get("ports", [])}
            for pod, _, spec in pods(name)
        }
        for policy in of_kind(name, "NetworkPolicy"):
            for rule in policy["spec"].get("egress", []):
                for peer in rule.get("to", []):
                    for pod in selected(name, peer.get("podSelector", {"matchLabels": {"no": "pod"}})):
                        assert {port["port"] for port in rule["ports"]} <= ports[pod]

    @every_release
    def test_the_public_service_has_the_public_port_only(self, name: str) -> None:
        public, admin = [
            [port["name"] for port in one["spec"]["ports"]]
            for one in of_kind(name, "Service")
            if not one["metadata"]["name"].endswith("-redis")
        ]
        assert (public, admin) == (["http"], ["admin"])

    @every_release
    def test_what_comes_from_outside_goes_to_the_public_service(self, name: str) -> None:
        public = of_kind(name, "Service")[0]
        target = (public["metadata"]["name"], public["spec"]["ports"][0]["port"])
        for route in of_kind(name, "HTTPRoute"):
            ends = [(one["name"], one["port"]) for rule in route["spec"]["rules"] for one in rule["backendRefs"]]
            assert ends == [target]
        for ingress in of_kind(name, "Ingress"):
            paths = [path for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]]
            backends = [path["backend"]["service"] for path in paths]
            assert backends == [{"name": target[0], "port": {"name": "http"}}]

    def test_ingress_nginx_writes_no_query_string_into_its_access_log(self) -> None:
        """Its own format of lines has the whole request, and so the token."""
        (ingress,) = of_kind("ingress", "Ingress")
        assert ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/enable-access-log"] == "false"

    @pytest.mark.parametrize("name", ["cluster-tls", "everything", "ingress", "production", "kustomize-production"])
    def test_prometheus_is_let_in_where_the_metrics_are(self, name: str) -> None:
        (monitor,) = of_kind(name, "PodMonitor", "ServiceMonitor")
        (endpoint,) = monitor["spec"].get("podMetricsEndpoints") or monitor["spec"]["endpoints"]
        assert (endpoint["port"], endpoint["path"]) == ("admin", "/metrics")
        assert "namespaceSelector" not in monitor["spec"], "it looks in its own, whatever kustomize makes of it"
        policy = of_kind(name, "NetworkPolicy")[0]
        assert ["admin"] in [[port["port"] for port in rule["ports"]] for rule in policy["spec"]["ingress"]]
