"""Has a decision about an agent's facts taken by the shared directory, as often as it takes.

Theory of operation
-------------------
What is shared is read, the decision is made over it, and its change offered; if another worker was quicker, all of it
starts over with what is true now. A decision that follows upon one of this worker's own is tried on what that has made
of the facts, without reading them (`foresight`).
"""

import asyncio
import random
from collections.abc import Callable
from typing import Any

from gateway.agents import Agents
from gateway.backplane.base import Backplane, BackplaneUnavailable, Change, Snapshot
from gateway.foresight import Foresight
from gateway.pinning import Pinning
from gateway.registration import Admitted, ProbeFirst

TRIES_MAX = 200


class Settling:
    """Decisions of this worker, for one agent at a time or many."""

    def __init__(self, backplane: Backplane, agents: Agents, pinning: Pinning) -> None:
        self._backplane = backplane
        self._agents = agents
        self._pinning = pinning
        self._foresight = Foresight()

    def __repr__(self) -> str:
        return f"<Settling {self._foresight!r}>"

    async def settle(self, agent: str, decide: Callable[[Snapshot], Any], *, is_half: bool = False) -> Any:
        """Read, decide, commit, until the commit is taken. A decision that is no change is returned as it is.

        `is_half`: another decision about the agent is likely to follow soon, so the facts are kept in mind.
        """
        for attempt in range(TRIES_MAX):
            guessed = self._foresight.of(agent, self._backplane.now_ms) if not is_half else None
            stored = await self._backplane.snapshot(agent) if guessed is None else guessed
            snapshot = self._agents.pinboard.recall(agent, stored)
            decision = decide(snapshot)
            change = decision.change if isinstance(decision, Admitted) else decision
            if isinstance(change, Change):
                change = self._pinning.restored(stored, snapshot, change)
            if isinstance(decision, ProbeFirst):
                return decision  # it changes nothing, and whoever has asked around decides anew
            if not isinstance(change, Change) or not change:
                if guessed is None:
                    return decision
                self._foresight.forget(agent)
                continue
            revision = await self._commit(agent, stored, change, is_half=is_half)
            if revision is not None:
                self._agents.pinboard.note(agent, snapshot, change.pins, revision)
                self._agents.note_revision(agent, revision)
                return decision
            if guessed is None:
                await asyncio.sleep(random.uniform(0.0, 0.002 * min(attempt + 1, 20)))
        raise BackplaneUnavailable(f"agent {agent}: no commit taken in {TRIES_MAX} tries")

    async def _commit(self, agent: str, stored: Snapshot, change: Change, *, is_half: bool) -> int | None:
        self._foresight.forget(agent)
        revision = await self._backplane.commit(agent, stored.revision, change)
        if is_half and revision is not None:
            self._foresight.note(agent, stored, change, revision)
        return revision
