"""Pinned definitions: what counts as the same tool, what is withheld, and whose pins are believed."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import pins
from gateway.backplane.base import Change, Snapshot
from gateway.backplane.rows import dump_pins, load_pins
from gateway.directory import Claim, Pins, Row
from gateway.pin_modes import AWAITED_SECONDS, PinModes
from gateway.pinboard import Pinboard
from gateway.pins import Bounds, CannotApprove, Finding
from gateway.policies import Policies
from gateway.policy import UNSET, parse
from gateway.tools import normalise
from gateway.toolsets import Toolsets

quick = settings(deadline=None, max_examples=60)
WIDE = Bounds(tools_per_server=100, tools_per_agent=200, servers=10)
UP = Row("up", "w", "c", 5, 7, toolset="t")


def tool(name: str = "add", **fields: Any) -> dict[str, Any]:
    made = normalise({"name": name, **fields})
    assert made is not None
    return made


def told(*tools: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: pins.fingerprint(one) for one in tools}


def first(*tools: dict[str, Any], now_ms: int = 10) -> Pins:
    kept = pins.judge(Snapshot(1, now_ms), "s", told(*tools), WIDE).pins
    assert kept is not None
    return kept


# The fingerprint


def test_equal_definitions_have_one_fingerprint_whatever_the_order_of_their_keys() -> None:
    one = tool(
        inputSchema={"properties": {"a": {"type": "number", "title": "A"}, "b": {}}}, annotations={"x": 1, "y": 2}
    )
    two = tool(
        annotations={"y": 2, "x": 1}, inputSchema={"properties": {"b": {}, "a": {"title": "A", "type": "number"}}}
    )
    assert pins.fingerprint(one) == pins.fingerprint(two)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "Add"},
        {"description": "adds."},
        {"inputSchema": {"properties": {"a": {"description": "and send it to me"}}}},
        {"outputSchema": {"type": "object"}},
        {"annotations": {"readOnlyHint": True}},
        {"title": "Adder"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_of_a_definition_is_other_makes_another_fingerprint(change: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"name": "add", "description": "adds"}
    one, other = pins.fingerprint(tool(**fields)), pins.fingerprint(tool(**{**fields, **change}))
    assert not pins.is_equal(one, other)


def test_what_is_not_part_of_the_definition_is_not_pinned() -> None:
    one, other = tool(), tool(_meta={"build": 7}, icons=[], vendor="x")
    assert pins.fingerprint(one) == pins.fingerprint(other)


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@quick
@given(JSON, JSON)
def test_two_schemas_share_a_fingerprint_only_if_their_canonical_text_is_one(one: Any, other: Any) -> None:
    a, b = tool(annotations={"x": one}), tool(annotations={"x": other})
    assert pins.is_equal(pins.fingerprint(a), pins.fingerprint(b)) == (pins.canonical(a) == pins.canonical(b))
    assert one != other or repr(one) != repr(other) or pins.canonical(a) == pins.canonical(b)


# Pinned on first use


def test_the_first_list_is_pinned_whole_and_nothing_is_added_to_it_later() -> None:
    kept = first(tool("a"), tool("b"))
    assert kept == Pins(since=10, tools=told(tool("a"), tool("b")))

    later = Snapshot(2, 20, pins={"s": kept})
    found = pins.judge(later, "s", told(tool("a", description="other"), tool("c")), WIDE)

    assert (found.changed, found.new, found.removed) == (("a",), ("c",), ("b",))
    assert found.pins is not None
    assert (found.pins.tools, found.pins.since) == (kept.tools, 10)
    assert found.pins.offered == {**told(tool("a", description="other"), tool("c")), "b": ""}


def test_what_is_offered_is_news_once_and_again_when_it_changes() -> None:
    kept = first(tool("a"))
    once = pins.judge(Snapshot(2, 20, pins={"s": kept}), "s", told(tool("a", title="T")), WIDE)
    assert once.pins is not None
    again = Snapshot(3, 30, pins={"s": once.pins})
    assert pins.judge(again, "s", told(tool("a", title="T")), WIDE) == Finding()
    assert pins.judge(again, "s", told(tool("a", title="U")), WIDE).changed == ("a",)
    back = pins.judge(again, "s", told(tool("a")), WIDE)
    assert back == Finding(pins=kept), "as it was pinned: nothing to report, nothing waits"


def test_a_list_without_tools_says_nothing() -> None:
    assert pins.judge(Snapshot(1, 10), "s", {}, WIDE) == Finding()
    assert pins.judge(Snapshot(1, 10, pins={"s": first(tool())}), "s", {}, WIDE) == Finding()


def test_a_second_tool_server_is_said_to_be_new_beside_the_first() -> None:
    assert not pins.judge(Snapshot(1, 10), "s", told(tool()), WIDE).is_new_server
    assert pins.judge(Snapshot(1, 10, pins={"s": first(tool())}), "t", told(tool()), WIDE).is_new_server


def test_pins_are_bounded_by_tool_server_by_agent_and_in_tool_servers() -> None:
    many = told(*(tool(str(number)) for number in range(5)))
    found = pins.judge(Snapshot(1, 10), "s", many, replace(WIDE, tools_per_server=3))
    assert found.pins is not None
    assert (list(found.pins.tools), found.unpinned) == (["0", "1", "2"], 2)
    other = Snapshot(1, 10, pins={"s": found.pins})
    assert pins.judge(other, "t", many, replace(WIDE, tools_per_agent=3)) == Finding(is_new_server=True, unpinned=5)
    assert pins.judge(other, "t", many, replace(WIDE, servers=1)).pins is None
    full = pins.judge(
        other, "s", told(*(tool(f"new{number}") for number in range(5))), replace(WIDE, tools_per_server=4)
    )
    assert full.pins is not None
    assert (len(full.pins.offered), full.unpinned) == (1, 7)


def test_a_name_of_any_length_takes_little_room() -> None:
    [key] = first(tool("x" * 5000)).tools
    assert len(key) < pins.KEY_CHARS_MAX
    assert pins.pin_key("x" * 5000) != pins.pin_key("x" * 5001)


# What is withheld


def scene(kept: Pins | None, *tools: dict[str, Any], mode: str = "block", row: Row = UP) -> set[tuple[str, str]]:
    toolsets = Toolsets(2**20)
    toolsets.keep("t", list(tools), 100)
    claims = {one["name"]: Claim("s", one["name"], 1, 0) for one in tools}
    facts = Snapshot(1, 10, {"s": row}, claims, pins={} if kept is None else {"s": kept})
    return set(pins.blocked(facts, toolsets.fingerprints, mode))


def test_block_withholds_exactly_what_is_not_as_pinned() -> None:
    kept = first(tool("a"), tool("b"))
    assert scene(kept, tool("a"), tool("b")) == set()
    assert scene(kept, tool("a", title="T"), tool("b"), tool("c")) == {("s", "a"), ("s", "c")}
    assert scene(None, tool("a")) == {("s", "a")}, "unpinned: the store may have lost its pins"


@pytest.mark.parametrize("mode", ["off", "warn"])
def test_nothing_is_withheld_in_the_other_modes(mode: str) -> None:
    assert scene(None, tool("a"), mode=mode) == set()


def test_a_claim_of_a_connected_tool_server_whose_list_nobody_can_give_is_withheld() -> None:
    kept = first(tool("a"))
    gone = replace(UP, toolset="lost")
    assert scene(kept, tool("a"), row=gone) == {("s", "a")}
    assert scene(kept, tool("a"), row=replace(gone, state="offline")) == set(), (
        "it can't be called anyway, only waited for"
    )


# What people decide


def test_approving_takes_what_is_offered_and_nothing_else() -> None:
    found = pins.judge(
        Snapshot(2, 20, pins={"s": first(tool("a"), tool("b"))}), "s", told(tool("a", title="T"), tool("c")), WIDE
    )
    assert found.pins is not None
    one = pins.approved(found.pins, ["a"], "", 50)
    assert (one.since, one.decided) == (10, 50)
    assert one.tools == told(tool("a", title="T"), tool("b"))
    assert set(one.offered) == {"b", "c"}
    everything = pins.approved(one, [], "", 40)
    assert everything.decided == 51, "later than what was decided before, whatever the clock says"
    assert (everything.tools, everything.offered) == (told(tool("a", title="T"), tool("c")), {})


def test_only_the_offer_that_was_looked_at_is_approved() -> None:
    kept = Pins(1, 0, told(tool("a")), told(tool("a", title="T")))
    looked_at = pins.offer_id(kept)
    changed = replace(kept, offered=told(tool("a", title="EVIL")))
    with pytest.raises(CannotApprove, match="changed"):
        pins.approved(changed, ["a"], looked_at, 5)
    assert pins.approved(kept, ["a"], looked_at, 5).offered == {}
    with pytest.raises(CannotApprove, match="'b'"):
        pins.approved(kept, ["b"], "", 5)


def test_the_differences_say_what_of_a_tool_has_changed_and_find_a_renamed_one() -> None:
    kept = Pins(1, 0, told(tool("a", description="x"), tool("old", description="same")), {})
    offered = pins.changes(
        kept.tools, told(tool("a", description="y", annotations={}), tool("new", description="same"))
    )
    found = {one.tool: (one.kind, one.parts, one.like) for one in pins.differences(replace(kept, offered=offered))}
    assert found == {
        "a": ("changed", ("description", "annotations"), ""),
        "new": ("new", (), "old"),
        "old": ("removed", (), ""),
    }


def test_forgotten_pins_are_remembered_as_such_until_the_next_list_is_pinned() -> None:
    gone = pins.forgotten(first(tool("a")), 50)
    found = pins.judge(Snapshot(1, 60, pins={"s": gone}), "s", told(tool("b")), WIDE)
    assert found.pins == Pins(since=60, decided=50, tools=told(tool("b")))
    assert pins.faded(Snapshot(1, 50 + pins.FORGOTTEN_MS + 1, pins={"s": gone, "t": found.pins})) == {"s": None}


# Whom to believe


def test_a_later_decision_outranks_an_earlier_one_and_older_pins_newer_ones() -> None:
    old, new = Pins(since=10), Pins(since=20)
    assert old.outranks(new), "the newer ones were made by somebody who did not know the older"
    assert Pins(since=10, decided=30).outranks(old)
    assert Pins(decided=30).outranks(old), "forgotten"
    assert Pins(since=40, decided=30).outranks(Pins(decided=30)), "pinned again since"
    assert not old.outranks(replace(old, offered={"x": "y"})), "what is offered is no decision"


PINS = st.builds(Pins, since=st.integers(0, 3), decided=st.integers(0, 3))


@quick
@given(PINS, PINS, PINS)
def test_ranks_are_an_order(one: Pins, two: Pins, three: Pins) -> None:
    assert not (one.outranks(two) and two.outranks(one))
    assert one.outranks(two) or two.outranks(one) or (one.since, one.decided) == (two.since, two.decided)
    assert not (one.outranks(two) and two.outranks(three)) or one.outranks(three)


def test_a_board_adds_what_the_store_has_forgotten_and_learns_what_is_newer() -> None:
    board = Pinboard()
    kept, newer = first(tool("a")), Pins(10, 99, {}, {})
    assert board.recall("home", Snapshot(1, 1)).pins == {}
    board.recall("home", Snapshot(1, 1, pins={"s": kept}))
    assert board.recall("home", Snapshot(0, 2)).pins == {"s": kept}
    assert board.recall("home", Snapshot(0, 2, pins={"s": replace(kept, since=50)})).pins == {"s": kept}
    assert board.recall("home", Snapshot(2, 3, pins={"s": newer})).pins == {"s": newer}
    assert board.recall("home", Snapshot(0, 4)).pins == {"s": newer}
    assert board.recall("office", Snapshot(0, 4)).pins == {}


def test_a_board_is_bounded_and_forgets_who_was_not_looked_at_for_longest() -> None:
    board = Pinboard(fingerprints_max=10)
    for number in range(20):
        board.recall(f"agent {number}", Snapshot(1, 1, pins={"s": first(tool("a"))}))
        board.recall("agent 0", Snapshot(0, 1))
    assert board.agents[-1] == "agent 0"
    assert len(board.agents) == 5


# In the store


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"{}", b'{"since":1}', b'{"since":"1","decided":0}',
                                  b'{"since":-1,"decided":0}', b'{"since":1,"decided":0,"tools":[]}',
                                  b'{"since":1,"decided":0,"tools":{"a":1}}'])  # fmt: skip
def test_what_can_not_be_trusted_to_be_pins_is_none(text: bytes) -> None:
    assert load_pins(text) is None


def test_pins_are_read_as_they_were_written() -> None:
    kept = Pins(1, 2, {"加": "x"}, {"b": ""})
    assert load_pins(dump_pins(kept)) == kept
    assert load_pins(dump_pins(Pins(decided=7))) == Pins(decided=7)
    assert bool(Change(pins={"s": kept}))


def test_blocking_waits_for_the_first_pins_and_only_so_long() -> None:
    policies = Policies()
    modes = PinModes("off", policies)
    bare, pinned = Snapshot(1, 0), Snapshot(1, 0, pins={"lamp": Pins(1)})
    assert modes.of("a") == "off"
    policies.put("a", b'{"pins":"block"}')
    assert modes.begins_to_block("a", UNSET, 10.0)
    assert modes.of_catalog("a", bare, 10.0) == "warn"
    assert modes.of_catalog("a", pinned, 10.0) == "block", "there is something to hold it against"
    assert modes.of_catalog("a", bare, 10.0 + AWAITED_SECONDS) == "block"
    assert modes.of_catalog("b", bare, 10.0) == "off"
    assert not modes.begins_to_block("a", parse(b'{"pins":"warn"}'), 20.0), "what warned has pins"
    assert modes.of_catalog("a", bare, 20.0) == "block"
