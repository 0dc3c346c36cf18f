"""docs/status.md: its example is the gateway's own answer, and its tables are complete."""

import re
from typing import Any

import orjson
import pytest

from gateway import verdicts
from gateway.verdicts import Verdict
from tests.docs.markdown import Document, code_in, read
from tests.peers.token import console_token
from tests.peers.tools import echo
from tests.peers.wire import Message
from tests.support.gateway import Gateway
from tests.support.running import KEY
from tests.support.waiting import wait_until

AGENT = "my-agent"


@pytest.fixture
def page() -> Document:
    return read("docs/status.md")


async def test_the_example_is_what_the_gateway_answers(page: Document, gateway: Gateway) -> None:
    await gateway.tool_server("Fan", [echo("blow"), echo("off")], agent=AGENT, server_id="fan")
    lamp = await gateway.tool_server("Lamp", [echo("off")], agent=AGENT, server_id="lamp")
    await gateway.robot(agent=AGENT)
    await lamp.close()
    [command] = page.blocks[0].commands
    target = re.sub(r'.*http://HOST:8004([^"]*)".*', r"\1", command).replace("TOKEN", console_token(AGENT, KEY))

    async def answer() -> Message | None:
        told: Message = (await gateway.get(target)).json()
        return told if told["verdict"]["code"] == "partly" and told["robots"] == 1 else None

    told = await wait_until(answer, "everybody has come or gone")
    [example] = [block for block in page.blocks if block.language == "json"]
    assert general(told) == general(orjson.loads(example.text))


def general(value: Any) -> Any:
    """The answer without what differs from run to run."""
    match value:
        case dict():
            return {name: general(inner) for name, inner in value.items() if name not in ("revision", "worker")}
        case list():
            return [general(inner) for inner in value]
        case str():
            value = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", value)
            value = re.sub(r"\d+ 秒前", "N 秒前", re.sub(r"\d+ s ago", "N s ago", value))
            return re.sub(r"^[\w.-]+-[0-9a-f]{8}\.(\d+)$", r"CONNECTION.\1", value)
    return value


def test_every_verdict_is_explained(page: Document) -> None:
    one = [
        verdicts.connected(1, 1, 1, 0, ""),
        verdicts.connected(0, 1, 1, 0, ""),
        verdicts.connected(1, 1, 1, 3, ""),
        verdicts.in_handshake(1, 1),
        verdicts.handshake_failed("1006", 1, 1),
        verdicts.disconnected("1000", 1, 1),
        verdicts.worker_lost("w"),
        verdicts.not_allowed("servers.deny: w"),
        verdicts.never_connected(),
    ]
    of_all = [verdicts.of_agent(one), verdicts.of_agent(one[:1])]
    explained = [code_in(row[0])[0] for row in page.table("Code", "Means")]
    assert set(explained) == {verdict.code for verdict in [*one, *of_all]}
    assert [verdict for verdict in one if not is_bilingual(verdict)] == []


def is_bilingual(verdict: Verdict) -> bool:
    zh, slash, en = verdict.text.partition(" / ")
    return bool(slash) and bool(re.search(r"[\u4e00-\u9fff]", zh)) and en.isascii()
