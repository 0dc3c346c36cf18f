"""`mcp-gateway books`: what people have decided, copied out and put back, with Redis and without."""

import os
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.backplane import durable_files
from gateway.backplane.base import BackplaneUnavailable
from gateway.backplane.durable_files import DurableFile
from gateway.bookkeeping import opened
from gateway.books_command import run
from gateway.operating import CannotOperate
from gateway.settings import Settings
from tests.cli.command_line import CommandLine
from tests.support.redis_server import RedisServer
from tests.support.running import settings


@pytest.fixture(params=["files", "redis"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    if request.param == "files":
        return settings(data_dir=str(tmp_path / "data"))
    server: RedisServer = request.getfixturevalue("redis_server")
    with server.client() as client:
        client.flushall()
    return settings(redis_url=server.url)


async def said(home: Settings, **arguments: Any) -> str:
    lines: list[str] = []
    assert await run(home, Namespace(**arguments), lines.append) == 0
    return "".join(lines)


async def test_a_copy_brings_back_what_was_lost_and_nothing_older(home: Settings, tmp_path: Path) -> None:
    async with opened(home) as books:
        assert await books.write_entry("revoked", "agent:智能体", b'{"before_ms":5}')
        assert await books.write_entry("policy", "home", b'{"tools":{"deny":["off"]}}')
        assert await books.write_entry("policy", "gone", b"{}")
        assert await books.write_entry("policy", "gone", b"")
        assert await books.write_entry("policy", "home", b"{}", expected=3) is None
        before = {book: (await books.read_book(book)).entries for book in ("policy", "revoked")}
    copy = tmp_path / "books.json"
    copy.write_text(await said(home, verb="export"))
    assert "before_ms" in copy.read_text()

    async with opened(home) as books:
        newer = await books.write_entry("policy", "home", b"")
    assert (await said(home, verb="import", file=str(copy))).startswith("放回 / put back: 0")
    lost = settings(data_dir=str(tmp_path / "new"))
    assert (await said(lost, verb="import", file=str(copy))).startswith("放回 / put back: 3")
    async with opened(lost) as books:
        assert {book: (await books.read_book(book)).entries for book in ("policy", "revoked")} == before
    async with opened(home) as books:
        assert (await books.read_book("policy")).entries["home"].version == newer


@pytest.mark.parametrize("text", ["", "[]", '{"other":{}}', '{"policy":[]}', '{"policy":{"a":{"version":"x"}}}', "{"])
async def test_what_is_no_copy_is_refused_and_changes_nothing(text: str, tmp_path: Path) -> None:
    home, copy = settings(data_dir=str(tmp_path / "data")), tmp_path / "books.json"
    copy.write_text(text)
    with pytest.raises(CannotOperate, match="can't read"):
        await said(home, verb="import", file=str(copy))
    assert not (tmp_path / "data").exists()


def test_the_command_works_beside_no_gateway_and_says_where_it_looked(cli: CommandLine) -> None:
    answer = cli.run("books", "export")
    assert (answer.returncode, orjson.loads(answer.stdout)) == (0, {"policy": {}, "revoked": {}})
    (cli.cwd / "data").mkdir()
    (cli.cwd / "data" / "revoked.json").write_text("{")
    answer = cli.run("books", "export")
    assert answer.returncode == 2
    assert "data/revoked.json" in answer.stderr


def test_many_who_change_a_file_at_the_same_time_lose_nothing_of_each_other(tmp_path: Path) -> None:
    def add(name: str) -> None:
        file = DurableFile(tmp_path / "policy.json")
        for number in range(10):
            with file.changing() as content:
                content[f"{name}{number}"] = number

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, "abcd"))
    assert len(DurableFile(tmp_path / "policy.json").read()) == 40


def test_who_is_stopped_while_he_changes_a_file_holds_nobody_up_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable_files, "_LOCK_SECONDS", 0.05)
    with DurableFile(tmp_path / "policy.json").changing() as content:
        with (
            pytest.raises(BackplaneUnavailable, match=r"policy\.json"),
            DurableFile(tmp_path / "policy.json").changing(),
        ):
            pass
        content["a"] = 1
    assert DurableFile(tmp_path / "policy.json").read() == {"a": 1}


def test_who_changes_a_file_sees_what_others_have_changed(tmp_path: Path) -> None:
    path = tmp_path / "data" / "policy.json"
    mine, theirs = DurableFile(path), DurableFile(path)
    assert mine.read() == {}
    assert mine.has_changed() is False
    with theirs.changing() as content:
        content["a"] = 1
    assert mine.has_changed()
    with mine.changing() as content:
        content["b"] = 2
    assert theirs.read() == {"a": 1, "b": 2}
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in path.parent.iterdir() if one.suffix == ".json"] == ["policy.json"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_writes_belongs_to_the_gateway_beside_it(tmp_path: Path) -> None:
    home = tmp_path / "data"
    home.mkdir()
    os.chown(home, 12345, 12346)
    with DurableFile(home / "policy.json").changing() as content:
        content["a"] = 1
    assert {(one.stat().st_uid, one.stat().st_gid) for one in home.iterdir()} == {(12345, 12346)}


def test_a_file_that_can_not_be_read_is_named_and_not_taken_for_empty(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    for text in ("", "[]", "{"):
        path.write_text(text)
        with pytest.raises(BackplaneUnavailable, match=r"policy\.json"):
            DurableFile(path).read()
        with pytest.raises(BackplaneUnavailable), DurableFile(path).changing():
            pass
        assert path.read_text() == text
