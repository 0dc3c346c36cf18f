"""Writes the Grafana dashboard: `python -m deploy.observability.dashboard > deploy/observability/dashboard.json`.

In the classic JSON model, which every Grafana from 10 to 13 provisions from a file. The same panels give the same
bytes, and a test holds the file equal to what this says.
"""

import sys
from collections.abc import Iterator
from typing import Any

import orjson

from deploy.observability.panel import SELECTION, Panel
from deploy.observability.panels import ROWS

SCHEMA_VERSION = 41
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
HEIGHT = {"timeseries": 8, "stat": 4}
COLUMNS = 24


def dashboard() -> dict[str, Any]:
    """The whole dashboard."""
    return {
        "uid": "mcp-gateway",
        "title": "小智 MCP 网关 / xiaozhi MCP gateway",
        "description": "告警与处理见 docs/operations.md / What each alert means and what to do: docs/operations.md.",
        "tags": ["mcp-gateway"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": [_alerts()]},
        "templating": {"list": list(_variables())},
        "links": [],
        "panels": list(_panels()),
    }


def text() -> str:
    """The file."""
    return orjson.dumps(dashboard(), option=orjson.OPT_INDENT_2).decode() + "\n"


def expression(query: str) -> str:
    """A panel's query with the selection in place."""
    return query.replace("{$", "{" + SELECTION)


def _alerts() -> dict[str, Any]:
    return {
        "name": "告警 / Alerts",
        "datasource": SOURCE,
        "enable": True,
        "iconColor": "red",
        "expr": 'ALERTS{alertname=~"McpGateway.+", alertstate="firing"}',
        "step": "60s",
        "titleFormat": "{{alertname}}",
        "tagKeys": "severity,instance",
    }


def _variables() -> Iterator[dict[str, Any]]:
    yield {
        "name": "datasource",
        "label": "数据源 / Data source",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
        "hide": 0,
        "refresh": 1,
    }
    matchers = ""
    for name, label in (
        ("namespace", "命名空间 / Namespace"),
        ("job", "任务 / Job"),
        ("instance", "实例 / Instance"),
    ):
        chosen = f"{{{matchers}}}" if matchers else ""
        query = f"label_values(mcpgw_build_info{chosen}, {name})"
        yield {
            "name": name,
            "label": label,
            "type": "query",
            "datasource": SOURCE,
            "definition": query,
            "query": {"query": query, "refId": name},
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            # Matches series without the label too: there are no namespaces outside Kubernetes.
            "allValue": ".*",
            "current": {"text": ["All"], "value": ["$__all"]},
            "hide": 0,
        }
        matchers += f'{", " if matchers else ""}{name}=~"${name}"'


def _panels() -> Iterator[dict[str, Any]]:
    number, top = 0, 0
    for row in ROWS:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": top},
            "panels": [],
        }
        top, left = top + 1, 0
        for panel in row.panels:
            height = HEIGHT[panel.shape]
            if left + panel.width > COLUMNS:
                top, left = top + height, 0
            number += 1
            yield _panel(panel, number, {"h": height, "w": panel.width, "x": left, "y": top})
            left += panel.width
        top += HEIGHT[row.panels[-1].shape]


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    means = f"{panel.means}\n\n告警 / Alert: {panel.alert}" if panel.alert else panel.means
    return {
        "id": number,
        "type": panel.shape,
        "title": panel.title,
        "description": means,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel),
        "targets": [
            {
                "refId": chr(ord("A") + at),
                "datasource": SOURCE,
                "editorMode": "code",
                "expr": expression(query),
                "legendFormat": legend or "__auto",
                "range": True,
            }
            for at, (query, legend) in enumerate(panel.queries)
        ],
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.threshold is not None:
        # Grafana colours from a step's value on, alerts fire above it.
        steps.append({"color": "red", "value": panel.threshold or 1})
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "min": 0,
        "color": {"mode": "thresholds" if panel.shape == "stat" else "palette-classic"},
        "thresholds": {"mode": "absolute", "steps": steps},
    }
    if panel.shape == "timeseries":
        defaults["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 30 if panel.is_stacked else 8,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.is_stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "off" if panel.threshold is None else "dashed"},
        }
    return defaults


def _options(panel: Panel) -> dict[str, Any]:
    if panel.shape == "stat":
        return {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value",
            "graphMode": "area",
            "justifyMode": "auto",
            "orientation": "auto",
            "textMode": "value",
        }
    return {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


if __name__ == "__main__":
    sys.stdout.write(text())
