"""The sets of servers that other tests rely on: what they promise, with a plain client, and TLS and passwords."""

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.redis_cluster import ServerCluster
from tests.support.redis_sentinel import SERVICE, SentinelSet, wait_for
from tests.support.redis_server import RedisServer, engines
from tests.support.tls import make_certificate

PROGRAM = next(iter(engines().values()))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def watched() -> Iterator[SentinelSet]:
    with SentinelSet(PROGRAM) as servers:
        yield servers


@pytest.fixture(scope="module")
def spread() -> Iterator[ServerCluster]:
    with ServerCluster(PROGRAM) as cluster:
        yield cluster


def role(server: RedisServer) -> str:
    with server.client() as client:
        return str(client.role()[0].decode())


def put(server: RedisServer, key: str) -> None:
    with server.client() as client:
        client.set(key, "1", px=60_000)


def test_a_planned_failover_swaps_the_roles_and_can_be_repeated(watched: SentinelSet) -> None:
    first, second = watched.primary, watched.replica
    assert watched.failover() is second
    watched.settle()
    assert [role(first), role(second)] == ["slave", "master"]
    assert watched.failover() is first


def test_a_frozen_primary_is_replaced_and_comes_back_as_a_replica(watched: SentinelSet) -> None:
    watched.settle()
    frozen = watched.freeze_primary()
    promoted = watched.until_promoted(frozen)
    put(promoted, "after")
    watched.mend()
    assert role(frozen) == "slave"
    with frozen.client() as client:
        assert client.get("after") == b"1"


def test_a_slot_moves_with_its_keys_and_its_old_owner_says_so(spread: ServerCluster) -> None:
    source = spread.slot_owner("{a}")
    target = next(node for node in spread.primaries if node is not source)
    put(source, "{a}1")
    spread.move_slot(spread.slot_of("{a}"), target)
    assert spread.slot_owner("{a}") is target
    assert target.ask("GET", "{a}1") == "1"
    with pytest.raises(redis.ResponseError, match=f"127.0.0.1:{target.port}"):
        source.ask("GET", "{a}1")


def test_a_killed_node_takes_its_slots_along_until_it_is_back(spread: ServerCluster) -> None:
    victim = spread.slot_owner("{a}")
    spread.kill(victim)
    wait_for(lambda: spread.live[0].state["cluster_state"] == "fail", "a cluster that misses slots")
    spread.mend()
    put(spread.slot_owner("{a}"), "{a}2")
    spread.flushall()
    assert [node.ask("DBSIZE") for node in spread.nodes] == [0, 0, 0]


def test_a_set_behind_tls_and_passwords_names_only_addresses_that_speak_tls(certificate: tuple[Path, Path]) -> None:
    with SentinelSet(PROGRAM, password="pw", sentinel_password="spw", tls=certificate) as servers:
        tls: dict[str, Any] = {"ssl": True, "ssl_ca_certs": str(certificate[0])}
        [(host, port)] = servers.addresses
        with redis.Redis(host=host, port=port, password="spw", **tls) as sentinel:
            named = sentinel.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", SERVICE)
        with redis.Redis(host=named[0].decode(), port=int(named[1]), password="pw", **tls) as client:
            assert client.role()[0] == b"master"
            assert int(client.info("replication")["slave0"]["port"]) != servers.replica.port


def test_a_cluster_behind_tls_and_a_password_names_only_addresses_that_speak_tls(
    certificate: tuple[Path, Path],
) -> None:
    with ServerCluster(PROGRAM, password="pw", tls=certificate) as cluster:
        trusted = ssl.create_default_context(cafile=str(certificate[0]))
        assert trusted.verify_mode is ssl.CERT_REQUIRED
        host, port = cluster.addresses[0]
        client = redis.RedisCluster(host=host, port=port, password="pw", ssl=True, ssl_ca_certs=str(certificate[0]))
        with client:
            for name in ("a", "b", "c", "d", "e"):
                client.set(name, name, px=60_000)
            nodes = client.nodes_manager.nodes_cache.values()
            assert {node.port for node in nodes} == {port for _, port in cluster.addresses}
