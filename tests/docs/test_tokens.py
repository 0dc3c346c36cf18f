"""docs/tokens.md: its commands are run, its program makes a token that is good, and its tables are complete."""

import io
import re
import shlex
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.auth import TokenCause
from gateway.cli import main
from gateway.credential import Credential
from gateway.settings import specs
from gateway.tokens import Keyring
from tests.docs.markdown import Document, code_in, read

KEY = "6a369b7f1bcf4d3e8d123ece38bb9627"
RING = Keyring([KEY])


@pytest.fixture
def page() -> Document:
    return read("docs/tokens.md")


def test_its_commands_do_what_they_say(
    page: Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now_ms = time.time_ns() // 1_000_000
    token = RING.issue(Credential("my-agent", "mcp", "", "an-id", now_ms - 1000, now_ms + 86_400_000))
    (tmp_path / "token.txt").write_text(token)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_KEY", KEY)
    commands = [command for block in page.blocks for command in block.commands]
    assert len(commands) >= 12
    # Inspected while it is good: what is revoked further down is not good any more.
    for command in sorted(commands, key=lambda command: "inspect" not in command):
        words = shlex.split(command.partition(" <")[0])
        monkeypatch.setattr("sys.stdin", io.StringIO(token))
        assert words[:2] == ["mcp-gateway", "token"]
        assert main(words[1:]) == 0, command
        assert capsys.readouterr().out, command


def test_its_program_makes_a_token_that_is_good(page: Document) -> None:
    [program] = [block for block in page.blocks if block.language == "python"]
    names: dict[str, Any] = {"GATEWAY_KEY": KEY}
    exec(program.text, names)
    credential = RING.verify(names["token"], time.time_ns() // 1_000_000)
    assert (credential.agent, credential.role, credential.token_id) == ("my-agent", "mcp", "my-token-0001")


def test_every_cause_of_a_refusal_is_explained_once(page: Document) -> None:
    shown = [code_in(row[0])[0] for row in page.table("Cause", "What to do")]
    found = {cause: [text for text in shown if text in cause.value] for cause in TokenCause}
    assert {cause: len(texts) for cause, texts in found.items()} == {
        cause: 0 if cause is TokenCause.EMPTY else 1 for cause in TokenCause
    }
    assert sorted(text for texts in found.values() for text in texts) == sorted(shown)


def test_every_mode_of_the_old_kind_is_explained(page: Document) -> None:
    [table] = [table for table in page.tables if table[0][1:] == ["All agents", "One agent"]]
    modes = [re.findall(r"\w+", code_in(row[1])[0])[-1] for row in table[1:]]
    assert sorted(modes) == sorted(specs()["legacy_tokens"].choices)
    assert [re.findall(r'"(\w+)"`?$', code_in(row[2])[0])[-1] for row in table[1:]] == modes


def test_what_a_person_must_know_at_night_is_headed_in_both_languages(page: Document) -> None:
    assert all(re.search(r"[\u4e00-\u9fff] / [A-Z]", title) for level, title in page.headings if level == 2)
