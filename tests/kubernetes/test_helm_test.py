"""What the chart runs in a cluster, and what it tells people to type, is tried here: `helm test`, and the notes."""

import asyncio
import re
import sys
from collections.abc import AsyncGenerator

import pytest

from gateway import cli
from tests.kubernetes.chart import CHART
from tests.kubernetes.renew import GOLDEN, NOTES
from tests.project.repository import ROOT
from tests.support.ports import own_port
from tests.support.running import MemoryCluster, Worker, settings

SCRIPT = CHART / "files" / "connection.py"
RUN_SECONDS_MAX = 30
every_note = pytest.mark.parametrize("name", NOTES)


@pytest.fixture
async def worker() -> AsyncGenerator[Worker]:
    """A worker with an admin port, on the memory backplane."""
    cluster = MemoryCluster(settings(admin_port=own_port()), is_shared=False)
    try:
        yield await cluster.add_worker()
    finally:
        await cluster.stop()


async def ran(*ports: int) -> tuple[int | None, str]:
    """Run the script as the pod does, with these ports; return its exit code and what it said."""
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SCRIPT.read_text(),
        *urls,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(RUN_SECONDS_MAX):
        said, _ = await process.communicate()
    return process.returncode, said.decode()


async def test_the_test_of_a_release_is_content_with_a_worker(worker: Worker) -> None:
    code, said = await ran(worker.port, worker.admin_port)
    assert (code, said.count("FAIL")) == (0, 0), said


async def test_the_test_of_a_release_finds_a_service_that_points_to_the_wrong_port(worker: Worker) -> None:
    code, said = await ran(worker.admin_port, worker.port)
    assert code
    assert re.search(r"FAIL 200 \S+/metrics", said)


def notes(name: str) -> str:
    return (GOLDEN / f"notes-{name}.txt").read_text()


@every_note
def test_the_gateways_commands_in_the_notes_exist(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    commands = re.findall(r" -- mcp-gateway (.+)", notes(name))
    assert commands
    for command in commands:
        with pytest.raises(SystemExit) as ended:
            cli.main([*command.split(), "--help"])
        assert ended.value.code == 0
    assert "usage:" in capsys.readouterr().out


@every_note
def test_the_recipes_for_redis_in_the_notes_are_those_of_its_manual(name: str) -> None:
    manual = (ROOT / "docs/redis.md").read_text()
    keys = re.findall(r"redis-cli.* ([A-Z]{4,}) '?(mcpgw:\w+)", notes(name))
    assert len(keys) == 3
    assert [(verb, key) for verb, key in keys if not re.search(rf"redis-cli.* {verb} '?{key}\b", manual)] == []


@every_note
def test_no_note_shows_a_key(name: str) -> None:
    assert not re.search(r"[0-9a-f]{16}", notes(name))
