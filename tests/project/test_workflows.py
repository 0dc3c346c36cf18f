"""The workflows: what they may do is no more than they need, and what they use is the very thing that was looked at."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.project.repository import ROOT
from tests.project.test_make import verbs

FOLDER = ROOT / ".github"
WORKFLOWS = sorted((FOLDER / "workflows").glob("*.yml"))
WRITERS = {
    ("release", "image"): {"contents": "read", "packages": "write", "id-token": "write", "attestations": "write"},
    ("release", "publish"): {"contents": "write", "id-token": "write", "attestations": "write"},
}
"""Every job that may do more than read, and what it may."""


def workflow(path: Path) -> dict[str, Any]:
    found = yaml.safe_load(path.read_text())
    return {**found, "on": found[True]}  # YAML 1.1 reads `on` so


def jobs() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path in WORKFLOWS:
        for name, job in workflow(path)["jobs"].items():
            yield path.stem, name, job


def steps() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for of, name, job in jobs():
        yield from ((of, name, step) for step in job["steps"])


def zizmor(folder: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("zizmor")
    words = [str(program), "--offline", "--no-config", "--persona=auditor", "--quiet", "--color=never", str(folder)]
    return subprocess.run(words, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_only_read_unless_a_job_says_otherwise(path: Path) -> None:
    assert workflow(path)["permissions"] == {"contents": "read"}


def test_the_jobs_that_may_write_are_these_and_may_do_no_more() -> None:
    assert {(of, name): job["permissions"] for of, name, job in jobs() if "permissions" in job} == WRITERS


def test_a_job_that_may_write_runs_nothing_of_the_projects_own() -> None:
    ran = [step["run"] for of, name, step in steps() if (of, name) in WRITERS and "run" in step]
    assert ran
    assert [line for line in ran if re.search(r"make|python|pip|\.venv", line)] == []


def test_a_strangers_change_meets_no_secret() -> None:
    for path in WORKFLOWS:
        triggers = workflow(path)["on"]
        assert "pull_request_target" not in triggers
        assert "workflow_run" not in triggers
        secrets = set(re.findall(r"secrets\.(\w+)", path.read_text()))
        assert secrets <= (set() if "pull_request" in triggers else {"GITHUB_TOKEN"}), path.name


def test_every_action_is_pinned_by_its_commit_and_says_its_version() -> None:
    used = [line for path in WORKFLOWS for line in re.findall(r"uses: *(.+)", path.read_text())]
    assert len(used) >= 10
    pinned = re.compile(r"[\w-]+/[\w-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+")
    assert [line for line in used if not pinned.fullmatch(line)] == []
    versions: dict[str, set[str]] = {}
    for line in used:
        versions.setdefault(line.partition("@")[0], set()).add(line)
    assert [action for action, lines in versions.items() if len(lines) > 1] == [], "one action, one version"


def test_no_checkout_leaves_its_credentials_behind() -> None:
    found = [step for _, _, step in steps() if step.get("uses", "").startswith("actions/checkout@")]
    assert found
    assert all(step["with"]["persist-credentials"] is False for step in found)


def test_every_job_has_an_end_and_a_fixed_machine() -> None:
    for of, name, job in jobs():
        assert job["timeout-minutes"] <= 60, (of, name)
        assert re.fullmatch(r"ubuntu-\d\d\.04", job["runs-on"]), (of, name)


def test_what_they_make_make_knows() -> None:
    made = {verb for _, _, step in steps() for verb in re.findall(r"^make (\w+)", step.get("run", ""), re.MULTILINE)}
    assert made >= {"test", "audit", "sbom"}
    assert made <= verbs()


def test_the_pipeline_demands_the_audits_data() -> None:
    audits = [step["run"] for _, _, step in steps() if step.get("run", "").startswith("make audit")]
    assert set(audits) == {"make audit AUDIT=must"}


def test_a_release_carries_the_bill_of_materials_and_where_it_comes_from() -> None:
    attested = [step["with"] for of, _, step in steps() if step.get("uses", "").startswith("actions/attest@")]
    assert {"subject-path": "dist/*"} in attested
    assert any(told.get("sbom-path") == "dist/sbom.cdx.json" for told in attested)
    [build] = [step["with"] for _, _, step in steps() if step.get("uses", "").startswith("docker/build-push-action@")]
    assert (build["sbom"], build["provenance"]) == (True, "mode=max")
    copies = [step["run"] for of, name, step in steps() if name == "build" and "run" in step]
    assert any("cp build/sbom.cdx.json dist/" in line for line in copies)


def test_zizmor_finds_nothing_in_them() -> None:
    said = zizmor(FOLDER)
    assert said.returncode == 0, said.stdout


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1", "actions/checkout@v7"),
        ("persist-credentials: false", "persist-credentials: true"),
        ("permissions:\n  contents: read\n", "permissions: write-all\n"),
        ("run: make test", "run: make test ARGS=${{ github.event.pull_request.title }}"),
        ("  pull_request:\n", "  pull_request_target:\n"),
    ],
)
def test_zizmor_would_find_it(tmp_path: Path, good: str, bad: str) -> None:
    shutil.copytree(FOLDER, tmp_path / ".github")
    ci = tmp_path / ".github/workflows/ci.yml"
    text = ci.read_text()
    assert good in text
    ci.write_text(text.replace(good, bad))
    assert zizmor(tmp_path / ".github").returncode != 0
