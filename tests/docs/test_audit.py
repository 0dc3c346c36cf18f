"""docs/audit.md: its fields are those of the records, its commands are commands."""

import shlex
from typing import Any

import orjson
import pytest

from gateway import cli
from gateway.audit import ACCEPTED, Audit, Handshake
from gateway.backplane.memory import MemoryBackplane, MemoryStore
from gateway.calls import Call
from gateway.credential import Credential
from gateway.settings import Settings
from gateway.trail import Trail
from tests.docs import redis_cli
from tests.docs.markdown import Document, code_in, read
from tests.support.redis_server import RedisServer

ALWAYS = {"record", "n", "worker", "ms"}


@pytest.fixture
def page() -> Document:
    return read("docs/audit.md")


async def written() -> dict[str, dict[str, Any]]:
    """One record of each kind, with all that it can have."""
    store = MemoryStore()
    backplane = MemoryBackplane(store, "w")
    settings = Settings(audit="stream")
    audit = Audit(settings, backplane)
    for outcome in (ACCEPTED, *["bad_token"] * 21):
        audit.handshake(Handshake("robot", "203.0.113.7", outcome, "a", Credential("a"), "lamp", "w.1", "why"))
    call = Call("c-1", "w.1", 1, "a", "lamp_on", b"{}", {}, 0.0, 9.0, 9.0, is_extendable=False)
    Trail(settings, backplane, None, audit).answered(call, {"result": {}}, 2, 1.0)
    await audit.change("policy", "a", "set", "root@host", 1)
    await audit.close()
    records = [orjson.loads(text) for _, text in store.audit]
    return {record["record"]: record for record in records}


async def test_every_field_of_every_record_is_explained(page: Document) -> None:
    told = {code_in(row[0])[0]: code_in(row[2]) for row in page.table("`record`", "One for each", "Fields")}
    found = await written()
    values = {"robot", "tool_server", "accepted", "legacy", "noticed", "what"}
    for kind, record in found.items():
        assert set(told[kind]) - values == record.keys() - ALWAYS - values, kind
    assert found.keys() == told.keys()


async def test_the_example_has_the_form_of_a_record(page: Document) -> None:
    [block] = [block for block in page.blocks if block.language == "json"]
    assert list(orjson.loads(block.text)) == list((await written())["call"])


def test_its_commands_are_commands(page: Document, redis_server: RedisServer) -> None:
    lines = [line for block in page.blocks for line in block.commands]
    for line in (line for line in lines if line.startswith("mcp-gateway ")):
        cli._parser().parse_args(shlex.split(line)[1:])
    for line in (*lines, *code_in(page.prose)):
        if line.startswith("redis-cli ") and not line.endswith("ID"):
            with redis_cli.client(redis_server.port) as admin:
                redis_cli.run(admin, line)
