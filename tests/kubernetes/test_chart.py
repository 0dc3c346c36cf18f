"""The chart: what helm says of it, what it refuses, and that it knows the gateway's settings."""

import json
from typing import Any

import pytest
import yaml

import gateway
from gateway.settings import Settings, env_name, specs
from tests.kubernetes import schema
from tests.kubernetes.chart import CHART, KEY, NAME, SETS, ValueSet, helm, manifests, refusal
from tests.kubernetes.values_table import rows

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())

needs_helm = pytest.mark.usefixtures("helm")


def chart() -> dict[str, Any]:
    found = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert isinstance(found, dict)
    return found


def schema_of(path: str) -> dict[str, Any]:
    """What the schema says of a value."""
    found: dict[str, Any] = json.loads(schema.PATH.read_text())
    for name in path.split("."):
        found = found["properties"][name]
    return found


class TestHelm:
    @needs_helm
    @pytest.mark.parametrize("values", SETS.values(), ids=SETS)
    def test_helm_finds_nothing_to_complain_of(self, values: ValueSet) -> None:
        linted = helm("lint", "--strict", str(CHART), "--namespace", NAME, *values.arguments)
        assert linted.returncode == 0, linted.stdout
        assert "[WARNING]" not in linted.stdout

    def test_chart_and_gateway_have_one_version(self) -> None:
        assert (chart()["version"], chart()["appVersion"]) == (gateway.__version__, gateway.__version__)


class TestValues:
    @needs_helm
    @pytest.mark.parametrize(
        ("setting", "complaint"),
        [
            ("replica=3", "additional properties 'replica' not allowed"),
            ("shutdown.drainSeconds=3", "additional properties 'drainSeconds' not allowed"),
            ("config.GATEWAY_DRAIN_SECOND=3", "additional properties 'GATEWAY_DRAIN_SECOND' not allowed"),
            (f"config.GATEWAY_KEY={KEY}", "additional properties 'GATEWAY_KEY' not allowed"),
            ("config.GATEWAY_WORKERS=2", "additional properties 'GATEWAY_WORKERS' not allowed"),
            ("config.GATEWAY_PING_SECONDS=30", "maximum: got 30, want 29"),
            ("config.GATEWAY_LOG_FORMAT=xml", "value must be one of"),
            ("config.GATEWAY_DRAIN_SECONDS=null", "missing property 'GATEWAY_DRAIN_SECONDS'"),
            ("secret.create=true", "minLength: got 0, want 16"),
            (f"secret.create=true,secret.key={KEY}", "minLength: got 0, want 1"),
            ("secret.redisUrl=http://redis", "does not match pattern"),
            ("httpRoute.enabled=true", "minItems: got 0, want 1"),
            ("ingress.enabled=true", "does not match pattern"),
            ("autoscaling.minReplicas=1", "minimum: got 1, want 2"),
            ("autoscaling.scaleDownStabilizationSeconds=60", "minimum: got 60, want 600"),
            ("shutdown.slackSeconds=5", "minimum: got 5, want 10"),
            ("resources.limits.cpu=null", "missing property 'cpu'"),
            ("networkPolicy.redisPorts=null", "missing property 'redisPorts'"),
        ],
    )
    def test_the_schema_refuses(self, setting: str, complaint: str) -> None:
        assert complaint in refusal("--set", setting)

    @needs_helm
    @pytest.mark.parametrize(
        ("setting", "complaint"),
        [
            ("shutdown.terminationGracePeriodSeconds=169", "drain 150 + close 5 + slack 10 = 170 s"),
            ("config.GATEWAY_DRAIN_SECONDS=300,shutdown.terminationGracePeriodSeconds=180", "slack 10 = 320 s"),
            ("config.GATEWAY_DRAIN_SECONDS=5", "GATEWAY_DRAIN_GRACE_SECONDS=5 must be less than"),
            ("shutdown.preStopSeconds=4", "must be 10 s or more"),
            ("autoscaling.enabled=true,autoscaling.maxReplicas=2", "must not exceed autoscaling.maxReplicas"),
            ("podMonitor.enabled=true,serviceMonitor.enabled=true", "scraped twice"),
            (
                f"secret.create=true,secret.key={KEY},secret.redisUrl=rediss://r,redis.tls.secretName=ca",
                "secret.redisUrl has no ?ssl_ca_certs=/etc/mcp-gateway/redis-tls/ca.crt",
            ),
        ],
    )
    def test_the_templates_refuse_what_does_not_fit_together(self, setting: str, complaint: str) -> None:
        assert complaint in refusal("--set", setting)

    @needs_helm
    @pytest.mark.parametrize("release", ["7", "my.release"])
    def test_a_release_whose_name_no_service_can_have_is_refused_and_another_name_helps(self, release: str) -> None:
        refused = helm("template", release, str(CHART))
        assert "fullnameOverride" in refused.stderr
        assert f"{release}-mcp-gateway" in refused.stderr
        named = helm("template", release, str(CHART), "--set", "fullnameOverride=gateway")
        assert {one["metadata"]["labels"]["app.kubernetes.io/instance"] for one in manifests(named.stdout)} == {release}

    @needs_helm
    def test_the_shortest_time_that_suffices_is_accepted(self) -> None:
        ran = helm("template", NAME, str(CHART), "--set", "shutdown.terminationGracePeriodSeconds=170")
        assert "terminationGracePeriodSeconds: 170\n" in ran.stdout

    def test_every_value_is_in_the_schema(self) -> None:
        assert [row.path for row in rows() if not schema_of(row.path)] == []

    def test_every_setting_is_the_charts_or_in_config_or_secret(self) -> None:
        everywhere = [*schema.config_names(), *schema.secret_names(), *map(env_name, schema.RESERVED)]
        assert sorted(everywhere) == sorted(map(env_name, specs()))

    def test_the_times_that_the_chart_computes_with_are_the_gateways_own(self) -> None:
        defaults = {env_name(name): getattr(Settings(), name) for name in specs()}
        assert {name: VALUES["config"][name] for name in schema.REQUIRED} == {
            name: defaults[name] for name in schema.REQUIRED
        }
