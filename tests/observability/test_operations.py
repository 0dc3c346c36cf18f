"""docs/operations.md: its tables are those of the code, its commands and queries run against a cluster."""

import asyncio
import re
import shlex
from pathlib import Path

import pytest
import yaml

from deploy.observability.panel import GATEWAYS_FAULT
from deploy.observability.panels import ROWS
from gateway import cli
from gateway.meters import ENDS, REFUSALS
from tests.docs import redis_cli
from tests.docs.markdown import Block, Document, code_in, read
from tests.observability import metrics_table
from tests.observability.promtool import promtool
from tests.observability.queries import RULES, selected
from tests.observability.scene import Scene
from tests.project.repository import ROOT
from tests.support import http
from tests.support.redis_server import RedisServer

CHANGING = {"books", "drain", "kick", "token"}
"""Commands of `mcp-gateway` that are only read here; tests/cli runs them."""


@pytest.fixture(scope="module")
def page() -> Document:
    return read("docs/operations.md")


def commands(page: Document) -> list[str]:
    """Every command that is shown: in blocks, and in a sentence."""
    shown = [line for block in page.blocks for line in block.commands]
    return [*shown, *(code for code in code_in(page.prose) if re.match(r"(mcp-gateway|redis-cli|curl) \S", code))]


def queries(page: Document) -> list[str]:
    return [block.text for block in page.blocks if block.language == "promql"]


def test_the_table_of_metrics_is_that_of_the_code() -> None:
    assert metrics_table.PAGE.read_text() == metrics_table.page(), "python -m tests.observability.metrics_table"


def test_every_way_for_a_call_to_end_is_explained(page: Document) -> None:
    rows = page.table("`outcome`", "`executed`", "Whose", "What it is, what to do")
    assert {code_in(row[0])[0]: tuple(code_in(row[1])) for row in rows} == dict(ENDS)


def test_rules_dashboard_and_page_agree_on_whose_fault_an_outcome_is(page: Document) -> None:
    rows = page.table("`outcome`", "`executed`", "Whose", "What it is, what to do")
    ours = {code_in(row[0])[0] for row in rows if row[2] in ("the gateway's", "a limit's", "Redis'")}
    assert set(GATEWAYS_FAULT.split("|")) == ours
    assert RULES.read_text().count(f'outcome=~"{GATEWAYS_FAULT}"') == 2


def test_every_cause_of_a_refusal_is_explained(page: Document) -> None:
    rows = page.table("`cause`", "Answer", "What it is, what to do")
    assert sorted(code_in(row[0])[0] for row in rows) == sorted(REFUSALS)


def test_every_alert_is_explained_in_the_same_steps(page: Document) -> None:
    sections = re.split(r"^### (McpGateway\w+)$", page.prose, flags=re.MULTILINE)[1:]
    told = {name: text.split("\n## ")[0] for name, text in zip(sections[::2], sections[1::2], strict=True)}
    steps = {"means": r"\*\*Means\*\*", "confirm": r"\*\*Confirm\*\*", "do": r"\*\*([Dd])o\*\*", "not": r"Don't\*\*"}
    lacking = {
        name: [step for step, words in steps.items() if not re.search(words, text)] for name, text in told.items()
    }
    assert {name: steps for name, steps in lacking.items() if steps} == {}


def test_every_panel_that_is_named_is_on_the_dashboard(page: Document) -> None:
    written = [title for row in ROWS for title in (row.title, *(panel.title for panel in row.panels))]
    titles = {part.strip() for title in written for part in title.split("/")}
    titles = {re.sub(r" \(p99\)$", "", title) for title in titles}
    alerts = page.prose[page.prose.index("\n## First look") : page.prose.index("\n## Metrics")]
    named = set(re.findall(r"(?<!\*)\*([A-Z][\w' ]+)\*(?!\*)", alerts))
    assert len(named) >= 15
    assert named - titles == set()


def test_prometheus_understands_every_query_that_is_shown(page: Document, tmp_path: Path) -> None:
    rules = [{"record": f"query_{number}", "expr": query} for number, query in enumerate(queries(page))]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "page", "rules": rules}]}))
    promtool("check", "rules", "--lint=none", file)


async def test_every_metric_of_a_query_that_is_shown_is_there(scene: Scene, page: Document) -> None:
    said = (await scene.scraped()).series
    assert {one.metric for query in queries(page) for one in selected(query)} <= set(said)


def test_every_command_of_the_gateways_own_is_one(page: Document) -> None:
    own = [shlex.split(line)[1:] for line in commands(page) if line.startswith("mcp-gateway ")]
    assert len(own) >= 15
    for words in own:
        cli._parser().parse_args(words)


async def test_what_looks_runs_as_it_is_shown(scene: Scene, page: Document, monkeypatch: pytest.MonkeyPatch) -> None:
    """`inspect` against the cluster; `check` and `doctor` may have something to say about a test's Redis."""
    monkeypatch.setenv("GATEWAY_REDIS_URL", scene.cluster.settings.redis_url)
    monkeypatch.setenv("GATEWAY_KEY", scene.cluster.settings.key[0])
    lines = {line for line in commands(page) if line.startswith("mcp-gateway ") and "--watch" not in line}
    for words in sorted(map(shlex.split, lines)):
        if words[1] in CHANGING or words[1:] == ["inspect"]:
            continue
        settle = ["--settle", "0"] if words[1] == "doctor" else []
        code = await asyncio.to_thread(cli.main, [*words[1:], *settle])
        assert code in ((0, 1) if words[1] in ("check", "doctor") else (0,)), words


async def test_a_worker_answers_what_it_is_asked_by_hand(scene: Scene, page: Document) -> None:
    asked = {line for line in commands(page) if line.startswith("curl ")}
    assert len(asked) >= 3
    for line in asked:
        [url] = [word for word in shlex.split(line) if word.startswith("http")]
        path = url.removeprefix("http://gw-1:8005")
        assert (await http.get(scene.ports[1], path)).status == 200, line


def test_redis_answers_a_doctor_what_it_is_asked_by_hand(redis_server: RedisServer, page: Document) -> None:
    asked = {line for line in commands(page) if line.startswith("redis-cli ")}
    assert len(asked) >= 6
    [rights] = read("docs/redis.md").blocks_of("Rights")
    [made] = [line for line in rights.commands if "SETUSER doctor " in line]
    with redis_cli.client(redis_server.port) as admin:
        assert redis_cli.run(admin, made) == "OK"
        try:
            with redis_cli.client(redis_server.port, username="doctor", password="PASSWORD") as doctor:
                for line in asked:
                    words, _ = redis_cli.split(line)
                    redis_cli.execute(admin if words[0] == "SLOWLOG" else doctor, *words)
        finally:
            redis_cli.execute(admin, "ACL", "DELUSER", "doctor")


def test_the_files_that_are_named_in_commands_are_there(page: Document) -> None:
    files = {word for line in commands(page) for word in shlex.split(line) if word.startswith(("deploy/", "docs/"))}
    blocks: list[Block] = [block for block in page.blocks if "promtool" in block.text]
    files |= {word for block in blocks for word in shlex.split(block.bare) if word.startswith("deploy/")}
    assert files
    assert [file for file in files if not (ROOT / file).exists()] == []
