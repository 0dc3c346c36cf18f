"""What stands in front of the workers, and the workers: started once for all tests of a process that need them."""

from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest

from tests.edge.composed import GRAFANA, SECRETS, config
from tests.edge.fleet import Fleet, Front
from tests.edge.nginx import BALANCES, MISSING, program
from tests.support.gateway import Gateway, Guests
from tests.support.redis_server import engines, running


@pytest.fixture(scope="session")
def started_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    if program() is None:
        pytest.skip(MISSING)
    with running(next(iter(engines().values()))) as redis:
        fleet = Fleet(tmp_path_factory.mktemp("fleet"), redis)
        try:
            yield fleet
        finally:
            fleet.stop()


@pytest.fixture
async def fleet(started_fleet: Fleet) -> Fleet:
    """Three workers that are ready."""
    await started_fleet.until_ready()
    return started_fleet


@pytest.fixture(params=BALANCES)
def balance(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def edge(fleet: Fleet, balance: str, guests: Guests) -> AsyncGenerator[Gateway]:
    """The workers through nginx, once for each way of choosing among them."""
    yield Gateway(Front(fleet, fleet.front[balance].port), guests)
    await guests.leave()


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All services, with their variables filled in."""
    folder = tmp_path_factory.mktemp("compose")
    found: dict[str, Any] = config(folder, SECRETS | GRAFANA, "--profile", "observability")["services"]
    return found
