"""With a protection of the links to Redis switched off, its fault must show: or its round would prove nothing."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

import pytest

from tests.chaos.fleet import Fleet
from tests.chaos.nemesis import play
from tests.chaos.redis_faults import FAULTS, UNHEALED
from tests.chaos.redis_fleets import proxied, watched

SEED = 2
"""With it the answers and messages are lost, not what the worker says."""


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("protection", "name", "factory"),
    [
        ("watchdog", "link deaf in one direction", proxied),
        ("Sentinel poll", "Sentinel failover, primary frozen", watched),
    ],
)
def test_without_it_the_damage_is_seen(
    protection: str, name: str, factory: Callable[[str], AbstractContextManager[Fleet]]
) -> None:
    [fault] = [replace(fault, calls_per_second=20.0) for fault in FAULTS if fault.name == name]
    with factory(protection) as fleet, pytest.raises(AssertionError, match=UNHEALED):
        play(fleet, fault, SEED)
