"""Entries of a book as text: what we write is what we read, and nothing that somebody else has written can do harm."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backplane.base import Entry
from gateway.backplane.entries import dump, from_object, load, tail, to_object

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), lambda leaf: st.lists(leaf), max_leaves=5
)
TEXTS = st.dictionaries(st.text().filter(lambda name: name not in ("version", "removed")), JSON).map(orjson.dumps)


@given(st.integers(1, 2**43 - 1), TEXTS | st.just(b""))
def test_what_was_written_is_read_as_it_was(version: int, text: bytes) -> None:
    entry = Entry(version, text)
    assert load(dump(entry)) == entry
    assert from_object(to_object(entry)) == entry
    assert dump(entry) == b'{"version":%d' % version + tail("x", text), "as the script puts it together"


@given(st.binary() | TEXTS)
def test_whatever_else_stands_there_is_an_entry_or_nothing_and_can_be_put_back(text: bytes) -> None:
    entry = load(text)
    assert entry is None or load(dump(entry)) == entry


@pytest.mark.parametrize(
    "text",
    [b"", b"{}", b"[]", b"5", b'{"version":"5"}', b'{"version":0}', b'{"version":-1}', b'{"version":1.5}', b"{",
     b'{"version":9007199254740993}', b'{"before_ms":5}', b'{"version":true}'],
)  # fmt: skip
def test_what_has_no_version_is_no_entry(text: bytes) -> None:
    assert load(text) is None


def test_an_entry_spelled_by_hand_is_one_if_it_has_a_version() -> None:
    assert load(b'{ "before_ms": 5, "version": 7 }') == Entry(7, b'{"before_ms":5}')
    assert load(b'{"version":7, "removed": true }') is not None
    assert load(b'{"removed":true,"version":7,"x":1}') == Entry(7, b"")
    assert from_object({"version": 7, "removed": False}) == Entry(7, b"{}")


@pytest.mark.parametrize("text", [b"[]", b'"x"', b'{"version":9}', b'{"removed":true}', b"{", b"\xff"])
def test_what_can_not_be_an_entry_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        tail("x", text)
    with pytest.raises(ValueError, match="name"):
        tail("", b"{}")
