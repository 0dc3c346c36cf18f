"""What the image is made of is told in full, and asked about: the bill of materials, the audit of the lock files."""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from deploy import audit
from tests.project.locks import RUN, locked, normal
from tests.project.repository import ROOT


def recipe(verb: str, program: str) -> list[str]:
    """The words by which `make VERB` runs the program."""
    text = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    [line] = re.findall(rf"^{verb}:.*\n(?:\t.*\n)*?\t@(.*{program}.*)$", text, re.MULTILINE)
    return shlex.split(str(line).replace("$(BIN)/python", sys.executable))


def test_the_bill_of_materials_is_valid_and_names_every_locked_package(tmp_path: Path) -> None:
    words = [word.replace("build/sbom.cdx.json", str(tmp_path / "bom.json")) for word in recipe("sbom", "cyclonedx_py")]
    assert "--validate" in words
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True, timeout=50)
    bill = orjson.loads((tmp_path / "bom.json").read_bytes())
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "xiaozhi-mcp-gateway"
    listed = {normal(one["name"]): one for one in bill["components"]}
    pinned = locked(RUN)
    assert {name: one["version"] for name, one in listed.items()} == {name: one.version for name, one in pinned.items()}
    for name, one in listed.items():
        assert one["purl"].startswith(f"pkg:pypi/{name}@"), name
        hashes = [hash for reference in one["externalReferences"] for hash in reference.get("hashes", ())]
        assert len(hashes) == pinned[name].hashes, name


Answers = Callable[[str], subprocess.CompletedProcess[str]]


def answer(*packages: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess([], 0, orjson.dumps({"dependencies": packages}).decode(), "")


def holed(name: str = "jinja2") -> dict[str, Any]:
    return {"name": name, "version": "2.4.1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3.1.6"]}]}


def sound(name: str = "orjson") -> dict[str, Any]:
    return {"name": name, "version": "3.11", "vulns": []}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answers], None]:
    """Let pip-audit answer so, by the name of the file that it is asked about."""

    def ask(answers: Answers) -> None:
        def run(words: list[str]) -> subprocess.CompletedProcess[str]:
            return answers(Path(words[2]).name) if words[0] == "pip_audit" else subprocess.CompletedProcess([], 0)

        monkeypatch.setattr(audit, "run", run)

    return ask


@pytest.mark.parametrize(("arguments", "code"), [([], 0), (["must"], 1)])
@pytest.mark.parametrize(
    "data",
    [
        answer({"name": "jinja2", "skip_reason": "not found"}),
        answer(sound("jinja2")),
        answer(),
        subprocess.CompletedProcess([], 1, "", "ConnectionError: no route"),
    ],
    ids=["skipped", "knows nothing", "looked at nothing", "no network"],
)
def test_without_data_nothing_is_judged_and_that_is_said_aloud(
    asked: Callable[[Answers], None],
    capsys: pytest.CaptureFixture[str],
    data: subprocess.CompletedProcess[str],
    arguments: list[str],
    code: int,
) -> None:
    asked(lambda _: data)
    assert audit.main(arguments) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "AUDIT SKIPPED, nothing was judged" in said.err


def test_a_known_hole_is_told_with_its_cure(
    asked: Callable[[Answers], None], capsys: pytest.CaptureFixture[str]
) -> None:
    asked(lambda file: answer(holed("redis")) if file == "requirements.lock" else answer(holed()))
    assert audit.main([]) == 1
    assert "requirements.lock: redis 2.4.1: PYSEC-1; 修复版本 / fixed in: 3.1.6" in capsys.readouterr().out


def test_where_nothing_is_known_it_says_so(
    asked: Callable[[Answers], None], capsys: pytest.CaptureFixture[str]
) -> None:
    asked(lambda file: answer(sound() if file.endswith(".lock") else holed()))
    assert audit.main(["must"]) == 0
    assert capsys.readouterr().out.count("known vulnerabilities: 0") == 2


def test_every_lock_file_is_audited() -> None:
    assert {ROOT / lock for lock in audit.LOCKS} == set((ROOT / "deploy").glob("*.lock"))
