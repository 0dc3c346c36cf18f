"""Prometheus' own tools, where they are on PATH; elsewhere their tests say in one line that they were skipped."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SECONDS_MAX = 50


def program(name: str) -> str:
    """Where `promtool` or `prometheus` is; skips the test without it."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(
            f"没有 {name}，规则未经检验 / no {name} on PATH: rules and queries are NOT checked by Prometheus here"
        )
    return found


def promtool(*arguments: str | Path, said: str = "") -> None:
    """Run it, with `said` as its input; raises AssertionError with all that it said if it is not content."""
    ended = subprocess.run(
        [program("promtool"), *map(str, arguments)],
        input=said,
        # Its collector of garbage would take a third of the time.
        env={**os.environ, "GOGC": "400"},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
