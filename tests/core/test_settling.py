"""Decisions that are tried on what this worker's own last commit has made of the facts, and held against the store."""

from types import SimpleNamespace
from typing import Any

import pytest

from gateway.backplane.base import Change, Snapshot
from gateway.backplane.memory import MemoryBackplane, MemoryStore
from gateway.directory import Row
from gateway.pinboard import Pinboard
from gateway.settling import Settling

AGENT = "home"


class Desk:
    """Two workers on one store; the first one's decisions are settled, and its readings counted."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.mine, self.other = (MemoryBackplane(self.store, name, is_shared=True) for name in ("w", "v"))
        self.readings = 0
        self.decided_on: list[list[str]] = []
        agents: Any = SimpleNamespace(pinboard=Pinboard(), note_revision=lambda agent, revision: None)
        pinning: Any = SimpleNamespace(restored=lambda stored, believed, change: change)
        read = self.mine.snapshot

        async def snapshot(agent: str) -> Snapshot:
            self.readings += 1
            return await read(agent)

        self.mine.snapshot = snapshot  # type: ignore[method-assign]
        self.settling = Settling(self.mine, agents, pinning)

    async def begin(self, name: str) -> None:
        await self.settle(Change({name: row(name)}), is_half=True)

    async def settle(self, change: Change, *, is_half: bool = False) -> None:
        def decide(snapshot: Snapshot) -> Change:
            self.decided_on.append(sorted(snapshot.rows))
            return change

        await self.settling.settle(AGENT, decide, is_half=is_half)

    async def rows(self) -> list[str]:
        return sorted((await self.other.snapshot(AGENT)).rows)


def row(name: str) -> Row:
    return Row("up", "w", f"w.{name}", 1)


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_the_decision_after_a_half_one_is_made_without_reading(desk: Desk) -> None:
    await desk.begin("half")
    await desk.settle(Change({"half": None, "whole": row("whole")}))
    assert (desk.readings, desk.decided_on) == (1, [[], ["half"]])
    assert await desk.rows() == ["whole"]


async def test_a_guess_is_used_once(desk: Desk) -> None:
    await desk.begin("half")
    await desk.settle(Change({"whole": row("whole")}))
    await desk.settle(Change({"third": row("third")}))
    assert (desk.readings, desk.decided_on[-1]) == (2, ["half", "whole"])


async def test_a_stale_guess_is_refused_and_decided_anew(desk: Desk) -> None:
    """Somebody else has registered meanwhile: what was decided without knowing that is never taken."""
    await desk.begin("half")
    now = await desk.other.snapshot(AGENT)
    await desk.other.commit(AGENT, now.revision, Change({"strange": Row("up", "v", "v.1", 1)}))
    await desk.settle(Change({"whole": row("whole")}))
    assert desk.decided_on[1:] == [["half"], ["half", "strange"]]
    assert await desk.rows() == ["half", "strange", "whole"]


async def test_a_guess_about_a_store_that_was_emptied_is_refused(desk: Desk) -> None:
    await desk.begin("half")
    desk.store.clear()
    await desk.settle(Change({"whole": row("whole")}))
    assert desk.decided_on[1:] == [["half"], []]
    assert await desk.rows() == ["whole"]


async def test_what_is_no_commit_is_not_decided_on_a_guess(desk: Desk) -> None:
    """Nothing would hold it against the store."""
    await desk.begin("half")
    await desk.settle(Change())
    assert (desk.readings, desk.decided_on[1:]) == (2, [["half"], ["half"]])
