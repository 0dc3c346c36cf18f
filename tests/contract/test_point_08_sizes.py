"""Point 8: nothing a robot gets comes near 1 MiB; tool servers may send megabytes and are answered, not closed."""

import pytest

from gateway.settings import Settings
from tests.peers.tools import answering, echo, failing, text_result
from tests.support.gateway import Gateway

MIB = 1024 * 1024


def test_the_defaults_keep_robots_below_one_mebibyte() -> None:
    defaults = Settings()
    assert defaults.result_bytes == 512 * 1024
    assert defaults.frame_bytes >= 4 * MIB


@pytest.mark.parametrize("text", ["a", "长", "🦊", '"', "\\", "\n", "\u0001"], ids=repr)
async def test_a_long_text_is_cut_at_a_character_with_a_notice(gateway: Gateway, text: str) -> None:
    server = await gateway.tool_server(tools=[answering("long", text_result(text * 700_000))])
    robot = await gateway.xiaozhi()
    answer = await robot.call_tool("long")
    assert len(answer) > 50_000
    assert answer.startswith(text * 1000)
    assert not answer.endswith(text * 2)
    assert robot.is_open
    assert server.is_open
    assert all(len(frame.encode() if isinstance(frame, str) else frame) < MIB for frame in robot.frames)


async def test_several_texts_are_cut_together(gateway: Gateway) -> None:
    blocks = [{"type": "text", "text": character * 300_000} for character in "abcd"]
    await gateway.tool_server(tools=[answering("long", {"content": blocks, "_meta": {"k": 1}})])
    robot = await gateway.robot()
    answer = await robot.call("long")
    content = answer["result"]["content"]
    assert content[0] == blocks[0]
    assert sum(len(block["text"]) for block in content) < 512 * 1024
    assert len(robot.frames[-1]) <= 512 * 1024


async def test_a_large_result_that_is_not_text_becomes_an_error_result_that_names_size_and_limit(
    gateway: Gateway,
) -> None:
    image = {"type": "image", "data": "A" * 700_000, "mimeType": "image/png"}
    await gateway.tool_server(tools=[answering("photo", {"content": [image]})])
    robot = await gateway.robot()
    result = (await robot.call("photo"))["result"]
    assert result["isError"] is True
    text = result["content"][0]["text"]
    assert any(number in text for number in ("700", "683", "684"))
    assert "512" in text or "524288" in text
    assert robot.is_open


async def test_structured_content_is_never_cut(gateway: Gateway) -> None:
    """A text cut beside a structure left whole would contradict it."""
    result = {"content": [{"type": "text", "text": "x" * 400_000}], "structuredContent": {"x": "x" * 400_000}}
    await gateway.tool_server(tools=[answering("both", result)])
    robot = await gateway.robot()
    answer = (await robot.call("both"))["result"]
    assert answer["isError"] is True
    assert len(robot.frames[-1]) <= 512 * 1024


async def test_a_large_error_of_a_tool_server_stays_below_the_limit(gateway: Gateway) -> None:
    await gateway.tool_server(tools=[failing("fails", -1, "e" * 2_000_000, {"more": "d" * 100})])
    robot = await gateway.xiaozhi()
    with pytest.raises(RuntimeError, match="MCP接入点错误"):
        await robot.call_tool("fails")
    assert robot.is_open


async def test_a_result_below_the_limit_is_not_touched(gateway: Gateway) -> None:
    result = text_result("x" * 500_000)
    await gateway.tool_server(tools=[answering("long", result)])
    robot = await gateway.robot()
    assert (await robot.call("long"))["result"] == result


async def test_a_tool_server_may_send_four_mebibytes(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[answering("huge", text_result("x" * 4 * MIB)), echo()])
    robot = await gateway.robot()
    assert "result" in await robot.call("huge")
    assert "result" in await robot.call("echo")
    assert server.is_open


@pytest.mark.settings(toolset_bytes=64 * 1024)
async def test_a_tool_list_beyond_the_limit_harms_nobody(gateway: Gateway) -> None:
    await gateway.tool_server("big", [echo(f"t{number}", description="d" * 2000) for number in range(100)])
    await gateway.tool_server("small", [echo("small")])
    robot = await gateway.xiaozhi()
    assert "small" in robot.tools
    assert robot.is_open


async def test_ten_thousand_tools_leave_the_robots_connected(gateway: Gateway) -> None:
    server = await gateway.tool_server(tools=[echo(f"tool_{number}") for number in range(10_000)])
    robot = await gateway.xiaozhi()
    assert len(robot.tools) == 1000
    assert server.is_open
    assert all(len(frame) < MIB for frame in robot.frames)
