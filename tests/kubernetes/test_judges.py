"""What others say of the manifests: schemas of Kubernetes and of the resources of others, and checkov's rules."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kubernetes.chart import SETS, Manifest
from tests.kubernetes.manifest_files import RELEASES, release
from tests.kubernetes.renew import GOLDEN, KUSTOMIZE
from tests.kubernetes.tools import CACHE, Tools
from tests.project.repository import ROOT

VERSIONS = "1.30,1.34,1.37"
"""The oldest that the chart allows, the one from which on all that it uses is stable, the newest of the schemas."""
JUDGE_SECONDS_MAX = 55

CHECKED = ("trial", "ingress", "everything", "kustomize-production")
"""Every template at least once; more would only take longer. (Of `minimal` it says that it has no NetworkPolicy.)"""

# What checkov wants and does not get. The reasons are in the manifests.
WAIVED = {
    "Deployment": {"CKV_K8S_35", "CKV_K8S_43", "CKV_K8S_15"},
    "StatefulSet": {"CKV_K8S_43", "CKV_K8S_15"},
    "Pod": {"CKV_K8S_8", "CKV_K8S_9", "CKV_K8S_35", "CKV_K8S_43", "CKV_K8S_15"},
}

SHARED = [KUSTOMIZE / "components/monitoring/prometheusrule.yaml"]
"""With the alerts, which golden files leave out."""

BROKEN = """\
apiVersion: v1
kind: Service
metadata: {name: typo}
spec: {ports: [{port: 80, targetport: http}]}
---
apiVersion: example.com/v1
kind: Unheard
metadata: {name: of}
---
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata: {name: typo}
spec: {selector: {}, podMetricsEndpoints: [{port: admin, intervall: 15s}]}
---
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata: {name: duration}
spec: {selector: {}, endpoints: [{port: admin, interval: soon}]}
"""

# The Gateway API's own models accept unknown fields; these are the ones that the chart may write.
ROUTE_FIELDS = {
    "spec": {"parentRefs", "hostnames", "rules"},
    "parentRefs": {"name", "namespace", "sectionName"},
    "rules": {"matches", "timeouts", "backendRefs"},
    "matches": {"path"},
    "path": {"type", "value"},
    "timeouts": {"request", "backendRequest"},
    "backendRefs": {"name", "port"},
}
ROUTES = """
import { readFileSync } from "node:fs";
import { HTTPRoute } from "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1/HTTPRoute";
for (const route of JSON.parse(readFileSync(0)))
  try { new HTTPRoute(route).validate() } catch (error) { console.log(error.message) }
"""


def judged(having: Tools, *files: Path) -> list[str]:
    """Run the judge over files; return what it finds."""
    command = [str(having.validators), str(Path(__file__).parent / "judge.py"), VERSIONS, *map(str, files)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=JUDGE_SECONDS_MAX)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


class TestSchemas:
    @pytest.mark.timeout(120)
    def test_three_versions_of_kubernetes_and_the_operator_accept_everything_but_planted_mistakes(
        self, having: Tools, tmp_path: Path
    ) -> None:
        """One run for both: reading the schemas takes it most of its time."""
        planted = tmp_path / "broken.yaml"
        planted.write_text(BROKEN)
        found = judged(having, *(GOLDEN / f"{name}.yaml" for name in RELEASES), *SHARED, planted)
        mistakes = "\n".join(one for one in found if one.startswith(f"{planted}:"))
        assert [one for one in found if not one.startswith(f"{planted}:")] == []
        assert mistakes.count("'targetport' was unexpected") == len(VERSIONS.split(","))
        assert mistakes.count("nothing is known of this kind") == len(VERSIONS.split(","))
        assert "intervall: unknown field" in mistakes
        assert "interval: String should match pattern" in mistakes


class TestRoutes:
    def test_the_gateway_api_accepts_every_route(self, having: Tools) -> None:
        routes = [one for name in RELEASES for one in release(name) if one["kind"] == "HTTPRoute"]
        assert routes
        assert refused(having, routes) == []
        for route in routes:
            assert list(unknown_fields(route["spec"], "spec")) == []

    def test_a_timeout_that_is_no_duration_is_found(self, having: Tools) -> None:
        (route,) = [one for one in release("everything") if one["kind"] == "HTTPRoute"]
        broken = yaml.safe_load(yaml.safe_dump(route).replace("request: 0s", "request: never"))
        assert "timeouts/request must match pattern" in "\n".join(refused(having, [broken]))


def refused(having: Tools, routes: list[Manifest]) -> list[str]:
    """What the Gateway API's models say of routes."""
    if having.gateway_api is None:
        pytest.skip("\n".join(having.missing))
    command = ["node", "--input-type=module", "--eval", ROUTES]
    ran = subprocess.run(
        command, input=json.dumps(routes), capture_output=True, text=True, cwd=having.gateway_api, timeout=30
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def unknown_fields(value: Any, name: str) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (f"{name}.{key}" for key in value.keys() - ROUTE_FIELDS[name])
        for key, one in value.items():
            yield from unknown_fields(one, key)
    elif isinstance(value, list):
        for one in value:
            yield from unknown_fields(one, name)


class TestCheckov:
    @pytest.mark.timeout(120)
    def test_there_is_no_finding_without_a_reason(self, having: Tools) -> None:
        files = [f"--file={GOLDEN / name}.yaml" for name in CHECKED]
        report = checkov(having, *files)
        assert [f"{one['check_id']} {one['resource']}" for one in report["failed_checks"]] == []
        assert report["passed_checks"]
        for one in report["skipped_checks"]:
            kind = one["resource"].partition(".")[0]
            assert one["check_id"] in WAIVED[kind], one["resource"]
            assert len(one["check_result"]["suppress_comment"]) > 20

    @pytest.mark.parametrize("name", [*SETS])
    def test_every_waiver_says_why(self, name: str) -> None:
        for one in release(name):
            for key, value in one["metadata"].get("annotations", {}).items():
                if key.startswith("checkov.io/"):
                    check, _, reason = value.partition("=")
                    assert check in WAIVED[one["kind"]]
                    assert reason.endswith(".")


def checkov(having: Tools, *arguments: str) -> dict[str, Any]:
    """Run checkov without a network; return its report on Kubernetes."""
    asked = ["--framework", "kubernetes", "--skip-download", "--output", "json", "--compact"]
    command = [str(having.validators), "-m", "checkov.main", *asked, *arguments]
    environment = {"HOME": str(CACHE), "PATH": "/usr/bin:/bin", "LOG_LEVEL": "ERROR"}
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=JUDGE_SECONDS_MAX)
    assert ran.returncode in (0, 1), ran.stderr
    found = json.loads(ran.stdout)["results"]
    assert isinstance(found, dict)
    return found
