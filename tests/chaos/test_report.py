"""What is told of many rounds: counts added up, pages filled in place, growth found."""

from collections import Counter
from pathlib import Path

import pytest

from tests.chaos import plot, report
from tests.chaos.checker import Verdict, Violation
from tests.chaos.nemesis import Round
from tests.chaos.soak import MEASURES, quarters, row_of


def played(fault: str, *violations: Violation, **counts: int) -> Round:
    verdict = Verdict(Counter({name.replace("_", ":"): number for name, number in counts.items()}), list(violations))
    return Round(fault, 1, verdict, {"a": 0.5, "b": 1.5, "c": None}, [0.1, 0.2], [0.3])


def test_rounds_of_one_fault_are_one_row() -> None:
    lost = Violation("lost", 7, "")
    table = report.table(
        [played("x", issued=1000, result=900, error_false=100), played("x", lost, issued=500), played("y")]
    )
    [row] = [line for line in table.splitlines() if line.startswith("| x |")]
    assert row == "| x | 2 | 1,500 | 900 | 100 · 0 | 1 | 0 | 0 | 0 | 0 | 1.00 s · 1.50 s |"
    assert "1,500 calls in 3 rounds" in table


def test_a_page_keeps_its_prose_when_its_block_is_written_anew(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\nbefore\n<!-- chaos:begin -->\nold\n<!-- chaos:end -->\nafter\n")
    for text in ("new", "newer"):
        report.fill(page, "chaos", text, title="unused")
    report.fill(page, "soak", "flat", title="unused")
    assert page.read_text() == (
        "# Title\n\nbefore\n<!-- chaos:begin -->\n\nnewer\n\n<!-- chaos:end -->\nafter\n"
        "\n<!-- soak:begin -->\n\nflat\n\n<!-- soak:end -->\n"
    )


@pytest.mark.parametrize(("late", "is_flat"), [(100.0, True), (109.0, True), (112.0, False), (90.0, True)])
def test_growth_beyond_its_tolerance_is_found(late: float, is_flat: bool) -> None:
    points = [(minute, 100.0 if minute < 30 else late) for minute in range(41)]
    assert quarters(points) == (100.0, late)
    assert row_of(MEASURES["rss_bytes"], "worker-0", points)[1] is is_flat


def test_a_plot_has_a_panel_for_each_measure_and_a_line_for_each_who() -> None:
    image = plot.panels({"memory": {"worker-0": [(0.0, 1.0), (1.0, 2.0)], "worker-1": [(0.0, 0.0)]}, "keys": {}})
    assert image.count("<polyline") == 2
    assert "memory" in image
    assert "keys" in image
