"""deploy/observability/alerts.yaml: every rule is loaded, has its tests, its page, and a reason for its threshold."""

import re
from typing import Any

import pytest
import yaml

from tests.docs.markdown import read
from tests.observability.promtool import promtool
from tests.observability.queries import RULES, selected
from tests.project.repository import ROOT

TESTS = RULES.with_name("alerts.test.yaml")
FIRING = re.compile(r'alertname="(\w+)"')


@pytest.fixture(scope="module")
def alerts() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


@pytest.fixture(scope="module")
def groups() -> list[dict[str, Any]]:
    tests: list[dict[str, Any]] = yaml.safe_load(TESTS.read_text())["tests"]
    return tests


def test_prometheus_reads_the_rules_and_their_own_tests_pass() -> None:
    promtool("test", "rules", TESTS)


def test_every_alert_has_a_test_in_which_it_fires(alerts: dict[str, Any], groups: list[dict[str, Any]]) -> None:
    asked = [test for group in groups for test in group.get("promql_expr_test", ())]
    assert set(alerts) <= {name for test in asked if test["exp_samples"] for name in FIRING.findall(test["expr"])}


def test_every_alert_has_a_test_in_which_it_stays_quiet(alerts: dict[str, Any], groups: list[dict[str, Any]]) -> None:
    asked = [test for group in groups for test in group.get("alert_rule_test", ())]
    assert set(alerts) <= {test["alertname"] for test in asked if not test["exp_alerts"]}


def test_every_alert_says_how_bad_it_is_what_it_is_and_where_to_read_on(alerts: dict[str, Any]) -> None:
    anchors = read("docs/operations.md").anchors
    wrong = {}
    for name, rule in alerts.items():
        told = rule["annotations"]
        page, _, anchor = told["runbook"].partition("#")
        wrong[name] = [
            what
            for what, is_right in {
                "severity": rule["labels"] in ({"severity": "critical"}, {"severity": "warning"}),
                "summary": is_bilingual(told["summary"]),
                "description": is_bilingual(told["description"]),
                "runbook": page == "docs/operations.md" and anchor == name.lower() and anchor in anchors,
            }.items()
            if not is_right
        ]
    assert {name: what for name, what in wrong.items() if what} == {}


def is_bilingual(text: str) -> bool:
    return " / " in text and bool(re.search(r"[\u4e00-\u9fff]", text)) and bool(re.search(r"[a-z]{3}", text))


def test_every_threshold_has_its_reason_beside_it(alerts: dict[str, Any]) -> None:
    blocks = re.split(r"\n      - (?=alert: )", RULES.read_text())[1:]
    assert len(blocks) == len(alerts)
    assert [block.split()[1] for block in blocks if not re.search(r"^        # \w", block, re.MULTILINE)] == []


def test_the_page_names_no_alert_that_there_is_not(alerts: dict[str, Any]) -> None:
    headings = {title for _, title in read("docs/operations.md").headings}
    assert {title for title in headings if title.startswith("McpGateway")} == set(alerts)


def test_no_rule_looks_at_a_label_that_only_one_installation_has() -> None:
    """Names of jobs and instances are whatever an operator calls them."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    series = [one for group in groups for rule in group["rules"] for one in selected(rule["expr"])]
    labels = {label for one in series for label, _ in one.matched}
    assert labels & {"job", "instance", "pod", "namespace", "service", "container"} == set()


def test_the_severities_of_alerts_that_page_are_few(alerts: dict[str, Any]) -> None:
    critical = {name for name, rule in alerts.items() if rule["labels"]["severity"] == "critical"}
    listed = read("docs/operations.md").table("告警 Alert", "严重 Severity", "一句话 In a sentence")
    assert critical == {row[0].split("[")[1].split("]")[0] for row in listed if row[1] == "**critical**"}
    assert len(listed) == len(alerts)


def test_prometheus_takes_the_configuration_with_the_rules_beside_it() -> None:
    promtool("check", "config", ROOT / "deploy/observability/prometheus.yaml")
