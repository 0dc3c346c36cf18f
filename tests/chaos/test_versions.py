"""Releases whose envelopes differ, side by side: what one side can't understand it refuses, and nothing hangs."""

import pytest

from tests.chaos.checker import check
from tests.chaos.controls import AGENT, CALLER, OWNER, Scene
from tests.chaos.fleet import on_own_redis, wait_for
from tests.chaos.logbook import Entry

NOT_LISTED_YET = ("no tool server connected", "unknown tool")


def answer_of_a_listed_tool(scene: Scene, slot: int, server: str) -> Entry:
    """The answer to a call by the robot of that worker, once the tool server is known there."""
    answers: list[Entry] = []

    def is_listed() -> bool:
        answers.append(scene.until("answer", scene.call(slot, server=server)))
        return answers[-1]["reason"] not in NOT_LISTED_YET

    wait_for(is_listed, f"{server} is listed on worker-{slot}", 10.0)
    return answers[-1]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("caller", "owner"), [(CALLER, OWNER), (OWNER, CALLER)], ids=["to-it", "from-it"])
def test_calls_between_incompatible_releases_are_refused_at_once(caller: int, owner: int) -> None:
    with on_own_redis(is_started=False) as fleet:
        for worker in fleet.workers:
            worker.start(speaks="version 2" if worker.slot == OWNER else "")
        for child in fleet.peers:
            fleet.start_peers(child)
        fleet.bring_back()
        scene = Scene(fleet)
        server = next(one for one in fleet.plan.servers if fleet.plan.home(AGENT, one) == owner)
        answer = answer_of_a_listed_tool(scene, caller, server)
        assert (answer["outcome"], answer["executed"]) == ("error", False), answer
        assert check(scene.entries, until=fleet.quiet()).violations == []
        assert fleet.tracebacks() == []
