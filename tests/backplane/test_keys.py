"""Keys and how long they live: names that people can read, and no two agents on one key."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backplane.base import BOOKS
from gateway.backplane.keys import Keys, Lifetimes, agent_tag
from gateway.backplane.redis.slots import slot_of


@pytest.mark.parametrize("agent", ["a", "single_module", "A.b-c_1", "x" * 64])
def test_a_plain_agent_is_itself(agent: str) -> None:
    assert agent_tag(agent) == agent


@given(st.text(st.characters(), max_size=80))
def test_every_agent_has_a_tag_that_fits_a_hash_tag(agent: str) -> None:
    tag = agent_tag(agent)
    assert tag
    assert not set(tag) & set("{}: \n")
    assert len(tag) <= 64


@given(st.text(max_size=80))
def test_no_agent_can_take_anothers_keys(agent: str) -> None:
    assert agent_tag(agent_tag(agent)) != agent_tag(agent) or agent_tag(agent) == agent


def test_keys_of_one_script_share_a_hash_tag() -> None:
    keys = Keys()
    tag = agent_tag("a")
    of_agent = [keys.revision(tag), keys.servers(tag), keys.names(tag), keys.seen(tag), keys.catalog(tag)]
    of_worker = [keys.worker("w"), keys.inflight("w"), keys.mailbox("w"), keys.call("w", "1"), keys.owned("w")]
    assert {key.split("{")[1].split("}")[0] for key in of_agent} == {"a"}
    assert {key.split("{")[1].split("}")[0] for key in of_worker} == {"w"}


@pytest.mark.parametrize("renew_seconds", [1.0, 600.0, 7200.0, 100_000.0])
def test_every_lifetime_that_is_renewed_is_three_renewals_long(renew_seconds: float) -> None:
    lifetimes = Lifetimes.derive(name_hold_seconds=60.0, renew_seconds=renew_seconds)
    assert min(lifetimes.agent_ms, lifetimes.robots_ms, lifetimes.toolset_ms) >= 3000 * renew_seconds


def test_an_agent_is_kept_longer_than_its_names_are_held() -> None:
    assert Lifetimes.derive(name_hold_seconds=86_400.0, renew_seconds=600.0).agent_ms == 25 * 3_600_000


@pytest.mark.parametrize("book", BOOKS)
def test_a_books_keys_share_a_slot_and_only_the_book_itself_stays(book: str) -> None:
    for keys in (Keys(), Keys("a:b.c-")):
        assert slot_of(keys.book(book)) == slot_of(keys.changes(book))
        assert keys.is_durable(keys.book(book))
        assert not keys.is_durable(keys.changes(book))


@pytest.mark.parametrize(
    ("key", "is_durable"),
    [
        *(("mcpgw:policy", True), ("mcpgw:revoked", True), ("mcpgw:pins:{home}", True)),
        *(("mcpgw:policy:{a}", False), ("mcpgw:pins", False), ("mcpgw:agents", False), ("other:policy", False)),
        *(("mcpgw:changes:{mcpgw:policy}", False), ("mcpgw:policyx", False)),
    ],
)
def test_exactly_the_books_and_the_pins_have_no_end(key: str, is_durable: bool) -> None:
    assert Keys().is_durable(key) is is_durable
