"""The conversation with a tool server, by virtual time: every stage, every silence, every oddity."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import jsonrpc, tools
from gateway.errors import CloseCode
from gateway.toolsession import (
    CHANGE_SECONDS,
    CHANGES_AT_ONCE,
    ID_LIMIT,
    PAGES_MAX,
    End,
    Limits,
    Progress,
    Remark,
    Send,
    Stage,
    Step,
    ToolSession,
    ToolsRead,
    own_id,
)

LIMITS = Limits(
    hello_pause_seconds=0.05,
    handshake_seconds=60,
    ping_seconds=50,
    reread_seconds=300,
    tools_max=1000,
    toolset_bytes=4 * 1024 * 1024,
)


class Talk:
    """A session and its peer on one virtual clock: time passes only in `until`."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.session = ToolSession(limits, {"name": "gateway", "version": "1"})
        self.now = 0.0
        self.steps: list[tuple[float, Step]] = []
        self.session.start(0.0)

    def note(self, steps: list[Step]) -> list[Step]:
        self.steps.extend((self.now, step) for step in steps)
        return steps

    def until(self, seconds: float, *, is_busy: bool = False) -> None:
        """Time passes, and whatever is due on the way happens."""
        for _ in range(100_000):
            if self.session.due > seconds:
                break
            self.now = max(self.now, self.session.due)
            self.note(self.session.on_time(self.now, is_busy=is_busy))
        else:
            raise AssertionError("the session is due without end")
        self.now = seconds

    def hear(self, **message: Any) -> list[Step]:
        return self.note(self.session.on_message(jsonrpc.classify({"jsonrpc": "2.0", **message}), self.now))

    def reply(self, result: Any) -> list[Step]:
        return self.hear(id=self.asked["id"], result=result)

    @property
    def sent(self) -> list[tuple[float, dict[str, Any]]]:
        return [(at, orjson.loads(step.frame)) for at, step in self.steps if isinstance(step, Send)]

    @property
    def asked(self) -> dict[str, Any]:
        """The last request of ours."""
        return next(frame for _, frame in reversed(self.sent) if "method" in frame and "id" in frame)

    def times(self, method: str) -> list[float]:
        return [at for at, frame in self.sent if frame.get("method") == method]

    def all(self, kind: type) -> list[Any]:
        return [step for _, step in self.steps if isinstance(step, kind)]

    @property
    def ends(self) -> list[End]:
        return self.all(End)


def initialized() -> Talk:
    talk = Talk()
    talk.until(0.05)
    talk.reply({"protocolVersion": "2024-11-05", "serverInfo": {"name": "calc", "version": "2"}})
    return talk


def ready(limits: Limits = LIMITS) -> Talk:
    talk = Talk(limits)
    talk.until(0.05)
    talk.reply({"protocolVersion": "2024-11-05", "serverInfo": {"name": "calc", "version": "2"}})
    talk.reply({"tools": [{"name": "add"}]})
    assert talk.session.stage is Stage.READY
    return talk


# The handshake


def test_the_first_frame_waits_for_the_pause() -> None:
    """In one packet with the 101 it reaches some bridges before they think they are open."""
    talk = Talk()
    talk.until(0.049)
    assert talk.steps == []
    talk.until(0.05)
    [(at, frame)] = talk.sent
    assert at == 0.05
    assert frame == {
        "jsonrpc": "2.0",
        "id": 0,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "gateway", "version": "1"},
        },
    }
    assert talk.session.stage is Stage.INITIALIZING


def test_initialized_is_told_before_the_list_is_asked_for() -> None:
    talk = initialized()
    assert [frame["method"] for _, frame in talk.sent[1:]] == ["notifications/initialized", "tools/list"]
    assert talk.sent[1][1] == {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert talk.sent[2][1] == {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    assert talk.session.stage is Stage.LISTING
    assert (talk.session.name, talk.session.version) == ("calc", "2")


@pytest.mark.parametrize(
    ("result", "name", "version"),
    [
        ({"protocolVersion": "1999-01-01", "serverInfo": {"name": "old", "version": 1.5}}, "old", "1.5"),
        ({}, "", ""),
        ("text", "", ""),
        (None, "", ""),
        ({"serverInfo": "text"}, "", ""),
        ({"serverInfo": {"name": None, "version": None}}, "", ""),
        ({"serverInfo": {"name": "a\n\x00b长", "version": "v" * 99}}, "ab长", "v" * 64),
    ],
    ids=repr,
)
def test_any_result_of_initialize_is_accepted(result: Any, name: str, version: str) -> None:
    talk = Talk()
    talk.until(0.05)
    talk.reply(result)
    assert talk.session.stage is Stage.LISTING
    assert (talk.session.name, talk.session.version) == (name, version)


def test_names_nested_deeper_than_python_goes_are_survived() -> None:
    deep = orjson.loads(b"[" * 900 + b"]" * 900)
    talk = Talk()
    talk.until(0.05)
    talk.reply({"serverInfo": {"name": deep, "version": deep}})
    talk.hear(id=talk.asked["id"], error={"code": 1, "message": deep})
    assert talk.session.stage is Stage.READY


def test_a_refused_initialize_is_offered_once_more_with_the_oldest_version() -> None:
    talk = Talk()
    talk.until(0.05)
    talk.hear(id=0, error={"code": -32602, "message": "unsupported"})
    assert talk.asked["params"]["protocolVersion"] == "2024-11-05"
    assert talk.asked["id"] == 1
    talk.reply({})
    assert talk.session.stage is Stage.LISTING


def test_an_initialize_that_is_refused_twice_ends_the_session_with_1013() -> None:
    talk = Talk()
    talk.until(0.05)
    for _ in range(2):
        talk.hear(id=talk.asked["id"], error={"code": -32602, "message": "不行"})
    [end] = talk.ends
    assert end.code is CloseCode.TRY_AGAIN_LATER
    assert "不行" in end.cause
    assert talk.session.stage is Stage.CLOSED


def test_an_initialize_without_an_answer_ends_the_session_with_1013_after_a_minute() -> None:
    talk = Talk()
    talk.until(60.04)
    assert talk.ends == []
    talk.until(60.05)
    assert [end.code for end in talk.ends] == [CloseCode.TRY_AGAIN_LATER]
    assert "initialize" in talk.ends[0].cause


def test_a_first_list_without_an_answer_ends_the_session_with_1013_after_a_minute() -> None:
    talk = initialized()
    talk.until(60.04)
    assert talk.ends == []
    talk.until(60.05)
    assert [end.code for end in talk.ends] == [CloseCode.TRY_AGAIN_LATER]
    assert "tools/list" in talk.ends[0].cause


def test_a_session_that_has_ended_is_never_due_again() -> None:
    """A due time in the past would keep the connection's timer spinning until the socket is gone."""
    talk = Talk()
    talk.until(10_000)
    assert len(talk.ends) == 1
    assert talk.session.due == float("inf")
    assert talk.session.on_time(20_000, is_busy=False) == []


def test_on_time_before_it_is_due_does_nothing() -> None:
    talk = ready()
    assert talk.session.on_time(talk.session.due - 0.001, is_busy=False) == []


# The list


def test_the_last_page_makes_it_ready() -> None:
    talk = initialized()
    [read] = talk.reply({"tools": [{"name": "add"}, {"name": None}, {"name": "add"}]})[-1:]
    assert isinstance(read, ToolsRead)
    assert [tool["name"] for tool in read.tools] == ["add"]
    assert orjson.loads(read.encoded) == read.tools
    assert read.is_first
    assert [remark.kind for remark in talk.all(Remark)] == ["dropped"]
    assert talk.session.stage is Stage.READY


@pytest.mark.parametrize("result", [{"tools": []}, {"tools": None}, {"tools": {}}, {}, [], "text", None], ids=repr)
def test_a_list_without_tools_is_an_empty_one(result: Any) -> None:
    [read] = initialized().reply(result)
    assert isinstance(read, ToolsRead)
    assert (read.tools, read.encoded, read.is_first) == ([], b"[]", True)


def test_a_first_list_that_is_refused_is_an_empty_one() -> None:
    """A server without tools says −32601."""
    talk = initialized()
    talk.hear(id=talk.asked["id"], error={"code": -32601, "message": "no such method"})
    [read] = talk.all(ToolsRead)
    assert (read.tools, read.is_first) == ([], True)


def test_pages_are_followed_until_the_cursor_is_absent_and_an_empty_cursor_is_one() -> None:
    talk = initialized()
    for number, cursor in enumerate(["", "p2", "p3"]):
        talk.reply({"tools": [{"name": f"t{number}"}], "nextCursor": cursor})
        assert talk.asked["method"] == "tools/list"
        assert talk.asked["params"] == {"cursor": cursor}
        assert talk.all(ToolsRead) == []
    talk.reply({"tools": [{"name": "t3"}], "nextCursor": None})
    [read] = talk.all(ToolsRead)
    assert [tool["name"] for tool in read.tools] == ["t0", "t1", "t2", "t3"]


@pytest.mark.parametrize("cursor", [None, 5, True, ["p"], {}], ids=repr)
def test_a_cursor_that_is_no_string_ends_the_list(cursor: Any) -> None:
    talk = initialized()
    talk.reply({"tools": [{"name": "add"}], "nextCursor": cursor})
    assert len(talk.all(ToolsRead)) == 1


def test_a_list_that_goes_round_is_read_once() -> None:
    talk = initialized()
    for cursor in ("a", "b", "a"):
        talk.reply({"tools": [{"name": cursor}], "nextCursor": cursor})
    [read] = talk.all(ToolsRead)
    assert [tool["name"] for tool in read.tools] == ["a", "b"]
    assert "pages" in [remark.kind for remark in talk.all(Remark)]


def test_a_list_without_end_is_read_as_far_as_the_page_limit() -> None:
    talk = initialized()
    for number in range(PAGES_MAX + 1):
        assert talk.all(ToolsRead) == []
        talk.reply({"tools": [{"name": f"t{number}"}], "nextCursor": f"p{number}"})
    assert len(talk.all(ToolsRead)) == 1


def test_a_list_is_read_as_far_as_the_tool_limit() -> None:
    talk = initialized()
    talk.reply({"tools": [{"name": f"t{number}"} for number in range(1200)], "nextCursor": "more"})
    [read] = talk.all(ToolsRead)
    assert len(read.tools) == 1000
    assert {remark.kind for remark in talk.all(Remark)} == {"pages", "cut"}


def test_a_page_without_an_answer_ends_the_handshake_too() -> None:
    talk = initialized()
    talk.until(30)
    talk.reply({"tools": [], "nextCursor": "p"})
    talk.until(89.9)
    assert talk.ends == []
    talk.until(90)
    assert len(talk.ends) == 1


def test_what_does_not_fit_or_can_not_be_written_is_left_out() -> None:
    listed = [{"name": "a"}, {"name": "deep", "x": nested(300)}, {"name": "b"}, {"name": "c"}]
    usable = [tool for tool in map(tools.normalise, listed) if tool is not None]
    two = len(tools.encode([usable[0], usable[2]]))
    kept, encoded, cut = tools.fit(usable, 10, two + 1)
    assert [tool["name"] for tool in kept] == ["a", "b"]
    assert encoded == tools.encode(kept)
    assert cut == 2
    assert tools.fit(usable, 1, 10**6)[0] == usable[:1]
    assert tools.fit(usable, 0, 10**6) == ([], b"[]", 4)


def nested(levels: int) -> Any:
    return orjson.loads(b"[" * levels + b"]" * levels)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(max_size=8), max_size=8, unique=True), st.integers(0, 9), st.integers(2, 600))
def test_what_is_kept_keeps_to_the_limits(names: list[str], tools_max: int, bytes_max: int) -> None:
    usable = [tool for name in names if (tool := tools.normalise({"name": name})) is not None]
    kept, encoded, cut = tools.fit(usable, tools_max, bytes_max)
    assert kept == usable[: len(kept)]
    assert encoded == tools.encode(kept)
    assert len(kept) <= tools_max
    assert len(encoded) <= bytes_max
    assert len(kept) + cut == len(usable)


# The list changes


def test_a_changed_list_is_read_again() -> None:
    talk = ready()
    talk.until(10)
    talk.hear(method="notifications/tools/list_changed")
    assert talk.times("tools/list")[-1] == 10
    talk.reply({"tools": []})
    assert [read.is_first for read in talk.all(ToolsRead)] == [True, False]


def test_a_change_during_a_list_is_read_after_it_and_only_once() -> None:
    talk = initialized()
    for _ in range(3):
        talk.hear(method="notifications/tools/list_changed")
    assert len(talk.times("tools/list")) == 1
    talk.reply({"tools": [{"name": "old"}]})
    assert len(talk.times("tools/list")) == 2
    talk.reply({"tools": [{"name": "new"}]})
    assert len(talk.times("tools/list")) == 2
    assert [[tool["name"] for tool in read.tools] for read in talk.all(ToolsRead)] == [["old"], ["new"]]


def test_a_change_between_two_pages_starts_the_list_anew_after_the_last() -> None:
    talk = ready()
    talk.hear(method="notifications/tools/list_changed")
    talk.reply({"tools": [{"name": "a"}], "nextCursor": "p"})
    talk.hear(method="notifications/tools/list_changed")
    talk.reply({"tools": [{"name": "b"}]})
    assert "params" not in talk.asked
    talk.reply({"tools": [{"name": "c"}]})
    assert [tool["name"] for tool in talk.all(ToolsRead)[-1].tools] == ["c"]


def test_a_change_during_a_list_that_is_then_refused_is_read_after_it_too() -> None:
    talk = ready()
    for _ in range(2):
        talk.hear(method="notifications/tools/list_changed")
    talk.hear(id=talk.asked["id"], error={"code": -1, "message": "busy"})
    assert len(talk.times("tools/list")) == 3


@pytest.mark.parametrize("seconds", [0.0, 0.05], ids=["before initialize", "during initialize"])
def test_a_change_before_the_handshake_is_done_changes_nothing(seconds: float) -> None:
    """One hub sends it when the socket opens."""
    talk = Talk()
    talk.until(seconds)
    talk.hear(method="notifications/tools/list_changed")
    talk.until(0.05)
    talk.hear(id=0, result={})
    talk.reply({"tools": []})
    assert len(talk.times("tools/list")) == 1


def test_a_list_that_changes_all_the_time_is_read_at_a_pace_and_its_last_state_is_not_missed() -> None:
    talk = ready()
    talk.until(10)
    before = len(talk.times("tools/list"))
    for number in range(CHANGES_AT_ONCE + 3):
        talk.hear(method="notifications/tools/list_changed")
        if len(talk.times("tools/list")) == before + number + 1:
            talk.reply({"tools": [{"name": f"tool {number}"}]})
    assert len(talk.times("tools/list")) == before + CHANGES_AT_ONCE
    answer_all_until(talk, 10 + CHANGE_SECONDS + 2)
    assert len(talk.times("tools/list")) == before + CHANGES_AT_ONCE + 1
    answer_all_until(talk, 10 + 3 * CHANGE_SECONDS)
    assert len(talk.times("tools/list")) == before + CHANGES_AT_ONCE + 1


@pytest.mark.parametrize(
    ("listed", "oversized", "cut"),
    [
        ([{"name": str(number)} for number in range(5000)], 0, 4990),
        ([{"name": "wide", "inputSchema": {"required": ["x"] * 300_000}}, {"name": "b"}], 1, 0),
        ([{"name": "deep", "x": orjson.loads(b"[" * 300 + b"]" * 300)}, {"name": "b"}], 0, 1),
        ([7] * 10_000, 0, 9980),
    ],
    ids=["many", "one too wide", "one too deep", "no tools"],
)
def test_of_an_overlong_list_only_what_can_be_taken_is_looked_at(listed: list[Any], oversized: int, cut: int) -> None:
    taken = tools.take(listed, tools.Bounds(10, 2_000_000, 100_000, 64))
    assert len(taken.tools) + taken.dropped + taken.oversized + taken.cut == len(listed)
    assert (taken.oversized, taken.cut) == (oversized, cut)


def test_a_later_list_that_is_refused_leaves_the_old_one() -> None:
    talk = ready()
    talk.hear(method="notifications/tools/list_changed")
    talk.hear(id=talk.asked["id"], error={"code": -1, "message": "busy"})
    assert len(talk.all(ToolsRead)) == 1
    assert talk.session.stage is Stage.READY


def test_a_server_that_refuses_its_list_is_asked_no_more_often_than_others() -> None:
    talk = ready()
    answer_all_until(talk, 3010, refuse={"tools/list"})
    assert len(talk.times("tools/list")) == 1 + 3000 // 300
    assert talk.ends == []


# Signs of life


def answer_all_until(
    talk: Talk, seconds: float, *, refuse: set[str] | None = None, ignore: set[str] | None = None, is_busy: bool = False
) -> None:
    """Time passes; every request of ours is answered at once, refused, or ignored, by its method."""
    heard = len(talk.sent)
    while talk.session.due <= seconds or heard < len(talk.sent):
        if heard == len(talk.sent):
            talk.until(talk.session.due, is_busy=is_busy)
        new, heard = talk.sent[heard:], len(talk.sent)
        for _, frame in new:
            if "id" not in frame or frame["method"] in (ignore or ()):
                continue
            if frame["method"] in (refuse or ()):
                talk.hear(id=frame["id"], error={"code": -32601, "message": "no"})
            else:
                talk.hear(id=frame["id"], result={"tools": []} if frame["method"] == "tools/list" else {})
    talk.until(seconds, is_busy=is_busy)


def test_a_ping_goes_out_when_nothing_of_ours_went_out_for_50_seconds() -> None:
    talk = ready()
    talk.until(50.04)
    assert talk.times("ping") == []
    talk.until(50.05)
    assert talk.times("ping") == [50.05]


def test_a_call_puts_the_ping_off() -> None:
    talk = ready()
    for second in (20, 40, 60, 80):
        talk.until(second)
        talk.session.note_sent(second)
    talk.until(129.9)
    assert talk.times("ping") == []
    talk.until(130)
    assert talk.times("ping") == [130]


def test_a_healthy_server_is_pinged_every_50_seconds_and_read_every_300() -> None:
    talk = ready()
    answer_all_until(talk, 1000)
    assert [round(at) for at in talk.times("tools/list")] == [0, 300, 600, 900]
    assert [round(at) for at in talk.times("ping")][:6] == [50, 100, 150, 200, 250, 350]
    assert talk.ends == []


@pytest.mark.parametrize("refuse", [{"ping"}, {"ping", "tools/list"}], ids=["ping", "everything"])
def test_an_error_answer_is_a_sign_of_life(refuse: set[str]) -> None:
    talk = ready()
    answer_all_until(talk, 3000, refuse=refuse)
    assert talk.ends == []


def test_two_silent_pings_and_a_silent_list_end_the_session() -> None:
    talk = ready()
    talk.until(180.0)
    assert [round(at, 2) for at in talk.times("ping")] == [50.05, 100.05]
    assert [round(at, 2) for at in talk.times("tools/list")] == [0.05, 150.05]
    assert talk.ends == []
    talk.until(180.1)
    assert [end.code for end in talk.ends] == [CloseCode.TRY_AGAIN_LATER]
    assert " / " in talk.ends[0].reason


@pytest.mark.parametrize("died", range(10, 320, 10))
def test_a_server_is_found_dead_whenever_it_dies(died: int) -> None:
    """Also where its list falls due before two pings were missed."""
    talk = ready()
    answer_all_until(talk, died)
    talk.until(died + 260)
    assert len(talk.ends) == 1


@pytest.mark.parametrize(
    "sign",
    [
        lambda talk: talk.hear(id=99, result={}),
        lambda talk: talk.hear(method="notifications/message", params={}),
        lambda talk: talk.note(talk.session.on_message(jsonrpc.parse(b"banner"), talk.now)),
        lambda talk: talk.session.note_heard(talk.now),
    ],
    ids=["foreign answer", "notification", "noise", "answer to a call"],
)
def test_any_frame_is_a_sign_of_life(sign: Callable[[Talk], object]) -> None:
    talk = ready()
    for second in range(70, 2000, 70):
        talk.until(second)
        sign(talk)
    assert talk.ends == []


def test_a_list_that_alone_stays_unanswered_ends_nothing() -> None:
    talk = ready()
    answer_all_until(talk, 2000, ignore={"tools/list"})
    assert talk.ends == []
    assert len(talk.times("ping")) > 15
    assert len(talk.times("tools/list")) <= 7


def test_a_silent_server_is_never_closed_while_a_call_runs() -> None:
    """A serial bridge answers nothing during a call."""
    talk = ready()
    talk.until(1000, is_busy=True)
    assert talk.ends == []
    assert len(talk.times("tools/list")) == 1, "it is not read again either"
    assert len(talk.times("ping")) >= 19, "bridges die without pings"


def test_silence_during_a_call_does_not_count_afterwards() -> None:
    talk = ready()
    talk.until(280, is_busy=True)
    talk.until(370)
    assert talk.ends == []


def test_a_server_that_falls_silent_and_gets_a_call_is_only_closed_after_it() -> None:
    talk = ready()
    talk.until(160)
    assert talk.asked["method"] == "tools/list"
    talk.until(600, is_busy=True)
    assert talk.ends == []
    talk.until(700)
    assert len(talk.ends) == 1


def test_a_server_is_read_again_as_soon_as_its_call_is_over() -> None:
    talk = ready()
    answer_all_until(talk, 320, is_busy=True)
    assert len(talk.times("tools/list")) == 1
    answer_all_until(talk, 325)
    assert len(talk.times("tools/list")) == 2


def test_a_probe_is_a_ping_at_once() -> None:
    talk = ready()
    talk.until(10)
    talk.note(talk.session.ping(10))
    assert talk.times("ping") == [10]
    talk.reply({})
    answer_all_until(talk, 200)
    assert talk.ends == []


def test_it_is_not_woken_over_and_over_while_it_waits_for_a_list() -> None:
    talk = ready(Limits(0.05, 60, 5, 300, 10, 10_000))
    talk.hear(method="notifications/tools/list_changed")
    wakes = 0
    while talk.session.due < 30:
        wakes += 1
        talk.until(talk.session.due)
    assert wakes < 10


# Its own requests, and noise


@pytest.mark.parametrize("stage", ["hello", "ready"])
@pytest.mark.parametrize(
    ("method", "params", "result"),
    [
        ("ping", None, {}),
        ("roots/list", {}, {"roots": []}),
        ("initialize", {"protocolVersion": "2025-03-26"}, "2025-03-26"),
        ("initialize", {"protocolVersion": "1999-01-01"}, "2024-11-05"),
        ("initialize", None, "2024-11-05"),
    ],
)
def test_its_own_requests_are_answered(stage: str, method: str, params: Any, result: Any) -> None:
    talk = Talk() if stage == "hello" else ready()
    [step] = talk.hear(id="theirs", method=method, params=params)
    assert isinstance(step, Send)
    answer = orjson.loads(step.frame)
    assert answer["id"] == "theirs"
    if method == "initialize":
        assert answer["result"]["protocolVersion"] == result
        assert answer["result"]["capabilities"] == {}
    else:
        assert answer["result"] == result


@pytest.mark.parametrize("method", ["sampling/createMessage", "elicitation/create", "x" * 5000, ""])
def test_what_it_may_not_ask_is_refused(method: str) -> None:
    [step] = ready().hear(id=0, method=method)
    assert isinstance(step, Send)
    answer = orjson.loads(step.frame)
    assert answer["id"] == 0
    assert answer["error"]["code"] == -32601
    assert len(step.frame) < 300


def test_a_broken_request_with_an_id_is_answered() -> None:
    [step] = ready().hear(id=4, method=5)
    assert isinstance(step, Send)
    assert orjson.loads(step.frame)["error"]["code"] == -32600


@pytest.mark.parametrize("frame", [b"npm start", b"5", b'{"result":{}}', b"{}", b"\xff"], ids=repr)
def test_noise_is_survived_and_told_once(frame: bytes) -> None:
    talk = ready()
    for _ in range(3):
        talk.note(talk.session.on_message(jsonrpc.parse(frame), talk.now))
    assert [remark.kind for remark in talk.all(Remark)] == ["noise"]
    assert talk.session.stage is Stage.READY


def test_blank_lines_are_not_worth_a_word() -> None:
    assert ready().session.on_message(jsonrpc.parse(b"\n"), 1.0) == []


def test_answers_to_nothing_are_told_once() -> None:
    talk = ready()
    for rpc_id in (5, "x", -1, "", 2**40):
        talk.hear(id=rpc_id, result={})
    assert [remark.kind for remark in talk.all(Remark)] == ["foreign id"]


@pytest.mark.parametrize(
    ("params", "steps"),
    [
        ({"progressToken": 7, "progress": 1}, [Progress(7, {"progressToken": 7, "progress": 1})]),
        ({"progressToken": "7"}, [Progress("7", {"progressToken": "7"})]),
        ({"progressToken": None}, []),
        ({"progressToken": True}, []),
        ({}, []),
        (None, []),
        ([], []),
    ],
    ids=repr,
)
def test_progress_is_handed_on_with_its_token(params: Any, steps: list[Step]) -> None:
    assert ready().hear(method="notifications/progress", params=params) == steps


def test_frames_that_only_the_standard_library_reads_are_handled_like_others() -> None:
    talk = initialized()
    frame = (
        b'{"id":%d,"result":{"tools":[{"name":"a\\ud800"},{"name":"b","x":NaN}],"nextCursor":"\\udfff"}}'
        % talk.asked["id"]
    )
    talk.note(talk.session.on_message(jsonrpc.standard_parse(frame), talk.now))
    assert talk.asked["params"]["cursor"]
    talk.note(talk.session.on_message(jsonrpc.standard_parse(b'{"id":"\\ud800","method":"\\ud800"}'), talk.now))
    talk.reply({"tools": []})
    assert len(talk.all(ToolsRead)[0].tools) == 2


# Ids


def test_ids_are_integers_from_zero_on_and_go_round_below_two_to_the_31() -> None:
    session = ready().session
    first = session.take_id()
    assert [session.take_id() for _ in range(3)] == [first + 1, first + 2, first + 3]
    session._next_id = ID_LIMIT - 1
    assert [session.take_id(), session.take_id()] == [2**31 - 1, 0]


def test_ids_in_use_are_skipped() -> None:
    talk = ready()
    talk.until(50.05)
    ping = talk.asked["id"]
    talk.session._next_id = ping
    assert talk.session.take_id() == ping + 1, "the ping waits for its answer"
    talk.session._next_id = ID_LIMIT - 1
    calls = {ID_LIMIT - 1, 0, 1}
    assert talk.session.take_id(calls.__contains__) not in calls | {ping}


@pytest.mark.parametrize(
    ("rpc_id", "own"),
    [(7, 7), ("7", 7), (0, 0), ("0", 0), ("", -1), ("x", -1), ("-7", -1), ("7.0", -1), (" 7", -1), ("9" * 11, -1)],
    ids=repr,
)
def test_an_id_that_came_back_as_a_string_is_ours_all_the_same(rpc_id: int | str, own: int) -> None:
    assert own_id(rpc_id) == own


def test_the_handshake_works_with_a_server_that_answers_under_strings() -> None:
    talk = Talk()
    talk.until(0.05)
    talk.hear(id="0", result={})
    talk.hear(id="1", result={"tools": []})
    assert talk.session.stage is Stage.READY


# Whatever it says and whenever


RESULTS = st.none() | st.fixed_dictionaries(
    {}, optional={"tools": st.lists(st.just({"name": "a"}), max_size=2), "nextCursor": st.sampled_from(["", "p", None])}
)
SAYINGS = st.one_of(
    st.builds(lambda rpc_id, result: {"id": rpc_id, "result": result}, st.integers(0, 6), RESULTS),
    st.builds(lambda rpc_id: {"id": rpc_id, "error": {"code": 1}}, st.integers(0, 6)),
    st.sampled_from([{"method": "notifications/tools/list_changed"}, {"id": 1, "method": "ping"}, {}, {"id": 1}]),
)
MOMENTS = st.one_of(SAYINGS, st.sampled_from([0.01, 1.0, 49.0, 61.0, 301.0]), st.booleans())


@settings(deadline=None, max_examples=120)
@given(st.lists(MOMENTS, max_size=25))
def test_the_session_is_always_due_later_and_ends_at_most_once(moments: list[Any]) -> None:
    talk = Talk()
    is_busy = False
    for moment in moments:
        if isinstance(moment, bool):
            is_busy = moment
        elif isinstance(moment, float):
            talk.until(talk.now + moment, is_busy=is_busy)
        else:
            talk.hear(**moment)
    asked = [frame["id"] for _, frame in talk.sent if "method" in frame and "id" in frame]
    assert asked == list(range(len(asked)))
    assert len(talk.ends) <= 1
    assert len([read for read in talk.all(ToolsRead) if read.is_first]) <= 1
    if talk.ends:
        assert talk.session.stage is Stage.CLOSED
