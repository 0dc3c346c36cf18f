"""What `mcp-gateway check` says of a Redis: each verdict on a real server with the fault planted. In this process."""

import asyncio
import re
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack

import pytest

from gateway.backplane.redis import probe_settings
from gateway.backplane.redis.address import Node, parse
from gateway.backplane.redis.probe import probe
from gateway.backplane.redis.probe_rights import ACL, ACL_CLUSTER
from gateway.backplane.redis.probe_server import Server
from gateway.backplane.redis.probe_settings import BUFFER, Standing, is_exposed
from gateway.finding import Finding, Level
from tests.cli.operators import as_user, grant
from tests.docs.markdown import read
from tests.support import netns
from tests.support.redis_cluster import SLOTS, ClusterNode, ServerCluster
from tests.support.redis_sentinel import SentinelSet, wait_for
from tests.support.redis_server import RedisServer, engines, running
from tests.support.toxics import Toxics

PROGRAM = next(iter(engines().values()))
PASSWORD = "hunter2"
RIGHTS = ACL.format(prefix="mcpgw:")
BUFFER_SETTING = "client-output-buffer-limit"
OK, NOTE, UNKNOWN, WARN, FAIL = Level.OK, Level.NOTE, Level.UNKNOWN, Level.WARN, Level.FAIL

Plant = Callable[..., RedisServer]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """One server for every test that only reads, or puts back what it has changed."""
    with running(PROGRAM) as started:
        yield started


@pytest.fixture
def plant() -> Iterator[Plant]:
    """A function that starts a server with these options; it is gone after the test."""
    with ExitStack() as stack:

        def start(*options: str, password: str = "") -> RedisServer:
            return stack.enter_context(running(PROGRAM, *options, password=password))

        yield start


@pytest.fixture(scope="module")
def watched() -> Iterator[SentinelSet]:
    with SentinelSet(PROGRAM, replicas=2, sentinels=3, down_after_ms=60_000) as servers:
        yield servers


@pytest.fixture(scope="module")
def spread() -> Iterator[ServerCluster]:
    with ServerCluster(PROGRAM, password=PASSWORD) as cluster:
        yield cluster


def examined(url: str, timeout_seconds: float = 2.0) -> list[Finding]:
    findings = asyncio.run(probe(url, "mcpgw:", timeout_seconds))
    assert PASSWORD not in repr(findings)
    for finding in findings:
        assert " / " in finding.text or finding.level is OK, "what is said is said in both languages"
    return findings


def about(findings: list[Finding], subject: str) -> Finding:
    """The one finding about the subject."""
    found = [finding for finding in findings if subject in finding.subject]
    assert len(found) == 1, findings
    return found[0]


def levels(findings: list[Finding], subject: str) -> list[Level]:
    return [finding.level for finding in findings if subject in finding.subject]


def failures(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.level is FAIL]


def with_user(server: RedisServer, rules: str) -> str:
    with server.client() as admin:
        admin.execute_command("ACL", "SETUSER", "gateway", "reset", "on", f">{PASSWORD}", *rules.split())
    return server.url.replace("//", f"//gateway:{PASSWORD}@")


# -- one server


def test_a_server_that_is_set_up_as_documented_has_nothing_to_be_told(plant: Plant) -> None:
    [everywhere] = [block for block in read("docs/redis.md").blocks if block.section == "Settings for Redis"]
    options = [word for line in everywhere.text.splitlines() for word in _as_option(line)]
    findings = examined(plant(*options, password=PASSWORD).url)
    assert {finding.level for finding in findings} == {OK}


def _as_option(line: str) -> tuple[str, str]:
    name, _, value = line.partition(" ")
    return f"--{name}", value


@pytest.mark.parametrize(
    ("policy", "level"),
    [("noeviction", OK), ("volatile-ttl", OK), ("allkeys-lru", WARN), ("volatile-lru", WARN)],
)
def test_a_policy_that_evicts_leases_is_warned_about(server: RedisServer, policy: str, level: Level) -> None:
    with server.client() as admin:
        admin.config_set("maxmemory-policy", policy)
        finding = about(examined(server.url), "maxmemory-policy")
        admin.config_set("maxmemory-policy", "noeviction")
    assert finding.level is level
    assert policy in finding.text


@pytest.mark.parametrize(
    ("limit", "level", "words"),
    [
        (BUFFER, OK, "256mb"),
        ("0 0 0", OK, "0mb"),
        ("1gb 0 0", OK, "1024mb"),
        ("32mb 8mb 60", WARN, "for a large fleet"),
        ("1mb 512kb 10", WARN, "too small"),
        ("256mb 1mb 60", WARN, "too small"),
    ],
)
def test_a_buffer_for_subscribers_that_is_small_is_warned_about(
    server: RedisServer, limit: str, level: Level, words: str
) -> None:
    with server.client() as admin:
        admin.config_set(BUFFER_SETTING, f"pubsub {limit}")
        finding = about(examined(server.url), BUFFER_SETTING)
        admin.config_set(BUFFER_SETTING, "pubsub 32mb 8mb 60")
    assert finding.level is level
    assert words in finding.text
    assert level is OK or BUFFER in finding.cure


@pytest.mark.parametrize(("seconds", "level"), [(60, OK), (300, NOTE), (0, WARN), (3600, WARN)])
def test_connections_that_are_not_kept_alive_are_told(server: RedisServer, seconds: int, level: Level) -> None:
    with server.client() as admin:
        admin.config_set("tcp-keepalive", seconds)
        assert about(examined(server.url), "tcp-keepalive").level is level
        admin.config_set("tcp-keepalive", 300)


def test_a_server_without_replicas_is_not_asked_for_any(server: RedisServer) -> None:
    assert levels(examined(server.url), "min-replicas") == []


def test_a_primary_with_a_replica_that_writes_in_isolation_is_warned_about(plant: Plant) -> None:
    primary = plant("--repl-diskless-sync-delay", "0")
    replica = plant("--replicaof", f"127.0.0.1 {primary.port}")
    with replica.client() as client:
        wait_for(lambda: client.info("replication")["master_link_status"] == "up", "a replica in sync")
    finding = about(examined(primary.url), "min-replicas-to-write")
    assert finding.level is WARN
    assert "isolated primary" in finding.text
    assert "second replica" in finding.cure
    [refusal] = failures(examined(replica.url))
    assert "read-only replica" in refusal.text


def test_a_primary_that_misses_its_replicas_is_a_failure_with_the_right_cure(plant: Plant) -> None:
    [failure] = failures(examined(plant("--min-replicas-to-write", "1").url))
    assert "NOREPLICAS" in failure.text
    assert "min-replicas-to-write" in failure.cure


def test_a_full_server_is_a_failure_with_the_right_cure(plant: Plant) -> None:
    [failure] = failures(examined(plant("--maxmemory", "1").url))
    assert "OOM" in failure.text
    assert "maxmemory" in failure.cure


def test_what_may_not_be_read_is_unknown_and_the_commands_are_named(server: RedisServer) -> None:
    findings = examined(with_user(server, f"{RIGHTS} -info"))
    assert failures(findings) == []
    finding = about(findings, "settings")
    assert finding.level is UNKNOWN
    assert "未知（没有权限） / unknown" in finding.text
    assert "redis-cli ACL SETUSER gateway '+config|get' +info" in finding.cure
    for name in ("maxmemory-policy", BUFFER_SETTING, "min-replicas-to-write", "tcp-keepalive"):
        assert f"redis-cli CONFIG GET {name}" in finding.cure


def test_the_policy_and_the_replicas_are_also_found_where_only_info_is_allowed(server: RedisServer) -> None:
    finding = about(findings := examined(with_user(server, RIGHTS)), "settings")
    assert "maxmemory-policy" not in finding.text
    assert "min-replicas-to-write" not in finding.text, "it has no replicas, and says so"
    assert about(findings, "maxmemory-policy").level is OK


def test_a_user_that_may_read_the_settings_hears_of_them(server: RedisServer) -> None:
    findings = examined(with_user(server, f"{RIGHTS} +config|get"))
    assert levels(findings, "settings") == []
    assert about(findings, BUFFER_SETTING).level is WARN


def test_the_command_that_is_told_grants_what_was_missing(server: RedisServer) -> None:
    url = with_user(server, f"{RIGHTS} -info")
    [told] = re.findall(r"redis-cli (ACL SETUSER [^；]+)", about(examined(url), "settings").cure)
    with server.client() as admin:
        admin.execute_command(*shlex.split(told))
    assert levels(examined(url), "settings") == []


def test_of_what_workers_may_do_nothing_is_known_to_who_may_only_look(server: RedisServer) -> None:
    """The user that docs/redis.md has for looking at settings: neither good nor bad is said of the workers' rights."""
    grant(server)
    findings = examined(as_user(server.url, "doctor"))
    assert {finding.level for finding in findings} <= {OK, NOTE, UNKNOWN, WARN}
    finding = about(findings, "rights")
    assert finding.level is UNKNOWN
    assert "ACL SETUSER doctor" in finding.cure
    assert levels(findings, "maxmemory-policy") == [OK]
    assert levels(findings, "tcp-keepalive") == [NOTE]


@pytest.mark.parametrize("missing", ["time", "pubsub", "client|list", "info", "config|get"])
def test_no_right_that_a_looker_lacks_is_told_as_good_or_as_bad(missing: str, server: RedisServer) -> None:
    grant(server)
    with server.client() as admin:
        admin.execute_command("ACL", "SETUSER", "doctor", f"-{missing}")
    for finding in examined(as_user(server.url, "doctor")):
        assert finding.level is not FAIL, finding
        assert finding.level is not UNKNOWN or "redis-cli ACL SETUSER doctor " in finding.cure


def test_a_password_closes_the_door(plant: Plant) -> None:
    assert about(examined(plant(password=PASSWORD).url), "access").level is OK


def test_a_server_for_this_host_only_needs_no_password(server: RedisServer) -> None:
    assert levels(examined(server.url), "access") == []
    assert levels(examined(server.unix_url), "access") == []


@pytest.mark.skipif(bool(netns.why_not()), reason=netns.why_not())
def test_a_server_that_another_host_reaches_without_a_password_is_warned_about() -> None:
    with netns.cable() as cable, running(PROGRAM, behind=cable) as server:
        finding = about(examined(server.url), "access")
    assert finding.level is WARN
    assert "ACL SETUSER default off" in finding.cure


@pytest.mark.parametrize(
    ("bind", "protected", "is_open"),
    [
        ("127.0.0.1 -::1", "no", False),
        ("* -::*", "yes", False),
        ("* -::*", "no", True),
        ("127.0.0.1 192.0.2.7", "no", True),
        ("redis.example", "no", True),
    ],
)
def test_who_can_reach_a_server_is_read_from_its_settings(bind: str, protected: str, is_open: bool) -> None:
    assert is_exposed(bind, protected) is is_open


def test_a_clock_that_is_off_is_only_a_note(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert levels(examined(server.url), "clock") == []
    real = time.time

    class Late:
        time = staticmethod(lambda: real() - 90)

    monkeypatch.setattr(probe_settings, "time", Late)
    finding = about(examined(server.url), "clock")
    assert finding.level is NOTE
    assert "+90.0 s" in finding.text


def test_a_check_leaves_nothing_behind(server: RedisServer) -> None:
    with server.client() as admin:
        before = admin.keys()
        examined(server.url)
        assert admin.keys() == before


@pytest.fixture
def paused(server: RedisServer) -> Iterator[RedisServer]:
    """It answers, except to what would change something."""
    with server.client() as admin:
        admin.execute_command("CLIENT", "PAUSE", "60000", "WRITE")
        yield server
        admin.execute_command("CLIENT", "UNPAUSE")


def test_a_paused_server_is_waited_for_once_and_not_for_every_command(paused: RedisServer) -> None:
    [failure] = failures(examined(paused.url, 0.3))
    assert "SET" in failure.text
    assert "," not in failure.text, "no other command was tried"


def test_a_paused_server_is_told_as_such_and_not_as_missing_rights(paused: RedisServer) -> None:
    [failure] = failures(examined(paused.url, 0.3))
    assert "no answer in time" in failure.text
    assert "CLIENT PAUSE" in failure.cure


async def test_a_stranger_who_gets_no_answer_has_not_been_refused(server: RedisServer) -> None:
    async with Toxics("127.0.0.1", server.port) as toxics, AsyncExitStack() as stack:
        examiner = Server(parse(f"redis://{toxics.address}"), Node("127.0.0.1", toxics.port), 0.3)
        stack.push_async_callback(examiner.close)
        assert await examiner.reach() is None
        toxics.blackhole()  # for whoever comes now: the stranger
        finding = about(await probe_settings.settings(examiner, Standing()), "access")
    assert finding.level is NOTE
    assert "not checked" in finding.text


# -- Sentinel


def test_sentinels_that_agree_are_told_with_their_primary(watched: SentinelSet) -> None:
    findings = examined(watched.url)
    assert failures(findings) == []
    finding = about(findings, "Sentinel")
    assert finding.level is OK
    assert f"127.0.0.1:{watched.primary.port}" in finding.text
    assert about(findings, "rights").text.endswith(f"({watched.primary.address})")


def test_settings_of_every_server_that_may_become_the_primary_are_looked_at(watched: SentinelSet) -> None:
    with watched.replica.client() as admin:
        admin.config_set("maxmemory-policy", "allkeys-lru")
        warned = [one for one in examined(watched.url) if "maxmemory-policy" in one.subject and one.level is WARN]
        admin.config_set("maxmemory-policy", "noeviction")
    assert [finding.text.rpartition("(")[2] for finding in warned] == [f"{watched.replica.address})"]


@pytest.mark.parametrize(("needed", "words"), [(0, "isolated primary"), (1, ""), (2, "refuses all writes")])
def test_the_fence_must_be_there_and_must_survive_a_failover(watched: SentinelSet, needed: int, words: str) -> None:
    for server in watched.servers:
        with server.client() as admin:
            admin.config_set("min-replicas-to-write", needed)
    finding = about(examined(watched.url), "min-replicas-to-write")
    for server in watched.servers:
        with server.client() as admin:
            admin.config_set("min-replicas-to-write", 0)
    assert finding.level is (WARN if words else OK)
    assert words in finding.text
    assert "second replica" not in finding.cure


def test_a_sentinel_that_is_away_is_warned_about_and_the_others_are_asked(watched: SentinelSet) -> None:
    with running(PROGRAM) as gone:
        pass
    findings = examined(watched.url.replace("//", f"//{gone.address},"))
    assert failures(findings) == []
    assert any(gone.address in one.text and one.level is WARN for one in findings if one.subject == "Sentinel")


def test_a_service_that_no_sentinel_knows_is_a_failure_that_names_the_known_ones(watched: SentinelSet) -> None:
    findings = examined(watched.url.replace("/main", "/mian"))
    assert [failure.subject for failure in failures(findings)] == ["Sentinel"]
    assert "main" in findings[0].cure


def test_an_address_of_redis_in_place_of_a_sentinels_is_called_so(watched: SentinelSet, server: RedisServer) -> None:
    findings = examined(f"redis+sentinel://{server.address}/main")
    assert failures(findings)
    assert "no Sentinel" in findings[0].text
    assert "26379" in findings[0].cure


def test_sentinels_that_could_not_decide_are_warned_about() -> None:
    with SentinelSet(PROGRAM, sentinels=2) as servers:
        servers.sentinels[1].stop()
        wait_for(lambda: not servers._is_content(servers.sentinels[0]), "a missed quorum")
        findings = examined(f"redis+sentinel://127.0.0.1:{servers.sentinels[0].port}/main")
        assert failures(findings) == []
        assert about(findings, "quorum").level is WARN
        assert any("only 2" in finding.text for finding in findings)
        assert any("names 1 of 2" in finding.text for finding in findings)


def test_a_primary_that_is_away_is_a_failure_and_its_sentinel_says_so_too() -> None:
    with SentinelSet(PROGRAM, replicas=0) as servers:
        servers.primary.freeze()
        wait_for(lambda: not servers._is_content(servers.sentinels[0]), "a primary that is missed")
        findings = examined(servers.url, 0.5)
    assert "can't be reached" in failures(findings)[0].text
    assert any("considers the primary" in finding.text for finding in findings)
    assert any("no replica" in finding.text for finding in findings)


# -- Cluster


def test_a_good_cluster_is_tried_on_every_primary(spread: ServerCluster) -> None:
    findings = examined(spread.url)
    assert failures(findings) == []
    assert "all slots covered" in about(findings, "Cluster").text
    assert all(node.address in about(findings, "rights").text for node in spread.nodes)
    assert [node.ask("DBSIZE") for node in spread.nodes] == [0, 0, 0]


def test_the_documented_rights_suffice_in_a_cluster_and_those_of_one_server_do_not(spread: ServerCluster) -> None:
    def given(acl: str) -> list[Finding]:
        for node in spread.nodes:
            node.ask("ACL", "SETUSER", "gateway", "reset", "on", f">{PASSWORD}", *acl.format(prefix="mcpgw:").split())
        return examined(spread.url.replace(f"//:{PASSWORD}@", f"//gateway:{PASSWORD}@"))

    assert failures(given(ACL_CLUSTER)) == []
    [failure] = failures(given(ACL))
    assert "cluster|slots" in failure.cure


def test_a_node_with_a_setting_of_its_own_is_named(spread: ServerCluster) -> None:
    odd = spread.nodes[1]
    odd.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    warned = [one for one in examined(spread.url) if "maxmemory-policy" in one.subject and one.level is WARN]
    odd.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert [finding.text.rpartition("(")[2] for finding in warned] == [f"{odd.address})"]


def test_an_address_with_the_wrong_scheme_is_a_failure_that_names_the_right_one(
    spread: ServerCluster, server: RedisServer
) -> None:
    of_a_node = f"redis://:{PASSWORD}@{spread.nodes[0].address}"
    assert "redis+cluster://" in failures(examined(of_a_node))[0].cure
    assert "redis://" in failures(examined(server.url.replace("redis://", "redis+cluster://")))[0].cure


def test_slots_that_nobody_has_are_a_failure() -> None:
    node = ClusterNode(PROGRAM)
    try:
        node.start()
        node.ask("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 2)
        [failure] = failures(examined(f"redis+cluster://{node.address}"))
        assert "1 slots have no node" in failure.text
    finally:
        node.close()


def test_a_primary_of_the_cluster_that_is_gone_is_a_failure() -> None:
    with ServerCluster(PROGRAM, nodes=2) as cluster:
        cluster.kill(cluster.nodes[0])
        findings = examined(cluster.url, 0.5)
    assert any("can't be reached" in finding.text for finding in findings if finding.level is not OK)
    assert failures(findings)
