"""Point 2: ids toward a tool server are integers 0 … 2³¹−1; a robot's id comes back with value and type."""

from typing import Any

import pytest

from tests.peers.esp32 import Esp32
from tests.peers.tools import echo, text_of
from tests.peers.verdure import Verdure
from tests.support.gateway import Gateway


async def test_every_id_toward_a_tool_server_is_a_small_integer_and_new(gateway: Gateway) -> None:
    server = await gateway.tool_server()
    robots = [await gateway.robot() for _ in range(2)]
    for request_id in ("a", "b", 0, 2**60):
        for robot in robots:
            await robot.call("echo", id=request_id)
    ids = server.request_ids
    assert len(ids) == 2 + 8
    assert all(type(request_id) is int and 0 <= request_id < 2**31 for request_id in ids)
    assert len(set(ids)) == len(ids)


async def test_each_connection_counts_for_itself(gateway: Gateway) -> None:
    first = await gateway.tool_server("one", [echo("a")])
    second = await gateway.tool_server("two", [echo("b")])
    assert first.request_ids == second.request_ids


@pytest.mark.parametrize("request_id", [0, 1, "1", "", 2**31, "uuid_n_1"], ids=repr)
async def test_the_robots_id_comes_back_with_its_type(gateway: Gateway, request_id: Any) -> None:
    await gateway.tool_server()
    robot = await gateway.robot()
    answer = await robot.call("echo", id=request_id)
    assert answer["id"] == request_id
    assert type(answer["id"]) is type(request_id)


async def test_a_client_that_reads_only_32_bit_integers_answers(gateway: Gateway) -> None:
    """Verdure calls `GetInt32()` and falls silent at anything else."""
    verdure = await Verdure(gateway.mcp_url()).open()
    robot = await gateway.robot()
    await robot.sees("garden")
    assert text_of(await robot.call("garden", id="a string of the robot")) == "watered"
    assert verdure.dropped == []
    await verdure.close()


async def test_a_client_that_pastes_ids_unquoted_answers(gateway: Gateway) -> None:
    """The ESP32 library would turn a string id into invalid JSON."""
    lamp = await Esp32(gateway.mcp_url()).open()
    robot = await gateway.robot()
    await robot.sees("lamp")
    assert text_of(await robot.call("lamp", id="a string of the robot")) == "on"
    await lamp.close()
