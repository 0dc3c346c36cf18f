"""The table of metrics in docs/operations.md, made from `gateway.meters.METRICS`.

`python -m tests.observability.metrics_table` writes it anew.
"""

from gateway.counting import Metric
from gateway.meters import METRICS
from tests.project.repository import ROOT

PAGE = ROOT / "docs/operations.md"
_BEGIN, _END = "<!-- metrics -->\n\n", "\n<!-- /metrics -->"
_HEAD = "| Name | Kind | Labels | Several processes | What |\n| --- | --- | --- | --- | --- |\n"
VALUES_MAX = 8


def page() -> str:
    """The whole page, with the table as it must be."""
    text = PAGE.read_text()
    begin, end = text.index(_BEGIN) + len(_BEGIN), text.index(_END)
    return text[:begin] + _HEAD + "".join(map(_row, METRICS.values())) + text[end:]


def _row(metric: Metric) -> str:
    cells = [f"`{metric.full_name}`", metric.kind, _labels(metric), metric.merge, metric.help]
    return "| " + " | ".join(cells).replace("  ", " ") + " |\n"


def _labels(metric: Metric) -> str:
    return "<br>".join(f"`{label}`{_values(values)}" for label, values in metric.labels.items())


def _values(values: tuple[str, ...]) -> str:
    if not values:
        return ""
    shown = ", ".join(f"`{value}`" for value in values[:VALUES_MAX])
    return f": {shown}, …" if len(values) > VALUES_MAX else f": {shown}"


if __name__ == "__main__":
    PAGE.write_text(page())
