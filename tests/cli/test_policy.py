"""`mcp-gateway policy`: beside a gateway that runs, and beside other people who use it at the same moment.

What its verbs answer is in docs/policy.md, and tried in tests/docs/test_policy.py.
"""

from argparse import Namespace
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from gateway import policy_command
from gateway.backplane.base import Edition, Entry
from gateway.operating import CannotOperate
from gateway.settings import Settings
from tests.cli.command_line import CommandLine
from tests.peers.tools import echo
from tests.support.gateway import Gateway, Guests
from tests.support.processes import serve


async def test_a_gateway_without_redis_notices_what_a_command_beside_it_has_decided(
    cli: CommandLine, guests: Guests
) -> None:
    gateway = Gateway(await serve(cli, ""), guests)
    server = await gateway.tool_server("lamp", [echo("hear"), echo("see")])
    robot = await gateway.robot()
    await robot.sees("hear", "see")

    answer = await (await cli.start("policy", "set", "home", "tools.deny=see")).ended()

    assert answer == 0
    await robot.sees("hear", without=["see"])
    assert (await robot.call("lamp__see", {"text": "x"}))["error"]["code"] == -32004
    assert server.calls == []


class Shared:
    """A book that somebody else writes into as well: just before each of the first writes."""

    def __init__(self, text: bytes = b"", *, others: list[bytes]) -> None:
        self.entry = Entry(1 if text else 0, text)
        self.others = others

    async def read_book(self, book: str) -> Edition:
        return Edition(self.entry.version, {"home": self.entry} if self.entry.version else {})

    async def write_entry(self, book: str, name: str, text: bytes, expected: int) -> int | None:
        assert (book, name) == ("policy", "home")
        if self.others:
            self.entry = Entry(self.entry.version + 1, self.others.pop(0))
        if expected != self.entry.version:
            return None
        self.entry = Entry(self.entry.version + 1, text)
        return self.entry.version

    @asynccontextmanager
    async def opened(self, settings: Settings) -> AsyncGenerator["Shared"]:
        yield self


async def run(book: Shared, verb: str, *words: str) -> Any:
    """Run a verb on the book; what stands there afterwards."""
    names = ("AGENT", "KEY=VALUE") if words else ("AGENT",)
    parsed = Namespace(verb=verb, words=["home", *words], default=False, json=False, names=names)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy_command, "opened", book.opened)
        assert await policy_command.run(Settings(), parsed, lambda _: None) == 0
    return orjson.loads(book.entry.text or b"null")


async def test_of_two_people_who_change_something_at_once_nobodys_change_is_lost() -> None:
    book = Shared(b'{"pins":"warn"}', others=[b'{"pins":"block"}', b'{"pins":"block","duplicates":"hide"}'])
    assert await run(book, "set", "tools.deny+=off") == {
        "pins": "block",
        "duplicates": "hide",
        "tools": {"deny": ["off"]},
    }


async def test_a_policy_is_not_taken_back_that_somebody_has_just_changed() -> None:
    book = Shared(b'{"pins":"warn"}', others=[b'{"pins":"block"}'])
    with pytest.raises(CannotOperate, match="somebody has changed it meanwhile"):
        await run(book, "reset")
    assert book.entry.text == b'{"pins":"block"}'


async def test_what_can_not_be_read_is_not_changed_and_may_be_taken_back() -> None:
    book = Shared(b'{"tools":7}', others=[])
    with pytest.raises(CannotOperate, match="tools"):
        await run(book, "set", "pins=warn")
    assert book.entry.version == 1
    assert await run(book, "reset") is None


@pytest.mark.parametrize("glob", ["lamp__get_time", "get_time", "lamp/get.time", "lamp/get_*"])
async def test_whoever_asks_about_a_tool_is_told_of_rules_for_every_name_that_it_goes_by(glob: str) -> None:
    book = Shared(orjson.dumps({"tools": {"deny": [glob]}}), others=[])
    parsed = Namespace(
        verb="test", words=["home", "lamp/get.time"], default=False, json=False, names=("AGENT", "SERVER/TOOL")
    )
    told: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy_command, "opened", book.opened)
        assert await policy_command.run(Settings(), parsed, told.append) == 1
    assert glob in "".join(told)
