"""Tables and ages as operators read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ages import age, from_iso, iso, span
from gateway.tables import cells, cut, printable, table


def test_columns_are_aligned_also_with_chinese_in_them() -> None:
    lines = table(["agent", "n", "cause"], [["客厅的小智", 3, "断开"], ["home", 12, "gone"]]).splitlines()
    assert lines == [
        "agent        n  cause",
        "客厅的小智   3  断开",
        "home        12  gone",
    ]
    assert (
        len({cells(line[: line.index(word)]) for line, word in zip(lines, ("cause", "断开", "gone"), strict=True)}) == 1
    )


def test_a_narrow_terminal_takes_free_text_first_and_leaves_the_ids() -> None:
    row = ["a very long story about what has happened here", "gw-7c9f6d5b8-abcde"]
    [_, line] = table(["cause", "worker"], [row], 40, loose=["cause"]).splitlines()
    assert line.startswith("a very long story a…")
    assert line.endswith("  gw-7c9f6d5b8-abcde")


@given(
    st.lists(st.tuples(st.text(), st.text(), st.integers()), max_size=4),
    st.integers(1, 120),
)
def test_no_line_is_wider_than_the_terminal(rows: list[tuple[str, str, int]], width: int) -> None:
    for line in table(["one", "two", "three"], rows, width).splitlines():
        assert cells(line) <= width


@given(st.text())
def test_what_peers_wrote_stays_on_its_line_and_is_not_obeyed(text: str) -> None:
    assert len(printable(text).splitlines()) <= 1
    assert not set("\x1b\x07\r\n\x9b\u202e\u2066") & set(printable(text))


@given(st.text(), st.integers(1, 20))
def test_a_cut_is_visible(text: str, width: int) -> None:
    shown = cut(text, width)
    assert shown == text or shown.endswith("…")
    assert cells(shown) <= max(width, cells("…"))


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0 s ago"),
        (59, "59 s ago"),
        (60, "1 min ago"),
        (3 * 60 + 5, "3 min ago"),
        (7200, "2 h ago"),
        (200_000, "2 d ago"),
    ],
)
def test_an_age_is_told_in_its_largest_unit(seconds: int, told: str) -> None:
    now_ms = 1_795_345_644_711
    assert age(now_ms - seconds * 1000, now_ms) == told


def test_what_is_to_come_and_what_never_was_are_told_apart() -> None:
    assert age(8000, 1000) == "in 7 s"
    assert age(0, 1000) == ""
    assert span(0.2) == "0 s"


@given(st.integers(1, 4_000_000_000_000))
def test_iso_times_say_their_zone_and_can_be_read_back(at_ms: int) -> None:
    text = iso(at_ms)
    assert text is not None
    assert text.endswith("Z")
    assert from_iso(text) == at_ms


@pytest.mark.parametrize("at_ms", [0, 10**18, 10**30])
def test_what_no_calendar_has_is_no_time(at_ms: int) -> None:
    assert iso(at_ms) is None


def test_a_text_of_any_length_takes_bounded_space_and_the_others_are_not_padded_to_it() -> None:
    lines = table(("tool", "description"), [("on", "长" * 4_000_000), ("off", "short")]).splitlines()
    assert max(map(cells, lines)) < 2000
    assert lines[1].endswith("…")
    assert lines[2].endswith("short")
