"""The house rules that no linter knows."""

import re
import sys
import tomllib
from pathlib import Path

import pytest

import gateway
from tests.project.repository import ROOT, files, texts

LINES_MAX = 400

# Spelled in pieces, so that this file does not find itself.
MACHINE_PATHS = re.compile("|".join(["/" + "work/", "/" + "root/", "/" + "home/"]))
INDEX_ADDRESSES = re.compile("|".join(["index" + "-url", "find" + "-links", "pypi" + r"\.org/simple"]))
UNFINISHED = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X"]) + r")\b")


def places(pattern: re.Pattern[str]) -> list[str]:
    """Every `file:line` where the pattern stands."""
    return [
        f"{path.relative_to(ROOT)}:{number}"
        for path, text in texts()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def python_files(folder: str) -> list[Path]:
    return [path for path in files() if path.suffix == ".py" and path.is_relative_to(ROOT / folder)]


def test_no_file_names_a_path_of_the_machine_it_was_written_on() -> None:
    assert places(MACHINE_PATHS) == []


def test_no_file_names_a_package_index() -> None:
    assert places(INDEX_ADDRESSES) == []


def test_nothing_is_left_to_be_done_later_in_a_comment() -> None:
    assert places(UNFINISHED) == []


@pytest.mark.parametrize("folder", ["gateway", "bench"])
def test_no_module_is_longer_than_a_reader_bears(folder: str) -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in python_files(folder)}
    assert {name: lines for name, lines in lengths.items() if lines > LINES_MAX} == {}


def test_every_module_says_what_it_is() -> None:
    silent = [str(path.relative_to(ROOT)) for path in python_files("gateway") if not path.read_text().startswith('"""')]
    assert silent == []


def test_the_changelog_begins_with_this_version_or_with_what_comes() -> None:
    headings = re.findall(r"^## \[?([^\]\s]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings
    assert headings[0] in ("Unreleased", gateway.__version__)


def test_every_dependency_has_a_reason_and_both_bounds() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    project = tomllib.loads(text)["project"]
    unreasoned = []
    for requirement in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        line = next(line for line in text.splitlines() if f'"{requirement}"' in line)
        has_bounds = ">=" in requirement and "<" in requirement
        if not has_bounds or not re.search(r"#\s*\S+", line):
            unreasoned.append(requirement)
    assert unreasoned == []


def test_every_import_of_the_package_is_a_declared_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[<>=\[;]", one)[0].lower() for one in project["dependencies"]}
    module_of = {"python-dotenv": "dotenv"}
    modules = {module_of.get(name, name) for name in declared}
    imported = {
        match[1]
        for path in python_files("gateway")
        for match in re.finditer(r"^\s*(?:from|import) (\w+)", path.read_text(), re.MULTILINE)
    }
    import_names = imported - sys.stdlib_module_names - {"gateway"}
    assert import_names <= modules


def test_every_folder_of_tests_is_explained_to_contributors() -> None:
    explained = (ROOT / "CONTRIBUTING.md").read_text()
    folders = {
        path.relative_to(ROOT / "tests").parts[0] for path in python_files("tests") if path.parent.name != "tests"
    }
    assert {folder for folder in folders if f"`tests/{folder}/`" not in explained} == set()


def test_the_ci_script_runs_the_tests_and_can_be_executed() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert script.read_text().rstrip().endswith("make test")
