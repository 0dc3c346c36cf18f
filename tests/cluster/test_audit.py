"""The audit of a real cluster: each handshake and each call leaves its record, without a word of what was said."""

import logging
from typing import Any

import orjson
import pytest

from gateway.inspection import look
from gateway.look import Wish
from gateway.operating import window_into
from gateway.settings import Settings
from tests.cluster.inside import id_of, worker_of
from tests.conftest import StartCluster
from tests.endpoints.knocking import knock, legacy, path, signed
from tests.peers.token import console_token
from tests.peers.tools import echo, failing
from tests.support.gateway import AGENT
from tests.support.waiting import wait_until

on_redis = pytest.mark.parametrize("cluster", ["redis"], indirect=True)


def records(store: Any, kind: str) -> list[dict[str, Any]]:
    texts = [fields[b"record"] for _, fields in store.xrange("mcpgw:audit")]
    return [record for record in map(orjson.loads, texts) if record["record"] == kind]


@on_redis
@pytest.mark.settings(audit="stream")
async def test_a_call_across_workers_leaves_one_record_with_all_but_its_contents(
    cluster: StartCluster, store: Any
) -> None:
    a, b = await cluster(2)
    await b.tool_server("lamp", [echo(), failing("broken", -32000, "secret-error")], server_id="lamp")
    robot = await a.robot()
    await robot.sees("echo")
    await robot.call("echo", {"text": "secret-argument"})
    await robot.call("broken", {"text": "secret-argument"})
    await robot.call("nothing", {})
    await wait_until(lambda: len(records(store, "call")) == 3, "three records")
    done, broken, unknown = records(store, "call")
    assert done.pop("seconds") >= 0
    assert done.pop("ms") > 0
    assert done.pop("call").startswith(id_of(a).rpartition("-")[2])
    assert done == {
        "worker": id_of(a),
        "record": "call",
        "n": 2,
        "agent": AGENT,
        "conn": f"{id_of(a)}.1",
        "client": "test-robot",
        "tool": "echo",
        "server_id": "lamp",
        "path": "remote",
        "owner": id_of(b),
        "outcome": "result",
        "executed": True,
        "request_bytes": done["request_bytes"],
        "answer_bytes": done["answer_bytes"],
    }
    assert done["request_bytes"] > len("secret-argument")
    assert done["answer_bytes"] > len("secret-argument")
    assert (broken["outcome"], broken["executed"], broken["n"]) == ("rpc_error", True, 3)
    assert (unknown["outcome"], unknown["executed"], unknown["answer_bytes"]) == ("unknown_tool", False, 0)
    whole = b"".join(fields[b"record"] for _, fields in store.xrange("mcpgw:audit"))
    assert [word for word in (b"secret", a.key.encode(), console_token(AGENT, a.key).encode()) if word in whole] == []


@on_redis
@pytest.mark.settings(audit="stream")
async def test_every_handshake_leaves_its_record_accepted_or_not(cluster: StartCluster, store: Any) -> None:
    [a] = await cluster(1)
    await knock(a.port, path("call"))
    await knock(a.port, path("call", legacy(key="f" * 32)))
    await knock(a.port, path("call", legacy()))
    await knock(a.port, path("mcp", signed("mcp", token_id="t-17"), server_id="lamp"))
    await wait_until(lambda: len(records(store, "handshake")) == 4, "four records")
    none, bad, robot, server = records(store, "handshake")
    assert (none["outcome"], bad["outcome"]) == ("no_token", "bad_token")
    assert "agent" not in none | bad
    assert {one["kind"] for one in (none, bad, robot)} == {"robot"}
    assert {one["address"] for one in (none, bad, robot, server)} == {"127.0.0.1"}
    assert (robot["outcome"], robot["agent"], robot["token"]) == ("accepted", AGENT, "legacy")
    told = ("kind", "outcome", "agent", "token", "server_id", "conn")
    expected = ("tool_server", "accepted", AGENT, "t-17", "lamp", f"{id_of(a)}.2")
    assert tuple(server[name] for name in told) == expected


@on_redis
@pytest.mark.settings(audit="stream")
async def test_an_operator_sees_them_newest_first_and_of_one_agent(cluster: StartCluster, store: Any) -> None:
    [a] = await cluster(1)
    await a.tool_server("lamp", [echo()], server_id="lamp")
    robot, other = await a.robot(), await a.robot(agent="neighbour")
    await robot.sees("echo")
    await robot.call("echo", {"text": "x"})
    await other.call("echo", {"text": "x"})
    await worker_of(a).audit.change("revoked", f"agent:{AGENT}", "set", "root@host", 7)
    await wait_until(lambda: len(records(store, "call")) == 2, "two records")
    settings = Settings(redis_url=a.settings.redis_url, key=a.settings.key)
    async with window_into(settings) as window:
        everything, mine = [await look(window, Wish("audit", agent=agent)) for agent in ("", AGENT)]
        newest = await look(window, Wish("audit", limit=1))
    assert everything is not None
    assert mine is not None
    assert newest is not None
    kinds = [one["record"] for one in mine.data["audit"]]
    assert sorted(kinds) == ["call", "change", "handshake", "handshake"]
    assert len(everything.data["audit"]) == 6
    assert everything.data["audit"][0]["id"] > everything.data["audit"][-1]["id"]
    assert newest.data["truncated"]
    text = mine.as_text(0)
    assert "lamp/echo" in text
    assert f"revoked agent:{AGENT}: set" in text
    assert "root@host" in text


@on_redis
async def test_without_the_setting_nothing_is_written_and_it_says_so(cluster: StartCluster, store: Any) -> None:
    [a] = await cluster(1)
    await knock(a.port, path("call", legacy()))
    async with window_into(Settings(redis_url=a.settings.redis_url, key=a.settings.key)) as window:
        seen = await look(window, Wish("audit"))
    assert seen is not None
    assert "GATEWAY_AUDIT=stream" in seen.as_text(0)
    assert not store.exists("mcpgw:audit")


@on_redis
@pytest.mark.settings(audit="stream")
async def test_a_worker_that_stops_has_written_what_it_had_to_say(cluster: StartCluster, store: Any) -> None:
    [a] = await cluster(1)
    await a.tool_server("lamp", [echo()])
    robot = await a.robot()
    await robot.sees("echo")
    await robot.call("echo", {"text": "x"})
    await a.worker.stop()
    assert len(records(store, "call")) == 1
    assert [record["n"] for kind in ("handshake", "call") for record in records(store, kind)] == [1, 2, 3]


@pytest.mark.settings(audit="log")
async def test_in_the_log_they_are_lines_without_what_was_said(gateway: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gateway.audit")
    await gateway.tool_server("lamp", [echo()], server_id="lamp")
    robot = await gateway.robot()
    await robot.sees("echo")
    await robot.call("echo", {"text": "secret-argument"})
    told = [record.__dict__ for record in caplog.records if record.name == "gateway.audit"]
    assert [record["event"] for record in told] == ["audit_handshake", "audit_handshake", "audit_call"]
    assert (told[-1]["tool"], told[-1]["server_id"], told[-1]["outcome"]) == ("echo", "lamp", "result")
    assert "secret" not in str(told)
