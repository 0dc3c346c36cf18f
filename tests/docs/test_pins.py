"""docs/pins.md: its commands are run, and what it says of settings and files is so."""

import re
from pathlib import Path

import orjson
import pytest

from gateway import pins
from gateway.backplane.rows import pins_as_data
from gateway.directory import Pins
from gateway.settings import env_name, specs
from tests.core.test_pins import told, tool
from tests.docs.markdown import code_in, read
from tests.docs.test_policy import Shell, exchanges, shell

__all__ = ["shell"]

JANUARY_MS = 1_769_860_800_000


def offered() -> Pins:
    before = told(tool("on", description="on"), tool("off"), tool("fade", description="softly"))
    now = told(tool("on", description="ON", annotations={"x": 1}), tool("off"), tool("dim", description="softly"))
    return Pins(JANUARY_MS, 0, before, pins.changes(before, now))


def test_the_commands_of_the_page_do_what_it_says(tmp_path: Path, shell: Shell) -> None:
    (tmp_path / "data").mkdir()
    content = {"my-agent": {"lamp": pins_as_data(offered())}}
    (tmp_path / "data" / "pins.json").write_bytes(orjson.dumps(content))
    exchanged = exchanges(read("docs/pins.md"))
    assert len(exchanged) == 5
    for command, expected in exchanged:
        answer = shell(command).strip()
        pattern = re.escape(expected).replace("…", ".*")
        assert re.fullmatch(pattern, answer, re.DOTALL), f"{command}\n{answer}\ninstead of\n{expected}"
    [left] = orjson.loads((tmp_path / "data" / "pins.json").read_bytes())["my-agent"].values()
    assert left["since"] == 0


def test_every_mode_is_explained_and_every_setting_exists() -> None:
    page = read("docs/pins.md")
    rows = page.table("`pins`", "What becomes of a tool that has changed, or is new")
    assert tuple(code_in(row[0])[0] for row in rows) == specs()["pins"].choices
    named = re.findall(r"GATEWAY_[A-Z_]+[A-Z]", page.path.read_text("utf-8"))
    assert set(named) <= {env_name(name) for name in specs()}


@pytest.mark.parametrize("part", [*pins.PARTS, "name"])
def test_every_part_that_is_pinned_is_named(part: str) -> None:
    assert f"`{part}`" in read("docs/pins.md").path.read_text("utf-8")
