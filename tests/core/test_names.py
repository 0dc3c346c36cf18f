"""Names: every one survives the robots' sanitiser, is unique, and stays what it was."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import names

quick = settings(deadline=None, max_examples=60)

ORIGINALS = st.one_of(
    st.text(max_size=90),
    st.text("ab._/-长é🦊 ", max_size=6),
    st.sampled_from(["a.b", "a/b", "a_b", "", "_", "x" * 64, "x" * 65, "x" * 64 + "y", "查询天气", "a\nb"]),
)


def sanitised(name: str) -> str:
    """The robots' own line (xiaozhi-server, `sanitize_tool_name`)."""
    return re.sub(r"[^a-zA-Z0-9_\-\u4e00-\u9fff]", "_", name)


def assert_sound(name: str) -> None:
    assert sanitised(name) == name
    assert 1 <= len(name) <= 64


@pytest.mark.parametrize("name", ["calculator", "Get-Weather_2", "查询天气", "x" * 64, "_"])
def test_a_plain_name_stays_plain(name: str) -> None:
    assert names.local_names([name], {}) == {name: name}


@pytest.mark.parametrize(
    ("original", "folded"),
    [("a.b", "a_b"), ("a b\n", "a_b_"), ("été", "_t_"), ("🦊", "_"), ("", "_"), ("工具①", "工具_")],
)
def test_folding_is_the_robots_own(original: str, folded: str) -> None:
    assert names.fold(original) == folded
    assert names.fold(original) == (sanitised(original) or "_")


def test_a_long_name_keeps_its_beginning_and_ends_in_a_mark() -> None:
    name = names.local_names(["长" * 100], {})["长" * 100]
    assert name == "长" * 59 + "_" + names.mark("长" * 100)
    assert len(names.mark("长" * 100)) == 4


def test_of_names_that_fold_into_one_the_unchanged_one_keeps_it() -> None:
    told = names.local_names(["a.b", "a/b", "a_b"], {})
    assert told == {"a_b": "a_b", "a.b": f"a_b_{names.mark('a.b')}", "a/b": f"a_b_{names.mark('a/b')}"}


def test_names_from_before_stay_when_a_better_claimant_appears() -> None:
    assert names.local_names(["a_b", "a.b"], {"a.b": "a_b"}) == {"a.b": "a_b", "a_b": f"a_b_{names.mark('a_b')}"}


def test_tools_named_after_every_mark_of_another_do_not_take_its_place() -> None:
    marks = [names.marked("a_b", "a.b", digits) for digits in range(4, 52, 4)]
    told = names.local_names(["a_b", "a.b", *marks], {})
    assert len(set(told.values())) == len(told)
    assert_sound(told["a.b"])


def test_a_prefixed_name_is_the_server_and_the_tool() -> None:
    assert names.prefixed("home", "lamp", "lamp") == "home__lamp"
    assert names.prefixed("my home", "lamp", "lamp") == "my_home__lamp"


def test_a_prefixed_name_that_is_taken_is_marked() -> None:
    plain = names.prefixed("home", "lamp", "lamp")
    marked = names.prefixed("home", "lamp", "lamp", {plain})
    longer = names.prefixed("home", "lamp", "lamp", {plain, marked})
    assert marked.startswith(plain + "_")
    assert longer.startswith(marked)
    assert len({plain, marked, longer}) == 3


@pytest.mark.parametrize(
    ("name", "server_id"),
    [("calc", "calc"), ("My Home!", "My_Home"), ("", "server"), ("...", "server"), ("--x--", "x"), ("天气", "天气")],
)
def test_a_tool_servers_own_name_becomes_its_id(name: str, server_id: str) -> None:
    assert names.server_name(name) == server_id
    assert len(names.server_name(name * 50)) <= 32


@quick
@given(st.lists(ORIGINALS, max_size=12), st.randoms(use_true_random=False))
def test_names_within_a_server_are_sound_unique_and_blind_to_order(originals: list[str], order: object) -> None:
    told = names.local_names(originals, {})
    assert told.keys() == set(originals)
    assert len(set(told.values())) == len(told)
    for name in told.values():
        assert_sound(name)
    shuffled = originals.copy()
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    assert names.local_names(shuffled, {}) == told


@quick
@given(st.lists(ORIGINALS, max_size=8), st.lists(ORIGINALS, max_size=8))
def test_names_stay_when_other_tools_come_and_go(before: list[str], after: list[str]) -> None:
    old = names.local_names(before, {})
    new = names.local_names(after, old)
    assert {name: new[name] for name in new if name in old} == {name: old[name] for name in old if name in new}
    assert len(set(new.values())) == len(new)


@quick
@given(st.text(max_size=64), ORIGINALS)
def test_prefixed_names_are_sound_however_many_are_taken(server_id: str, original: str) -> None:
    local = names.local_names([original], {})[original]
    taken: set[str] = set()
    for _ in range(20):
        name = names.prefixed(server_id, local, original, taken)
        assert_sound(name)
        assert name not in taken
        taken.add(name)
