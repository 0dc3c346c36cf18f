"""deploy/observability/dashboard.json: what the generator writes, readable by Prometheus, in step with the alerts."""

import re
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from deploy.observability.dashboard import expression, text
from deploy.observability.panels import ROWS
from gateway.meters import METRICS
from tests.observability.promtool import promtool
from tests.observability.queries import RULES, selected
from tests.observability.test_alerts import is_bilingual
from tests.project.repository import ROOT

FILE = ROOT / "deploy/observability/dashboard.json"
PANELS = [panel for row in ROWS for panel in row.panels]
QUERIES = [expression(query) for panel in PANELS for query, _ in panel.queries]


def with_values(query: str) -> str:
    """The query as Grafana sends it, with everything selected."""
    return re.sub(r'"\$\w+"', '".*"', query).replace("$__rate_interval", "5m")


def test_the_file_is_what_the_generator_writes() -> None:
    assert FILE.read_text() == text(), "python -m deploy.observability.dashboard > deploy/observability/dashboard.json"


def test_prometheus_understands_every_query(tmp_path: Path) -> None:
    """As recording rules, since promtool reads no bare queries."""
    rules = [{"record": f"query_{number}", "expr": with_values(query)} for number, query in enumerate(QUERIES)]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", "--lint=none", file)


def test_everything_that_is_measured_is_on_the_dashboard() -> None:
    shown = {one.metric for query in QUERIES for one in selected(query)}
    kinds = {metric.full_name + ("_bucket" if metric.kind == "histogram" else "") for metric in METRICS.values()}
    assert kinds - shown == set()


def test_every_query_asks_for_what_was_selected_above_and_for_nothing_else() -> None:
    chosen = {"namespace", "job", "instance"}
    free = {
        one.metric
        for query in QUERIES
        for one in selected(query)
        if not chosen <= {label for label, _ in one.matched} and one.metric != "ALERTS"
    }
    assert free == set()


def test_every_panel_says_in_both_languages_what_it_means() -> None:
    short = [panel.title for panel in PANELS if not is_bilingual(panel.means)]
    assert short == []


def test_a_threshold_is_that_of_its_alert() -> None:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    rules = {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"] if "alert" in rule}
    alerted = [panel for panel in PANELS if panel.alert]
    assert len(alerted) >= 10
    for panel in alerted:
        assert panel.threshold in {float(number) for number in re.findall(r"> ([\d.]+)", rules[panel.alert])}, panel


def test_panels_lie_beside_each_other_and_not_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in orjson.loads(FILE.read_bytes())["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in orjson.loads(FILE.read_bytes())["panels"]}) == len(PANELS) + len(ROWS)


@pytest.fixture
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return found


def binds(service: dict[str, Any]) -> dict[str, str]:
    """Files of the repository → where they are in the container."""
    mounts = [volume for volume in service["volumes"] if isinstance(volume, dict) and volume["type"] == "bind"]
    return {mount["source"].removeprefix("./deploy/observability/"): mount["target"] for mount in mounts}


def test_grafana_is_provisioned_with_the_source_and_the_folder_that_are_mounted(services: dict[str, Any]) -> None:
    provisioning = ROOT / "deploy/observability/grafana/provisioning"
    [source] = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())["datasources"]
    [provider] = yaml.safe_load((provisioning / "dashboards/mcp-gateway.yaml").read_text())["providers"]
    mounted = binds(services["grafana"])
    assert source["url"] == "http://prometheus:9090"
    assert mounted["grafana/provisioning"] == "/etc/grafana/provisioning"
    assert Path(mounted["dashboard.json"]).parent == Path(provider["options"]["path"])


def test_prometheus_finds_its_rules_and_the_gateways_admin_port(services: dict[str, Any]) -> None:
    config = yaml.safe_load((ROOT / "deploy/observability/prometheus.yaml").read_text())
    mounted = binds(services["prometheus"])
    assert f"--config.file={mounted['prometheus.yaml']}" in services["prometheus"]["command"]
    assert Path(mounted["alerts.yaml"]) == Path(mounted["prometheus.yaml"]).parent / config["rule_files"][0]
    [job] = [job for job in config["scrape_configs"] if job["job_name"] == "mcp-gateway"]
    [found] = job["dns_sd_configs"]
    assert found["names"] == ["gateway"]
    workers = {name: service for name, service in services.items() if name.startswith("gateway")}
    assert workers
    for service in workers.values():
        assert str(found["port"]) == str(service["environment"]["GATEWAY_ADMIN_PORT"])
        heard = [network for network, options in service["networks"].items() if "gateway" in options.get("aliases", ())]
        assert set(heard) & set(services["prometheus"]["networks"])
