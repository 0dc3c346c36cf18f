"""How a new nginx finds workers by name, as Docker's DNS tells them: the upstreams exactly as they are shipped."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
from websockets.exceptions import InvalidHandshake

from tests.edge.listener import Listener
from tests.edge.nginx import SHIPPED, Nginx, changed, version
from tests.peers.token import console_token
from tests.peers.wire import Peer
from tests.support.ports import own_port
from tests.support.running import KEY
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(
    version() < (1, 27, 3),
    reason="no nginx ≥ 1.27.3 on PATH (the image has 1.28): nobody looks up the workers' names here",
)


class Names(asyncio.DatagramProtocol):
    """A DNS server: name → addresses. What isn't there does not exist."""

    def __init__(self) -> None:
        self.port = own_port()
        self.addresses: dict[str, list[str]] = {}
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # uvloop's is one without saying so

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        question = data[12 : data.index(b"\0", 12) + 5]
        name = ".".join(self._labels(question))
        found = self.addresses.get(name, [])
        head = data[:2] + (b"\x81\x80" if found else b"\x81\x83") + b"\0\1" + len(found).to_bytes(2) + b"\0\0\0\0"
        answers = b"".join(
            b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4" + bytes(int(part) for part in address.split(".")) for address in found
        )
        assert self._transport is not None
        self._transport.sendto(head + question + answers, addr)

    def _labels(self, question: bytes) -> list[str]:
        labels, at = [], 0
        while question[at]:
            labels.append(question[at + 1 : at + 1 + question[at]].decode())
            at += 1 + question[at]
        return labels

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[None]:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: self, ("127.0.0.1", self.port))
        try:
            yield
        finally:
            transport.close()


class Town:
    """Listeners on addresses of their own with one port in common, a DNS, and an nginx that asks it."""

    def __init__(self, folder: Path, balance: str) -> None:
        self.names = Names()
        port = own_port()
        self.listeners = [Listener(f"127.0.77.{number}", port) for number in range(1, 5)]
        self.nginx = Nginx(
            folder,
            changed((SHIPPED / f"{balance}.conf").read_text(), {":8004": f":{port}"}),
            **{"127.0.0.11 valid=5s": f"127.0.0.1:{self.names.port} valid=1s"},
        )

    @asynccontextmanager
    async def open(self, **addresses: list[int]) -> AsyncGenerator[None]:
        self.say(**addresses)
        async with contextlib.AsyncExitStack() as stack:
            for listener in self.listeners:
                await stack.enter_async_context(listener.listening())
            await stack.enter_async_context(self.names.serving())
            stack.callback(self.nginx.stop)
            await self.nginx.start()
            yield

    def say(self, **addresses: list[int]) -> None:
        """Which listeners, by number, have this name from now on."""
        for name, numbers in addresses.items():
            self.names.addresses[name.replace("_", "-")] = [self.listeners[number - 1].host for number in numbers]

    async def placed(self, agent: str) -> int:
        """The number of the listener that a connection of the agent comes to; 0: none."""
        before = [len(listener.heads) for listener in self.listeners]
        peer = Peer(f"ws://127.0.0.1:{self.nginx.port}/mcp_endpoint/call/?token={console_token(agent, KEY)}")
        try:
            await peer.open()
        except (OSError, InvalidHandshake):
            return 0
        await wait_until(lambda: [len(one.heads) for one in self.listeners] != before, "somebody is asked")
        await peer.vanish()
        return 1 + [len(one.heads) - old for one, old in zip(self.listeners, before, strict=True)].index(1)


AGENTS = [f"agent-{number}" for number in range(30)]


async def test_agents_keep_their_worker_and_a_new_address_is_found(tmp_path: Path) -> None:
    """Only the agents of a worker that moves or goes are placed anew."""
    town = Town(tmp_path, "hash")
    async with town.open(gateway_1=[1], gateway_2=[2], gateway_3=[3]):
        await wait_until(lambda: are_used(town, 1, 2, 3), "the workers are found", seconds=10)
        first = {agent: await town.placed(agent) for agent in AGENTS}
        assert {agent: await town.placed(agent) for agent in AGENTS} == first
        assert set(first.values()) == {1, 2, 3}

        town.say(gateway_2=[4])
        await wait_until(lambda: are_used(town, 4), "the new address is found", seconds=10)
        assert {agent: await town.placed(agent) for agent in AGENTS} == {
            agent: 4 if number == 2 else number for agent, number in first.items()
        }

        town.say(gateway_2=[])
        await wait_until(lambda: is_free(town, 4), "the worker is forgotten", seconds=10)
        after = {agent: await town.placed(agent) for agent in AGENTS}
        assert all(after[agent] == number for agent, number in first.items() if number != 2)
        assert {after[agent] for agent, number in first.items() if number == 2} <= {1, 3}


async def test_in_turns_every_address_of_the_one_name_is_used(tmp_path: Path) -> None:
    town = Town(tmp_path, "round-robin")
    async with town.open(gateway=[1, 2, 3]):
        await wait_until(lambda: are_used(town, 1, 2, 3), "the workers are found", seconds=10)
        assert {await town.placed("one") for _ in range(6)} == {1, 2, 3}
        town.say(gateway=[1, 2, 3, 4])
        await wait_until(lambda: are_used(town, 4), "the fourth worker is found", seconds=10)


async def are_used(town: Town, *numbers: int) -> bool:
    return set(numbers) <= {await town.placed(agent) for agent in AGENTS}


async def is_free(town: Town, number: int) -> bool:
    return not await are_used(town, number)
