"""What is remembered of tool sets, and how many new ones an agent may bring."""

from gateway.toolsets import AGENTS_MAX, NEW_SECONDS, NEW_SETS, SPARE, SPARE_BYTES, Toolsets

LARGEST = 1000


def test_an_agent_may_bring_so_many_sets_and_later_more() -> None:
    toolsets = Toolsets(LARGEST)
    assert all(toolsets.may_bring("home", f"set {number}", LARGEST, 0.0) for number in range(NEW_SETS))
    assert not toolsets.may_bring("home", "one more", LARGEST, 0.0)
    assert toolsets.may_bring("elsewhere", "one more", LARGEST, 0.0)
    assert not toolsets.may_bring("home", "one more", LARGEST, NEW_SECONDS / NEW_SETS - 1)
    assert toolsets.may_bring("home", "one more", LARGEST, NEW_SECONDS / NEW_SETS + 1)


def test_a_set_that_is_remembered_costs_nothing() -> None:
    toolsets = Toolsets(LARGEST)
    toolsets.keep("known", [], LARGEST)
    assert all(toolsets.may_bring("home", "known", LARGEST, 0.0) for _ in range(NEW_SETS + 5))
    assert toolsets.may_bring("home", "new", LARGEST, 0.0)


def test_allowances_are_forgotten_once_they_are_whole_again() -> None:
    toolsets = Toolsets(LARGEST)
    for number in range(AGENTS_MAX):
        toolsets.may_bring(f"agent {number}", f"set {number}", 1, 0.0)
    toolsets.may_bring("late", "set", LARGEST, NEW_SECONDS)
    assert len(toolsets._allowances) == 1


def test_what_nobody_shows_is_let_go_when_there_is_much_of_it_by_number() -> None:
    toolsets = Toolsets(LARGEST)
    for number in range(SPARE):
        toolsets.keep(f"set {number}", [{"name": str(number)}], 10)
    assert not toolsets.is_due
    toolsets.keep("one more", [], 10)
    assert toolsets.is_due
    toolsets.let_go({"set 1"})
    assert dict(toolsets) == {"set 1": [{"name": "1"}]}
    assert not toolsets.is_due


def test_what_nobody_shows_is_let_go_when_there_is_much_of_it_by_size() -> None:
    toolsets = Toolsets(LARGEST)
    toolsets.keep("large", [], SPARE_BYTES)
    toolsets.keep("large", [], SPARE_BYTES)
    assert not toolsets.is_due
    toolsets.keep("small", [], 1)
    assert toolsets.is_due
    toolsets.let_go({"large"})
    assert list(toolsets) == ["large"]
    toolsets.keep("other", [], 2 * SPARE_BYTES)
    assert not toolsets.is_due, "it has room for as much again as is shown"
