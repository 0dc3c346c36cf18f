"""An agent's policy: what its globs match, how it lies over the default one, and what people are told of mistakes."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import policy
from gateway.policies import Policies
from gateway.policy import UNSET, Policy, PolicyProblem, checked, parse


def of(**fields: Any) -> Policy:
    return parse(orjson.dumps(fields))


def tools(**sides: list[str]) -> Policy:
    return of(tools=sides)


def servers(**sides: list[str]) -> Policy:
    return of(servers=sides)


def problem(fields: Any, *, is_strict: bool = True) -> str:
    with pytest.raises(PolicyProblem) as caught:
        parse(orjson.dumps(fields), is_strict=is_strict)
    text = str(caught.value)
    assert " / " in text, "in both languages"
    return text


# Globs


def test_without_a_policy_everything_is_allowed_and_nothing_is_bounded() -> None:
    assert UNSET.allows("calc", "add", "add", "calc__add")
    assert UNSET.timeout_seconds("calc", "add") is UNSET.result_bytes("calc", "add") is None
    assert not UNSET.has_lists
    assert not UNSET.has_bounds
    assert UNSET.duplicates == "prefix"
    assert UNSET.limit("catalog_bytes", 7) == 7
    assert UNSET.pins_mode("warn") == "warn"
    assert UNSET.legacy_tokens_mode("call") == "call"


@pytest.mark.parametrize("glob", ["add", "a*", "*d", "a?d", "calc/add", "calc/*", "*/add", "c?lc/a*", "calc__add", "*"])
def test_a_tool_is_named_by_itself_by_a_listed_name_or_with_its_tool_server(glob: str) -> None:
    assert not tools(deny=[glob]).allows("calc", "add", "calc__add")
    assert tools(allow=[glob]).allows("calc", "add", "calc__add")


@pytest.mark.parametrize(
    "glob", ["ad", "dd", "Add", "calc", "calc/ad", "calc/", "alc/add", "[a]dd", "a.d", "a+", "/add"]
)
def test_other_globs_do_not_match_it(glob: str) -> None:
    if glob[0] == "/" or glob[-1] == "/":
        problem({"tools": {"deny": [glob]}})
        return
    assert tools(deny=[glob]).allows("calc", "add", "calc__add")
    assert not tools(allow=[glob]).allows("calc", "add", "calc__add")


def test_brackets_stand_for_themselves() -> None:
    assert not tools(deny=["a[b]"]).allows("calc", "a[b]")
    assert tools(deny=["a[b]"]).allows("calc", "ab")


def test_a_tool_can_not_talk_itself_into_the_allow_list_of_another_tool_server() -> None:
    allowing = tools(allow=["calc/*"])
    assert allowing.allows("calc", "add")
    assert not allowing.allows("evil", "calc/add", "calc_add")
    assert not allowing.allows("calc/evil", "add"), "what stands before the first slash is the whole server_id"
    assert not allowing.allows("calc\n", "add")


def test_a_deny_list_also_sees_names_with_a_slash_in_them() -> None:
    assert not tools(deny=["files/delete"]).allows("disk", "files/delete", "files_delete")
    assert not tools(deny=["disk/files/*"]).allows("disk", "files/delete")


def test_deny_wins_over_allow_and_an_empty_allow_list_allows_nothing() -> None:
    assert not tools(allow=["*"], deny=["add"]).allows("calc", "add")
    assert not tools(allow=[]).allows("calc", "add")
    assert tools(deny=[]).allows("calc", "add")


def test_the_tools_of_a_forbidden_tool_server_are_forbidden_whatever_else_allows_them() -> None:
    sides: tuple[dict[str, list[str]], ...] = ({"deny": ["ev*"]}, {"allow": ["calc"]}, {"allow": []})
    for side in sides:
        forbidding = of(servers=side, tools={"allow": ["*"]})
        assert not forbidding.allows("evil", "add")
        assert not forbidding.allows_server("evil")
    assert servers(allow=["a/b"]).allows_server("a/b")


def test_globs_with_many_stars_do_not_run_for_long_on_names_made_for_that() -> None:
    many = tools(deny=["*a" * 100 + "b"])
    assert many.allows("calc", "a" * 20_000)


NAMES = st.text("ab/_*?", min_size=1, max_size=6)
GLOBS = NAMES.filter(lambda glob: not (glob.startswith("/") or glob.endswith("/")))


def matches(glob: str, text: str) -> bool:
    """A glob, spelled out."""
    if not glob:
        return not text
    if glob[0] == "*":
        return any(matches(glob[1:], text[start:]) for start in range(len(text) + 1))
    return bool(text) and glob[0] in ("?", text[0]) and matches(glob[1:], text[1:])


@settings(deadline=None, max_examples=150)
@given(st.lists(GLOBS, max_size=4), NAMES, NAMES)
def test_a_list_matches_what_one_of_its_globs_matches(globs: list[str], server_id: str, tool: str) -> None:
    def is_pair(glob: str) -> bool:
        server, slash, name = glob.partition("/")
        return bool(slash) and matches(server, server_id) and matches(name, tool)

    plain = any(matches(glob, tool) for glob in globs if "/" not in glob)
    pairs = any(map(is_pair, globs))
    whole = any(matches(glob, tool) for glob in globs)
    assert tools(allow=globs).allows(server_id, tool) == (plain or pairs)
    assert tools(deny=globs).allows(server_id, tool) == (not (whole or pairs))
    assert servers(allow=globs).allows_server(server_id) == any(matches(glob, server_id) for glob in globs)


SIDES = st.fixed_dictionaries({}, optional={"allow": st.lists(GLOBS, max_size=3), "deny": st.lists(GLOBS, max_size=3)})
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "servers": SIDES,
        "tools": SIDES,
        "timeouts": st.dictionaries(GLOBS, st.floats(0.1, 3600), max_size=3),
        "result_bytes": st.dictionaries(GLOBS, st.integers(4096, 983_040), max_size=3),
        **{key: st.sampled_from(values) for key, values in policy.CHOICES.items()},
        "limits": st.dictionaries(st.sampled_from(list(policy.LIMITS)), st.integers(65_536, 10_000_000), max_size=3),
    },
)


@settings(deadline=None, max_examples=100)
@given(FIELDS, NAMES, NAMES, NAMES)
def test_what_is_allowed_and_the_rule_that_is_told_agree(
    fields: dict[str, Any], server_id: str, tool: str, listed: str
) -> None:
    one = of(**fields)
    ruling = one.ruling(server_id, tool, listed)
    assert ruling.is_allowed == one.allows(server_id, tool, listed)
    assert ruling.is_allowed or ruling.rule
    if ruling.rule.partition(": ")[1]:
        key, _, glob = ruling.rule.partition(": ")
        of_rule, side = key.split(".")
        alone = of(**{of_rule: {side: [glob]}})
        assert alone.allows(server_id, tool, listed) == (side == "allow"), "the rule by itself says the same"


@settings(deadline=None, max_examples=100)
@given(FIELDS)
def test_a_policy_survives_being_written_down(fields: dict[str, Any]) -> None:
    one = of(**fields)
    assert parse(orjson.dumps(one.as_json()), is_strict=True) == one


@settings(deadline=None, max_examples=100)
@given(FIELDS, FIELDS)
def test_a_policy_lies_over_another_one_field_by_field(own: dict[str, Any], base: dict[str, Any]) -> None:
    merged = {**base, **own}
    for key in ("servers", "tools", "timeouts", "result_bytes", "limits"):
        if key in base or key in own:
            merged[key] = {**base.get(key, {}), **own.get(key, {})}
    assert of(**own).over(of(**base)) == of(**merged)
    assert parse(orjson.dumps(own), of(**base)) == of(**merged)
    assert UNSET.over(of(**base)) == of(**base)
    assert of(**own).over(UNSET) == of(**own)


# Numbers


def test_of_several_globs_in_a_table_the_most_particular_one_holds_and_then_the_smaller_value() -> None:
    table = of(timeouts={"*": 20, "calc/*": 9, "calc/slow*": 60, "?alc/*": 5, "*dd": 8, "add*": 7, "a*dd": 6})
    assert table.timeout_seconds("calc", "slow_one") == 60
    assert table.timeout_seconds("calc", "sub") == 9
    assert table.timeout_seconds("disk", "sub") == 20
    assert table.timeout_seconds("disk", "add") == 6


def test_a_bound_holds_whichever_of_its_names_a_tool_goes_by() -> None:
    table = of(result_bytes={"disk__read": 5000})
    assert table.result_bytes("disk", "read", "read", "disk__read") == 5000
    assert table.result_bytes("disk", "write", "write", "disk__write") is None


def test_limits_of_the_agent_take_the_place_of_the_settings() -> None:
    limited = of(limits={"calls_per_second": 3, "server_calls_per_second": 0})
    assert limited.limit("calls_per_second", 2000) == 3
    assert limited.limit("server_calls_per_second", 5) == 0, "none at all"
    assert limited.limit("robots_per_agent", 5000) == 5000


# Mistakes


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"tool": {}}, "did you mean tools?"),
        ({"tools": {"alow": []}}, "did you mean tools.allow?"),
        ({"limits": {"calls_per_minute": 1}}, "did you mean limits.calls_per_second?"),
        ({"duplicates": "rename"}, "prefix, hide, prefix_all"),
        ({"pins": True}, "off, warn, block"),
        ({"tools": {"deny": "add"}}, "tools.deny is a list"),
        ({"tools": {"deny": ["x" * 257]}}, "calc/*"),
        ({"tools": {"deny": [""]}}, "calc/*"),
        ({"tools": {"deny": [7]}}, "calc/*"),
        ({"tools": {"deny": ["a\u200bb"]}}, "calc/*"),
        ({"tools": []}, "tools is a JSON object"),
        ({"timeouts": {"calc/*": 0}}, "timeouts.calc/* is a number from 0.1 to 3600"),
        ({"timeouts": {"calc/*": "5"}}, "timeouts.calc/*"),
        ({"result_bytes": {"*": 4095}}, "from 4096 to 983040"),
        ({"result_bytes": {"*": 5000.5}}, "whole number"),
        ({"limits": {"calls_per_second": True}}, "limits.calls_per_second"),
        ({"tools": {"deny": [f"t{number}" for number in range(257)]}}, "256 at most"),
        ([], "a JSON object"),
        ({"pins": "x" * 70_000}, "larger than 65536 bytes"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else None,
)
def test_a_mistake_is_named_with_what_would_be_right(fields: Any, named: str) -> None:
    assert named in problem(fields)


def test_a_worker_takes_a_newer_versions_policy_as_far_as_it_understands_it() -> None:
    newer = {"colour": "red", "tools": {"deny": ["add"], "maybe": []}, "limits": {"sparks": 1}}
    assert parse(orjson.dumps(newer)) == tools(deny=["add"])
    with pytest.raises(PolicyProblem):
        checked(newer)


def test_a_worker_does_not_take_half_of_a_field() -> None:
    problem({"tools": {"deny": ["add", 7]}}, is_strict=False)


# Of all agents


def test_agents_without_a_policy_share_the_default_one() -> None:
    known = Policies()
    assert known.of("a") is known.of("b") is UNSET
    assert known.put("*", b'{"pins":"warn"}') is None
    assert known.of("a") is known.of("b")
    assert known.of("a").pins == "warn"


def test_a_policy_holds_for_its_agent_over_the_default_until_it_is_taken_back() -> None:
    known = Policies()
    known.put("*", b'{"pins":"warn","duplicates":"hide"}')
    assert known.put("a", b'{"pins":"block"}') == {"a"}
    assert (known.of("a").pins, known.of("a").duplicates) == ("block", "hide")
    known.put("*", b'{"duplicates":"prefix_all"}')
    assert (known.of("a").pins, known.of("a").duplicates) == ("block", "prefix_all")
    known.put("a", b"")
    assert known.of("a") is known.of("b")
    known.put("*", None)
    assert known.of("a") is UNSET


def test_a_policy_that_can_not_be_read_leaves_the_last_one_in_force_or_forbids_everything() -> None:
    known = Policies()
    known.put("a", b'{"tools":{"deny":["add"]}}')
    known.put("a", b'{"tools":{"deny":7}}')
    assert not known.of("a").allows("calc", "add")
    assert known.of("a").allows("calc", "sub")
    known.put("b", b"no JSON")
    assert not known.of("b").allows("calc", "sub")
    known.put("*", b"[]")
    assert not known.of("c").allows("calc", "sub")
    assert not known.of("a").allows("calc", "sub"), "what it does not say itself the default says"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(st.sampled_from(policy.FIELDS), JSON | st.fixed_dictionaries({"deny": JSON, "a": JSON})))
def test_whatever_stands_in_the_store_is_a_policy_or_a_problem_that_people_can_read(value: dict[str, Any]) -> None:
    said = "fine / fine"
    try:
        parse(orjson.dumps(value)).allows("calc", "add")
    except PolicyProblem as problem:
        said = str(problem)
    assert " / " in said
    assert len(said) < 1000
