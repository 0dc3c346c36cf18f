"""A short round of every fault that happens to processes: nothing is lost, doubled or misdelivered, and all heals."""

import pytest

from tests.chaos.faults import FAULTS
from tests.chaos.nemesis import Fault
from tests.chaos.stage import SIDE_BY_SIDE, Stage

SEED = 1
TURNS = [FAULTS[start :: -(-len(FAULTS) // SIDE_BY_SIDE)] for start in range(-(-len(FAULTS) // SIDE_BY_SIDE))]
"""The faults of one turn are played side by side: rounds mostly wait."""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("faults", TURNS, ids=[" and ".join(fault.name for fault in turn) for turn in TURNS])
def test_nothing_is_lost_while(faults: list[Fault], stage: Stage) -> None:
    troubles = stage.play(faults, SEED)
    assert troubles == [], "\n".join(troubles)
