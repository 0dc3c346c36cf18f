"""A process of its own that serves the little app: `python -m tests.wire.process '{"close_seconds": 1}' [hang]`."""

import asyncio
import logging
import sys

import orjson

from gateway.listening import listen
from gateway.server import Company, serve
from gateway.settings import Settings
from tests.wire.little_app import LittleApp


async def hang() -> None:
    """A hook that never ends."""
    sys.stdout.write("hanging\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


def main() -> int:
    """Serve on a free port, told on standard output; the log goes to standard error."""
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    settings = Settings(**orjson.loads(sys.argv[1]))
    app = LittleApp(settings)
    listener = listen("127.0.0.1", 0)

    def tell() -> None:
        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()

    hook = hang if "hang" in sys.argv else app.close_all
    return serve(app.asgi, settings, on_shutdown=hook, sockets=[listener], company=Company(on_started=tell))


if __name__ == "__main__":
    sys.exit(main())
