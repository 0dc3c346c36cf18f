"""In a worker's place: it notes who comes, upgrades everybody, and then says nothing."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from tests.support.ports import own_port


class Listener:
    """`heads` are the headers of each upgrade, with their names in lower case, and the path as `path`."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.host = host
        self.port = port or own_port()
        self.heads: list[dict[str, str]] = []

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @asynccontextmanager
    async def listening(self) -> AsyncGenerator[None]:
        async with serve(
            self._serve, self.host, self.port, process_request=self._answer, ping_interval=None, close_timeout=1
        ):
            yield

    def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        return connection.respond(200, "alive\n") if request.path == "/livez" else None

    async def _serve(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        headers = {name.lower(): value for name, value in connection.request.headers.raw_items()}
        self.heads.append({"path": connection.request.path, **headers})
        await connection.wait_closed()
