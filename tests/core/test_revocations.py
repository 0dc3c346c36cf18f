"""Whom the book `revoked` refuses."""

import math

import pytest

from gateway.credential import Credential
from gateway.revocations import Revocations, named, of_agent, of_token, until_ms

LEGACY = Credential("home")
SIGNED = Credential("home", "call", token_id="t1", issued_ms=1_000, expires_ms=9_000)


def book(**entries: bytes) -> Revocations:
    revocations = Revocations()
    for name, text in entries.items():
        revocations.put(name.replace("_", ":"), text)
    return revocations


def test_an_empty_book_refuses_nobody() -> None:
    assert not Revocations().is_revoked(LEGACY)
    assert not Revocations().is_revoked(SIGNED)


@pytest.mark.parametrize(("before_ms", "is_revoked"), [(999, False), (1_000, False), (1_001, True)])
def test_of_an_agent_everything_that_was_issued_before_is_refused(before_ms: int, is_revoked: bool) -> None:
    revocations = book(agent_home=b'{"before_ms":%d}' % before_ms)
    assert revocations.is_revoked(SIGNED) is is_revoked


def test_old_tokens_of_a_revoked_agent_stay_refused_since_they_have_no_time_of_issue() -> None:
    revocations = book(agent_home=b'{"before_ms":1}')
    assert revocations.is_revoked(LEGACY)
    revocations.put("agent:home", None)
    assert not revocations.is_revoked(LEGACY)


def test_other_agents_are_not_concerned() -> None:
    revocations = book(agent_home=b'{"before_ms":5000}', token_t1=b'{"until_ms":9000}')
    assert not revocations.is_revoked(Credential("other"))
    assert not revocations.is_revoked(Credential("other", "mcp", token_id="t2", issued_ms=1))


def test_one_token_can_be_refused_by_its_id() -> None:
    revocations = book(token_t1=b'{"until_ms":9000,"reason":"lost"}')
    assert revocations.is_revoked(SIGNED)
    assert not revocations.is_revoked(LEGACY)
    revocations.put(of_token("t1"), None)
    assert not revocations.is_revoked(SIGNED)


def test_an_entry_without_an_id_does_not_refuse_the_old_tokens_which_have_none() -> None:
    revocations = book(token_=b"{}")
    assert not revocations.is_revoked(LEGACY)


@pytest.mark.parametrize("text", [b"{}", b"[]", b"{", b'{"before_ms":"soon"}', b'{"before_ms":true}'])
def test_what_can_not_be_understood_refuses_as_much_as_it_could_mean(text: bytes) -> None:
    assert book(agent_home=text).is_revoked(SIGNED)
    assert book(agent_home=text).is_revoked(LEGACY)
    assert book(token_t1=text).is_revoked(SIGNED)


def test_an_entry_matters_until_its_token_has_expired() -> None:
    assert until_ms("token:t", b'{"until_ms":9000}') == 9000
    assert until_ms("token:t", b'{"until_ms":0}') == math.inf
    assert until_ms("agent:a", b'{"before_ms":1,"until_ms":5}') == math.inf


def test_names_say_what_they_are_about() -> None:
    assert named([of_agent("a:b"), of_token("t"), "other"]) == ({"a:b"}, {"t"})


def test_nothing_of_a_token_is_shown() -> None:
    assert repr(book(token_secret=b"{}", agent_home=b"{}")) == "<Revocations [1 agents, 1 tokens]>"
