"""Point 18: clients send no Origin, browsers do; unless there is a list (`GATEWAY_ORIGINS`), any is welcome."""

import pytest

from tests.peers.robot import Robot
from tests.support.gateway import Gateway
from tests.support.running import KEY


@pytest.mark.parametrize("origin", [None, "https://example.com", "null", "http://localhost:8080"])
async def test_a_websocket_is_accepted_from_any_origin(gateway: Gateway, origin: str | None) -> None:
    robot = await Robot(gateway.call_url(), origin=origin).open()
    assert "result" in await robot.initialize()
    await robot.close()


async def test_a_browser_may_read_the_health_answer(gateway: Gateway) -> None:
    response = await gateway.get(f"/mcp_endpoint/health?key={KEY}", headers={"Origin": "https://example.com"})
    assert response.status == 200
    assert response.headers["access-control-allow-origin"] in ("*", "https://example.com")
