"""The merged list of one agent: its order, its names, its pages, and where each name leads."""

from collections.abc import Sequence, Set
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import catalog
from gateway.backplane.base import Snapshot
from gateway.catalog import Bounds, Catalog, Route
from gateway.directory import Claim, Row
from gateway.policy import Policy, parse

NOW = 1_000_000
GRACE = 30_000


def up(tools: str, **more: Any) -> Row:
    """A connected tool server; in these tests a tool set's digest is its names."""
    return Row("up", "w1", f"c-{tools}", 0, epoch=1, toolset=tools, tools=len(tools.split()), **more)


def offline(tools: str, since: int) -> Row:
    return Row("offline", "w1", "c", 0, toolset=tools, offline_since=since)


def tools_of(names: str) -> list[dict[str, Any]]:
    return [{"name": name, "description": name.upper()} for name in names.split()]


def build(
    rows: dict[str, Row],
    claims: dict[str, Claim] | None = None,
    *,
    page_bytes: int = 512 * 1024,
    missing: Sequence[str] = (),
) -> Catalog:
    toolsets = {row.toolset: tools_of(row.toolset) for row in rows.values() if row.toolset not in missing}
    snapshot = Snapshot(7, NOW, rows, claims or {})
    return catalog.build(snapshot, toolsets, grace_ms=GRACE, page_bytes=page_bytes)


def claims_of(server_id: str, names: str, until: int = 0) -> dict[str, Claim]:
    return {name: Claim(server_id, name, 0, until) for name in names.split()}


def listed(built: Catalog) -> list[dict[str, Any]]:
    return [tool for page in built.pages for tool in orjson.loads(page)["tools"]]


def shown(built: Catalog) -> list[str]:
    return [tool["name"] for tool in listed(built)]


def test_an_agent_without_tool_servers_has_an_empty_list() -> None:
    for built in (Catalog(), build({})):
        assert built.pages == (b'{"tools":[]}',)
        assert built.routes == {}
        assert built.listed_until_ms == 0
        assert not built.handshakes_since(0)


def test_the_order_is_by_server_and_then_the_servers_own() -> None:
    rows = {"b": up("z a"), "a": up("y b")}
    assert shown(build(rows, {**claims_of("b", "z a"), **claims_of("a", "y b")})) == ["y", "b", "z", "a"]


def test_every_listed_tool_carries_its_server_and_all_its_fields() -> None:
    assert listed(build({"home": up("lamp")}, claims_of("home", "lamp"))) == [
        {"name": "lamp", "description": "LAMP", "server_id": "home"}
    ]


def test_a_name_leads_to_the_tool_that_claims_it_and_the_prefixed_form_always_does() -> None:
    claims = {"lamp": Claim("one", "lamp", 0, 0), "two__lamp": Claim("two", "lamp", 0, 0)}
    built = build({"one": up("lamp"), "two": up("lamp")}, claims)
    assert shown(built) == ["lamp", "two__lamp"]
    assert built.routes == {
        "lamp": Route("one", "lamp"),
        "one__lamp": Route("one", "lamp"),
        "two__lamp": Route("two", "lamp"),
    }


def test_the_listed_name_leads_to_the_servers_own_name_of_the_tool() -> None:
    built = build({"one": up("a.b")}, {"a_b": Claim("one", "a.b", 0, 0)})
    assert built.routes["a_b"] == Route("one", "a.b")
    assert built.routes["one__a_b"] == Route("one", "a.b")
    assert "a.b" not in built.routes, "names are looked up exactly"


def test_a_tool_whose_claim_went_missing_is_listed_under_its_prefixed_name() -> None:
    built = build({"one": up("lamp a.b")})
    assert shown(built) == ["one__lamp", "one__a_b"]
    assert built.routes["one__a_b"] == Route("one", "a.b")


def test_a_tool_of_a_connected_server_is_callable_by_its_listed_name_although_its_claim_has_ended() -> None:
    """Only a hand in Redis makes such a claim."""
    built = build({"lamp": up("blow")}, {"lamp_on": Claim("lamp", "blow", 0, until=1)})
    [name] = shown(built)
    assert built.routes[name] == Route("lamp", "blow")


def test_no_name_is_listed_twice_even_where_a_claim_went_missing() -> None:
    """Another tool server's tool is really called like the prefixed form."""
    built = build({"one": up("lamp"), "two": up("one__lamp")}, claims_of("two", "one__lamp"))
    first, second = listed(built)
    assert first["name"] != second["name"] == "one__lamp"
    assert built.routes[first["name"]] == Route("one", "lamp")
    assert built.routes["one__lamp"] == Route("two", "one__lamp")


def test_of_several_claims_to_one_tool_the_one_in_use_is_listed() -> None:
    ended, used = Claim("one", "lamp", 0, NOW + 5), Claim("one", "lamp", 0, 0)
    assert shown(build({"one": up("lamp")}, {"lamp": ended, "one__lamp": used})) == ["one__lamp"]
    assert shown(build({"one": up("lamp")}, {"lamp": used, "one__lamp": ended})) == ["lamp"]


def test_of_several_ended_claims_the_last_in_use_is_listed_in_the_grace() -> None:
    rows = {"one": offline("lamp", NOW - 5)}
    early, late = Claim("one", "lamp", 0, NOW + 5), Claim("one", "lamp", 0, NOW + 9)
    assert shown(build(rows, {"lamp": early, "one__lamp": late})) == ["one__lamp"]


def test_the_tools_of_a_tool_server_stay_listed_for_its_grace() -> None:
    rows = {"one": offline("lamp", NOW - GRACE + 1), "two": offline("fan", NOW - GRACE)}
    built = build(rows, {**claims_of("one", "lamp", NOW + 9), **claims_of("two", "fan", NOW + 9)})
    assert shown(built) == ["lamp"]
    assert built.listed_until_ms == NOW + 1
    assert built.routes["fan"] == Route("two", "fan"), "a call can still say who is missing"


def test_the_first_grace_to_end_is_told() -> None:
    rows = {"one": offline("a", NOW - 5), "two": offline("b", NOW - 9), "three": up("c")}
    assert build(rows).listed_until_ms == NOW - 9 + GRACE


def test_a_handshake_is_seen_and_lists_nothing() -> None:
    built = build({"~c1": Row("handshake", "w1", "c1", NOW - 50)})
    assert built.handshakes_since(0)
    assert built.handshakes_since(NOW - 50)
    assert not built.handshakes_since(NOW - 49)
    assert shown(built) == []
    assert built.missing == frozenset()


def test_a_tool_set_that_nobody_could_give_is_named() -> None:
    built = build({"one": up("lamp"), "two": up("fan"), "gone": offline("x", 0)}, missing=["fan", "x"])
    assert built.missing == {"fan"}
    assert shown(built) == ["one__lamp"]


# Pages


def many(count: int) -> Catalog:
    names = " ".join(f"tool_{number:03}" for number in range(count))
    return build({"one": up(names)}, claims_of("one", names), page_bytes=1024)


def test_pages_follow_each_other_by_cursor_to_the_end() -> None:
    built = many(50)
    names, cursor = [], None
    for _ in range(len(built.pages)):
        page = built.page(cursor)
        assert page is not None
        assert len(page) <= 1024
        content = orjson.loads(page)
        names += [tool["name"] for tool in content["tools"]]
        cursor = content.get("nextCursor")
    assert cursor is None
    assert names == [f"tool_{number:03}" for number in range(50)]


@pytest.mark.parametrize(
    "cursor",
    ["", "1", "page-", "page-0", "page--1", "page-1.5", "page-x", "page-1234567", "page- 1", "Page-1"],
    ids=repr,
)
def test_a_cursor_that_never_was_one_names_no_page(cursor: str) -> None:
    assert many(50).page(cursor) is None


def test_a_cursor_behind_the_end_names_an_empty_page() -> None:
    """The list has shrunk since the robot began to read it."""
    assert many(3).page("page-7") == b'{"tools":[]}'


def test_a_tool_too_large_for_any_page_is_left_out_and_named() -> None:
    small, large = (b'{"a":1}', b'"' + b"x" * 1000 + b'"')
    pages, omitted = catalog.paginate([("a", small), ("b", large), ("c", small)], 1024)
    assert pages == (b'{"tools":[{"a":1},{"a":1}]}',)
    assert omitted == ("b",)
    assert catalog.paginate([("b", large)], 1024) == ((b'{"tools":[]}',), ("b",))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(2, 1200), max_size=30), st.integers(600, 1500))
def test_pages_are_valid_bounded_and_complete(sizes: list[int], page_bytes: int) -> None:
    texts = [(str(number), b'"' + b"x" * (size - 2) + b'"') for number, size in enumerate(sizes)]
    pages, omitted = catalog.paginate(texts, page_bytes)
    assert all(len(page) <= page_bytes - 128 for page in pages)
    told = [tool for page in pages for tool in orjson.loads(page)["tools"]]
    assert told == [orjson.loads(text) for name, text in texts if name not in omitted]
    assert ["nextCursor" in orjson.loads(page) for page in pages] == [True] * (len(pages) - 1) + [False]


# Policy, pins, names that two tools have


def policy_of(**fields: Any) -> Policy:
    return parse(orjson.dumps(fields), is_strict=True)


def build_under(
    policy: Policy, rows: dict[str, Row], claims: dict[str, Claim], blocked: Set[tuple[str, str]] = frozenset()
) -> Catalog:
    toolsets = {row.toolset: tools_of(row.toolset) for row in rows.values()}
    snapshot = Snapshot(7, NOW, rows, claims)
    return catalog.build(snapshot, toolsets, grace_ms=GRACE, page_bytes=512 * 1024, policy=policy, blocked=blocked)


TWO = {"one": up("lamp fan"), "two": up("lamp")}
TWO_CLAIMS = {
    **claims_of("one", "lamp fan"),
    "two__lamp": Claim("two", "lamp", 0, 0),
}


def test_without_a_policy_nothing_is_refused_and_nothing_is_bounded() -> None:
    built = build(TWO, TWO_CLAIMS)
    assert (built.refused, built.bounds) == ({}, {})
    assert build_under(policy_of(), TWO, TWO_CLAIMS) == built


def test_a_forbidden_tool_is_refused_under_each_of_its_names_and_listed_under_none() -> None:
    built = build_under(policy_of(tools={"deny": ["one/lamp"]}), TWO, TWO_CLAIMS)
    assert shown(built) == ["fan", "two__lamp"]
    assert built.refused == {"lamp": "policy", "one__lamp": "policy"}
    assert built.routes.keys() == {"fan", "one__fan", "two__lamp"}


@pytest.mark.parametrize("glob", ["lamp", "one__lamp", "lam*"])
def test_a_tool_that_is_forbidden_by_one_name_can_not_be_called_by_another(glob: str) -> None:
    built = build_under(policy_of(tools={"deny": [glob]}), {"one": up("lamp")}, claims_of("one", "lamp"))
    assert built.pages == Catalog().pages
    assert built.routes == {}
    assert built.refused.keys() == {"lamp", "one__lamp"}


def test_the_tools_of_a_forbidden_tool_server_are_refused_also_after_its_grace() -> None:
    rows = {"one": offline("lamp", NOW - GRACE), "two": up("fan")}
    claims = {**claims_of("one", "lamp", NOW + 9), **claims_of("two", "fan")}
    built = build_under(policy_of(servers={"allow": ["two"]}), rows, claims)
    assert shown(built) == ["fan"]
    assert built.refused == {"lamp": "policy"}
    assert set(built.rows) == {"one", "two"}, "who is there stays known"


def test_what_nobody_has_approved_of_is_refused_for_that_reason() -> None:
    built = build_under(policy_of(), TWO, TWO_CLAIMS, blocked={("one", "lamp"), ("two", "fan")})
    assert shown(built) == ["fan", "two__lamp"]
    assert built.refused == {"lamp": "pins", "one__lamp": "pins"}


def test_a_tools_bounds_are_kept_for_the_tool_and_only_for_those_that_have_any() -> None:
    policy = policy_of(timeouts={"lamp": 5}, result_bytes={"one/*": 5000}, tools={"deny": ["two/*"]})
    built = build_under(policy, TWO, TWO_CLAIMS)
    assert built.bounds == {Route("one", "lamp"): Bounds(5, 5000), Route("one", "fan"): Bounds(None, 5000)}


def test_duplicates_can_be_hidden_as_long_as_the_tool_that_has_the_name_is_listed() -> None:
    built = build_under(policy_of(duplicates="hide"), TWO, TWO_CLAIMS)
    assert shown(built) == ["lamp", "fan"]
    assert built.routes["two__lamp"] == Route("two", "lamp"), "hidden, and callable"
    alone = build_under(policy_of(duplicates="hide", tools={"deny": ["one/lamp"]}), TWO, TWO_CLAIMS)
    assert shown(alone) == ["fan", "two__lamp"]


def test_all_names_can_have_their_server_before_them() -> None:
    built = build_under(policy_of(duplicates="prefix_all"), TWO, TWO_CLAIMS)
    assert shown(built) == ["one__lamp", "one__fan", "two__lamp"]
    assert built.routes["lamp"] == Route("one", "lamp"), "the name that robots remember goes on working"


PATTERNS = st.lists(st.sampled_from(["*", "a*", "*b", "s/*", "t/a", "s__*", "b", "?"]), max_size=3)


@settings(deadline=None, max_examples=80)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "servers": st.fixed_dictionaries({}, optional={"deny": st.just(["s"]), "allow": st.just(["t"])}),
            "tools": st.fixed_dictionaries({}, optional={"deny": PATTERNS, "allow": PATTERNS}),
            "duplicates": st.sampled_from(["prefix", "hide", "prefix_all"]),
        },
    ),
    st.sets(st.tuples(st.sampled_from("st"), st.sampled_from(["a", "b"])), max_size=2),
)
def test_what_is_listed_can_be_called_and_what_is_refused_is_neither(
    fields: dict[str, Any], blocked: set[tuple[str, str]]
) -> None:
    """Whatever the policy: no tool has one name that works and another that is refused, and no name both."""
    policy = policy_of(**fields)
    rows = {"s": up("a b ab"), "t": up("a b")}
    claims = {**claims_of("s", "a b ab"), "t__a": Claim("t", "a", 0, 0), "t__b": Claim("t", "b", 0, 0)}
    before = build(rows, claims)
    built = build_under(policy, rows, claims, blocked)
    assert built.routes.keys() | built.refused.keys() == before.routes.keys()
    assert built.routes.keys().isdisjoint(built.refused)
    assert set(shown(built)) <= built.routes.keys()
    assert len(set(shown(built))) == len(shown(built))
    for name, route in before.routes.items():
        names = [other for other, same in before.routes.items() if same == route]
        is_allowed = policy.allows(route.server_id, route.original, *names) and _pair(route) not in blocked
        assert (name in built.routes) == is_allowed
        assert built.routes.get(name, route) == route


def _pair(route: Route) -> tuple[str, str]:
    return route.server_id, route.original
