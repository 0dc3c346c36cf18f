"""`make` on a machine that lacks something says what to do."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.project.repository import ROOT


def make(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run make in the repository, with its own directory of programs if one is given."""
    program = shutil.which("make")
    assert program is not None
    environment = {"PATH": path or os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    return subprocess.run([program, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A directory for PATH that has what a bare machine has, and no Python."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in ("sh", "rm", "touch"):
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    return folder


def python(folder: Path, script: str) -> None:
    """Put a `python3` into the directory that does as the script says."""
    (folder / "python3").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "python3").chmod(0o755)


def test_make_alone_explains_the_verbs() -> None:
    explained = make()
    assert explained.returncode == 0
    assert verbs()
    assert {verb for verb in verbs() if f"  make {verb} " not in explained.stdout} == set()


def test_contributors_are_told_of_every_verb_that_changes_or_tries_something() -> None:
    told = (ROOT / "CONTRIBUTING.md").read_text()
    assert {verb for verb in verbs() if f"`make {verb}`" not in told} == {"install", "clean"}


def verbs() -> set[str]:
    """What people type; the others are for other verbs."""
    (names,) = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return set(names.split()) - {"help", "setup-dev", "prepare-tests"}


def test_an_old_python_is_named_as_the_problem(programs: Path, tmp_path: Path) -> None:
    python(programs, "exit 1")
    refused = make("install", f"VENV={tmp_path / 'venv'}", path=str(programs))
    assert refused.returncode != 0
    assert "No Python 3.11 or newer was found" in refused.stderr


def test_no_python_at_all_is_named_as_the_problem(programs: Path, tmp_path: Path) -> None:
    refused = make("install", f"VENV={tmp_path / 'venv'}", path=str(programs))
    assert "No Python 3.11 or newer was found" in refused.stderr


def test_a_python_without_venv_is_told_with_the_package_to_install(programs: Path, tmp_path: Path) -> None:
    # Debian's python3: new enough, but ensurepip is a package of its own.
    python(programs, 'case "$2" in *ensurepip*) exit 1;; *print*) echo python3.12;; esac')
    refused = make("install", f"VENV={tmp_path / 'venv'}", path=str(programs))
    assert refused.returncode != 0
    assert "install the package python3.12-venv" in refused.stderr
