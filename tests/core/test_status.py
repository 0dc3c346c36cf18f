"""The status answer and its verdicts, from facts alone."""

import re
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway import status, verdicts
from gateway.backplane.base import Snapshot, WorkerRow
from gateway.credential import Credential
from gateway.directory import Claim, Row, Seen
from gateway.policy import parse
from gateway.seen import UNNAMED
from gateway.status import Terms

NOW = 1_700_000_000_000
MINUTE = 60_000
UP = Row("up", "w1", "w1.1", NOW - MINUTE, name="Fan", toolset="d", tools=1)
OFFLINE = replace(UP, state="offline", offline_since=NOW - 3 * MINUTE, cause="1006 ")
WORKERS = {"w1": WorkerRow("host", 1, "0", NOW)}
TOOLS = {"d": ["blow"]}


def told(seen: dict[str, Seen] | None = None, claims: dict[str, Claim] | None = None, **rows: Row) -> dict[str, object]:
    snapshot = Snapshot(1, NOW, rows, claims or {}, seen or {})
    return status.answer(Credential("home"), snapshot, TOOLS, WORKERS, 0)


def code(answer: dict[str, object]) -> str:
    verdict = answer["verdict"]
    assert isinstance(verdict, dict)
    return str(verdict["code"])


def text(answer: dict[str, object]) -> str:
    verdict = answer["verdict"]
    assert isinstance(verdict, dict)
    return str(verdict["text"])


def test_one_whose_worker_has_no_lease_is_lost_and_not_connected() -> None:
    answer = told(fan=replace(UP, worker="dead"))
    assert code(answer) == "worker_lost"
    assert "dead" in text(answer)


def test_one_that_left_long_ago_is_known_from_what_is_remembered_alone() -> None:
    answer = told({"fan": Seen(NOW - 9 * MINUTE, NOW - 3 * MINUTE, "1006 ")})
    assert code(answer) == "disconnected"
    assert "3 分钟前断开" in text(answer)
    assert "disconnected 3 min ago" in text(answer)


def test_its_failing_to_come_back_counts_more_than_its_leaving_if_that_was_later() -> None:
    left = Seen(NOW - 9 * MINUTE, NOW - 3 * MINUTE, "1006 ")
    failed = replace(left, error="initialize unanswered", failed=NOW - MINUTE)
    assert code(told({"fan": failed}, fan=OFFLINE)) == "handshake_failed"
    assert code(told({"fan": replace(failed, failed=NOW - 5 * MINUTE)}, fan=OFFLINE)) == "disconnected"


def test_an_error_from_before_it_connected_is_told_and_does_not_count() -> None:
    answer = told({"fan": Seen(NOW - MINUTE, 0, "", "initialize unanswered", NOW - 2 * MINUTE)}, fan=UP)
    assert code(answer) == "ok"
    assert "initialize unanswered" in str(answer["tool_servers"])


def test_an_unnamed_failure_counts_until_somebody_has_come_since() -> None:
    unnamed = Seen(error="1006 ", failed=NOW - 2 * MINUTE)
    assert code(told({UNNAMED: unnamed})) == "handshake_failed"
    later = told({UNNAMED: unnamed, "fan": Seen(NOW - MINUTE, NOW, "1000")}, fan=replace(OFFLINE, offline_since=NOW))
    assert code(later) == "disconnected"
    assert later["unnamed_error"] is not None


def test_the_tools_of_one_that_is_gone_are_named_and_listed_as_long_as_robots_see_them() -> None:
    claims = {"blow": Claim("fan", "blow", 1, NOW + MINUTE)}
    for gone_ms, listed in ((10_000, "blow"), (31_000, "")):
        [fan] = told(claims=claims, fan=replace(OFFLINE, offline_since=NOW - gone_ms))["tool_servers"]  # type: ignore[misc]
        assert (fan["tools"], fan["listed"]) == ([{"tool": "blow", "listed_as": listed}], bool(listed))  # type: ignore[has-type]


def test_a_name_that_somebody_away_still_holds_is_told_with_its_end() -> None:
    claims = {"blow": Claim("old", "blow", 1, NOW + MINUTE), "fan__blow": Claim("fan", "blow", 2, 0)}
    names = told(claims=claims, fan=UP)["names"]
    others = [{"server_id": "fan", "tool": "blow", "listed_as": "fan__blow"}]
    until = "2023-11-14T22:14:20.000Z"
    assert names == {"collisions": [{"name": "blow", "held_by": "old", "until": until, "others": others}]}


@pytest.mark.parametrize(
    "cause",
    [
        *("1000", "1000 bye", "1001 going away", "1005", "1006 aborted", "1009 too big", "1011 keepalive", "silent"),
        *("replaced", "superseded", "ghost", "limit GATEWAY_X=1", "initialize unanswered", "initialize refused: x"),
        *("tools/list unanswered", "tools/list refused: x", "网关重启 / gateway restarted", "网关进程 w 失联 / lost"),
    ],
)
def test_every_cause_that_is_written_down_is_explained(cause: str) -> None:
    explained = verdicts.explained(cause)
    assert explained != cause
    assert " / " in explained


_NAMES = st.sampled_from(["fan", "lamp", UNNAMED, "~w1.9", "a b", "灯", ""])
_TIMES = st.sampled_from([0, 1, NOW - MINUTE, NOW, NOW + MINUTE])
_ROWS = st.builds(
    Row,
    state=st.sampled_from(["handshake", "up", "offline"]),
    worker=st.sampled_from(["w1", "dead"]),
    conn=st.text(max_size=3),
    since=_TIMES,
    toolset=st.sampled_from(["", "d", "e", "f", "missing"]),
    offline_since=_TIMES,
    cause=st.sampled_from(["", "1000", "嗯"]),
    takeovers=st.lists(_TIMES, max_size=4).map(tuple),
)
_CLAIMS = st.builds(Claim, server=_NAMES, original=st.sampled_from(["blow", "lamp.on"]), claimed=_TIMES, until=_TIMES)
_SEEN = st.builds(Seen, connected=_TIMES, disconnected=_TIMES, error=st.sampled_from(["", "x"]), failed=_TIMES)


@example(rows={"lamp": UP}, claims={"lamp_on": Claim("lamp", "blow", 0, 1)}, seen={})
@given(
    rows=st.dictionaries(_NAMES, _ROWS, max_size=4),
    claims=st.dictionaries(st.sampled_from(["blow", "lamp_on", "fan__blow"]), _CLAIMS, max_size=3),
    seen=st.dictionaries(_NAMES, _SEEN, max_size=4),
)
def test_whatever_the_store_says_there_is_an_answer_that_is_plain_data(
    rows: dict[str, Row], claims: dict[str, Claim], seen: dict[str, Seen]
) -> None:
    toolsets = {**TOOLS, "e": ["blow", "lamp.on"], "f": ["7"]}
    answer = status.answer(Credential("home"), Snapshot(1, NOW, rows, claims, seen), toolsets, WORKERS, 0)
    assert orjson.loads(orjson.dumps(answer)) == answer
    listed = [tool["listed_as"] for one in answer["tool_servers"] for tool in one["tools"] if tool["listed_as"]]
    assert len(listed) == len(set(listed))


def test_the_names_in_a_tool_set_that_no_worker_wrote_are_none() -> None:
    assert status.tool_names(b'[{"name":"blow"},{"name":"lamp.on"}]') == ["blow", "lamp.on"]
    assert [status.tool_names(text) for text in (b"", b"{", b"7", b"[7]", b'[{"title":"x"}]', b"[null]")] == [[]] * 6


# What each token may be told


def told_to(credential: Credential) -> dict[str, Any]:
    """An agent with three tool servers: two that are there and want one name, and one that left in trouble."""
    rows = {"fan": UP, "lamp": replace(UP, name="Lamp"), "oven": OFFLINE}
    claims = {"blow": Claim("fan", "blow", 1, 0), "lamp__blow": Claim("lamp", "blow", 2, 0)}
    seen = {"oven": Seen(error="initialize refused", failed=NOW), UNNAMED: Seen(error="1006 x", failed=NOW)}
    return status.answer(credential, Snapshot(1, NOW, rows, claims, seen), TOOLS, WORKERS, 7)


def test_a_legacy_token_and_a_robots_are_told_all_there_is_of_the_agent() -> None:
    legacy = told_to(Credential("home"))
    assert legacy == told_to(Credential("home", "call", "", "an-id", 1, 2))
    assert legacy["robots"] == 7
    assert [one["server_id"] for one in legacy["tool_servers"]] == ["fan", "lamp", "oven"]


def test_a_tool_servers_token_is_told_nothing_of_robots() -> None:
    legacy = told_to(Credential("home"))
    assert told_to(Credential("home", "mcp", "", "an-id", 1, 2)) == {
        name: value for name, value in legacy.items() if name != "robots"
    }


def test_a_token_for_one_tool_server_is_not_told_that_there_are_others() -> None:
    told = told_to(Credential("home", "mcp", "lamp", "an-id", 1, 2))
    [lamp] = told["tool_servers"]
    assert lamp["tools"][0]["listed_as"] == "lamp__blow"
    assert (told["verdict"]["code"], told["unnamed_error"], told["names"]) == ("ok", None, {"collisions": []})
    assert "robots" not in told
    assert not re.search("fan|oven|1006|initialize", str(told))


def test_a_token_for_a_tool_server_that_never_came_is_told_just_that() -> None:
    told = told_to(Credential("home", "mcp", "heater", "an-id", 1, 2))
    assert (told["verdict"]["code"], told["tool_servers"]) == ("never_connected", [])


def test_what_the_policy_forbids_is_said_with_the_rule() -> None:
    rows = {"fan": UP, "lamp": replace(UP, conn="w1.2", name="Lamp", toolset="l", tools=2)}
    tools = {"d": ["blow"], "l": ["on", "off"]}
    terms = Terms(policy=parse(b'{"servers":{"deny":["fan"]},"tools":{"deny":["off"]}}'))
    answer = status.answer(Credential("home"), Snapshot(1, NOW, rows), tools, WORKERS, 0, terms)
    fan, lamp = answer["tool_servers"]
    assert (lamp["listed"], lamp["verdict"]["code"]) == (True, "connected")
    assert [tool["listed_as"] for tool in lamp["tools"]] == ["lamp__on", ""]
    assert "tools.deny: off" in lamp["tools"][1]["why"]
    assert (fan["listed"], fan["verdict"]["code"], fan["state"]) == (False, "not_allowed", "connected")
    assert "servers.deny: fan" in fan["verdict"]["text"]
    assert "servers.deny: fan" in fan["tools"][0]["why"]
    assert code(answer) == "ok", "that somebody wants it so is no trouble"
    alone = status.answer(Credential("home"), Snapshot(1, NOW, {"fan": UP}), tools, WORKERS, 0, terms)
    assert code(alone) == "not_allowed"
