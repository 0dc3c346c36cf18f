"""The house rules that no linter knows."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from itertools import chain
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
    for requirement in chain(project["dependencies"], *project["optional-dependencies"].values()):
        line = next(line for line in text.splitlines() if f'"{requirement}"' in line)
        has_bounds = ">=" in requirement and "<" in requirement
        if not has_bounds or not re.search(r"#\s*\S+", line):
            unreasoned.append(requirement)
    assert unreasoned == []


def test_every_import_of_the_package_is_a_declared_dependency() -> None:
    """Those of an extra are made where they are needed, not with their module: without the extra all the rest works."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = modules_of(project["dependencies"])
    optional = modules_of(project["optional-dependencies"]["otel"])
    found = {one for path in python_files("gateway") for one in imports(ast.parse(path.read_text()))}
    ours = {one for one in found if one[0] not in sys.stdlib_module_names | {"gateway"}}
    assert {name for name, is_late in ours if not is_late} <= required
    assert {name for name, is_late in ours if is_late} <= required | optional


def modules_of(requirements: list[str]) -> set[str]:
    """The modules that these packages are known by, as far as the gateway imports them."""
    module_of = {"python-dotenv": "dotenv", "prometheus-client": "prometheus_client", "pyjwt": "jwt"}
    names = {re.split(r"[<>=\[;]", one)[0].lower() for one in requirements}
    return {module_of.get(name, name.partition("-")[0] if name.startswith("opentelemetry") else name) for name in names}


def imports(node: ast.AST, is_late: bool = False) -> Iterator[tuple[str, bool]]:
    """Top-level package and whether it is imported later than the module: in a function, or for type checkers only."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((one.name.partition(".")[0], is_late) for one in child.names)
        elif isinstance(child, ast.ImportFrom) and child.level == 0 and child.module:
            yield child.module.partition(".")[0], is_late
        else:
            is_typing = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from imports(child, is_late or is_typing or is_function)


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
