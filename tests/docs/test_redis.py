"""docs/redis.md: its recipes are run against a Redis with a running cluster, and its tables are those of the code."""

import re
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
import yaml

import gateway as package
from bench import redis_sizes
from gateway.backplane import envelope
from gateway.backplane.base import BOOKS, Asked, Bucket, Change, RobotRow, WorkerRow
from gateway.backplane.keys import DURABLE
from gateway.directory import Claim, Pins, Row, Seen
from gateway.settings import Settings
from tests.docs import redis_cli
from tests.docs.markdown import Document, code_in, read
from tests.peers.robot import Robot
from tests.peers.tool_server import ToolServer
from tests.peers.tools import Tool, adder, echo, held, text_of, text_result
from tests.project.repository import ROOT
from tests.support.gateway import Gateway, Guests
from tests.support.redis_server import RedisServer, empty
from tests.support.running import RedisCluster, settings
from tests.support.waiting import wait_until

AGENT = "my-agent"
ROBOTS_WORKER, TOOLS_WORKER, CALL_MARK = "gw-0-5b1f09aa", "gw-1-c07d4e21", "5b1f09aa-1"
LIFETIME = {"s": 1, "min": 60, "h": 3600, "d": 86_400}
FORBIDDEN = (
    *("SET mcpgw:x 1", "DEL mcpgw:agents", "GET other", "FLUSHALL", "KEYS *", "EVAL return 0"),
    *("SUBSCRIBE mcpgw:ctl", "SUBSCRIBE mcpgw:in:{x}", "CLIENT KILL TYPE pubsub", "CLIENT PAUSE 1"),
)
LAMP = Tool("lamp.on", held().handler, "Switches the lamp on.")


@pytest.fixture
def page() -> Document:
    return read("docs/redis.md")


@dataclass(slots=True)
class Scene:
    """What the recipes' introduction describes, running."""

    server: RedisServer
    workers: list[Gateway]
    lamp: ToolServer
    calculator: ToolServer
    robot: Robot
    call_id: Any
    """The call in flight."""
    words: dict[str, str]
    """Names in the document → those of this run."""

    def real(self, text: str) -> str:
        for told, real in self.words.items():
            text = text.replace(told, real)
        return text

    def key(self, template: str) -> str:
        """A key of this run for one of the document; a worker's is that of the one with the tool servers."""
        key = template.replace("{W}", f"{{{TOOLS_WORKER}}}").replace("{A}", f"{{{AGENT}}}")
        return self.real(key.replace("DIGEST", "b31f7d879e5e7398802b89df59c6bfef").replace(":ID", f":{CALL_MARK}"))


async def play(cluster: RedisCluster, guests: Guests, server: RedisServer) -> Scene:
    """A robot on one worker, two tool servers on the other, a call in flight; a third tool server has gone."""
    workers = [await cluster.add_worker() for _ in range(2)]
    for book in BOOKS:
        await workers[0].room.backplane.write_entry(book, "agent:nobody", b"{}")
    await workers[0].room.backplane.commit(AGENT, 0, Change(pins={"fan": Pins(since=1)}))
    for is_source, owner in ((False, AGENT), (True, "192.0.2.7")):
        asked = Asked(is_source, owner, (Bucket("handshakes", 6000, 100),), want=1)
        workers[0].room.backplane.take_ahead(asked, lambda taken: None)
    await workers[0].room.backplane.note_audit([b"{}"], 1000, Settings().audit_seconds)
    first, second = [Gateway(worker, guests) for worker in workers]
    fan = await second.tool_server("Fan", [echo("blow")], agent=AGENT, server_id="fan")
    for _ in range(3):
        old, fan = fan, await second.tool_server("Fan", fan.tools, agent=AGENT, server_id="fan", is_awaited=False)
        await old.until_closed()
    await fan.close()
    await second.until_connected(0, AGENT)
    calculator = await second.tool_server("Calculator", [adder("calculator"), held("slow")], agent=AGENT)
    lamp = await second.tool_server("Lamp", [LAMP], agent=AGENT, server_id="lamp")
    robot = await first.robot(agent=AGENT)
    await robot.sees("slow", "lamp_on")
    call_id = await robot.start_call("slow")
    await calculator.until_called()
    with server.client() as client:
        rows = {name: orjson.loads(row) for name, row in client.hgetall(f"mcpgw:servers:{{{AGENT}}}").items()}
        tools_worker = rows[b"lamp"]["worker"]
        [call] = client.zrange(f"mcpgw:inflight:{{{tools_worker}}}", 0, -1)
        robots_worker = client.hget(f"mcpgw:call:{{{tools_worker}}}:{call.decode()}", "from").decode()
        says = f"mcpgw:worker:{{{tools_worker}}}"
        await wait_until(lambda: client.hget(says, "tool_servers") == b"2", "a beat")
        await wait_until(
            lambda: client.exists("mcpgw:events", f"mcpgw:robots:{{{AGENT}}}") == 2, "what is written late"
        )
        host = client.hget(says, "host").decode()
    words = {
        ROBOTS_WORKER: robots_worker,
        TOOLS_WORKER: tools_worker,
        CALL_MARK: call.decode(),
        "b31f7d879e5e7398802b89df59c6bfef": rows[b"lamp"]["toolset"],
        "7439a76c63ac0f483c9fa3fb550a40c4": rows[b"Calculator"]["toolset"],
        "5c730bd754426df169c57bcdb6805aed": rows[b"fan"]["toolset"],
        '"gw-1"': f'"{host}"',
        '"0.1.0"': f'"{package.__version__}"',
    }
    return Scene(server, [first, second], lamp, calculator, robot, call_id, words)


@pytest.fixture
async def scene(redis_server: RedisServer, guests: Guests) -> AsyncGenerator[Scene]:
    with redis_server.client() as client:
        empty(client)
        client.execute_command("ACL", "SETUSER", "gateway", "reset")
    for line in rights(read("docs/redis.md")):
        with redis_cli.client(redis_server.port) as admin:
            assert redis_cli.run(admin, line) == "OK"
    url = redis_server.url.replace("redis://", "redis://gateway:PASSWORD@")
    cluster = RedisCluster(settings(redis_url=url, beat_seconds=0.1))
    try:
        yield await play(cluster, guests, redis_server)
        await guests.leave()
    finally:
        await cluster.stop()
        with redis_server.client() as client:
            client.execute_command("ACL", "DELUSER", "gateway", "operator", "doctor", "foreman")


def rights(page: Document) -> list[str]:
    [block] = page.blocks_of("Rights")
    return block.commands


def recipes(page: Document) -> list[tuple[str, list[str], str]]:
    """Heading, commands and documented output of each recipe; several in a section are told apart by number."""
    at = next(number for number, (_, title) in enumerate(page.headings) if title == "Recipes")
    found = []
    for _, title in page.headings[at + 1 :]:
        blocks = page.blocks_of(title)
        assert [block.language for block in blocks] == ["sh", "text"] * (len(blocks) // 2), title
        for shell, output in zip(blocks[::2], blocks[1::2], strict=True):
            found.append((title, shell.commands, output.text))
    return found


async def test_every_recipe_prints_what_is_documented_with_the_rights_that_are_documented(
    scene: Scene, page: Document
) -> None:
    """The cluster runs as the user `gateway`, the recipes as the user `operator`."""

    async def change() -> None:
        await scene.lamp.change_tools([LAMP, echo("dim")])

    listed = recipes(page)
    assert len(listed) >= 14
    with redis_cli.client(scene.server.port, username="operator", password="PASSWORD") as operator:
        for title, commands, told in listed:
            printed = []
            for line in map(scene.real, commands):
                if "SUBSCRIBE" in line:  # for who may listen: an operator may not
                    with redis_cli.client(scene.server.port) as admin:
                        printed.append(await redis_cli.listen(admin, line, change))
                else:
                    printed.append(redis_cli.run(operator, line))
            real = "\n".join(printed)
            assert redis_cli.matches(scene.real(told), real), f"{title}\ndocumented:\n{scene.real(told)}\nreal:\n{real}"


async def test_an_operator_may_look_and_nothing_else(scene: Scene) -> None:
    with redis_cli.client(scene.server.port, username="operator", password="PASSWORD") as operator:
        for line in (*FORBIDDEN, "PUBLISH mcpgw:ctl x", "INFO", "CONFIG GET requirepass"):
            with pytest.raises(redis.exceptions.NoPermissionError):
                operator.execute_command(*line.split())


@pytest.mark.parametrize("user", ["doctor", "foreman"])
async def test_nobody_who_looks_or_sends_may_change_a_key_or_listen(user: str, scene: Scene) -> None:
    with redis_cli.client(scene.server.port, username=user, password="PASSWORD") as person:
        for line in (*FORBIDDEN, "PUBLISH mcpgw:catalog:{my-agent} 1", "CONFIG SET maxmemory 1"):
            with pytest.raises(redis.exceptions.NoPermissionError):
                person.execute_command(*line.split())


async def test_every_key_is_documented_with_its_type_and_its_time_to_live(scene: Scene, page: Document) -> None:
    told = {
        pattern(code_in(key)[0]): (kind, lifetime)
        for key, kind, lifetime, _ in page.table("Key", "Type", "TTL", "Holds")
    }
    met = set()
    with scene.server.client() as client:
        for name in client.scan_iter(count=1000):
            key = name.decode()
            [found] = [one for one in told if one.fullmatch(key)]
            kind, lifetime = told[found]
            met.add(found)
            assert client.type(name).decode() == kind, key
            if lifetime == "none":
                assert client.pttl(name) == -1, key
                continue
            seconds = client.pttl(name) / 1000
            assert 0 < seconds <= in_seconds(lifetime), f"{key} lives for {seconds} s"
            assert seconds > in_seconds(lifetime) / 2, f"{key} lives for {seconds} s"
    assert {one.pattern for one in told} == {one.pattern for one in met}, (
        "a documented key that the cluster does not have"
    )


def pattern(key: str) -> re.Pattern[str]:
    written = re.escape(key).replace(r"\{W\}", r"\{[\w.-]+-[0-9a-f]{8}\}").replace(r"\{A\}", r"\{[\w.-]+\}")
    return re.compile(written.replace("DIGEST", "[0-9a-f]{32}").replace(":ID", r":[0-9a-f]{8}-\d+"))


def in_seconds(lifetime: str) -> float:
    number, unit = lifetime.split()
    return float(number) * LIFETIME[unit]


async def test_every_channel_is_documented(scene: Scene, page: Document) -> None:
    told = {pattern(code_in(row[0])[0]) for row in page.table("Channel", "Carries")}
    with scene.server.client() as client:
        real = [name.decode() for name in client.pubsub_channels()]
    assert all(any(one.fullmatch(name) for one in told) for name in real), real
    assert all(any(one.fullmatch(name) for name in real) for one in told), real


async def test_what_connected_workers_have_comes_back_after_everything_was_lost(scene: Scene) -> None:
    first, second = scene.workers
    with scene.server.client() as client:
        before = client.hkeys(f"mcpgw:servers:{{{AGENT}}}")
        client.flushall()
        back = {name for name in before if name != b"fan"}
        await wait_until(lambda: set(client.hkeys(f"mcpgw:servers:{{{AGENT}}}")) == back, "the rows are back")
    robot = await first.robot(agent=AGENT)
    await robot.sees("calculator", "lamp_on")
    assert text_of(await robot.call("calculator", {"a": 1, "b": 2})) == "3"
    assert await second.connected(AGENT) == 2


# What may be deleted


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker looks after once a minute, it looks after with every beat or so."""
    monkeypatch.setattr("gateway.lease.RECONCILE_SECONDS", 0.3)


async def test_what_is_documented_as_safe_to_delete_comes_back_and_no_call_is_lost(
    hurried: None, scene: Scene, page: Document
) -> None:
    """One key after the other, each with a call across workers afterwards, while one is in flight all the time."""
    first, _ = scene.workers
    robot = await first.robot(agent=AGENT)
    await robot.sees("calculator", "lamp_on")
    lines = page.table("Key", "Safe", "What happens")
    safe = [name for row in lines if row[1] == "yes" for name in code_in(row[0]) if name.startswith("mcpgw:")]
    assert set(safe) > COMES_BACK
    with scene.server.client() as client:
        for template in safe:
            key = scene.key(template)
            assert client.delete(key) == 1, key
            if template in COMES_BACK:
                await wait_until(partial(client.exists, key), f"{key} is there again")
            await robot.sees("calculator", "lamp_on")
            assert text_of(await robot.call("calculator", {"a": 1, "b": 2})) == "3", key
    await scene.lamp.change_tools([LAMP, echo("dim")])
    await robot.sees("dim")
    held_call = scene.calculator.open_calls[0]
    await held_call.answer(text_result("at last"))
    assert text_of(await scene.robot.answer(scene.call_id)) == "at last"


COMES_BACK = {
    *("mcpgw:policy", "mcpgw:revoked"),
    *("mcpgw:worker:{W}", "mcpgw:workers", "mcpgw:servers:{A}", "mcpgw:names:{A}", "mcpgw:toolset:DIGEST"),
}
"""Soon, and by itself; the others when something happens, or not at all."""


async def test_every_key_has_a_line_on_what_happens_when_it_is_deleted(page: Document) -> None:
    deletable = {name for row in page.table("Key", "Safe", "What happens") for name in code_in(row[0])} - {"FLUSHDB"}
    assert deletable == {code_in(row[0])[0] for row in page.table("Key", "Type", "TTL", "Holds")}


async def test_what_is_documented_as_not_safe_to_delete_is_so(scene: Scene) -> None:
    first, _ = scene.workers
    with scene.server.client() as client:
        client.delete("mcpgw:agents")
        assert (await first.health())["mcp_servers"] == {}, "no agent is listed any more"
        await scene.lamp.change_tools([LAMP, echo("dim")])
        await first.until_connected(2, AGENT)
        await wait_until(lambda: client.exists("mcpgw:agents"), "listed again with its next change")


# How large it gets


async def test_the_documented_sizes_are_those_that_are_measured(
    page: Document, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a few connections, so those of single keys: what they share weighs more then."""
    await redis_sizes.main(100)
    measured = dict(re.findall(r"of these, (?:the )?(\S+).* ([\d,]+) B$", capsys.readouterr().out, re.MULTILINE))
    told = [row[1] for row in page.table("What", "Bytes") if row[0].startswith("·")]
    names = ("`servers`", "`names`", "`seen`", "list")
    for name, size in zip(names, told, strict=True):
        assert in_bytes(measured[name]) == pytest.approx(in_bytes(size), rel=0.2), name


def in_bytes(text: str) -> int:
    return int(text.replace(",", ""))


# The tables

NOTED_LATER = {"agent"}
"""Only where the key can't say it."""


@pytest.mark.parametrize(
    ("section", "names"),
    [
        ("Worker", lambda: {one.name for one in fields(WorkerRow)} | {"beat"}),
        ("Tool server", lambda: {one.name for one in fields(Row)}),
        ("Claim", lambda: {one.name for one in fields(Claim)}),
        ("Last seen", lambda: {one.name for one in fields(Seen)}),
        ("Robot", lambda: {one.name for one in fields(RobotRow)}),
        ("Call", lambda: record_fields()),
    ],
)
def test_every_field_of_a_value_is_documented(section: str, names: Callable[[], set[str]], page: Document) -> None:
    at = page.prose.index(f"\n### {section}\n")
    end = page.prose.index("\n#", at + 5)
    rows = [line.split("|")[1] for line in page.prose[at:end].splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in code_in(row)} == names()


def record_fields() -> set[str]:
    """The fields that the scripts write into a call's record."""
    scripts = "".join(path.read_text() for path in script_files())
    words = r"'(state|from|agent|server_id|tool|sent|message|result)'"
    written = [line for line in scripts.splitlines() if "HSET" in line or "'tool'" in line or "'server_id'" in line]
    return set(re.findall(words, "\n".join(written)))


def test_the_envelope_is_documented(page: Document) -> None:
    headers = {name for row in page.table("Header", "Meaning") for name in code_in(row[0])}
    assert headers == {"v", "t", "len", "mac"} | {wire_name for wire_name, _ in envelope._FIELDS}
    assert {code_in(row[0])[0] for row in page.table("Type", "Body", "Says")} == envelope.TYPES


def test_the_documented_envelope_can_be_read(page: Document) -> None:
    [block] = page.blocks_of("Envelopes")
    [decoded] = envelope.decode(block.text.encode())
    assert decoded.is_supported
    assert orjson.loads(decoded.body)["method"] == "tools/call"
    assert envelope.encode(decoded) == block.text.encode()


def script_files() -> list[Path]:
    return sorted((ROOT / "gateway/backplane/redis/scripts").glob("*.lua"))


def test_every_script_is_documented(page: Document) -> None:
    assert {code_in(row[0])[0] for row in page.table("Script", "Does")} == {path.stem for path in script_files()}


def test_the_durable_names_are_documented(page: Document) -> None:
    [line] = [line for line in page.prose.splitlines() if "without a TTL" in line]
    assert set(code_in(line)) == set(DURABLE)


def test_the_recommended_settings_are_taken_by_a_server_and_are_those_of_the_compose_file(
    redis_server: RedisServer, page: Document
) -> None:
    [block] = page.blocks_of("Settings for Redis")
    recommended = [line.split(maxsplit=1) for line in block.text.splitlines()]
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    used = " ".join(compose["services"]["redis"]["command"])
    with redis_server.client() as client:
        for name, value in recommended:
            assert f"--{name} {value}" in used
            before = client.config_get(name)[name]
            client.config_set(name, value)
            client.config_set(name, before)
