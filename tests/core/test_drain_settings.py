"""What the drain's settings demand, and how an operator's line for it is read."""

import pytest

from gateway.backplane.envelope import Envelope, EnvelopeError, decode, decode_notice, encode
from gateway.setting_rules import broken_rules
from gateway.settings import Settings


def test_without_a_drain_the_grace_does_not_matter() -> None:
    assert broken_rules(Settings(drain_seconds=0)) == []


@pytest.mark.parametrize("key", ["short", "密钥" * 10])
def test_an_admin_key_that_can_be_guessed_or_not_be_sent_is_refused_and_not_shown(key: str) -> None:
    [text] = broken_rules(Settings(admin_key=key))
    assert "GATEWAY_ADMIN_KEY" in text
    assert key not in text
    assert key not in repr(Settings(admin_key=key))


@pytest.mark.parametrize(
    "typed",
    [
        b'{"t":"drain","w":"gw-0-5b1f09aa"}',
        b'{"t": "drain", "w": "gw-0-5b1f09aa"}\n',
        b' {"w":"gw-0-5b1f09aa","t":"drain","why":"maintenance"} ',
        b'{"v":1,"t":"drain","w":"gw-0-5b1f09aa","len":0}\n',
    ],
)
def test_a_line_that_was_typed_is_an_envelope_to_all_workers(typed: bytes) -> None:
    [envelope] = decode_notice(typed)
    assert envelope == Envelope("drain", worker="gw-0-5b1f09aa")
    assert envelope.is_supported


@pytest.mark.parametrize(
    "message", [b"", b"drain", b"[]", b"7", b'{"t":"drain","len":3}', b'{"t":"drain"}\n{"t":"bye"}']
)
def test_what_is_no_envelope_is_refused_there_too(message: bytes) -> None:
    with pytest.raises(EnvelopeError):
        list(decode_notice(message))


def test_what_workers_say_to_all_is_read_as_ever() -> None:
    bye = Envelope("bye", sender="gw-0-5b1f09aa")
    assert list(decode_notice(encode(bye))) == [bye]
    assert list(decode_notice(encode(bye) * 2)) == [bye, bye]


def test_a_version_that_is_said_counts_there_too() -> None:
    [envelope] = decode_notice(b'{"v":2,"t":"drain","w":"x"}')
    assert not envelope.is_supported


def test_a_mailbox_takes_no_bare_header() -> None:
    with pytest.raises(EnvelopeError):
        list(decode(b'{"t":"drain","w":"x"}'))
