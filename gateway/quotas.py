"""How often each agent may call and dial in, and each source knock: counted over all workers, without waiting.

Theory of operation
-------------------
`gateway.shares` has the arithmetic. Here are the shares of this worker, one for each limit of an agent, of a tool
server and of a source, made when they are first needed and forgotten when they are idle and there are many; and the
questions to the store, which travel with whatever else this turn of the event loop sends there. With the memory
backplane of one process there is nobody to share with: its shares are plain token buckets.
"""

import random
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import Protocol, TypeVar

from gateway.backplane.base import Asked, Backplane, Bucket, Taken
from gateway.settings import Settings
from gateway.shares import AWAY_SECONDS, QUIET_PART, Limit, Purse, Share
from gateway.sources import source_name
from gateway.tasks import Tasks

AGENTS_MAX = 20_000
SOURCES_MAX = 20_000
SERVERS_MAX = 256
"""Of one agent: a tool server that changes its name at every call must not fill the memory."""
PAUSE_SECONDS = (0.05, 0.15)
"""Between an answer of the store that was less than was asked for and the next question; by chance, so that no worker
always comes right behind another."""
MINUTE_SECONDS = 60.0


class Limited(Protocol):
    """A policy, as far as it names limits (`gateway.policy.Policy`)."""

    def limit(self, name: str, default: int) -> int: ...


class Counted(Protocol):
    """An agent, as far as its calls are counted (`gateway.agents.Agent`)."""

    @property
    def id(self) -> str: ...

    @property
    def policy(self) -> Limited: ...


class _AgentShares:
    """What this worker may spend of one agent's limits. None: there is no such limit, or nobody has called yet."""

    __slots__ = ("call_limit", "calls", "handshakes", "id", "part", "policy", "server_limit", "servers")

    __slots__ = ("call_limit", "calls", "handshakes", "id", "part", "policy", "server_limit", "servers")

    def __init__(self, agent_id: str, policy: Limited, part: float) -> None:
        self.id = agent_id
        self.policy = policy
        self.part = part
        """What part of the limits was this worker's when they were last looked at."""
        self.call_limit: Limit | None = None
        self.calls: Share | None = None
        self.handshakes: Share | None = None
        self.server_limit: Limit | None = None
        self.servers: dict[str, Share] = {}

    @property
    def shares(self) -> list[Share]:
        return [share for share in (self.calls, self.handshakes, *self.servers.values()) if share is not None]

    def is_idle(self, now: float) -> bool:
        return all(share.is_idle(now) for share in self.shares)


Kept = TypeVar("Kept", _AgentShares, Share)


class Quotas:
    """What this worker may let through. Every answer is None (go on, it has been counted) or the seconds to wait."""

    def __init__(self, settings: Settings, backplane: Backplane, tasks: Tasks) -> None:
        self._settings = settings
        self._backplane = backplane
        self._tasks = tasks
        self._workers = 1
        self._part = QUIET_PART if backplane.is_shared else 1.0
        self._agents: dict[str, _AgentShares] = {}
        self._sources: dict[str, Share] = {}
        self._source_limit = _limit(settings.source_handshakes_per_minute, MINUTE_SECONDS)

    def __repr__(self) -> str:
        return f"<Quotas [{len(self._agents)} agents, {len(self._sources)} sources, 1/{self._workers}]>"

    def take_call(self, agent: Counted, server_id: str, now: float) -> float | None:
        """Count a call of the agent to a tool server; empty where it is not known to which."""
        mine = self._agents.get(agent.id)
        if mine is None or mine.policy is not agent.policy or mine.part != self._part:
            mine = self._of(agent.id, agent.policy, now)
        share = mine.calls or self._of_calls(mine, now)
        if mine.server_limit is not None and server_id:
            share = mine.servers.get(server_id) or self._of_server(mine, mine.server_limit, server_id, now)
        return None if share is None else share.take(now)

    def take_source(self, source: str, now: float) -> float | None:
        """Count a handshake from an address, before anything is known of it. Unknown addresses are not limited."""
        if self._source_limit is None:
            return None
        name = source_name(source)
        if not name:
            return None
        share = self._sources.get(name)
        if share is None:
            self._sources = _with_room(self._sources, SOURCES_MAX, now)
            purse = Purse(self._source_limit, self._part, now)
            share = self._sources[name] = Share(purse, None, self._asker("source", name, "handshakes"))
        return share.take(now)

    def take_handshake(self, agent_id: str, policy: Limited, now: float) -> float | None:
        """Count a handshake whose token is good."""
        mine = self._agents.get(agent_id)
        if mine is None or mine.policy is not policy or mine.part != self._part:
            mine = self._of(agent_id, policy, now)
        return None if mine.handshakes is None else mine.handshakes.take(now)

    def call_limits(self, policy: Limited) -> str:
        """The limits that a refused call has met, for people."""
        settings = self._settings
        servers = policy.limit("server_calls_per_second", settings.server_calls_per_second)
        text = f"GATEWAY_CALLS_PER_SECOND={policy.limit('calls_per_second', settings.calls_per_second):g}"
        return f"{text}, GATEWAY_SERVER_CALLS_PER_SECOND={servers:g}" if servers else text

    def on_beat(self, workers: int) -> None:
        """So many workers share the limits now."""
        if not self._backplane.is_shared or workers == self._workers or workers < 1:
            return
        self._workers, self._part = workers, QUIET_PART / workers
        self._adjust(self._sources.values())  # those of agents, of whom there are many, when they are next needed

    def _adjust(self, shares: Iterable[Share]) -> None:
        for share in shares:
            for purse in share.purses:
                purse.adjust(purse.limit, self._part)

    # An agent's shares

    def _of(self, agent_id: str, policy: Limited, now: float) -> _AgentShares:
        """The agent's shares, as the policy wants them now. What it has spent counts on."""
        mine = self._agents.get(agent_id)
        if mine is not None and mine.part != self._part:
            mine.part = self._part
            self._adjust(mine.shares)
        if mine is not None and mine.policy == policy:
            mine.policy = policy
            return mine
        if mine is None:
            self._agents = _with_room(self._agents, AGENTS_MAX, now)
            mine = self._agents[agent_id] = _AgentShares(agent_id, policy, self._part)
        mine.policy = policy
        mine.call_limit, handshakes, mine.server_limit = self._limits(policy)
        if mine.calls is not None:
            self._of_calls(mine, now)
        mine.handshakes = self._fitting(mine.handshakes, handshakes, self._asker("agent", agent_id, "handshakes"), now)
        mine.servers.clear()  # their limit, or the agent's beside it, may be another one
        return mine

    def _of_calls(self, mine: _AgentShares, now: float) -> Share | None:
        """The share of the agent's calls. Most agents that are connected call nobody for long, and have none."""
        mine.calls = self._fitting(mine.calls, mine.call_limit, self._asker("agent", mine.id, "calls"), now)
        return mine.calls

    def _limits(self, policy: Limited) -> tuple[Limit | None, Limit | None, Limit | None]:
        settings = self._settings
        calls = policy.limit("calls_per_second", settings.calls_per_second)
        handshakes = policy.limit("agent_handshakes_per_minute", settings.agent_handshakes_per_minute)
        servers = policy.limit("server_calls_per_second", settings.server_calls_per_second)
        return _limit(calls), _limit(handshakes, MINUTE_SECONDS), _limit(servers)

    def _fitting(
        self, share: Share | None, limit: Limit | None, on_low: Callable[[Share, float], None] | None, now: float
    ) -> Share | None:
        """The share, or a new one, with that limit."""
        if limit is None:
            return None
        if share is None:
            return Share(Purse(limit, self._part, now), None, on_low)
        if share.purses[0].limit != limit:
            share.purses[0].adjust(limit, self._part)
            share.adjust()
        return share

    def _of_server(self, mine: _AgentShares, limit: Limit, server_id: str, now: float) -> Share:
        mine.servers = _with_room(mine.servers, SERVERS_MAX, now)
        names = (f"calls:{server_id}", "calls") if mine.calls is not None else (f"calls:{server_id}",)
        outer = None if mine.calls is None else mine.calls.purses[0]
        share = Share(Purse(limit, self._part, now), outer, self._asker("agent", mine.id, *names))
        mine.servers[server_id] = share
        return share

    # The store

    def _asker(self, kind: str, owner: str, *names: str) -> Callable[[Share, float], None] | None:
        return partial(self._ask, kind, owner, names) if self._backplane.is_shared else None

    def _ask(self, kind: str, owner: str, names: tuple[str, ...], share: Share, now: float) -> None:
        """Ask the store for units of these buckets, of all of them or of none."""
        if not self._backplane.is_connected:
            share.fail(_soon(AWAY_SECONDS), now)
            return
        ask = share.ask(now)
        limits = [purse.limit.shared for purse in share.purses]
        buckets = [Bucket(name, limit.burst, limit.per_second) for name, limit in zip(names, limits, strict=True)]
        asked = Asked(kind == "source", owner, tuple(buckets), ask.want, ask.debt)
        self._backplane.take_ahead(asked, partial(self._on_taken, share))

    def _on_taken(self, share: Share, taken: Taken | None) -> None:
        now = self._tasks.now()
        if taken is None:
            share.fail(_soon(AWAY_SECONDS), now)
        else:
            pause_seconds = max(random.uniform(*PAUSE_SECONDS), random.uniform(1, 2) * taken.wait_seconds)
            share.answer(taken.units, pause_seconds, now)


@lru_cache(maxsize=1024)
def _limit(units: float, window_seconds: float = 1.0) -> Limit | None:
    return Limit(units, window_seconds) if units else None


def _soon(seconds: float) -> float:
    return random.uniform(0.5, 1.5) * seconds


def _with_room(kept: dict[str, Kept], most: int, now: float) -> dict[str, Kept]:
    """The table, with room for another one: who is idle goes first, then who has been there longest."""
    if len(kept) < most:
        return kept
    busy = {name: value for name, value in kept.items() if not value.is_idle(now)}
    return dict(list(busy.items())[-(3 * most // 4) :])
