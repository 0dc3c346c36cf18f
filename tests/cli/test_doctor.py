"""`mcp-gateway doctor`: each fault planted on a real Redis, a running cluster that is well, rights that are missing."""

import asyncio
import socket
import subprocess
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import orjson
import pytest

from gateway.backplane import rows
from gateway.backplane.base import RobotRow, WorkerRow
from gateway.directory import Claim, Row
from gateway.doctor import WORDS
from tests.cli.command_line import CommandLine
from tests.cli.operators import DOCUMENTED, Operator, as_user, grant, refusals
from tests.peers.tools import echo, held
from tests.support.gateway import Gateway, Guests
from tests.support.redis_sentinel import wait_for
from tests.support.redis_server import RedisServer, engines, running
from tests.support.running import RedisCluster, settings
from tests.support.waiting import wait_until

GOOD, BAD = "gw-0-5b1f09aa", "gw-1-c07d4e21"
DEAD = "gw-9-deadbeef"
_HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """As documented: users, settings."""
    with running(next(iter(engines().values()))) as started:
        with started.client() as client:
            for name, value in DOCUMENTED.items():
                client.config_set(name, value)
        grant(started)
        yield started


@pytest.fixture
async def healthy(server: RedisServer, guests: Guests) -> AsyncGenerator[RedisServer]:
    """Two workers with tool servers, a robot, a call in flight, and one tool server that has gone."""
    with server.client() as client:
        client.flushall()
    cluster = RedisCluster(settings(redis_url=server.url))
    try:
        first, second = [Gateway(await cluster.add_worker(), guests) for _ in range(2)]
        fan = await second.tool_server("Fan", [echo("blow")], server_id="fan")
        await fan.close()
        await second.until_connected(0)
        calc = await second.tool_server("Calc", [held("slow")], server_id="calc")
        robot = await first.robot(agent="home")
        await robot.sees("slow")
        await robot.start_call("slow")
        await calc.until_called()
        yield server
        await guests.leave()
    finally:
        await cluster.stop()


async def test_a_running_cluster_is_well_and_nobody_is_refused_anything(healthy: RedisServer, cli: CommandLine) -> None:
    code, text = await Operator(cli, healthy.url, "doctor").run("doctor --settle 5")
    assert code == 0, text
    assert "WARN" not in text
    assert "FAIL" not in text
    assert all(f"OK    {words.subject}" in text for words in WORDS.values())
    assert refusals(healthy) == []


async def test_what_a_reader_may_not_see_is_unknown_and_the_commands_are_named(
    healthy: RedisServer, cli: CommandLine
) -> None:
    code, text = await Operator(cli, healthy.url, "operator").run("doctor --settle 5")
    assert code == 0, text
    assert "UNKNOWN" in text
    assert "redis-cli ACL SETUSER operator +info" in text
    assert "redis-cli ACL SETUSER operator '+config|get' +info" in text
    assert "redis-cli INFO memory" in text
    assert "redis-cli CONFIG GET maxmemory-policy" in text


async def test_nothing_is_called_fine_that_could_not_be_looked_at(server: RedisServer, cli: CommandLine) -> None:
    with server.client() as client:
        client.flushall()
        rights = "+@read +@connection +time -client|list"
        client.execute_command("ACL", "SETUSER", "blind", "reset", "on", ">PASSWORD", "~mcpgw:*", *rights.split())
        Patient(client, round(time.time() * 1000)).worker(GOOD, listens=False)
    _, text = await Operator(cli, server.url, "blind").run("doctor --settle 0")
    for rule in ("mailboxes", "buffers", "memory"):
        assert f"UNKNOWN {WORDS[rule].subject}: 未知" in text
        assert f"OK    {WORDS[rule].subject}" not in text


async def test_of_a_cluster_that_may_not_be_read_nothing_is_known(server: RedisServer, cli: CommandLine) -> None:
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "blind", "reset", "on", ">PASSWORD", "~mcpgw:*", "+@connection")
    code, text = await Operator(cli, server.url, "blind").run("doctor --settle 0")
    assert code == 0, text
    assert "UNKNOWN 集群 cluster: 未知" in text
    assert "redis-cli ACL SETUSER blind '~mcpgw:*' +@read" in text
    assert "FAIL" not in text
    assert "OK " not in text


# -- a sick cluster


class Patient:
    """Writes what a cluster might hold, in the form that the gateway gives it."""

    def __init__(self, client: Any, now_ms: int) -> None:
        self.client, self.now_ms = client, now_ms
        self.listeners: list[Any] = []

    def worker(self, name: str, *, version: str = "1", beat_ms: int | None = None, listens: bool = True) -> None:
        row = rows.dump_worker(WorkerRow("host", 1, version, self.now_ms))
        key = f"mcpgw:worker:{{{name}}}"
        self.client.hset(key, mapping=row | {"beat": str(beat_ms or self.now_ms)})
        self.client.pexpire(key, _HOUR_MS)
        self.client.zadd("mcpgw:workers", {name: self.now_ms + _HOUR_MS})
        self.client.pexpire("mcpgw:workers", _HOUR_MS)
        if listens:
            listener = self.client.pubsub()
            listener.subscribe(f"mcpgw:in:{{{name}}}")
            listener.get_message(timeout=5)
            self.listeners.append(listener)

    def put(self, kind: str, agent: str, name: str, value: Any) -> None:
        key = f"mcpgw:{kind}:{{{agent}}}"
        self.client.hset(key, name, rows.dump(value))
        self.client.pexpire(key, _HOUR_MS)

    def row(self, agent: str, name: str, worker: str = GOOD, **changes: Any) -> None:
        fields: dict[str, Any] = {"since": self.now_ms - 1000, "epoch": self.now_ms - 1000, "toolset": "t" * 32}
        self.put("servers", agent, name, Row("up", worker, f"{worker}.{agent}.{name}", **(fields | changes)))

    def event(self, kind: str, **fields: str) -> None:
        self.client.xadd("mcpgw:events", {"kind": kind, "worker": GOOD, **fields})
        self.client.pexpire("mcpgw:events", _HOUR_MS)

    def call(self, worker: str, name: str, *, ago_ms: int) -> None:
        at = self.now_ms - ago_ms
        key = f"mcpgw:call:{{{worker}}}:{name}"
        record = {"state": "sent", "from": GOOD, "agent": "home", "server_id": "lamp", "tool": "on", "sent": at}
        self.client.hset(key, mapping=record)
        self.client.pexpire(key, _HOUR_MS)
        self.client.zadd(f"mcpgw:inflight:{{{worker}}}", {name: at + 27_000})
        self.client.pexpire(f"mcpgw:inflight:{{{worker}}}", _HOUR_MS)


def orphan(patient: Patient) -> None:
    patient.row("orphaned", "lamp", DEAD)
    patient.put("robots", "orphaned", f"{DEAD}.1", RobotRow(DEAD, "robot", 1))


def deaf_mailbox(patient: Patient) -> None:
    patient.worker("gw-deaf-00000000", listens=False)


def lost_lease(patient: Patient) -> None:
    patient.worker("gw-unlisted-00000000")
    patient.client.zrem("mcpgw:workers", "gw-unlisted-00000000")
    patient.client.zadd("mcpgw:workers", {"gw-leaseless-00000000": patient.now_ms + _HOUR_MS})
    patient.client.zadd("mcpgw:workers", {"gw-unburied-00000000": patient.now_ms - _HOUR_MS})
    patient.client.sadd("mcpgw:owned:{gw-unburied-00000000}", '["server","home","lamp"]')
    patient.client.pexpire("mcpgw:owned:{gw-unburied-00000000}", _HOUR_MS)


def late_beat(patient: Patient) -> None:
    patient.worker("gw-late-00000000", beat_ms=patient.now_ms - 60_000)
    patient.worker("gw-early-00000000", beat_ms=patient.now_ms + 600_000)


def late_call(patient: Patient) -> None:
    patient.call(GOOD, "5b1f09aa-77", ago_ms=400_000)


def missing_toolset(patient: Patient) -> None:
    patient.row("toolless", "lamp", toolset="f" * 32)


def idle_claim(patient: Patient) -> None:
    patient.put("names", "claimed", "lamp_on", Claim("nobody", "lamp_on", patient.now_ms, 0))


def odd_epoch(patient: Patient) -> None:
    patient.row("odd", "future", epoch=patient.now_ms + 600_000)
    patient.row("odd", "small", epoch=5)
    patient.client.set("mcpgw:rev:{odd}", patient.now_ms + 600_000, px=_HOUR_MS)


def endless_key(patient: Patient) -> None:
    patient.row("endless", "lamp")
    patient.client.persist("mcpgw:servers:{endless}")
    patient.client.hset("mcpgw:policy", "", "1")  # one of those that are meant to have none


def strange_key(patient: Patient) -> None:
    patient.client.set("mcpgw:session:42", "1", px=_HOUR_MS)


def flapping_server(patient: Patient) -> None:
    for _ in range(5):
        patient.event("join", agent="flaps", server="lamp")
        patient.event("leave", agent="flaps", server="lamp", cause="1006 lost")
    busy = patient.client.pipeline(transaction=False)
    for number in range(3000):  # what a large fleet says meanwhile
        busy.xadd("mcpgw:events", {"kind": "join", "worker": GOOD, "agent": f"calm-{number}", "server": "lamp"})
    busy.execute()


def twins(patient: Patient) -> None:
    patient.row("twin", "lamp", takeovers=tuple(patient.now_ms - at for at in (3000, 2000, 1000)))


def collision(patient: Patient) -> None:
    for name in ("one", "two"):
        patient.row("collides", name)
    patient.put("names", "collides", "on", Claim("one", "on", 1, 0))
    patient.put("names", "collides", "two__on", Claim("two", "on", 2, 0))


def full_agent(patient: Patient) -> None:
    for number in range(5):
        patient.row("full", f"lamp-{number}")


def other_version(patient: Patient) -> None:
    patient.worker("gw-new-00000000", version="2")


def slow_reader(patient: Patient) -> None:
    """A subscriber that stops reading, with more than half of what is allowed waiting for it."""
    patient.client.config_set("client-output-buffer-limit", "pubsub 4mb 0 0")
    port = patient.client.connection_pool.connection_kwargs["port"]
    reader = socket.create_connection(("127.0.0.1", port))
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.sendall(b"CLIENT SETNAME mcpgw:gw-slow:sub\r\nSUBSCRIBE slow\r\n")
    assert reader.recv(3)
    patient.listeners.append(reader)

    def waits() -> bool:
        lines = [line for line in patient.client.client_list() if line["name"] == "mcpgw:gw-slow:sub"]
        if lines and int(lines[0]["omem"]) > 2.2 * 1024 * 1024:
            return True
        for _ in range(60):  # small ones: a server may not count what it need not copy
            patient.client.publish("slow", b"x" * 8000)
        return False

    wait_for(waits, "a full buffer")


def full_server(patient: Patient) -> None:
    used = patient.client.info("memory")["used_memory"]
    patient.client.config_set("maxmemory", used + 1_000_000)


Plant = Callable[[Patient], None]

FAULTS: list[tuple[Plant, str, str, tuple[str, ...]]] = [
    (orphan, "orphans", "WARN", ("orphaned/lamp", f"orphaned/{DEAD}.1", DEAD)),
    (deaf_mailbox, "mailboxes", "FAIL", ("gw-deaf-00000000",)),
    (lost_lease, "leases", "WARN", ("gw-unlisted", "gw-leaseless", "gw-unburied", "dead, not cleaned up")),
    (late_beat, "beats", "WARN", ("gw-late-00000000", "1 min ago", "gw-early-00000000", "in 9 min")),
    (late_call, "calls", "WARN", ("5b1f09aa-77: home/lamp on", "due 6 min ago")),
    (missing_toolset, "toolsets", "WARN", ("toolless/lamp", "f" * 32)),
    (idle_claim, "claims", "WARN", ("claimed: lamp_on (nobody)",)),
    (odd_epoch, "epochs", "WARN", ("odd/future", "odd/small", "its revision is in the future")),
    (endless_key, "endless", "WARN", ("mcpgw:servers:{endless}",)),
    (strange_key, "strangers", "NOTE", ("mcpgw:session:42",)),
    (flapping_server, "flapping", "WARN", ("flaps/lamp", "×5", "1006 lost")),
    (twins, "twins", "WARN", ("twin/lamp", "×3")),
    (collision, "collisions", "NOTE", ("collides: two__on", "on → one")),
    (full_agent, "limits", "WARN", ("full: GATEWAY_SERVERS_PER_AGENT=5",)),
    (other_version, "versions", "NOTE", ("2 [×1]",)),
    (slow_reader, "buffers", "WARN", ("mcpgw:gw-slow:sub", "%")),
    (full_server, "memory", "WARN", ("maxmemory",)),
]


@pytest.fixture(scope="module")
def examined() -> Iterator[list[dict[str, str]]]:
    """What the doctor says of one Redis with every fault in it, as the documented user."""
    with running(next(iter(engines().values()))) as server, server.client(decode_responses=False) as client:
        patient = Patient(client, round(time.time() * 1000))
        patient.worker(GOOD)
        client.set(f"mcpgw:toolset:{'t' * 32}", "[]", px=_HOUR_MS)
        grant(server)
        for plant, *_ in FAULTS:
            plant(patient)
        line = CommandLine(server.folder)
        url = as_user(server.url, "doctor")
        answer = line.run(
            *("doctor", "--json", "--settle", "0.1"), GATEWAY_REDIS_URL=url, GATEWAY_SERVERS_PER_AGENT="5"
        )
        assert answer.returncode == 1, answer.stderr
        for listener in patient.listeners:
            listener.close()
        yield orjson.loads(answer.stdout)["findings"]


@pytest.mark.parametrize(("plant", "rule", "level", "words"), FAULTS, ids=[plant.__name__ for plant, *_ in FAULTS])
def test_a_planted_fault_is_found_named_and_given_a_cure(
    plant: Plant, rule: str, level: str, words: tuple[str, ...], examined: list[dict[str, str]]
) -> None:
    struck = [one for one in examined if one["subject"] == WORDS[rule].subject and one["level"] == level]
    assert len(struck) == 1, [one for one in examined if one["subject"] == WORDS[rule].subject]
    assert all(word in struck[0]["text"] for word in words), struck[0]["text"]
    assert " / " in struck[0]["cure"]


def test_a_key_that_is_meant_to_have_no_end_is_no_fault(examined: list[dict[str, str]]) -> None:
    assert "mcpgw:policy" not in repr(examined)


def test_every_rule_has_its_fault(examined: list[dict[str, str]]) -> None:
    assert {rule for _, rule, *_ in FAULTS} == WORDS.keys()
    assert any(one["subject"].startswith("订阅缓冲区") for one in examined), "what check says of settings is told too"


# -- what it can't look at


async def test_a_redis_that_is_away_is_a_failure(cli: CommandLine) -> None:
    with running(next(iter(engines().values()))) as gone:
        url = gone.url
    code, text = await Operator(cli, url, "doctor").run("doctor")
    assert code == 1
    assert "FAIL  Redis" in text
    assert "PASSWORD" not in text


async def test_an_empty_redis_is_warned_about_since_the_prefix_may_be_wrong(
    server: RedisServer, cli: CommandLine
) -> None:
    with server.client() as client:
        client.flushall()
    code, text = await Operator(cli, server.url, "doctor").run("doctor --settle 0")
    assert code == 1
    assert "GATEWAY_REDIS_PREFIX" in text


async def test_without_redis_there_is_nothing_to_examine(cli: CommandLine) -> None:
    answer: subprocess.CompletedProcess[str] = await asyncio.to_thread(cli.run, "doctor")
    assert answer.returncode == 2
    assert "GATEWAY_REDIS_URL" in answer.stderr


async def test_a_worker_that_has_just_died_is_left_to_the_others(server: RedisServer, cli: CommandLine) -> None:
    with server.client() as client:
        client.flushall()
        patient = Patient(client, round(time.time() * 1000))
        patient.worker(GOOD)
        patient.row("home", "lamp", DEAD)
        client.set(f"mcpgw:toolset:{'t' * 32}", "[]", px=_HOUR_MS)
        client.zadd("mcpgw:workers", {DEAD: patient.now_ms - 1000})
        code, text = await Operator(cli, server.url, "doctor").run("doctor --settle 0")
        patient.listeners[0].close()
    assert code == 0, text
    assert "NOTE  孤儿 orphans" in text


async def test_what_has_passed_at_the_second_look_is_not_told(server: RedisServer, cli: CommandLine) -> None:
    with server.client() as client:
        client.flushall()
        patient = Patient(client, round(time.time() * 1000))
        patient.worker(GOOD)
        orphan(patient)
        client.config_resetstat()
        started = await Operator(cli, server.url, "doctor").begin("doctor --settle 3")
        # The event log is what a look reads last.
        await wait_until(lambda: "cmdstat_xrevrange" in client.info("commandstats"), "the first look", 30)
        client.delete("mcpgw:servers:{orphaned}", "mcpgw:robots:{orphaned}")
        assert await started.ended() == 0, started.text
        patient.listeners[0].close()
