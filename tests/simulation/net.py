"""A network of memory: ordered streams with latency, fragments, one-way cuts, and ends of every kind.

What is written arrives in order, later, perhaps in pieces. While a direction is cut its bytes wait, as TCP would send
them again; an end of the connection waits with them. A killed process's sockets are reset by its kernel; a frozen
one's still take what comes, and hand it over when it is thawed.
"""

import asyncio
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.simulation.loop import Process, SimLoop, current_process


@dataclass(slots=True)
class Weather:
    """What the network does to everything, in seconds and probabilities."""

    latency_min: float = 0.0002
    latency_max: float = 0.002
    spike: float = 0.0
    """How often something is late for no reason, by up to `spike_seconds`."""
    spike_seconds: float = 0.3
    fragment: float = 0.0


class Pipe:
    """One direction of a connection."""

    def __init__(self, net: "Net", source: "Transport", target: "Transport") -> None:
        self.net, self.source, self.target = net, source, target
        self.queue: deque[tuple[float, str, bytes]] = deque()
        self.swallows = False
        """Nothing that is written arrives any more, and nobody is told."""
        self._last = 0.0
        self._is_due = False

    def send(self, kind: str, data: bytes = b"") -> None:
        if self.swallows:
            return
        self._last = max(self.net.loop.time() + self.net.latency(), self._last)
        self.queue.append((self._last, kind, data))
        self._arm()

    def _arm(self) -> None:
        if self.queue and not self._is_due:
            self._is_due = True
            self.net.loop.call_at(self.queue[0][0], self.deliver, context=self.net.context)

    def deliver(self) -> None:
        """Hand over what has arrived, unless the way is cut."""
        self._is_due = False
        now = self.net.loop.time()
        if self.queue and self.net.is_cut(self.source.process, self.target.process):
            self.net.blocked.append(self)
            return
        while self.queue and self.queue[0][0] <= now:
            _, kind, data = self.queue.popleft()
            if not self.target.is_gone:
                self.net.note(self, kind, data)
                self.target.process.soon(self.target.receive, kind, data)
        self._arm()


class Transport(asyncio.Transport):
    """One end of a connection."""

    def __init__(self, net: "Net", process: Process, peername: tuple[str, int]) -> None:
        super().__init__(extra={"peername": peername})
        self.net, self.process = net, process
        self.out: Pipe
        self.is_gone = False
        """No callback of its protocol comes any more."""
        self._protocol: Any = None
        self._is_closing = False
        self._is_paused = False
        self._waiting: deque[tuple[str, bytes]] = deque()

    def attach(self, protocol: Any) -> None:
        self._protocol = protocol
        protocol.connection_made(self)

    # What arrives

    def receive(self, kind: str, data: bytes) -> None:
        if self.is_gone:
            return
        if kind == "reset":
            self.lose(ConnectionResetError(104, "Connection reset by peer"))
        elif self._is_paused or self._waiting:
            self._waiting.append((kind, data))
        else:
            self._hand_over(kind, data)

    def _hand_over(self, kind: str, data: bytes) -> None:
        if self._is_closing:
            return
        if kind == "data":
            self._protocol.data_received(data)
        elif not self._protocol.eof_received():
            self.close()

    def lose(self, error: Exception | None) -> None:
        """The connection is over."""
        if not self.is_gone:
            self.vanish()
            self._protocol.connection_lost(error)

    def vanish(self) -> None:
        """As if it had never been, without a word to anybody."""
        self.is_gone = self._is_closing = True
        self._waiting.clear()
        self.net.transports.pop(self, None)

    # asyncio.Transport

    def write(self, data: Any) -> None:
        if self._is_closing or not data:
            return
        for piece in self.net.pieces(bytes(data)):
            self.out.send("data", piece)

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self.out.send("eof")
            self.process.soon(self.lose, None)

    def abort(self) -> None:
        if not self.is_gone:
            self._is_closing = True
            self.out.queue.clear()
            self.out.send("reset")
            self.process.soon(self.lose, None)

    def is_closing(self) -> bool:
        return self._is_closing

    def pause_reading(self) -> None:
        self._is_paused = True

    def resume_reading(self) -> None:
        self._is_paused = False
        while self._waiting and not self._is_paused and not self.is_gone:
            self._hand_over(*self._waiting.popleft())

    def get_write_buffer_size(self) -> int:
        return 0

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> Any:
        return self._protocol


class Net:
    """All connections of a run."""

    def __init__(self, loop: SimLoop, random: Random) -> None:
        self.loop = loop
        self.weather = Weather()
        self.transports: dict[Transport, None] = {}
        self.blocked: list[Pipe] = []
        self.digest = 0
        """Of everything that was delivered, and when."""
        self.context = Process(loop, "net").context
        self._random = random
        self._cuts: set[tuple[str, str]] = set()
        self._doors: dict[tuple[str, int], tuple[Process, Callable[[], Any]]] = {}

    def note(self, pipe: Pipe, kind: str, data: bytes) -> None:
        line = b"%.6f %s %s " % (self.loop.time(), pipe.target.process.name.encode(), kind.encode())
        self.digest = zlib.crc32(data, zlib.crc32(line, self.digest))

    # Weather

    def latency(self) -> float:
        weather, random = self.weather, self._random
        seconds = weather.latency_min + (weather.latency_max - weather.latency_min) * random.random()
        if weather.spike and random.random() < weather.spike:
            seconds += weather.spike_seconds * random.random()
        return seconds

    def pieces(self, data: bytes) -> list[bytes]:
        if len(data) < 2 or not self.weather.fragment or self._random.random() >= self.weather.fragment:
            return [data]
        at = self._random.randrange(1, len(data))
        return [data[:at], data[at:]]

    # Cuts

    def is_cut(self, source: Process, target: Process) -> bool:
        return (source.name, target.name) in self._cuts

    def cut(self, source: str, target: str) -> None:
        """From now on nothing comes from `source` to `target`."""
        self._cuts.add((source, target))

    def heal(self) -> None:
        """Nothing is cut any more; what waited arrives."""
        self._cuts.clear()
        blocked, self.blocked = self.blocked, []
        for pipe in blocked:
            pipe.deliver()

    def sockets_of(self, process: Process) -> list[Transport]:
        return [transport for transport in self.transports if transport.process is process]

    def kill(self, process: Process, *, is_told: bool) -> None:
        """The process's sockets are gone; its kernel says so, unless the whole machine went."""
        self._doors = {place: door for place, door in self._doors.items() if door[0] is not process}
        for transport in self.sockets_of(process):
            transport.vanish()
            if is_told:
                transport.out.send("reset")
            transport.out.swallows = True

    # Connections

    def listen(self, process: Process, port: int, factory: Callable[[], Any]) -> None:
        self._doors[process.name, port] = (process, factory)

    def shut(self, process: Process) -> None:
        """Nothing listens there any more."""
        self._doors = {place: door for place, door in self._doors.items() if door[0] is not process}

    async def connect(self, factory: Callable[[], Any], host: str, port: int) -> tuple[Transport, Any]:
        """What `loop.create_connection` does."""
        process = current_process()
        await asyncio.sleep(2 * self.latency())
        while (process.name, host) in self._cuts or (host, process.name) in self._cuts:
            await asyncio.sleep(0.1)  # the SYN is sent again
        if (host, port) not in self._doors:
            raise ConnectionRefusedError(111, f"Connect call failed ('{host}', {port})")
        server_process, server_factory = self._doors[host, port]
        near, far = Transport(self, process, (host, port)), Transport(self, server_process, (process.name, 1))
        near.out, far.out = Pipe(self, near, far), Pipe(self, far, near)
        self.transports |= {near: None, far: None}
        server_process.soon(lambda: far.attach(server_factory()))
        protocol = factory()
        near.attach(protocol)
        return near, protocol
