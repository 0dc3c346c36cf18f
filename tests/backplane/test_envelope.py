"""The envelope: whatever is put in comes out, and nothing that comes in does harm."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backplane.envelope import HEADER_BYTES_MAX, Envelope, EnvelopeError, decode, encode

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
IDS = st.text("azAZ09._?-", max_size=20)
ENVELOPES = st.builds(
    Envelope,
    type=st.sampled_from(["req", "res", "nack", "note"]),
    id=IDS,
    sender=IDS,
    agent=TEXT,
    server=TEXT,
    epoch=st.integers(0, 2**53),
    conn=IDS,
    tool=TEXT,
    ms=st.integers(0, 10**9),
    due=st.integers(0, 2**53),
    reason=TEXT,
    body=st.binary(max_size=200),
)


@given(st.lists(ENVELOPES, max_size=5))
def test_envelopes_back_to_back_come_out_as_they_went_in(envelopes: list[Envelope]) -> None:
    assert list(decode(b"".join(map(encode, envelopes)))) == envelopes


@given(st.binary(max_size=300))
def test_garbage_is_an_envelope_error_and_nothing_else(message: bytes) -> None:
    with suppress(EnvelopeError):
        list(decode(message))


@given(ENVELOPES, st.integers(1, 50))
def test_a_cut_message_is_told_from_a_whole_one(envelope: Envelope, missing: int) -> None:
    message = encode(envelope)
    with pytest.raises(EnvelopeError):
        list(decode(message[:-missing] or b"{"))


def test_envelopes_before_the_broken_place_are_not_lost() -> None:
    envelopes = decode(encode(Envelope("req", id="1")) + b"broken")
    assert next(envelopes).id == "1"
    with pytest.raises(EnvelopeError):
        next(envelopes)


def test_a_field_of_the_future_is_ignored() -> None:
    (envelope,) = decode(b'{"v":1,"t":"req","id":"1","sig":"x","len":0}\n')
    assert envelope == Envelope("req", id="1")


@pytest.mark.parametrize(
    "header", [b'{"v":1,"t":"teleport","len":0}\n', b'{"v":2,"t":"req","len":0}\n', b'{"len":0}\n']
)
def test_an_unknown_type_or_version_is_decoded_and_marked_as_unsupported(header: bytes) -> None:
    (envelope,) = decode(header)
    assert not envelope.is_supported


@pytest.mark.parametrize("length", [b"-1", b"99", b"1.5", b"true", b'"1"', b"null", b"18446744073709551616"])
def test_a_length_that_fits_nothing_is_refused(length: bytes) -> None:
    with pytest.raises(EnvelopeError):
        list(decode(b'{"v":1,"t":"req","len":' + length + b"}\n"))


def test_a_field_of_the_wrong_type_counts_as_missing() -> None:
    (envelope,) = decode(b'{"v":1,"t":"req","id":7,"epoch":"x","due":true,"len":0}\n')
    assert (envelope.id, envelope.epoch, envelope.due) == ("", 0, 0)


def test_the_body_travels_untouched() -> None:
    body = b' {"a" :\n 1}\n\n'
    (envelope,) = decode(encode(Envelope("req", body=body)))
    assert envelope.body == body


@pytest.mark.parametrize("field", ["id", "from", "conn", "w"])
@pytest.mark.parametrize("wrong", ["*", "a}b{c", "a b", "gw-0\\n", "\u7f51", "{}", "x" * 321])
def test_an_id_that_can_be_no_part_of_a_key_makes_it_no_envelope(field: str, wrong: str) -> None:
    genuine = encode(Envelope("query", id="before"))
    envelopes = decode(genuine + f'{{"v":1,"t":"query","{field}":"{wrong}","len":0}}\n'.encode())
    assert next(envelopes).id == "before"
    with pytest.raises(EnvelopeError):
        next(envelopes)


def test_a_header_without_an_end_is_not_read_for_ever() -> None:
    with pytest.raises(EnvelopeError):
        list(decode(b'{"v":1,"t":"req","tool":"' + b"x" * HEADER_BYTES_MAX + b'","len":0}\n'))
