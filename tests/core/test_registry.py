"""Who a tool server is and which names it holds: decisions over an in-memory snapshot, one by one and at random."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway import catalog, names, registry
from gateway.backplane.base import Change, Snapshot
from gateway.catalog import Catalog, Route
from gateway.directory import Claim, Row, Seen
from gateway.registration import Admitted, Newcomer, ProbeFirst, Registration, Rules, Superseded, TooMany
from gateway.seen import UNNAMED

HOUR = 3_600_000
HOLD = 24 * HOUR
GRACE = 30_000
RULES = Rules(hold_ms=HOLD, handshake_ms=60_000, servers_max=64, tools_max=2000)


class Store:
    """What is shared about one agent, and how a backplane takes changes."""

    def __init__(self) -> None:
        self.now_ms = 1_700_000_000_000
        self.revision = 0
        self.rows: dict[str, Row] = {}
        self.claims: dict[str, Claim] = {}
        self.seen: dict[str, Seen] = {}

    @property
    def snapshot(self) -> Snapshot:
        return Snapshot(self.revision, self.now_ms, dict(self.rows), dict(self.claims), dict(self.seen))

    def take(self, change: Change) -> None:
        parts: tuple[tuple[dict[str, Any], Mapping[str, Any]], ...] = (
            (self.rows, change.rows),
            (self.claims, change.claims),
            (self.seen, change.seen),
        )
        for kept, changed in parts:
            for key, value in changed.items():
                if value is None:
                    kept.pop(key, None)
                else:
                    kept[key] = value
        self.revision = max(self.revision + 1, self.now_ms)

    def register(
        self,
        newcomer: Newcomer,
        rules: Rules = RULES,
        *,
        dead: Sequence[str] = (),
        ghosts: Sequence[str] = (),
        twins: Sequence[str] = (),
    ) -> Registration:
        decided = registry.register(self.snapshot, newcomer, rules, dead=dead, ghosts=ghosts, twins=twins)
        if isinstance(decided, Admitted):
            self.take(decided.change)
        return decided

    def admit(
        self,
        conn: str,
        tools: str,
        server_id: str = "",
        *,
        name: str = "calc",
        rules: Rules = RULES,
        ghosts: Sequence[str] = (),
        twins: Sequence[str] = (),
        dead: Sequence[str] = (),
    ) -> Admitted:
        """Register a tool server with these tools (words); it must be admitted."""
        decided = self.register(
            newcomer(conn, tools, server_id, name=name), rules, ghosts=ghosts, twins=twins, dead=dead
        )
        assert isinstance(decided, Admitted)
        return decided

    def swap(self, server_id: str, conn: str, tools: str) -> Admitted:
        originals = tuple(tools.split())
        asked = replace(newcomer(conn), originals=originals, toolset=toolset(originals))
        decided = registry.swap_tools(self.snapshot, server_id, asked, RULES)
        assert isinstance(decided, Admitted)
        self.take(decided.change)
        return decided

    def leave(self, server_id: str, conn: str, cause: str = "lost") -> Change:
        change = registry.go_offline(self.snapshot, server_id, conn, cause, RULES)
        if change:
            self.take(change)
        return change

    def lose_everything(self) -> None:
        self.rows, self.claims, self.seen = {}, {}, {}

    def catalog(self) -> Catalog:
        toolsets = {row.toolset: tools_of(row.toolset) for row in self.rows.values() if row.toolset}
        return catalog.build(self.snapshot, toolsets, grace_ms=GRACE, page_bytes=512 * 1024)

    def listed(self) -> list[str]:
        return [tool["name"] for tool in listed(self.catalog())]


def toolset(originals: Sequence[str]) -> str:
    """In these tests a digest is the tools themselves."""
    return orjson.dumps(originals).decode()


def tools_of(digest: str) -> list[dict[str, Any]]:
    return [{"name": original} for original in orjson.loads(digest)]


def listed(built: Catalog) -> list[dict[str, Any]]:
    return [tool for page in built.pages for tool in orjson.loads(page)["tools"]]


def newcomer(
    conn: str,
    tools: str | Sequence[str] = "",
    server_id: str = "",
    *,
    name: str = "calc",
    version: str = "1",
    worker: str = "w1",
) -> Newcomer:
    originals = tuple(tools.split() if isinstance(tools, str) else tools)
    return Newcomer(worker, conn, server_id, name, version, toolset(originals), originals)


@pytest.fixture
def store() -> Store:
    return Store()


# Handshakes


def test_a_handshake_is_seen_from_its_beginning_to_its_end(store: Store) -> None:
    store.take(registry.begin_handshake(store.snapshot, "w1", "c1", RULES))
    assert store.catalog().handshakes_since(0)
    assert store.catalog().handshakes_since(store.now_ms)
    assert not store.catalog().handshakes_since(store.now_ms + 1)
    assert store.listed() == []
    store.take(registry.end_handshake(store.snapshot, "c1", "", "1006", RULES))
    assert store.rows == {}
    assert not registry.end_handshake(store.snapshot, "c1", "", "", RULES)


def test_admission_ends_the_handshake(store: Store) -> None:
    store.take(registry.begin_handshake(store.snapshot, "w1", "c1", RULES))
    store.admit("c1", "add")
    assert store.rows.keys() == {"calc"}


def test_handshakes_that_nobody_ended_go_with_the_next(store: Store) -> None:
    store.take(registry.begin_handshake(store.snapshot, "w1", "c1", RULES))
    store.now_ms += 120_001
    store.take(registry.begin_handshake(store.snapshot, "w1", "c2", RULES))
    assert store.rows.keys() == {registry.handshake_key("c2")}


# Explicit identity


def test_an_explicit_id_is_taken_as_it_is(store: Store) -> None:
    admitted = store.admit("c1", "add sub", "home 1", name="whatever")
    assert admitted.server_id == "home 1"
    assert admitted.displaced is None
    assert store.rows["home 1"] == admitted.row
    assert (admitted.row.state, admitted.row.anonymous, admitted.row.tools) == ("up", False, 2)
    assert store.seen["home 1"].connected == store.now_ms


def test_the_newer_connection_of_an_explicit_id_wins_wherever_it_is(store: Store) -> None:
    old = store.admit("c1", "add", "home")
    decided = store.register(newcomer("c2", "add", "home", worker="w2"))
    assert isinstance(decided, Admitted)
    assert decided.displaced == old.row
    assert decided.row.epoch > old.row.epoch
    assert store.listed() == ["add"]


def test_the_late_end_of_an_old_connection_does_not_touch_the_newer(store: Store) -> None:
    store.admit("c1", "add", "home")
    store.admit("c2", "add", "home")
    assert not store.leave("home", "c1")
    assert store.rows["home"].state == "up"
    assert store.leave("home", "c2")
    assert not store.leave("home", "c2")


def test_takeovers_of_one_minute_are_counted(store: Store) -> None:
    counts = []
    for number in range(5):
        counts.append(store.admit(f"c{number}", "add", "home").takeovers)
        store.now_ms += 1000
    assert counts == [0, 1, 2, 3, 4]
    store.now_ms += 60_000
    assert store.admit("c9", "add", "home").takeovers == 1


def test_a_redial_is_no_takeover(store: Store) -> None:
    for number in range(4):
        assert store.admit(f"c{number}", "add", "home").takeovers == 0
        store.leave("home", f"c{number}")


def test_epochs_grow_even_when_the_clock_does_not(store: Store) -> None:
    epochs = [store.admit(f"c{number}", "add", "home").row.epoch for number in range(3)]
    assert epochs == sorted(set(epochs))
    store.now_ms -= HOUR
    assert store.admit("c9", "add", "home").row.epoch > epochs[-1]


def test_an_anonymous_server_does_not_take_the_row_of_an_explicit_one(store: Store) -> None:
    store.admit("c1", "add", "calc")
    store.leave("calc", "c1")
    assert store.admit("c2", "add").server_id == "calc-2"


# Anonymous identity


@pytest.mark.parametrize(
    ("name", "server_id"), [("calc", "calc"), ("My Home", "My_Home"), ("", "server"), ("x" * 99, "x" * 32)]
)
def test_a_new_anonymous_server_is_called_after_itself(store: Store, name: str, server_id: str) -> None:
    admitted = store.admit("c1", "add", name=name)
    assert admitted.server_id == server_id
    assert admitted.row.anonymous


def test_equal_names_are_numbered(store: Store) -> None:
    ids = [store.admit(f"c{n}", f"tool{n}").server_id for n in range(4)]
    assert ids == ["calc", "calc-2", "calc-3", "calc-4"]


def test_a_redial_finds_its_row_by_name_and_tools(store: Store) -> None:
    store.admit("c1", "add")
    store.admit("c2", "sub")
    store.leave("calc", "c1")
    store.now_ms += 1000
    store.leave("calc-2", "c2")
    assert store.admit("c3", "add").server_id == "calc"
    assert store.admit("c4", "sub").server_id == "calc-2"


def test_a_redial_with_other_tools_finds_its_row_by_name_the_last_gone_first(store: Store) -> None:
    store.admit("c1", "add")
    store.admit("c2", "sub")
    store.leave("calc", "c1")
    store.now_ms += 1000
    store.leave("calc-2", "c2")
    assert store.admit("c3", "mul").server_id == "calc-2"
    assert store.admit("c4", "div").server_id == "calc"
    assert store.admit("c5", "mod").server_id == "calc-3"


def test_a_live_row_that_looks_the_same_is_probed_first(store: Store) -> None:
    old = store.admit("c1", "add")
    assert store.register(newcomer("c2", "add")) == ProbeFirst("calc", old.row)


@pytest.mark.parametrize("other", [{"name": "other"}, {"version": "2"}], ids=repr)
def test_a_live_row_that_differs_is_not_probed(store: Store, other: dict[str, str]) -> None:
    store.admit("c1", "add")
    assert isinstance(store.register(newcomer("c2", "add", **other)), Admitted)


def test_a_ghost_gives_row_and_names_to_the_newcomer(store: Store) -> None:
    old = store.admit("c1", "add")
    admitted = store.admit("c2", "add", ghosts=["c1"])
    assert admitted.server_id == "calc"
    assert admitted.displaced == old.row
    assert admitted.takeovers == 0, "nobody shares an id here"
    assert store.listed() == ["add"]


def test_a_twin_gets_its_own_row_and_prefixed_names(store: Store) -> None:
    store.admit("c1", "add")
    twin = store.admit("c2", "add", twins=["c1"])
    assert twin.server_id == "calc-2"
    assert twin.displaced is None
    assert store.listed() == ["add", "calc-2__add"]


def test_each_of_several_twins_is_probed(store: Store) -> None:
    store.admit("c1", "add")
    second = store.admit("c2", "add", twins=["c1"])
    assert store.register(newcomer("c3", "add"), twins=["c1"]) == ProbeFirst("calc-2", second.row)
    assert store.admit("c3", "add", twins=["c1", "c2"]).server_id == "calc-3"


@pytest.mark.parametrize("tools", ["add", "add sub"], ids=["equal tools", "other tools"])
def test_the_row_of_a_dead_worker_counts_as_offline(store: Store, tools: str) -> None:
    store.admit("c1", "add")
    assert store.admit("c2", tools, dead=["w1"]).server_id == "calc"
    assert "add" in store.listed()


# Names


def test_two_servers_with_one_name_the_first_keeps_it(store: Store) -> None:
    store.admit("c1", "add", "one")
    store.admit("c2", "add", "two")
    assert store.listed() == ["add", "two__add"]


def test_a_name_is_kept_for_its_holder_while_it_is_away(store: Store) -> None:
    store.admit("c1", "add", "one")
    store.leave("one", "c1")
    store.now_ms += HOLD - 1
    store.admit("c2", "add", "two")
    assert store.listed() == ["two__add"]
    store.admit("c3", "add", "one")
    assert store.listed() == ["add", "two__add"]


def test_a_name_is_free_a_day_after_its_holder_left(store: Store) -> None:
    store.admit("c1", "add", "one")
    store.leave("one", "c1")
    store.now_ms += HOLD
    store.admit("c2", "add", "two")
    assert store.listed() == ["add"]
    store.admit("c3", "add", "one")
    assert store.listed() == ["one__add", "add"]


def test_a_tool_that_its_server_drops_keeps_its_name_for_a_day(store: Store) -> None:
    store.admit("c1", "add sub", "one")
    store.swap("one", "c1", "sub")
    store.admit("c2", "add", "two")
    assert store.listed() == ["sub", "two__add"]
    store.swap("one", "c1", "sub add")
    assert store.listed() == ["sub", "add", "two__add"]


def test_names_survive_redials_whatever_the_order_of_tools(store: Store) -> None:
    store.admit("c1", "a.b a/b a_b", "one")
    store.admit("c2", "a_b a.b", "two")
    before = routes_by_tool(store)
    for number, tools in enumerate(["a_b a/b a.b", "a/b a_b a.b"]):
        store.leave("one", "c1" if not number else "d0")
        store.admit(f"d{number}", tools, "one")
        store.admit(f"e{number}", "a.b a_b", "two")
        assert routes_by_tool(store) == before


def routes_by_tool(store: Store) -> dict[Route, str]:
    built = store.catalog()
    return {built.routes[tool["name"]]: tool["name"] for tool in listed(built)}


def test_a_name_that_is_another_tools_prefixed_form_can_not_be_claimed(store: Store) -> None:
    store.admit("c1", "lamp", "home")
    store.admit("c2", "home__lamp", "other")
    built = store.catalog()
    assert store.listed() == ["lamp", "other__home__lamp"]
    assert built.routes["home__lamp"] == Route("home", "lamp")


def test_the_own_prefixed_form_can_not_be_claimed_either(store: Store) -> None:
    store.admit("c1", "lamp home__lamp", "home")
    assert store.catalog().routes["home__lamp"] == Route("home", "lamp")
    assert sorted(store.listed()) == ["home__home__lamp", "lamp"]


def test_a_name_stays_where_it_is_when_it_becomes_the_prefixed_form_of_a_later_tool(store: Store) -> None:
    store.admit("c1", "home__lamp", "other")
    store.admit("c2", "lamp", "home")
    store.admit("c3", "home__lamp", "other")
    assert store.listed() == ["lamp", "home__lamp"]
    built = store.catalog()
    assert built.routes["home__lamp"] == Route("other", "home__lamp")
    marked = names.prefixed("home", "lamp", "lamp", {"home__lamp"})
    assert built.routes[marked] == Route("home", "lamp")


@pytest.mark.parametrize(("first", "second"), [("my home", "my_home"), ("my_home", "my home")])
def test_of_two_ids_that_fold_into_one_the_first_keeps_the_prefixed_name(store: Store, first: str, second: str) -> None:
    store.admit("c1", "lamp", first)
    assert store.catalog().routes["my_home__lamp"] == Route(first, "lamp")
    store.admit("c2", "lamp", second)
    built = store.catalog()
    assert built.routes["my_home__lamp"] == Route(first, "lamp")
    [other] = [tool["name"] for tool in listed(built) if tool["server_id"] == second]
    assert built.routes[other] == Route(second, "lamp")
    before = routes_by_tool(store)
    store.admit("c3", "lamp", first)
    store.admit("c4", "lamp", second)
    assert routes_by_tool(store) == before


def test_a_long_server_id_keeps_its_names_over_redials(store: Store) -> None:
    store.admit("c1", "t u", "one")
    store.admit("c2", "t u", "s" * 64)
    before = routes_by_tool(store)
    store.admit("c3", "u t", "s" * 64)
    assert routes_by_tool(store) == before
    assert all(len(name) <= 64 for name in before.values())


def test_a_prefixed_name_never_moves_to_a_tool_that_folds_into_the_same(store: Store) -> None:
    store.admit("c1", "a_b", "one")
    store.admit("c2", "a.b", "two")
    assert store.catalog().routes["two__a_b"] == Route("two", "a.b")
    store.swap("two", "c2", "a_b a.b")
    assert store.catalog().routes["two__a_b"] == Route("two", "a.b")
    assert routes_by_tool(store).keys() >= {Route("two", "a.b"), Route("two", "a_b")}


def test_claims_are_held_under_their_first_date(store: Store) -> None:
    first = store.admit("c1", "add", "one").claims["add"]
    store.now_ms += HOUR
    store.leave("one", "c1")
    store.now_ms += HOUR
    assert store.admit("c2", "add sub", "one").claims == {
        "add": first,
        "sub": Claim("one", "sub", store.now_ms, 0),
    }


@pytest.mark.parametrize(
    ("claim", "is_held"),
    [
        (Claim("up", "t", 0, 0), True),
        (Claim("up", "t", 0, 1001), True),
        (Claim("up", "t", 0, 1000), False),
        (Claim("nobody", "t", 0, 0), False),
        (Claim("nobody", "t", 950, 0), True),
        (Claim("nobody", "t", 950, 1001), True),
    ],
    ids=repr,
)
def test_a_claim_is_held_while_it_is_used_and_for_the_hold_after(claim: Claim, is_held: bool) -> None:
    rows = {"up": Row("up", "w1", "c1", 0)}
    assert registry.is_held(claim, rows, 1000, 100) is is_held


# Tools change


def test_a_swap_changes_tools_and_names_at_once_and_nothing_else(store: Store) -> None:
    row = store.admit("c1", "add sub", "one").row
    swapped = store.swap("one", "c1", "sub mul div")
    assert swapped.row == replace(row, toolset=swapped.row.toolset, tools=3)
    assert swapped.displaced is None
    assert swapped.claims.keys() == {"sub", "mul", "div"}
    assert store.listed() == ["sub", "mul", "div"]


def test_a_swap_by_somebody_who_was_replaced_says_so(store: Store) -> None:
    store.admit("c1", "add", "one")
    newer = store.admit("c2", "add", "one").row
    assert registry.swap_tools(store.snapshot, "one", newcomer("c1"), RULES) == Superseded(newer)
    assert registry.swap_tools(store.snapshot, "two", newcomer("c1"), RULES) is None
    store.leave("one", "c2")
    assert registry.swap_tools(store.snapshot, "one", newcomer("c2"), RULES) is None


# Going, and coming back


def test_who_leaves_stays_as_an_offline_row_with_time_and_cause(store: Store) -> None:
    row = store.admit("c1", "add", "one").row
    store.now_ms += 5
    store.leave("one", "c1", "kabel")
    assert store.rows["one"] == replace(row, state="offline", offline_since=store.now_ms, cause="kabel")
    assert store.claims["add"].until == store.now_ms + HOLD
    assert store.seen["one"] == Seen(row.since, store.now_ms, "kabel")


def test_a_dead_worker_is_buried_with_all_it_had_and_nobody_else(store: Store) -> None:
    store.admit("c1", "add", "one")
    store.register(newcomer("c2", "sub", "two", worker="w2"))
    store.take(registry.begin_handshake(store.snapshot, "w1", "c3", RULES))
    store.take(registry.begin_handshake(store.snapshot, "w2", "c4", RULES))
    store.take(registry.bury(store.snapshot, "w1", "gone", RULES))
    assert {key: row.state for key, row in store.rows.items()} == {"one": "offline", "two": "up", "~c4": "handshake"}
    assert store.claims["sub"].until == 0
    assert not registry.bury(store.snapshot, "w1", "gone", RULES), "burying twice does no harm"


def test_what_the_store_forgot_is_put_back_with_its_epoch(store: Store) -> None:
    admitted = store.admit("c1", "add", "one")
    before = store.snapshot
    store.lose_everything()
    restored = registry.restore(store.snapshot, "one", admitted.row, admitted.claims)
    assert isinstance(restored, Change)
    store.take(restored)
    assert (store.rows, store.claims) == (before.rows, before.claims)
    again = registry.restore(store.snapshot, "one", admitted.row, admitted.claims)
    assert isinstance(again, Change)
    assert not again, "nothing is written where nothing is missing"


def test_who_was_taken_for_dead_comes_back_up(store: Store) -> None:
    admitted = store.admit("c1", "add", "one")
    store.take(registry.bury(store.snapshot, "w1", "gone", RULES))
    restored = registry.restore(store.snapshot, "one", admitted.row, admitted.claims)
    assert isinstance(restored, Change)
    store.take(restored)
    assert store.rows["one"] == admitted.row
    assert store.claims["add"].until == 0


def test_a_restore_gives_way_to_a_newer_connection(store: Store) -> None:
    old = store.admit("c1", "add", "one")
    newer = store.admit("c2", "add", "one")
    assert registry.restore(store.snapshot, "one", old.row, old.claims) == Superseded(newer.row)
    store.leave("one", "c2")
    assert isinstance(registry.restore(store.snapshot, "one", old.row, old.claims), Superseded)


def test_between_restored_claims_the_older_wins(store: Store) -> None:
    old = store.admit("c1", "add", "one")
    store.lose_everything()
    store.now_ms += 1
    new = store.admit("c2", "add", "two")
    for server_id, admitted in (("one", old), ("two", new), ("one", old)):
        restored = registry.restore(store.snapshot, server_id, admitted.row, admitted.claims)
        assert isinstance(restored, Change)
        store.take(restored)
    assert store.listed() == ["add", "two__add"]
    assert store.catalog().routes["two__add"] == Route("two", "add")


# Limits


def test_one_server_too_many_is_refused_and_told_which_limit(store: Store) -> None:
    rules = replace(RULES, servers_max=2)
    store.admit("c1", "a", "one", rules=rules)
    store.admit("c2", "b", "two", rules=rules)
    refused = store.register(newcomer("c3", "c", "three"), rules)
    assert refused == TooMany("GATEWAY_SERVERS_PER_AGENT=2", 0)
    assert isinstance(store.register(newcomer("c3", "c", "two"), rules), Admitted), "a takeover adds none"
    store.leave("one", "c1")
    assert isinstance(store.register(newcomer("c4", "d", "four"), rules), Admitted)


def test_too_large_tools_are_refused_with_the_room_that_is_left(store: Store) -> None:
    rules = replace(RULES, catalog_bytes=1000)
    assert isinstance(store.register(replace(newcomer("c1", "a", "one"), toolset_bytes=600), rules), Admitted)
    large = replace(newcomer("c2", "b c", "two"), toolset_bytes=500)
    assert store.register(large, rules) == TooMany("GATEWAY_CATALOG_BYTES=1000", 2, 400)
    assert isinstance(store.register(replace(large, toolset_bytes=400), rules), Admitted)
    grown = replace(newcomer("c1", "a", "one"), toolset_bytes=601)
    assert registry.swap_tools(store.snapshot, "one", grown, rules) == TooMany("GATEWAY_CATALOG_BYTES=1000", 1, 600)
    store.leave("two", "c2")
    assert isinstance(registry.swap_tools(store.snapshot, "one", grown, rules), Admitted), "who is away takes no room"
    assert isinstance(store.register(replace(newcomer("c3", "", "three"), toolset_bytes=500), rules), Admitted)


def test_too_many_tools_are_refused_with_the_room_that_is_left(store: Store) -> None:
    rules = replace(RULES, tools_max=3)
    store.admit("c1", "a b", "one", rules=rules)
    assert store.register(newcomer("c2", "c d", "two"), rules) == TooMany("GATEWAY_TOOLS_PER_AGENT=3", 1)
    store.admit("c2", "c", "two", rules=rules)
    refused = registry.swap_tools(store.snapshot, "one", newcomer("c1", "a b x"), rules)
    assert refused == TooMany("GATEWAY_TOOLS_PER_AGENT=3", 2)
    store.admit("c3", "a b", "one", rules=rules)


def test_rows_of_the_long_gone_are_forgotten(store: Store) -> None:
    rules = replace(RULES, servers_max=2)
    for number in range(10):
        store.admit(f"c{number}", f"t{number}", f"s{number}", rules=rules)
        store.leave(f"s{number}", f"c{number}")
        store.now_ms += 1
    assert store.rows.keys() == {"s7", "s8", "s9"}
    assert store.seen.keys() == {"s6", "s7", "s8", "s9"}
    store.now_ms += HOLD
    store.admit("c", "t", "s", rules=rules)
    assert store.rows.keys() == {"s"}
    assert store.claims.keys() == {"t"}


def test_what_is_remembered_is_bounded_also_while_every_row_is_still_there(store: Store) -> None:
    rules = replace(RULES, servers_max=2)
    for number, leaves in enumerate([True, True, True, False, False]):
        store.admit(f"c{number}", f"t{number}", f"s{number}", rules=rules)
        if leaves:
            store.leave(f"s{number}", f"c{number}")
        store.now_ms += 1
    assert len(store.seen) <= rules.seen_max


def test_claims_are_bounded_and_the_longest_gone_go_first(store: Store) -> None:
    rules = replace(RULES, tools_max=2)
    for number in range(20):
        store.admit("c", f"t{number} u{number}", "one", rules=rules)
        store.now_ms += 1
    assert len(store.claims) <= rules.claims_max
    assert {f"t{number}" for number in range(17, 20)} <= store.claims.keys()


def test_nobody_pushes_out_a_held_name_by_naming_ever_other_tools(store: Store) -> None:
    rules = replace(RULES, tools_max=4)
    store.admit("c1", "add sub", "one", rules=rules)
    store.leave("one", "c1")
    for number in range(20):
        store.now_ms += 1
        store.admit("c", f"t{number} u{number} v{number}", "evil", rules=rules)
    assert len(store.claims) <= rules.claims_max
    store.admit("c", "add", "evil", rules=rules)
    store.admit("c2", "add sub", "one", rules=rules)
    assert store.listed() == ["evil__add", "add", "sub"]


def test_what_a_handshake_died_of_is_remembered_for_who_gave_its_id(store: Store) -> None:
    store.admit("c1", "add", "one")
    store.leave("one", "c1")
    store.take(registry.end_handshake(store.snapshot, "c2", "one", "x" * 500, RULES))
    assert store.seen["one"] == Seen(store.now_ms, store.now_ms, "lost", "x" * 200, store.now_ms)


def test_what_handshakes_without_an_id_died_of_is_remembered_in_one_place_the_last_one_only(store: Store) -> None:
    for number in range(3):
        store.take(registry.end_handshake(store.snapshot, f"c{number}", "", f"error {number}", RULES))
    assert store.seen == {UNNAMED: Seen(error="error 2", failed=store.now_ms)}


def test_a_handshake_that_ended_through_no_fault_of_its_own_leaves_no_trace(store: Store) -> None:
    store.take(registry.begin_handshake(store.snapshot, "w1", "c1", RULES))
    store.take(registry.end_handshake(store.snapshot, "c1", "one", "", RULES))
    assert (store.rows, store.seen) == ({}, {})


def test_those_whose_failure_is_older_are_forgotten_first(store: Store) -> None:
    rules = replace(RULES, servers_max=2)
    for number in range(6):
        store.now_ms += 1
        store.take(registry.end_handshake(store.snapshot, f"c{number}", f"s{9 - number}", "no", rules))
    assert store.seen.keys() == {"s7", "s6", "s5", "s4"}


def test_handshakes_that_fail_under_ever_new_ids_do_not_fill_the_store(store: Store) -> None:
    rules = replace(RULES, servers_max=2)
    store.admit("c", "add", "one", rules=rules)
    for number in range(20):
        store.take(registry.end_handshake(store.snapshot, f"c{number}", f"s{number}", "no", rules))
    assert len(store.seen) == rules.seen_max
    assert {"one", "s19"} <= store.seen.keys()


# At random


ORIGINALS = ["t", "u", "a.b", "a_b", "a__t", "b__t", "x" * 70, "长🦊", "a_b__t"]
EXPLICIT = ["a", "b", "a.b", "a_b"]
SMALL = Rules(hold_ms=1000, handshake_ms=100, servers_max=3, tools_max=8)
SANITISED = re.compile(r"[a-zA-Z0-9_\-\u4e00-\u9fff]{1,64}")


@dataclass
class Link:
    """A live connection, and what its worker keeps of it."""

    newcomer: Newcomer
    server_id: str
    row: Row
    claims: Mapping[str, Claim]


class RegistryMachine(RuleBasedStateMachine):
    """Tool servers come, go, change, take over and are forgotten, in any order."""

    @initialize()
    def begin(self) -> None:
        self.store = Store()
        self.live: dict[str, Link] = {}
        self.old: list[Link] = []
        self.epochs: dict[str, int] = {}
        self.count = 0

    # Steps that every story is made of

    def settle(self, conn: str, decided: Admitted, asked: Newcomer) -> None:
        held = {
            name: claim
            for name, claim in self.store.claims.items()
            if claim.server != decided.server_id and registry.is_held(claim, self.store.rows, self.store.now_ms, 1000)
        }
        for name, claim in decided.change.claims.items():
            if claim is not None:
                assert name not in held, "a newcomer never takes a name that is held"
        self.store.take(decided.change)
        self.live[conn] = Link(asked, decided.server_id, decided.row, decided.claims)
        assert len(decided.claims) == len(asked.originals)
        assert len(self.store.claims) <= SMALL.claims_max
        assert len(self.store.seen) <= SMALL.seen_max

    def dial(self, asked: Newcomer, ghosts: set[str]) -> str | None:
        """Register as the registrar does; silent connections are probed into ghosts."""
        silent, ghosts = ghosts, set()
        twins: set[str] = set()
        while True:
            decided = registry.register(
                self.store.snapshot, asked, SMALL, dead=(), ghosts=tuple(ghosts), twins=tuple(twins)
            )
            match decided:
                case ProbeFirst(_, row):
                    (ghosts if row.conn in silent or row.conn not in self.live else twins).add(row.conn)
                case TooMany(_, room):
                    assert room < len(asked.originals) or room == 0
                    return None
                case Admitted():
                    break
        assert decided.row.epoch > self.epochs.get(decided.server_id, 0)
        self.epochs[decided.server_id] = decided.row.epoch
        if decided.displaced is not None and decided.displaced.conn in self.live:
            self.old.append(self.live.pop(decided.displaced.conn))
        self.settle(asked.conn, decided, asked)
        return decided.server_id

    def new_conn(self) -> str:
        self.count += 1
        return f"c{self.count}"

    tools = st.lists(st.sampled_from(ORIGINALS), max_size=4, unique=True)

    @rule(server_id=st.sampled_from(EXPLICIT), tools=tools, worker=st.sampled_from(["w1", "w2"]))
    def dial_with_an_id(self, server_id: str, tools: list[str], worker: str) -> None:
        self.store.now_ms += 10
        self.dial(newcomer(self.new_conn(), tools, server_id, name="x", worker=worker), set())

    @rule(name=st.sampled_from(["a", "a.b", ""]), tools=tools, silent=st.booleans())
    def dial_without_an_id(self, name: str, tools: list[str], silent: bool) -> None:
        self.store.now_ms += 10
        self.dial(newcomer(self.new_conn(), tools, name=name), set(self.live) if silent else set())

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def redial_with_the_same_tools(self, data: st.DataObject) -> None:
        """Once to settle what has become free, then again: nothing moves."""
        link = self.live[data.draw(st.sampled_from(sorted(self.live)))]
        if link.newcomer.server_id == "" or len(self.store.claims) > 20:
            return
        self.store.now_ms += 10
        told = []
        for _ in range(2):
            asked = replace(link.newcomer, conn=self.new_conn())
            if self.dial(asked, set()) is None:
                return
            told.append({claim.original: name for name, claim in self.live[asked.conn].claims.items()})
            shuffled = tuple(data.draw(st.permutations(link.newcomer.originals)))
            link = replace(link, newcomer=replace(link.newcomer, originals=shuffled))
        assert told[0] == told[1]

    @precondition(lambda self: self.live)
    @rule(data=st.data(), tools=tools)
    def swap(self, data: st.DataObject, tools: list[str]) -> None:
        conn = data.draw(st.sampled_from(sorted(self.live)))
        link = self.live[conn]
        originals = tuple(tools)
        asked = replace(link.newcomer, originals=originals, toolset=toolset(originals))
        decided = registry.swap_tools(self.store.snapshot, link.server_id, asked, SMALL)
        if isinstance(decided, Admitted):
            self.settle(conn, decided, asked)
        elif isinstance(decided, Superseded):
            self.old.append(self.live.pop(conn))

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        conn = data.draw(st.sampled_from(sorted(self.live)))
        link = self.live.pop(conn)
        self.store.take(registry.go_offline(self.store.snapshot, link.server_id, conn, "lost", SMALL))

    @precondition(lambda self: self.old)
    @rule()
    def an_old_connection_ends_late(self) -> None:
        link = self.old.pop()
        assert not registry.go_offline(self.store.snapshot, link.server_id, link.newcomer.conn, "lost", SMALL)

    @rule(worker=st.sampled_from(["w1", "w2"]))
    def a_worker_dies(self, worker: str) -> None:
        self.live = {conn: link for conn, link in self.live.items() if link.row.worker != worker}
        self.store.take(registry.bury(self.store.snapshot, worker, "dead", SMALL))
        assert not [row for row in self.store.rows.values() if row.worker == worker and row.state != "offline"]

    @rule()
    def the_store_forgets(self) -> None:
        self.store.lose_everything()
        self.store.now_ms += 10

    @rule()
    def everybody_restores(self) -> None:
        for conn, link in list(self.live.items()):
            decided = registry.restore(self.store.snapshot, link.server_id, link.row, link.claims)
            if isinstance(decided, Superseded):
                self.old.append(self.live.pop(conn))
                continue
            before = self.store.rows.get(link.server_id)
            self.store.take(decided)
            assert self.store.rows[link.server_id] == link.row
            assert before is None or before.conn == conn or before.epoch < link.row.epoch

    @rule(passed_ms=st.sampled_from([1, 500, 1001]))
    def time_passes(self, passed_ms: int) -> None:
        self.store.now_ms += passed_ms

    # What always holds

    @invariant()
    def one_live_connection_per_row(self) -> None:
        up = {key: row for key, row in self.store.rows.items() if row.state == "up"}
        assert len({row.conn for row in up.values()}) == len(up)
        for key, row in up.items():
            assert self.live[row.conn].server_id == key
        assert len({link.server_id for link in self.live.values()}) == len(self.live) or len(up) < len(self.live)

    @invariant()
    def everything_is_bounded(self) -> None:
        assert len(self.store.rows) <= 2 * SMALL.servers_max + len(self.live)
        assert len(self.store.seen) <= SMALL.seen_max + len(self.live)
        assert len(self.store.claims) <= SMALL.claims_max + SMALL.tools_max

    @invariant()
    def every_tool_is_listed_once_and_can_be_called(self) -> None:
        built = self.store.catalog()
        shown = listed(built)
        told = [tool["name"] for tool in shown]
        assert len(set(told)) == len(told)
        assert all(SANITISED.fullmatch(name) for name in built.routes)
        wanted = {
            Route(server_id, tool["name"])
            for server_id, row in self.store.rows.items()
            if row.state == "up" or catalog.is_in_grace(row, self.store.now_ms, GRACE)
            for tool in tools_of(row.toolset)
        }
        assert {built.routes[name] for name in told} == wanted
        assert all(built.routes[tool["name"]].server_id == tool["server_id"] for tool in shown)
        for route in wanted:
            prefix = names.fold(route.server_id) + "__"
            assert any(name.startswith(prefix) for name, there in built.routes.items() if there == route), route


RegistryMachine.TestCase.settings = settings(deadline=None, max_examples=40, stateful_step_count=30)
TestRegistryMachine = RegistryMachine.TestCase
