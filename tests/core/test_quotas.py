"""The shares of one worker: whose, how many, and what they ask of the store."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from gateway import quotas
from gateway.backplane.base import Asked, Backplane, Taken
from gateway.policy import UNSET, Policy, parse
from gateway.quotas import Quotas
from gateway.settings import Settings
from gateway.sources import source_name
from gateway.tasks import Tasks


@dataclass
class Store:
    """A backplane that only hears questions; the test answers them."""

    is_shared: bool = True
    is_connected: bool = True
    asked: list[tuple[Asked, Callable[[Taken | None], None]]] = field(default_factory=list)

    def take_ahead(self, asked: Asked, on_taken: Callable[[Taken | None], None]) -> None:
        self.asked.append((asked, on_taken))


class Clock(Tasks):
    def now(self) -> float:
        return 1000.0


@dataclass
class Agent:
    id: str = "a"
    policy: Policy = UNSET


def made(store: Store | None = None, **changes: Any) -> Quotas:
    return Quotas(Settings(**changes), cast(Backplane, store or Store(is_shared=False)), Clock())


def policy(text: bytes) -> Policy:
    return parse(text).over(UNSET)


def calls(quota: Quotas, agent: Agent, times: int, server_id: str = "lamp", now: float = 1000.0) -> int:
    """How many of so many calls at once may go on."""
    return sum(quota.take_call(agent, server_id, now) is None for _ in range(times))


def test_alone_a_limit_is_what_it_says() -> None:
    assert calls(made(calls_per_second=10), Agent(), 50) == 10
    assert calls(made(calls_per_second=10), Agent(), 50, server_id="") == 10


def test_agents_have_nothing_to_do_with_each_other() -> None:
    quota = made(calls_per_second=10)
    calls(quota, Agent(), 50)
    assert calls(quota, Agent("b"), 50) == 10


def test_a_tool_servers_limit_is_its_own_and_a_call_that_it_refuses_costs_the_agent_nothing() -> None:
    quota = made(calls_per_second=10, server_calls_per_second=4)
    agent = Agent()
    assert calls(quota, agent, 50, "lamp") == 4
    assert calls(quota, agent, 50, "bell") == 4
    assert calls(quota, agent, 50, "door") == 2, "then the agent's is met"
    assert calls(quota, agent, 50, "") == 0
    assert calls(quota, agent, 50, "door", now=1000.1) == 1


def test_another_policy_holds_from_the_next_call_and_what_was_spent_counts_on() -> None:
    quota = made(calls_per_second=10)
    agent = Agent()
    assert calls(quota, agent, 8) == 8
    agent.policy = policy(b'{"limits":{"calls_per_second":5}}')
    assert calls(quota, agent, 50) == 2
    assert calls(quota, agent, 50, now=1002.0) == 5
    agent.policy = policy(b'{"limits":{"server_calls_per_second":1}}')
    assert calls(quota, agent, 50, "lamp", now=1010.0) == 1
    agent.policy = UNSET
    assert calls(quota, agent, 50, "lamp", now=1020.0) == 10


def test_equal_policies_in_two_objects_are_one() -> None:
    quota = made(server_calls_per_second=4)
    for number in range(20):
        agent = Agent(policy=policy(b'{"limits":{"calls_per_second":5}}'))
        assert (quota.take_call(agent, "lamp", 1000.0) is None) == (number < 4)
        assert quota.take_handshake("a", policy(b'{"limits":{"calls_per_second":5}}'), 1000.0) is None


def test_handshakes_have_their_own_buckets() -> None:
    quota = made(agent_handshakes_per_minute=3, source_handshakes_per_minute=2, calls_per_second=10)
    assert [quota.take_handshake("a", UNSET, 1000.0) for _ in range(4)][:3] == [None] * 3
    wait = quota.take_handshake("a", UNSET, 1000.0)
    assert wait == pytest.approx(20)
    assert calls(quota, Agent(), 50) == 10
    assert [quota.take_source("192.0.2.1", 1000.0) is None for _ in range(3)] == [True, True, False]
    assert quota.take_source("192.0.2.2", 1000.0) is None
    assert all(quota.take_source(unknown, 1000.0) is None for unknown in ("", "?", "unix") * 5)


def test_without_a_limit_nothing_is_counted() -> None:
    quota = made(Store(), agent_handshakes_per_minute=0)
    assert all(quota.take_handshake("a", UNSET, 1000.0) is None for _ in range(10_000))
    assert all(quota.take_source("192.0.2.1", 1000.0) is None for _ in range(10_000))


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("?", ""),
        ("}:{", ""),
    ],
)
def test_an_ipv6_source_is_its_network_and_what_is_no_address_is_unknown(address: str, name: str) -> None:
    assert source_name(address) == name


def test_one_question_names_all_buckets_of_a_call() -> None:
    store = Store()
    quota = made(store, calls_per_second=1600, server_calls_per_second=160)
    calls(quota, Agent(), 12)
    [(asked, on_taken)] = store.asked
    assert (asked.owner, asked.is_source) == ("a", False)
    assert [(bucket.name, bucket.units) for bucket in asked.buckets] == [("calls:lamp", 150), ("calls", 1500)]
    on_taken(Taken(asked.want))
    made_of_source = made(store, source_handshakes_per_minute=60)
    for _ in range(4):
        made_of_source.take_source("2001:db8::1", 1000.0)
    asked = store.asked[-1][0]
    assert (asked.owner, asked.is_source, asked.buckets[0].name) == ("2001:db8::/64", True, "handshakes")


def test_a_store_that_is_away_is_not_asked() -> None:
    store = Store(is_connected=False)
    quota = made(store, calls_per_second=100)
    agent = Agent()
    let_in = [calls(quota, agent, 1000, now=1000.0 + second) for second in range(10)]
    assert store.asked == []
    assert let_in[5:] == [100] * 5


def test_a_store_that_fails_leaves_the_worker_its_own_bucket() -> None:
    store = Store()
    quota = made(store, calls_per_second=100)
    agent = Agent()
    calls(quota, agent, 1000)
    store.asked[0][1](None)
    assert calls(quota, agent, 1000, now=1002.0) == 100
    assert len(store.asked) == 2, "it is asked again after a while"


def test_more_workers_have_smaller_parts_each() -> None:
    asked_after = []
    for workers in (1, 10):
        store = Store()
        quota = made(store, calls_per_second=1600)
        quota.take_call(Agent(), "lamp", 900.0)
        quota.on_beat(workers)
        taken = 0
        while not store.asked:
            taken += calls(quota, Agent(), 1)
        asked_after.append(taken)
    assert asked_after == [51, 6], "when half of 100, and of 10, is gone"


def test_tables_are_bounded_whoever_makes_up_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AGENTS_MAX", "SOURCES_MAX", "SERVERS_MAX"):
        monkeypatch.setattr(quotas, name, 40)
    quota = made(calls_per_second=10, server_calls_per_second=2, source_handshakes_per_minute=2)
    busy = Agent("busy")
    for number in range(1000):
        now = 1000.0 + number / 10_000
        quota.take_call(Agent(f"agent-{number}"), "lamp", now)
        quota.take_source(f"2001:db8:0:{number:x}::1", now)
        quota.take_call(busy, f"server-{number}", now)
    assert len(quota._agents) <= 40
    assert len(quota._sources) <= 40
    assert len(quota._agents["busy"].servers) <= 40


def test_who_has_spent_something_is_remembered_before_who_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "AGENTS_MAX", 40)
    quota = made(calls_per_second=10)
    calls(quota, Agent("busy"), 50)
    for number in range(1000):
        quota.take_handshake(f"agent-{number}", UNSET, 1000.0 + number / 2000)
    assert calls(quota, Agent("busy"), 50, now=1000.5) == 5
