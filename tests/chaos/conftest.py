"""A stage for each test process: its fleets are shared by the faults that are played on them."""

from collections.abc import Iterator

import pytest

from tests.chaos.stage import Stage


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    """Where faults are played."""
    up = Stage()
    yield up
    up.close()
