"""The page about logs names every event that the code can log, and every logged line has one."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.docs.markdown import code_in, read
from tests.project.repository import ROOT

VERBS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
SPEAKERS = {"logger", "log", "_log"}


@cache
def trees() -> list[tuple[Path, ast.Module]]:
    """Every module of the package."""
    paths = sorted((ROOT / "gateway").rglob("*.py"))
    return [(path.relative_to(ROOT), ast.parse(path.read_text())) for path in paths]


def is_log_call(node: ast.AST) -> bool:
    """`logger.info(…)`, `log.info(…)`, `self.logger.info(…)`."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr not in VERBS:
        return False
    speaker = node.func.value
    name = speaker.id if isinstance(speaker, ast.Name) else speaker.attr if isinstance(speaker, ast.Attribute) else ""
    return name in SPEAKERS


def events_in(tree: ast.Module) -> Iterator[str]:
    """What stands under the key `event` of a dictionary, and what is given as the argument `event`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            pairs = [(text_of(key), value) for key, value in zip(node.keys, node.values, strict=True)]
        elif isinstance(node, ast.Call):
            pairs = [(keyword.arg, keyword.value) for keyword in node.keywords]
        else:
            continue
        yield from filter(None, (text_of(value) for key, value in pairs if key == "event"))


def text_of(node: ast.AST | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def test_every_line_that_is_logged_names_its_event() -> None:
    without = [
        f"{path}:{node.lineno}"
        for path, tree in trees()
        for node in ast.walk(tree)
        if is_log_call(node) and isinstance(node, ast.Call) and "extra" not in {word.arg for word in node.keywords}
    ]
    assert without == []


def test_every_event_of_the_code_is_on_the_page_and_no_other() -> None:
    page = read("docs/logs.md")
    told = [code_in(row[0])[0] for table in page.tables for row in table[1:] if table[0][0] == "Event"]
    assert len(told) == len(set(told)), "an event is told of twice"
    assert set(told) == {event for _, tree in trees() for event in events_in(tree)}


def test_an_event_is_named_by_what_happened() -> None:
    for _, tree in trees():
        for event in events_in(tree):
            assert event == event.lower()
            assert "_" in event, f"{event}: who or what, then what became of it"
