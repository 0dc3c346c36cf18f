"""The benchmark runs, and its pages say what it found; what it measures is no test's business."""

import signal
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from bench import capacity, pages, plots, report, run
from bench.cases import ALL
from bench.load.quantiles import QUANTILES
from bench.processes import ROOT

NUMBERS = orjson.loads(pages.NUMBERS.read_bytes())
COSTS = capacity.Costs.of(NUMBERS["medians"])


def test_the_benchmark_measures_a_case_and_keeps_the_numbers(tmp_path: Path) -> None:
    output = tmp_path / "numbers.json"
    assert run.main(["--case", "call-1", "--rounds", "1", "--seconds", "0.2", "--output", str(output)]) == 0
    recorded = orjson.loads(output.read_bytes())
    row = report.rows_of(recorded)[0]
    assert (row.case, row.what) == ("call-1", "CPU per call")
    assert row.figure > 0
    assert recorded["rounds"]["call-1"][0]["gateway.calls_per_second"] > 0
    assert len(recorded["curves"]["call-1 gateway"]) == len(QUANTILES)


def test_an_interrupted_benchmark_leaves_no_process_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "--case", "call-1", "--seconds", "30", "--output", str(tmp_path / "x")]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts) as bench:
        assert bench.stderr is not None
        for line in bench.stderr:
            if "round 1" in line:
                break
        children = Path(f"/proc/{bench.pid}/task/{bench.pid}/children").read_text().split()
        bench.send_signal(signal.SIGINT)
        assert bench.wait(20) == run.INTERRUPTED
    assert children
    assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []


def heed_interrupts() -> None:
    """What a shell without job control starts in the background, `make test` perhaps, has been told to ignore them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("name", ["performance.md", "scaling.md"])
def test_the_pages_hold_what_was_measured_and_computed(name: str) -> None:
    page = (pages.DOCS / name).read_text()
    assert pages.filled(page, pages.blocks(NUMBERS)) == page


def test_every_case_is_on_the_page() -> None:
    assert {row.case for row in report.rows_of(NUMBERS)} == {case.name for case in ALL}
    assert (pages.DOCS / "performance-promises.svg").read_text() == plots.promises(report.rows_of(NUMBERS))


@pytest.mark.parametrize("floor", sorted(path.name for path in (ROOT / "bench" / "floors").glob("*.py")))
def test_a_floor_stays_a_floor(floor: str) -> None:
    assert len((ROOT / "bench" / "floors" / floor).read_text().splitlines()) < 60


def test_a_larger_fleet_needs_more_and_never_less() -> None:
    given = capacity.Assumptions()
    needs = [capacity.need(devices, given, COSTS) for devices in (1000, 10_000, 1_000_000, 10_000_000)]
    assert needs == sorted(needs, key=lambda need: (need.workers, need.redis_cpu, need.redis_list_cpu))
    assert all(need.worker_cpu <= given.worker_share for need in needs)


def test_a_cell_keeps_below_every_limit_that_a_cluster_does_not_lift() -> None:
    given = capacity.Assumptions()
    one = capacity.need(capacity.cell_devices(given, COSTS), given, COSTS)
    assert all(limit.used(one, given) <= 1 for limit in capacity.ANY)
