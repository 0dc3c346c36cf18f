"""The status answer and its verdicts, from facts alone."""

from dataclasses import replace

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway import status, verdicts
from gateway.backplane.base import Snapshot, WorkerRow
from gateway.directory import Claim, Row, Seen
from gateway.seen import UNNAMED

NOW = 1_700_000_000_000
MINUTE = 60_000
UP = Row("up", "w1", "w1.1", NOW - MINUTE, name="Fan", toolset="d", tools=1)
OFFLINE = replace(UP, state="offline", offline_since=NOW - 3 * MINUTE, cause="1006 ")
WORKERS = {"w1": WorkerRow("host", 1, "0", NOW)}
TOOLS = {"d": ["blow"]}


def told(seen: dict[str, Seen] | None = None, claims: dict[str, Claim] | None = None, **rows: Row) -> dict[str, object]:
    snapshot = Snapshot(1, NOW, rows, claims or {}, seen or {})
    return status.answer("home", snapshot, TOOLS, WORKERS, 0)


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
    answer = status.answer("home", Snapshot(1, NOW, rows, claims, seen), toolsets, WORKERS, 0)
    assert orjson.loads(orjson.dumps(answer)) == answer
    listed = [tool["listed_as"] for one in answer["tool_servers"] for tool in one["tools"] if tool["listed_as"]]
    assert len(listed) == len(set(listed))


def test_the_names_in_a_tool_set_that_no_worker_wrote_are_none() -> None:
    assert status.tool_names(b'[{"name":"blow"},{"name":"lamp.on"}]') == ["blow", "lamp.on"]
    assert [status.tool_names(text) for text in (b"", b"{", b"7", b"[7]", b'[{"title":"x"}]', b"[null]")] == [[]] * 6
