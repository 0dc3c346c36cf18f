"""A panel of the dashboard, and how its queries are written.

`$` in a query stands for the selection of the dashboard's variables. A threshold is that of the alert that it names.
"""

from dataclasses import dataclass
from typing import Literal

SELECTION = 'namespace=~"$namespace", job=~"$job", instance=~"$instance"'
GATEWAYS_FAULT = (
    "owner_lost|worker_unreachable|versions_differ|overloaded|backplane_unavailable|draining|internal_error"
)
"""Outcomes that are the gateway's doing or that of what it stands on, as in the alert McpGatewayErrors."""

Shape = Literal["timeseries", "stat"]


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture: Chinese and English in one text, as everywhere."""

    title: str
    means: str
    """What it shows, and how to read it."""
    queries: tuple[tuple[str, str], ...]
    """(expression, legend) each."""
    unit: str = "short"
    alert: str = ""
    """The alert that the threshold belongs to."""
    threshold: float | None = None
    shape: Shape = "timeseries"
    is_stacked: bool = False
    width: int = 8


@dataclass(frozen=True, slots=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


def rate(metric: str, by: str, matchers: str = "") -> str:
    """Per second, by these labels."""
    return f"sum by ({by}) (rate({metric}{{${matchers}}}[$__rate_interval]))"


def each(metric: str, by: str = "instance") -> str:
    """The present values, added up by these labels."""
    return f"sum by ({by}) ({metric}{{$}})"


def quantiles(metric: str, *, matchers: str = "") -> tuple[tuple[str, str], ...]:
    """p50, p95 and p99 of a histogram, everything selected together."""
    buckets = f"sum by (le) (rate({metric}_bucket{{${matchers}}}[$__rate_interval]))"
    return tuple((f"histogram_quantile({share}, {buckets})", f"p{share * 100:g}") for share in (0.5, 0.95, 0.99))


def worst(metric: str) -> tuple[str, str]:
    """p99 of a histogram, for each instance."""
    return (
        f"histogram_quantile(0.99, sum by (instance, le) (rate({metric}_bucket{{$}}[$__rate_interval])))",
        "{{instance}}",
    )


def stat(title: str, means: str, query: str, **options: object) -> Panel:
    """One number."""
    return Panel(title, means, ((query, ""),), shape="stat", width=4, **options)  # type: ignore[arg-type]
