"""The floor of a connection: accept, and say everything again that is said."""

import sys
from typing import Any

from bench.floors.serve import serve


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event["text"]})


if __name__ == "__main__":
    serve(echo, int(sys.argv[1]), ping_seconds=float(sys.argv[2]) if len(sys.argv) > 2 else 20)
