"""When which connection may leave in a drain: given time, who is here and chance."""

from gateway.drain import Turns, Window


def test_nothing_happens_in_the_grace() -> None:
    window = Window(100.0, 150.0, 5.0)
    assert window.is_grace(100.0)
    assert window.is_grace(104.9)
    assert not window.is_grace(105.0)


def test_shares_of_the_window_count_from_its_beginning() -> None:
    window = Window(100.0, 150.0, 5.0)
    assert not window.is_past(2 / 5, 159.9)
    assert window.is_past(2 / 5, 160.0)
    assert window.is_past(4 / 5, 220.0)
    assert window.ends == 250.0
    assert window.left_seconds(240.0) == 10.0
    assert window.left_seconds(300.0) == 0.0


def test_everybody_is_due_once_the_spread_is_over_and_not_all_at_once_before() -> None:
    draws = iter([0.0, 0.25, 0.5, 0.99])
    turns = Turns(10.0, 8.0, lambda: next(draws))
    present = {"a", "b", "c", "d"}
    counts = [len(turns.due(now, present)) for now in (10.0, 12.0, 14.0, 17.9, 18.0)]
    assert counts == [1, 2, 3, 3, 4]


def test_who_has_a_turn_keeps_it_until_it_has_left() -> None:
    turns = Turns(0.0, 1.0, lambda: 0.5)
    assert turns.due(0.5, {"busy", "other"}) == ["busy", "other"]
    assert turns.due(0.6, {"busy"}) == ["busy"]
    assert turns.due(0.7, set()) == []


def test_who_came_in_last_gets_a_turn_too() -> None:
    turns = Turns(0.0, 1.0, lambda: 0.5)
    assert turns.due(0.9, {"a"}) == ["a"]
    assert turns.due(0.9, {"a", "late"}) == ["a", "late"]


def test_a_turn_is_drawn_once() -> None:
    drawn: list[float] = []
    turns = Turns(0.0, 10.0, lambda: drawn.append(0.9) or 0.9)  # type: ignore[func-returns-value]
    for now in range(5):
        assert turns.due(now, {"a"}) == []
    assert len(drawn) == 1
