"""What somebody without a token tries: to hold the door shut, to fill the log, to learn who is there."""

import asyncio
import logging
from urllib.parse import quote

import pytest

from tests.endpoints.knocking import knock, legacy, path
from tests.peers.raw import RawSocket
from tests.peers.tools import echo, text_of
from tests.support.gateway import AGENT, Gateway


@pytest.mark.settings(header_seconds=0.3)
async def test_slow_handshakes_hold_up_nobody_and_are_let_go(gateway: Gateway) -> None:
    """Slowloris: heads that never end."""
    await gateway.tool_server("server", [echo()])
    slow = [RawSocket(gateway.call_url()) for _ in range(100)]
    for one in slow:
        await one.connect()
        await one.write(b"GET /mcp_endpoint/call/?token=x HTTP/1.1\r\nHost: gateway\r\nX-Slow: ")
    robot = await gateway.robot()
    await robot.sees("echo")
    assert text_of(await robot.call("echo", {"text": "on time"})) == "on time"
    async with asyncio.timeout(10):
        answers = [await one.reader.read() for one in slow]
    assert {answer.split(b"\r\n", 1)[0] for answer in answers} == {b"HTTP/1.1 408 Request Timeout"}
    for one in slow:
        await one.close()


async def test_a_stranger_cannot_tell_an_agent_that_is_here_from_one_that_never_was(gateway: Gateway) -> None:
    """The same bytes for tokens of both, made with a guessed key, whoever is connected."""
    await gateway.tool_server("server", [echo()])
    guessed = "f" * 32
    answers = {
        (await knock(gateway.port, path(role, legacy(agent, guessed)))).raw
        for agent in (AGENT, "nobody", "x" * 200)
        for role in ("mcp", "call")
    }
    assert len(answers) == 1
    assert answers.pop().startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("target", ["/mcp_endpoint/status?token=", "/mcp_endpoint/health?agent=home&key="])
async def test_no_plain_request_of_a_stranger_is_told_who_is_here(gateway: Gateway, target: str) -> None:
    before = await gateway.get(target + quote(legacy(AGENT, "f" * 32)))
    await gateway.tool_server("server", [echo()])
    after = await gateway.get(target + quote(legacy(AGENT, "f" * 32)))
    assert before.status == after.status == 401
    assert before.text == after.text
    assert before.headers.keys() == after.headers.keys()


@pytest.mark.settings(audit="log")
async def test_a_flood_of_bad_handshakes_fills_neither_the_log_nor_the_audit(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    """And the number of those that are not listed is told."""
    caplog.set_level(logging.INFO, "gateway")
    for _ in range(20):
        async with asyncio.TaskGroup() as tasks:
            for _ in range(10):
                tasks.create_task(knock(gateway.port, path("call", "bad")))
    await gateway.worker.stop()
    told = [record.__dict__ for record in caplog.records]
    lines = [record for record in told if record.get("event") == "connection_refused"]
    listed = [record for record in told if record.get("event") == "audit_handshake"]
    [rest] = [record for record in told if record.get("event") == "audit_suppressed"]
    assert 1 <= len(lines) <= 60
    assert len(listed) + rest["handshakes"] == 200
    assert len(listed) <= 60
