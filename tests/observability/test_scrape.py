"""Alerts and dashboard against the `/metrics` of running workers: what they ask for is there, label by label."""

from pathlib import Path
from typing import Any

import yaml

from gateway.meters import METRICS
from tests.observability import prometheus
from tests.observability.promtool import promtool
from tests.observability.queries import RULES, TARGET_LABELS, Series, grouped_by, selected
from tests.observability.scene import Scene, Scraped, playing
from tests.observability.test_dashboard import QUERIES, with_values
from tests.support.gateway import Guests
from tests.support.redis_server import RedisServer

WITHOUT_CONTAINER = {"mcpgw_memory_limit_bytes"}
"""Metrics that only a limited container has."""
PROMETHEUS_OWN = {"up", "ALERTS"}


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


async def test_whatever_alerts_and_dashboard_ask_for_a_worker_says(scene: Scene) -> None:
    scraped = await scene.scraped()
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    given = recorded | WITHOUT_CONTAINER | PROMETHEUS_OWN
    queries = [*QUERIES, *(rule["expr"] for rule in rules())]
    wrong = [what for query in queries for what in missing(query, scraped, given)]
    assert wrong == []


def missing(query: str, scraped: Scraped, given: set[str]) -> list[str]:
    """What the query names and the worker doesn't say."""
    asked = [one for one in selected(query) if one.metric not in given]
    absent = [one.metric for one in asked if one.metric not in scraped.series]
    present = [one for one in asked if one.metric in scraped.series]
    known = {label for one in present for labels in scraped.series[one.metric] for label in labels}
    unknown = grouped_by(query) - known - TARGET_LABELS if present else set()
    return [*absent, *(f"{label} in {query}" for label in unknown), *(f for one in present for f in lost(one, scraped))]


def lost(one: Series, scraped: Scraped) -> list[str]:
    """Labels and values of a selector that no series of the metric has."""
    found = []
    for label, values in one.matched:
        if label not in TARGET_LABELS and not values <= scraped.values(one.metric, label):
            found.append(f"{one.metric}{{{label}: {sorted(values - scraped.values(one.metric, label))}}}")
    return found


async def test_a_worker_says_all_that_the_table_has_and_nothing_else(scene: Scene) -> None:
    said = {name for name in (await scene.scraped()).series if name.startswith("mcpgw_")}
    ends = ("_bucket", "_sum", "_count")
    table = {
        metric.full_name + end for metric in METRICS.values() for end in (ends if metric.kind == "histogram" else ("",))
    }
    assert said | WITHOUT_CONTAINER == table


async def test_prometheus_finds_nothing_to_complain_of_in_names_and_helps(scene: Scene) -> None:
    promtool("check", "metrics", said=await scene.text())


async def test_prometheus_reads_the_workers_fills_every_panel_and_sees_that_redis_is_away(
    own_server: RedisServer, guests: Guests, tmp_path: Path
) -> None:
    async with (
        playing(own_server, guests) as scene,
        prometheus.running(tmp_path, [f"127.0.0.1:{port}" for port in scene.ports]) as watching,
    ):
        await watching.until("count(count_over_time(mcpgw_build_info[1m]) > 2)", 2)
        await watching.until("count(job:mcpgw_calls:increase10m)", 1)
        asked = await watching.rules()
        assert {rule["name"]: rule["lastError"] for rule in asked if rule.get("lastError")} == {}
        assert {rule["health"] for rule in asked} == {"ok"}
        assert [rule["name"] for rule in asked if rule.get("state") == "firing"] == []
        for query in QUERIES:
            if not {one.metric for one in selected(query)} & WITHOUT_CONTAINER:
                await watching.until(f"count({with_values(query)})", 1)
        own_server.stop()
        exprs = {rule["alert"]: rule["expr"] for rule in rules() if "alert" in rule}
        for alert, many in {"McpGatewayRedisAway": 2, "McpGatewayRedisAwayEverywhere": 1}.items():
            await watching.until(f"count({exprs[alert]})", many)
