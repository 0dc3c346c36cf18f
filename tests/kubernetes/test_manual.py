"""docs/kubernetes.md says what is so: its numbers are computed here anew."""

import re

import pytest

from gateway.drain import ROBOTS_SHARE, TOOL_SERVERS_SHARE
from gateway.settings import Settings
from tests.docs.markdown import Document, read
from tests.kubernetes.chart import CHART, EXAMPLES, NAME, SETS, helm
from tests.kubernetes.manifest_files import pause_seconds
from tests.kubernetes.test_judges import VERSIONS, WAIVED
from tests.project.repository import ROOT


@pytest.fixture
def manual() -> Document:
    return read("docs/kubernetes.md")


def rows(document: Document, first: str) -> list[list[str]]:
    """The rows of the table whose head begins so."""
    (found,) = [table[1:] for table in document.tables if table[0][0] == first]
    return found


@pytest.mark.usefixtures("helm")
def test_the_times_of_the_table_are_those_that_the_chart_computes(manual: Document) -> None:
    for row in rows(manual, "preStop"):
        pause, drain, close, slack, grace, deadline = row[:6]
        given = f"shutdown.preStopSeconds={pause},shutdown.slackSeconds={slack}"
        times = f"config.GATEWAY_DRAIN_SECONDS={drain},config.GATEWAY_CLOSE_SECONDS={close}"
        text = helm("template", NAME, str(CHART), "--set", f"{given},{times}").stdout
        assert f"terminationGracePeriodSeconds: {grace}\n" in text
        assert f"progressDeadlineSeconds: {deadline}\n" in text


def test_peers_see_it_when_the_table_says(manual: Document) -> None:
    pause, defaults = pause_seconds("default"), Settings()
    moments = (0, defaults.drain_grace_seconds, *(share * defaults.drain_seconds for share in shares()))
    told = [int(re.match(r"\d+", row[0])[0]) for row in rows(manual, "After")]  # type: ignore[index]
    assert told == [0, *(pause + moment for moment in moments)]


def shares() -> tuple[float, float, float]:
    return TOOL_SERVERS_SHARE, ROBOTS_SHARE, 1.0


def test_every_waiver_has_its_row_and_no_other(manual: Document) -> None:
    named = {check for row in rows(manual, "Check") for check in re.findall(r"CKV\w+", row[0])}
    assert named == set().union(*WAIVED.values())


def test_what_was_verified_is_what_the_tests_do(manual: Document) -> None:
    oldest, middle, newest = VERSIONS.split(",")
    assert f"Kubernetes {oldest}, {middle} and {newest}, strict" in manual.prose
    assert len(SETS) == 7, "the manual says seven sets of values"


def test_the_files_that_commands_name_are_there(manual: Document) -> None:
    commands = "\n".join(block.text for block in manual.blocks if block.language == "sh")
    named = re.findall(r"deploy/[\w./-]+", commands)
    assert {f"deploy/helm/examples/{path.name}" for path in EXAMPLES.iterdir()} & set(named)
    assert [path for path in named if not (ROOT / path).exists()] == []
