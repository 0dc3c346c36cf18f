"""docs/protocol.md: its tables are those of the code, and its conversations happen as written."""

import ast
import asyncio
import inspect
from typing import Any

import orjson
import pytest
from websockets.exceptions import InvalidStatus

import gateway as package
from gateway import admission, errors, intake
from gateway.errors import CloseCode, Code, Failure
from gateway.refused import Refused
from gateway.settings import env_name
from tests.docs.markdown import Block, Document, code_in, read
from tests.peers.token import console_token
from tests.peers.wire import Peer
from tests.support.gateway import Gateway, Guests

AGENT = "my-agent"
ERROR_HEAD = ("Code", "Reason", "Executed", "When")


@pytest.fixture
def protocol() -> Document:
    return read("docs/protocol.md")


def number(cell: str) -> int:
    return int(cell.replace("−", "-"))


def given() -> set[tuple[int, str, str]]:
    """Every (code, reason, executed) that the gateway can answer a robot with."""
    found = set()
    for name, make in inspect.getmembers(errors, inspect.isfunction):
        signature = inspect.signature(make)
        if signature.return_annotation is not Failure:
            continue
        for executed in (False, "unknown") if name == "backplane_unavailable" else (False,):
            samples: dict[Any, Any] = {str: "x", float: 1.0}
            arguments = [
                executed if parameter.name == "executed" else samples[parameter.annotation]
                for parameter in signature.parameters.values()
            ]
            failure = make(*arguments)
            said = "" if failure.executed is None else orjson.dumps(failure.executed).decode()
            found.add((int(failure.code), failure.reason, said))
    return found


def test_the_error_table_is_that_of_the_code(protocol: Document) -> None:
    rows = protocol.table(*ERROR_HEAD)
    told = {(number(code), reason.strip("`"), executed.strip("`")) for code, reason, executed, _ in rows}
    reserved = (int(Code.NOT_ALLOWED), "", "")
    assert told == given() | {reserved}


def test_the_error_table_has_every_code(protocol: Document) -> None:
    assert {number(row[0]) for row in protocol.table(*ERROR_HEAD)} == {int(code) for code in Code}


@pytest.mark.parametrize(
    ("name", "head"), [("README.md", ("Code", "Reason", "Meaning")), ("README.zh-CN.md", ("错误码", "原因", "含义"))]
)
def test_the_readmes_errors_are_among_them(name: str, head: tuple[str, ...]) -> None:
    told = {(number(code), reason.strip("`")) for code, reason, _ in read(name).table(*head)}
    assert told <= {(code, reason) for code, reason, _ in given()}


def test_the_table_of_close_codes_is_that_of_the_code(protocol: Document) -> None:
    rows = protocol.table("Code", "Name", "When", "What a client should do")
    assert {number(row[0]) for row in rows} == {int(code) for code in CloseCode}
    assert all(row[3] for row in rows)


REFUSAL_HEAD = ("Status", "When", "Header", "What a client should do")


def refusals() -> dict[int, set[str]]:
    """Every status that a handshake can be refused with, and the headers that come with it."""
    made = [
        Refused(ast.literal_eval(call.args[0]), "kind", "text")
        for module in (admission, intake)
        for call in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Refused"
    ]
    waits = {429: Refused(429, "kind", "text", retry_seconds=1.0)}
    return {one.status: set(waits.get(one.status, one).headers) for one in made}


def test_the_table_of_refusals_is_that_of_the_code(protocol: Document) -> None:
    rows = protocol.table(*REFUSAL_HEAD)
    told = {int(status): {code.partition(":")[0] for code in code_in(header)} for status, _, header, _ in rows}
    plain = {413}  # a handshake has no body
    assert told == {status: headers for status, headers in refusals().items() if status not in plain}
    assert all(advice for _, _, _, advice in rows)


def test_the_table_of_paths_names_every_key_that_there_is(protocol: Document) -> None:
    rows = protocol.table("Path", "Opened by", "Where it is put")
    told = {code for _, by, _ in rows for code in code_in(by)}
    assert told >= {env_name(name) for name in ("key", "health_key", "metrics_key", "admin_key")}


@pytest.mark.parametrize(
    ("status", "path", "query"),
    [
        ("400", "mcp", {"token": ""}),
        ("400", "mcp", {"server_id": "~"}),
        ("401", "call", {"token": "bm90IG9uZSBvZiBvdXJz"}),
        ("404", "other", {}),
    ],
)
async def test_a_refusal_comes_before_the_upgrade(
    gateway: Gateway, protocol: Document, status: str, path: str, query: dict[str, str]
) -> None:
    assert status in [row[0] for row in protocol.table(*REFUSAL_HEAD)]
    url = gateway.url(f"/mcp_endpoint/{path}/", **{"token": console_token(AGENT, gateway.key), **query})
    with pytest.raises(InvalidStatus) as refused:
        await Peer(url).open()
    assert str(refused.value.response.status_code) in status


class Script:
    """One side of a documented conversation: `→` lines are sent, `←` lines awaited, in their order."""

    def __init__(self, block: Block) -> None:
        self.lines = [(line[0], orjson.loads(line[2:])) for line in block.text.splitlines()]

    async def play(self, peer: Peer) -> None:
        heard = 0
        for direction, message in self.lines:
            if direction == "→":
                await peer.send(message)
                continue
            heard += 1
            await peer.until(lambda awaited=heard: len(peer.messages) >= awaited, f"the peer gets {message}")  # type: ignore[misc]
            got = peer.messages[heard - 1]
            assert is_like(message, got), f"documented: {message}, got: {got}"
        assert len(peer.messages) == heard, f"got more than documented: {peer.messages[heard:]}"


def is_like(told: Any, got: Any) -> bool:
    """Whether they are equal, keys in any order; a documented text may end in `…`, and versions move on."""
    if isinstance(told, dict) and isinstance(got, dict):
        return told.keys() == got.keys() and all(
            is_like(package.__version__ if is_own_version(told, key) else value, got[key])
            for key, value in told.items()
        )
    if isinstance(told, list) and isinstance(got, list):
        return len(told) == len(got) and all(map(is_like, told, got))
    if isinstance(told, str) and isinstance(got, str) and told.endswith("…"):
        return got.startswith(told[:-1])
    return type(told) is type(got) and bool(told == got)


def is_own_version(message: dict[str, Any], key: str) -> bool:
    return key == "version" and message.get("name") == "xiaozhi-mcp-gateway"


async def test_the_conversations_happen_as_written(gateway: Gateway, protocol: Document, guests: Guests) -> None:
    [tool_server_block] = protocol.blocks_of("Tool servers")
    [robot_block] = protocol.blocks_of("Robots")
    tool_server, robot = Peer(gateway.mcp_url(AGENT)), Peer(gateway.call_url(AGENT))
    for peer in (tool_server, robot):
        guests.add(peer)
    async with asyncio.TaskGroup() as tasks:
        await tool_server.open()
        tasks.create_task(Script(tool_server_block).play(tool_server))
        await gateway.until_connected(1, AGENT)
        await robot.open()
        tasks.create_task(Script(robot_block).play(robot))


def test_the_documented_form_of_an_error_is_that_of_the_code(protocol: Document) -> None:
    [block] = protocol.blocks_of("Errors", "json")
    told = orjson.loads(block.text)
    real = errors.server_offline("x", "y", "z").as_error(AGENT, "5b1f09aa-1")
    assert told == {**real, "message": "中文 / English"}
