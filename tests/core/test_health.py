"""The health answer, in the shape that consoles and scripts know."""

import orjson

from gateway import health
from gateway.backplane.base import Overview, WorkerRow
from gateway.directory import Row

LAMP = Row("up", "w1", "c1", 1_700_000_000_000, epoch=1, name="灯", version="2", toolset="d1", tools=2)
FAN = Row("up", "w2", "c2", 1_700_000_000_000, epoch=1, name="fan", version="1", toolset="d2", tools=1)
GONE = Row("offline", "w1", "c3", 0, toolset="d3", tools=9)
DIALLING = Row("handshake", "w1", "c4", 0)
TOOLSETS = {"d1": orjson.dumps([{"name": "on"}, {"name": "关"}]), "d2": b'[{"name":"spin"}]'}


def worker(tool_servers: int, robots: int) -> WorkerRow:
    return WorkerRow("host", 1, "1.0", 0, robots=robots, tool_servers=tool_servers)


def overview(*, truncated: bool = False) -> Overview:
    return Overview(
        workers={"w1": worker(100, 1000), "w2": worker(20, 300)},
        agents={"x": {"lamp": LAMP, "fan": FAN, "gone": GONE, "~c4": DIALLING}, "y": {"gone": GONE}, "z": {}},
        robots={"x": 2, "y": 1, "z": 0},
        truncated=truncated,
    )


HERE = ("w2", worker(21, 301))


def test_everything_that_is_connected_is_counted() -> None:
    told = health.answer(overview(), TOOLSETS, HERE)
    assert {key: value for key, value in told.items() if key != "mcp_servers"} == {
        "mcp_server_connections": 2,
        "tool_connections": 2,
        "robot_connections": 3,
        "total_connections": 5,
        "multi_server_support": True,
        "available_agents": ["x"],
        "total_tools": 3,
        "robot_connections_by_agent": {"x": 2, "y": 1},
        "workers": 2,
        "truncated": False,
    }


def test_every_tool_server_is_named_with_its_tools() -> None:
    told = health.answer(overview(), TOOLSETS, HERE)["mcp_servers"]
    assert told.keys() == {"x"}
    assert list(told["x"]) == ["fan", "lamp"]
    assert told["x"]["lamp"] == {
        "tools_count": 2,
        "tools": ["on", "关"],
        "server_info": {"name": "灯", "version": "2"},
        "worker": "w1",
        "connected_since": "2023-11-14 22:13:20 UTC",
    }


def test_a_tool_set_that_went_missing_leaves_the_counts() -> None:
    told = health.answer(overview(), {}, HERE)
    assert told["mcp_servers"]["x"]["fan"]["tools"] == []
    assert told["total_tools"] == 3


def test_a_cut_answer_counts_by_what_the_workers_say_this_one_by_what_it_knows() -> None:
    told = health.answer(overview(truncated=True), TOOLSETS, HERE)
    assert told["truncated"] is True
    assert told["tool_connections"] == 121
    assert told["robot_connections"] == 1301
    assert told["total_connections"] == 1422
    assert told["mcp_servers"].keys() == {"x"}


def test_only_the_tool_sets_of_connected_tool_servers_are_wanted() -> None:
    assert health.digests(overview()) == {"d1", "d2"}


def test_an_empty_cluster_is_healthy_too() -> None:
    told = health.answer(Overview({}, {}, {}, truncated=False), {}, HERE)
    assert told["total_connections"] == 0
    assert told["available_agents"] == []
    assert orjson.loads(orjson.dumps(told)) == told
