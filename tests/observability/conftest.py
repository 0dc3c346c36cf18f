"""Two workers that have something to tell."""

from collections.abc import AsyncGenerator

import pytest

from tests.observability.scene import Scene, playing
from tests.support.gateway import Guests
from tests.support.redis_server import RedisServer


@pytest.fixture
async def scene(redis_server: RedisServer, guests: Guests) -> AsyncGenerator[Scene]:
    with redis_server.client() as client:
        client.flushall()
    async with playing(redis_server, guests) as scene:
        yield scene
