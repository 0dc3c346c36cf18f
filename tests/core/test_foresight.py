"""What an agent's facts are after a change of this worker's own, and for how long that is worth a guess."""

from gateway.backplane.base import Change, Snapshot
from gateway.directory import Claim, Pins, Row, Seen
from gateway.foresight import GOOD_MS, Foresight

NOW_MS = 1_000_000
ROW = Row("up", "w", "w.1", NOW_MS)
STORED = Snapshot(
    5,
    NOW_MS,
    rows={"lamp": ROW},
    claims={"on": Claim("lamp", "on", 1, 0)},
    seen={"lamp": Seen(1)},
    pins={"lamp": Pins(1)},
)


def test_what_was_stored_and_changed_is_what_will_be_read() -> None:
    foresight = Foresight()
    fan = Row("handshake", "w", "w.2", NOW_MS)
    change = Change({"lamp": None, "fan": fan}, {"on": None}, {"fan": Seen(2)}, pins={"fan": Pins(2)})
    foresight.note("a", STORED, change, 6)
    assert foresight.of("a", NOW_MS + 7) == Snapshot(
        6, NOW_MS + 7, {"fan": fan}, {}, {"lamp": Seen(1), "fan": Seen(2)}, {"lamp": Pins(1), "fan": Pins(2)}
    )


def test_nothing_is_guessed_of_an_agent_that_is_not_known_or_was_forgotten() -> None:
    foresight = Foresight()
    foresight.note("a", STORED, Change(), 6)
    foresight.forget("a")
    assert (foresight.of("a", NOW_MS), foresight.of("b", NOW_MS)) == (None, None)


def test_a_guess_is_good_for_some_seconds_and_then_let_go_of() -> None:
    foresight = Foresight()
    foresight.note("a", STORED, Change(), 6)
    assert foresight.of("a", NOW_MS + GOOD_MS - 1) is not None
    assert foresight.of("a", NOW_MS + GOOD_MS) is None
    foresight.note("b", Snapshot(1, NOW_MS + GOOD_MS), Change(), 2)
    assert len(foresight) == 1


def test_time_does_not_run_backwards_in_a_guess() -> None:
    foresight = Foresight()
    foresight.note("a", STORED, Change(), 6)
    guess = foresight.of("a", NOW_MS - 50)
    assert guess is not None
    assert guess.now_ms == NOW_MS


def test_so_much_is_kept_as_fits_the_bound_the_latest() -> None:
    foresight = Foresight(facts_max=12)
    for name in ("a", "b", "c", "b"):
        foresight.note(name, STORED, Change(), 6)
    assert [name for name in "abc" if foresight.of(name, NOW_MS)] == ["b", "c"]
    foresight.note("huge", STORED, Change(claims={str(n): Claim("lamp", "on", 1, 0) for n in range(20)}), 6)
    assert len(foresight) == 0
