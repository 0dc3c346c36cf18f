"""Very many runs of the cluster under faults, each from its seed, and the protections whose absence they notice.

Each test is a process of its own (`python -m tests.simulation`), so that every run is the same there, here and in a
replay. `SIMULATION_FROM` and `SIMULATION_RUNS` choose other seeds, and how many of them.
"""

import os
import re
import subprocess
import sys

import pytest

from tests.project.repository import ROOT
from tests.simulation.sabotage import SABOTAGES

FIRST = int(os.environ.get("SIMULATION_FROM", "0"))
FACTOR = int(os.environ.get("SIMULATION_RUNS", "2080")) / 2080
SLICES = 4
PATIENCE_SECONDS = 170.0
"""A slice computes for about eight seconds, and shares its core with many on a busy machine."""
pytestmark = pytest.mark.timeout(PATIENCE_SECONDS + 10)
CLUSTER_RUNS = round(20 * FACTOR)
"""Of each slice: whole workers with robots and tool servers, redis-py and all."""
MODEL_RUNS = round(500 * FACTOR)
"""Of each slice: the directory alone."""

CONTROLS = {
    "ledger": ("--kinds", "links"),
    "fencing": ("--model",),
    "comparison": ("--model", "--from", "540"),
    "gaps": ("--kinds", "links"),
    "revision": ("--model", "--from", "200"),
    "deadline": ("--kinds", "freezes"),
}
"""What is run without the protection, until it is missed."""


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m tests.simulation` with these arguments."""
    command = [sys.executable, "-m", "tests.simulation", "--quiet", *arguments]
    seconds = PATIENCE_SECONDS if FACTOR <= 1 else None
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": "0"}, capture_output=True, text=True, timeout=seconds
    )


def assert_kept(done: subprocess.CompletedProcess[str]) -> None:
    """Every run kept every promise; else what went wrong, and how to see it again."""
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("part", range(SLICES))
def test_a_cluster_under_faults_keeps_every_promise(part: int) -> None:
    first = FIRST + part * CLUSTER_RUNS
    assert_kept(simulate("--runs", str(CLUSTER_RUNS), "--from", str(first)))


@pytest.mark.parametrize("part", range(SLICES))
def test_the_directory_says_in_the_end_what_is_connected(part: int) -> None:
    first = FIRST + part * MODEL_RUNS
    assert_kept(simulate("--model", "--runs", str(MODEL_RUNS), "--from", str(first)))


@pytest.mark.parametrize("protection", CONTROLS)
def test_a_protection_that_is_switched_off_is_missed(protection: str) -> None:
    done = simulate("--runs", "1500", "--without", protection, *CONTROLS[protection])
    assert done.returncode == 1, f"nothing was found without {protection}: {done.stdout}\n{done.stderr}"
    replay = re.search(r"replay: python -m tests.simulation (.*)", done.stdout)
    assert replay is not None, done.stdout + done.stderr
    assert simulate(*replay[1].split()).returncode == 1, "the replay does not fail"


def test_every_protection_has_its_control() -> None:
    assert CONTROLS.keys() == SABOTAGES.keys()


@pytest.mark.parametrize("kind", [(), ("--model",)], ids=["cluster", "directory"])
def test_the_same_seed_is_the_same_run(kind: tuple[str, ...]) -> None:
    traced = simulate("--seed", "3", "--trace", *kind)
    again = simulate("--seed", "3", "--trace", *kind)
    assert len(traced.stdout.splitlines()) > 100
    assert traced.stdout == again.stdout
    assert simulate("--seed", "3", *kind).stdout.splitlines()[-1] == traced.stdout.splitlines()[-1], (
        "the digests differ"
    )
