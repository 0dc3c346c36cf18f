"""One call followed from end to end: the same id in both workers' logs, in the record, and in the error's data."""

from typing import Any

import orjson
import pytest

from gateway.calls import Call, call_of
from tests.cli.command_line import CommandLine
from tests.cluster.inside import worker_of
from tests.contract.test_processes import until_ready
from tests.peers.robot import Robot
from tests.peers.tool_server import ToolServer
from tests.peers.tools import echo, failing, held, text_of
from tests.support.gateway import Gateway, Guests
from tests.support.processes import GatewayProcess, serve
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

SECRET = "the cellar door is open"


async def said(process: GatewayProcess, event: str, outcome: str) -> dict[str, Any]:
    """The one line with this event and outcome, once it is there."""
    await process.started.until(rf'"event":"{event}".*"outcome":"{outcome}".*\n')
    whole, _, _ = process.started.text.rpartition("\n")  # the last line may have come in part
    lines = [orjson.loads(line) for line in whole.splitlines() if line.startswith("{")]
    [found] = [line for line in lines if line["event"] == event and line["outcome"] == outcome]
    return dict(found)


async def test_a_call_is_followed_from_its_robot_to_its_tool_server_and_back(
    cli: CommandLine, guests: Guests, redis_server: RedisServer
) -> None:
    """Two real processes, JSON logs, the record in Redis; once for a call that ends well, once for one that fails."""
    first, second = [await serve(cli, redis_server.url, log_format="json", call_log="all") for _ in range(2)]
    a, b = await until_ready(Gateway(first, guests)), await until_ready(Gateway(second, guests), workers=2)
    server = await b.tool_server("lamp", [echo(), held("slow")])
    robot = await a.robot()
    await robot.sees("echo", "slow")

    assert text_of(await robot.call("echo", {"text": SECRET})) == SECRET

    ended, job = await said(first, "call_ended", "result"), await said(second, "job_ended", "result")
    assert ended["call"] == job["call"] == job["attempt"]
    assert (ended["owner"], ended["worker"]) == (job["worker"], job["origin"])
    common = ("agent", "server_id", "tool")
    assert [ended[name] for name in common] == [job[name] for name in common] == ["home", "lamp", "echo"]
    assert (ended["path"], ended["executed"], ended["level"]) == ("remote", True, "INFO")
    assert ended["seconds"] >= job["seconds"] >= 0
    assert ended["bytes"] > len(SECRET)

    error, recorded = await fail_in_call(robot, server, redis_server)

    ended, job = (
        await said(first, "call_ended", "tool_server_lost"),
        await said(second, "job_ended", "tool_server_lost"),
    )
    assert error["data"]["call"] == recorded == ended["call"] == job["call"]
    assert error["data"]["call"] not in error["message"], "robots read messages aloud"
    assert (ended["code"], ended["reason"], ended["executed"]) == (-32002, "tool server lost", "unknown")
    assert ended["level"] == "WARNING"
    for process in (first, second):
        assert SECRET not in process.started.text


async def fail_in_call(robot: Robot, server: ToolServer, redis_server: RedisServer) -> tuple[dict[str, Any], str]:
    """A call whose tool server goes away: its error, and the id of the record it had meanwhile."""
    request_id = await robot.start_call("slow", {"text": SECRET})
    await server.until_called(2)
    with redis_server.client() as client:
        keys = [key.decode() for key in client.keys("mcpgw:call:*") if client.hget(key, "state") == b"sent"]
    await server.close()
    [key] = keys
    return (await robot.answer(request_id))["error"], key.rpartition(":")[2]


async def test_a_later_attempt_is_known_by_the_number_behind_the_calls_id(gateway: Gateway) -> None:
    call = Call("5b1f09aa-7", "r", 1, "home", "echo", b"", {}, 0.0, 1.0, 1.0, False)
    ids = [call.new_ledger_id() for _ in range(3)]
    assert ids == ["5b1f09aa-7", "5b1f09aa-7.2", "5b1f09aa-7.3"]
    assert {call_of(ledger_id) for ledger_id in ids} == {call.id}


async def test_an_error_of_ours_names_the_call_wherever_it_was_found_out(gateway: Gateway) -> None:
    server, robot = await gateway.tool_server(tools=[echo()]), await gateway.robot()
    await robot.sees("echo")
    ids = [(await robot.call(name))["error"]["data"]["call"] for name in ("nothing", "nobody")]
    assert len(set(ids)) == 2
    prefix = worker_of(gateway).backplane.worker_id.rpartition("-")[2]
    assert all(call_id.startswith(f"{prefix}-") for call_id in ids)
    shape = (await robot.call(7))["error"]["data"]  # type: ignore[arg-type]
    assert "call" not in shape, "it never became a call"
    assert server.calls == []


def ended(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.outcome for record in caplog.records if getattr(record, "event", "") == "call_ended"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("logged", "outcomes"),
    [
        pytest.param("errors", ["rpc_error", "unknown_tool"], marks=pytest.mark.settings(call_log="errors")),
        pytest.param("all", ["result", "rpc_error", "unknown_tool"], marks=pytest.mark.settings(call_log="all")),
        pytest.param("none", [], marks=pytest.mark.settings(call_log="none")),
    ],
)
async def test_which_ended_calls_are_logged_is_a_setting(
    gateway: Gateway, caplog: pytest.LogCaptureFixture, logged: str, outcomes: list[str]
) -> None:
    caplog.set_level("INFO", logger="gateway")
    await gateway.tool_server(tools=[echo(), failing("broken", -32000, "no")])
    robot = await gateway.robot()
    await robot.sees("echo", "broken")
    for name in ("echo", "broken", "nothing"):
        await robot.call(name)
    await wait_until(lambda: ended(caplog) == outcomes, f"of {logged} these are logged: {outcomes}")
