"""docs/security.md: every cell of the threat model names tests that exist and are run."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.docs.markdown import code_in, read
from tests.project.repository import ROOT

HEAD = ("Who", "Can", "Can't")
TEST = re.compile(r"(tests/[\w/]+\.py)::(test_\w+)")
ATTACKERS = 13
SKIPS = {"skip", "skipif", "xfail", "skip_unless"}


def rows() -> list[list[str]]:
    return read("docs/security.md").table(*HEAD)


def claims(cell: str) -> list[str]:
    return [claim.strip() for claim in cell.split("<br>")]


def named() -> list[tuple[str, str]]:
    return [match.groups() for row in rows() for cell in row[1:] for match in TEST.finditer(cell)]  # type: ignore[misc]


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def written_in(path: Path) -> dict[str, ast.AST]:
    """The tests that pytest collects from the file, by name: functions of the module and of its classes `Test…`."""
    found: dict[str, ast.AST] = {}
    for node in tree_of(path).body:
        inside = node.body if isinstance(node, ast.ClassDef) and node.name.startswith("Test") else [node]
        found |= {one.name: one for one in inside if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)}
    return found


def skips(node: ast.AST) -> list[str]:
    """What in a test, or in its marks, leaves it out."""
    words = [one.attr if isinstance(one, ast.Attribute) else one.id for one in ast.walk(node) if _is_word(one)]  # type: ignore[attr-defined]
    return [word for word in words if word in SKIPS]


def _is_word(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute | ast.Name)


def test_every_attacker_is_there_with_what_he_can_and_can_not() -> None:
    assert len(rows()) == ATTACKERS
    assert all(len(row) == 3 and all(row) for row in rows())


def test_every_claim_of_every_cell_names_its_tests() -> None:
    bare = [claim for row in rows() for cell in row[1:] for claim in claims(cell) if not TEST.search(claim)]
    assert bare == []


def test_what_is_named_as_a_test_is_written_as_one() -> None:
    written = [code for row in rows() for cell in row[1:] for code in code_in(cell) if code.startswith("tests/")]
    assert len(written) >= 80
    assert [code for code in written if not TEST.fullmatch(code)] == []


def test_every_named_test_exists_and_is_left_out_nowhere() -> None:
    missing, left_out = [], []
    for file, name in named():
        path = ROOT / file
        node = written_in(path).get(name) if path.is_file() and path.name.startswith("test_") else None
        if node is None:
            missing.append(f"{file}::{name}")
        elif skips(node):
            left_out.append(f"{file}::{name}")
    assert missing == []
    assert left_out == []


def test_no_file_with_a_named_test_is_left_out_as_a_whole() -> None:
    for file in sorted({file for file, _ in named()}):
        body = tree_of(ROOT / file).body
        marks = [node for node in body if isinstance(node, ast.Assign | ast.Expr) and skips(node)]
        assert marks == [], file


def test_pytest_has_collected_what_is_named(request: pytest.FixtureRequest) -> None:
    """As far as this run has looked into those files: all of it, where everything is run."""
    collected: dict[str, set[str]] = {}
    for item in request.session.items:
        file, _, name = item.nodeid.partition("::")
        collected.setdefault(file, set()).add(re.sub(r"\[.*", "", name.rpartition("::")[2]))
    is_whole = not (request.config.option.keyword or request.config.option.markexpr or "::" in str(request.config.args))
    lost = [f"{file}::{name}" for file, name in named() if file in collected and name not in collected[file]]
    assert lost == [] or not is_whole
