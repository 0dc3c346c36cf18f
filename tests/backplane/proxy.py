"""A TCP proxy before Redis: swallows, slows down or replaces what the server says, cuts connections, speaks TLS."""

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress


class Proxy:
    """Passes everything on until told otherwise."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.is_mute = False
        """The server's replies are swallowed; what clients send still gets there."""
        self.poison: bytes | None = None
        """Whoever sends this is cut off."""
        self.pause_seconds = 0.0
        """Before each piece of what the server says."""
        self.cuts = 0
        self.target_port = target_port
        self._open: set[asyncio.StreamWriter] = set()
        self._deaf: set[asyncio.StreamWriter] = set()

    def deafen(self) -> None:
        """Swallow the messages of the connections that are open now, and nothing else."""
        self._deaf |= self._open

    def cut(self) -> None:
        """End every connection now."""
        self.cuts += 1
        for writer in self._open:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client."""
        with suppress(OSError):
            to_server, of_server = None, None
            of_server, to_server = await asyncio.open_connection("127.0.0.1", self.target_port)
            self._open |= {writer, to_server}
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._pass_on(reader, to_server, is_reply=False))
                    tasks.create_task(self._pass_on(of_server, writer, is_reply=True))
            finally:
                self._open -= {writer, to_server}

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_reply: bool) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if is_reply and (self.is_mute or (writer in self._deaf and b"message\r\n" in data)):
                    continue
                if is_reply and self.pause_seconds:
                    await asyncio.sleep(self.pause_seconds)
                if self.poison is not None and not is_reply and self.poison in data:
                    self.cut()
                    return
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def proxied(target_port: int, tls: ssl.SSLContext | None = None) -> AsyncGenerator[Proxy, None]:
    """A proxy before the port for the length of the block."""
    proxy = Proxy(target_port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, ssl=tls)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.cut()
        await server.wait_closed()
