"""Plays a case against a gateway: raw sockets, every wait bounded, and a verdict on each peer."""

import asyncio
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from tests.fuzz.hearing import Hearing
from tests.fuzz.script import RIGHT, Case, Step
from tests.peers.raw import TEXT, masked_frame

ANSWER_SECONDS = 30.0
"""A request is answered by then on the busiest machine; calls of these tests end after 20 s at the latest."""
CLOSERS = ("frames", "eager frames")
"""Kinds of cases that send close frames, or bytes of chance that may be one: the code of those comes back."""
END_SECONDS = 20.0
"""A peer that has said its last is gone by then."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What a case has shown."""

    kind: str
    text: str


class Peer(asyncio.Protocol):
    """One socket of a case."""

    def __init__(self) -> None:
        self.hearing = Hearing()
        self.transport: asyncio.Transport
        self.is_over = asyncio.Event()
        self._heard = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.hearing.feed(data)
        self._heard.set()

    def eof_received(self) -> bool:
        self._finish()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish()

    def _finish(self) -> None:
        self.is_over.set()
        self._heard.set()

    async def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait for the condition, or for the end of the connection; whether one of them came."""
        try:
            async with asyncio.timeout(seconds):
                while not condition() and not self.is_over.is_set():
                    self._heard.clear()
                    await self._heard.wait()
        except TimeoutError:
            return False
        return True


class Play:
    """One case on its way. `faults` is what it has shown so far."""

    def __init__(self, port: int, case: Case) -> None:
        self.faults: list[Fault] = []
        self._port = port
        self._case = case
        self._peers: dict[int, Peer] = {}
        self._gone: set[int] = set()
        self._echoes = case.kind in CLOSERS

    async def run(self) -> list[Fault]:
        """Play it to its end and tell what was wrong."""
        try:
            for step in self._case.steps:
                await self._do(step)
        finally:
            await self._leave()
        for number, peer in self._peers.items():
            faults = peer.hearing.ended(echoes=self._echoes)
            self.faults += [Fault("answer", f"peer {number}: {fault}") for fault in faults]
        return self.faults

    async def _do(self, step: Step) -> None:
        if step.do == "dial":
            self._peers[step.peer] = await self._dial()
        elif step.do == "pause":
            await asyncio.sleep(step.seconds)
        elif step.peer in self._peers:  # else a smaller version of the case has left its beginning out
            peer = self._peers[step.peer]
            if step.do in ("send", "wait", "expect", "seek"):
                await self._converse(peer, step)
            else:
                self._turn_away(peer, step)

    async def _converse(self, peer: Peer, step: Step) -> None:
        hearing = peer.hearing
        match step.do:
            case "send":
                await self._send(peer, step)
            case "wait":
                await peer.until(lambda: bool(hearing.statuses) and len(hearing.texts) >= step.count, step.seconds)
            case "expect":
                await self._expect(peer, step)
            case _:
                await self._seek(peer, step)

    def _turn_away(self, peer: Peer, step: Step) -> None:
        if step.do == "stall":
            peer.transport.pause_reading()
        elif step.do == "eof":
            half_close(peer.transport)
        else:
            self._gone.add(step.peer)
            reset(peer.transport)

    async def _dial(self) -> Peer:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(END_SECONDS):
            _, peer = await loop.create_connection(Peer, "127.0.0.1", self._port)
        return peer

    async def _send(self, peer: Peer, step: Step) -> None:
        size = max(step.count, len(step.data) // 200) if step.count else len(step.data)
        for start in range(0, len(step.data), size or 1):
            if peer.transport.is_closing():
                return
            peer.transport.write(step.data[start : start + size])
            if step.count:
                await asyncio.sleep(step.seconds)

    async def _expect(self, peer: Peer, step: Step) -> None:
        hearing = peer.hearing
        in_time = await peer.until(lambda: hearing.answer_to(step.data) is not None, ANSWER_SECONDS)
        answer = hearing.answer_to(step.data)
        if not in_time:
            self.faults.append(Fault("unanswered", f"peer {step.peer}: request {step.data!r} is not answered"))
        elif step.count and (answer is None or RIGHT not in answer):
            shown = "the connection ended" if answer is None else repr(answer[:200])
            self.faults.append(Fault("disturbed", f"peer {step.peer}: request {step.data!r}: {shown}"))

    async def _seek(self, peer: Peer, step: Step) -> None:
        try:
            async with asyncio.timeout(step.seconds):
                for number in range(10_000):
                    if await self._lists(peer, b'"seek-%d"' % number, step.data) or peer.is_over.is_set():
                        return
                    await asyncio.sleep(0.01)
        except TimeoutError:
            return  # what comes next will show it, if it matters

    async def _lists(self, peer: Peer, rpc_id: bytes, name: bytes) -> bool:
        line = b'{"jsonrpc":"2.0","id":%s,"method":"tools/list"}' % rpc_id
        peer.transport.write(masked_frame(TEXT, line))
        await peer.until(lambda: peer.hearing.answer_to(rpc_id) is not None, ANSWER_SECONDS)
        return name in (peer.hearing.answer_to(rpc_id) or b"")

    async def _leave(self) -> None:
        """Every peer has said its last: the gateway must end the connection by itself."""
        for number, peer in self._peers.items():
            if number not in self._gone:
                if not peer.transport.is_closing():
                    peer.transport.resume_reading()
                half_close(peer.transport)
        for number, peer in self._peers.items():
            try:
                async with asyncio.timeout(END_SECONDS):
                    await peer.is_over.wait()
            except TimeoutError:
                self.faults.append(Fault("held", f"peer {number}: its connection is still held after its end"))
            peer.transport.abort()


def half_close(transport: asyncio.Transport) -> None:
    """Say that nothing more will come."""
    if transport.can_write_eof() and not transport.is_closing():
        transport.write_eof()


def reset(transport: asyncio.Transport) -> None:
    """Drop the socket so that the other side gets a reset."""
    sock: socket.socket = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def play(port: int, case: Case) -> list[Fault]:
    """Play the case; what it has shown. A port that nobody listens on is the fault "refused"."""
    try:
        return await Play(port, case).run()
    except (OSError, TimeoutError) as error:
        return [Fault("refused", f"no connection: {type(error).__name__}")]
