"""What agents' facts are after this worker's own last change of them: a guess that saves reading them again.

Theory of operation
-------------------
A tool server that dials in changes its agent twice: its handshake has begun, and a moment later it is registered. What
the first commit has made of the facts is known without asking. So the second decision is tried on that, and the commit
itself tells whether it still holds: it is taken only at the very revision that the first one led to, and no revision
comes twice. Who is refused reads, and decides anew. What is no commit is never decided on a guess (ADR 31).

A guess is good for some seconds, so that what somebody has deleted in the store by hand is soon missed; and so much is
kept as fits the bound, the agents that changed last.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from gateway.backplane.base import Change, Snapshot

GOOD_MS = 10_000
FACTS_MAX = 100_000
"""Rows, claims and the like of all agents together: some 30 MB."""

Fact = TypeVar("Fact")


class Foresight:
    """Agent → its facts as of this worker's last commit, until they are used up."""

    def __init__(self, facts_max: int = FACTS_MAX) -> None:
        self._known: OrderedDict[str, Snapshot] = OrderedDict()
        self._facts = 0
        self._facts_max = facts_max

    def __len__(self) -> int:
        return len(self._known)

    def __repr__(self) -> str:
        return f"<Foresight [{len(self._known)} agents, {self._facts} facts]>"

    def of(self, agent: str, now_ms: int) -> Snapshot | None:
        """What the store probably says of the agent now."""
        known = self._known.get(agent)
        if known is None or now_ms - known.now_ms >= GOOD_MS:
            return None
        return replace(known, now_ms=max(now_ms, known.now_ms))

    def note(self, agent: str, stored: Snapshot, change: Change, revision: int) -> None:
        """The change of what was stored has been taken."""
        self.forget(agent)
        after = Snapshot(
            revision,
            stored.now_ms,
            rows=_after(stored.rows, change.rows),
            claims=_after(stored.claims, change.claims),
            seen=_after(stored.seen, change.seen),
            pins=_after(stored.pins, change.pins),
        )
        self._known[agent] = after
        self._facts += _weight(after)
        while self._facts > self._facts_max or self._is_old(stored.now_ms):
            self._facts -= _weight(self._known.popitem(last=False)[1])

    def _is_old(self, now_ms: int) -> bool:
        """Whether the first is good for nothing any more."""
        return bool(self._known) and now_ms - next(iter(self._known.values())).now_ms >= GOOD_MS

    def forget(self, agent: str) -> None:
        """Whatever was known, it is not so any more."""
        known = self._known.pop(agent, None)
        if known is not None:
            self._facts -= _weight(known)


def _after(facts: Mapping[str, Fact], change: Mapping[str, Fact | None]) -> Mapping[str, Fact]:
    if not change:
        return facts
    return {name: fact for name, fact in {**facts, **change}.items() if fact is not None}


def _weight(snapshot: Snapshot) -> int:
    return 1 + sum(len(facts) for facts in (snapshot.rows, snapshot.claims, snapshot.seen, snapshot.pins))
