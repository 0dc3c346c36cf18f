"""What a man on the network sees of a handshake and a call, without TLS and with it."""

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from tests.peers.robot import Robot
from tests.peers.token import console_token
from tests.peers.tools import echo, text_of
from tests.support.gateway import AGENT, Gateway
from tests.support.tls import make_certificate, server_context

SAID = "the-lamp-in-the-bedroom"


@asynccontextmanager
async def passing(port: int, heard: bytearray, tls: ssl.SSLContext | None = None) -> AsyncGenerator[int]:
    """A port that leads to that one; everything that passes is heard, behind the TLS that ends here if any."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                heard.extend(data)
                writer.write(data)
        writer.transport.abort()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(copy(reader, inner_writer))
            tasks.create_task(copy(inner_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def overheard(robot: Robot) -> None:
    await robot.open()
    await robot.initialize()
    await robot.sees("echo")
    assert text_of(await robot.call("echo", {"text": SAID})) == SAID
    await robot.close()


async def test_without_tls_the_token_and_what_is_said_are_there_to_be_read(gateway: Gateway) -> None:
    await gateway.tool_server(tools=[echo()])
    wire = bytearray()
    async with passing(gateway.port, wire) as port:
        await overheard(Robot(gateway.call_url().replace(str(gateway.port), str(port))))
    assert quote(console_token(AGENT, gateway.key), safe="").encode() in wire
    assert SAID.encode() in wire


async def test_behind_a_proxy_with_tls_nothing_is(gateway: Gateway, tmp_path: Path) -> None:
    await gateway.tool_server(tools=[echo()])
    certificate, key = make_certificate(tmp_path)
    trusting = ssl.create_default_context(cafile=str(certificate))
    inside, wire = bytearray(), bytearray()
    async with (
        passing(gateway.port, inside, server_context(certificate, key)) as proxy,
        passing(proxy, wire) as port,
    ):
        url = gateway.call_url().replace(str(gateway.port), str(port)).replace("ws://", "wss://")
        await overheard(Robot(url, ssl=trusting))
    token = quote(console_token(AGENT, gateway.key), safe="").encode()
    assert token in inside
    assert token not in wire
    assert SAID.encode() not in wire
    assert len(wire) > len(inside)
