"""docs/policy.md: its commands are run, and its tables are those of the code."""

import io
import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import orjson
import pytest

from gateway import cli, policy
from gateway.policy import parse
from gateway.settings import env_name, specs
from tests.docs.markdown import Document, code_in, read

Shell: TypeAlias = Callable[[str], str]


@pytest.fixture
def page() -> Document:
    return read("docs/policy.md")


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """Runs a line as far as the page needs one: our command, `> FILE` behind it, `echo … |` before it."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("GATEWAY_")]:
        monkeypatch.delenv(name)

    def run(line: str) -> str:
        words = shlex.split(line)
        given, words = (words[1], words[3:]) if words[0] == "echo" else ("", words)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
        words, file = (words[:-2], words[-1]) if words[-2] == ">" else (words, "")
        assert words[0] == "mcp-gateway"
        cli.main(words[1:])
        said = capsys.readouterr()
        if file:
            (tmp_path / file).write_text(said.out, encoding="utf-8")
        return said.err if file else said.err + said.out

    return run


def exchanges(page: Document) -> list[tuple[str, str]]:
    """Each command of the page with what it answers there."""
    found: list[tuple[str, str]] = []
    for block in page.blocks:
        if block.language == "console":
            for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
                command, _, answer = part.partition("\n")
                found.append((command, answer.strip()))
    return found


def test_the_commands_answer_what_the_page_says(page: Document, shell: Shell) -> None:
    """On the memory backplane, in one directory: what one command writes the next one reads."""
    told = exchanges(page)
    assert len(told) > 10
    for command, expected in told:
        answer = shell(command).strip()
        pattern = re.escape(expected).replace("…", ".*")
        assert re.fullmatch(pattern, answer, re.DOTALL), f"{command}\n{answer}\ninstead of\n{expected}"


def test_the_example_is_a_policy_that_sets_every_field(page: Document) -> None:
    [block] = [block for block in page.blocks if block.language == "json"]
    assert parse(block.text.encode(), is_strict=True).as_json() == orjson.loads(block.text)
    assert orjson.loads(block.text).keys() == set(policy.FIELDS)


def test_every_field_and_every_limit_is_in_a_table_with_its_range(page: Document) -> None:
    fields = {code_in(row[0])[0]: row[1] for row in page.table("Field", "Value", "Without it")}
    lists = {f"{key}.{side}" for key in policy.LISTS for side in policy.SIDES}
    assert fields.keys() == lists | set(policy.FIELDS) - set(policy.LISTS)
    for key, choices in policy.CHOICES.items():
        assert code_in(fields[key])[: len(choices)] == list(choices)
    assert f"{policy.SECONDS_MIN:g} to {policy.SECONDS_MAX:g}" in fields["timeouts"]
    assert f"{policy.RESULT_BYTES_MIN} to {policy.RESULT_BYTES_MAX}" in fields["result_bytes"]
    limits = {code_in(row[0])[0]: row[1:] for row in page.table("Limit", "In place of", "From", "To")}
    assert limits == {name: [f"`{env_name(name)}`", str(low), str(high)] for name, (low, high) in policy.LIMITS.items()}
    duplicates = [code_in(row[0])[0] for row in page.table("`duplicates`", "Listed")]
    assert duplicates == list(policy.CHOICES["duplicates"])


def test_a_limit_has_the_range_of_the_setting_that_it_takes_the_place_of() -> None:
    known = specs()
    assert {name: (known[name].low, known[name].high) for name in policy.LIMITS} == policy.LIMITS
    assert (known["result_bytes"].low, known["result_bytes"].high) == (policy.RESULT_BYTES_MIN, policy.RESULT_BYTES_MAX)
    for name in ("pins", "legacy_tokens"):
        assert policy.CHOICES[name] == known[name].choices
