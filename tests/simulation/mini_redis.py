"""A small Redis inside the simulation: RESP2, our scripts, pub/sub, and the ways in which a real one fails.

It is checked against a real server in `test_mini_redis.py`. What it does not know it answers with an error.
"""

import asyncio
from collections.abc import Callable
from functools import cache
from typing import Any

import hiredis

from gateway.backplane.redis import scripts
from tests.simulation.loop import Process, SimLoop
from tests.simulation.lua import digest, interpreter
from tests.simulation.net import Net, Transport
from tests.simulation.store import Refused, Store, Words

PORT = 6379
_PUBSUB = {b"SUBSCRIBE": True, b"SSUBSCRIBE": True, b"UNSUBSCRIBE": False, b"SUNSUBSCRIBE": False}


class Simple(bytes):
    """A reply that goes out with a plus."""


class MiniRedis:
    """One server. `trace` hears of every command."""

    def __init__(self, loop: SimLoop, net: Net, trace: Callable[[str, str], None] | None = None) -> None:
        self.process = Process(loop, "redis")
        self.clock_offset_ms = 0
        self.store = Store(lambda: int(loop.wall_seconds * 1000) + self.clock_offset_ms)
        self.clients: dict[Client, None] = {}
        self.channels: dict[bytes, dict[Client, None]] = {}
        self.scripts: dict[bytes, bytes] = {}
        self.is_loading = False
        self.trace = trace
        self._net, self._loop = net, loop
        self.start()

    def start(self) -> None:
        self._started_at = self._loop.time()
        self._net.listen(self.process, PORT, lambda: Client(self))

    def stop(self, *, keeps_data: bool) -> None:
        """The server's process ends: every connection with it, and its scripts; `start` brings the next one."""
        self._net.shut(self.process)
        for transport in self._net.sockets_of(self.process):
            transport.abort()
        self.scripts.clear()
        self.channels.clear()
        self.clients.clear()
        if not keeps_data:
            self.store.clear()

    def named(self, end: str) -> "list[Client]":
        """The clients whose name ends so."""
        return [client for client in self.clients if client.name.endswith(end.encode())]

    def publish(self, channel: bytes, message: bytes) -> int:
        heard = list(self.channels.get(channel, ()))
        for client in heard:
            client.push([client.channels[channel], channel, message])
        return len(heard)

    def unsubscribe(self, client: "Client", channel: bytes) -> None:
        client.channels.pop(channel, None)
        subscribers = self.channels.get(channel, {})
        subscribers.pop(client, None)
        if not subscribers:
            self.channels.pop(channel, None)

    def run(self, words: Words) -> Any:
        """What a command answers that does not depend on who sends it."""
        name = words[0].upper()
        if name in (b"PUBLISH", b"SPUBLISH"):
            return self.publish(words[1], words[2])
        if name == b"SCRIPT" and words[1].upper() == b"LOAD":
            self.scripts[digest(words[2])] = words[2]
            return digest(words[2])
        if name in (b"EVAL", b"EVALSHA"):
            return self._eval(name, words)
        if name == b"INFO":
            return b"# Server\r\nuptime_in_seconds:%d\r\n" % (self._loop.time() - self._started_at)
        if name == b"ROLE":
            return [b"master", 0, []]
        return self.store.run(words)

    def _eval(self, name: bytes, words: Words) -> Any:
        if name == b"EVALSHA":
            if words[1] not in self.scripts:
                raise Refused("NOSCRIPT No matching script. Please use EVAL.")
            text = self.scripts[words[1]]
        else:
            text = words[1]
            self.scripts[digest(text)] = text
        keys_end = 3 + int(words[2])
        return interpreter().run(text, words[3:keys_end], words[keys_end:], self.run)


class Client(asyncio.Protocol):
    """One connection to the server."""

    def __init__(self, server: MiniRedis) -> None:
        self.name = b""
        self.channels: dict[bytes, bytes] = {}
        """Channel → the kind of message that comes of it."""
        self.fate = ""
        """What happens at its next command: it is lost `before` or `after` that is carried out."""
        self._server = server
        self._reader = hiredis.Reader()
        self._transport: Transport
        self._out: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, Transport)
        self._transport = transport
        self._server.clients[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.clients.pop(self, None)
        for channel in list(self.channels):
            self._server.unsubscribe(self, channel)

    def kill(self) -> None:
        """CLIENT KILL."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (words := self._reader.gets()) is not False:
            if self.fate == "before":
                self.kill()
                return
            self._answer(words)
            if self.fate == "after":
                self._out.clear()
                self.kill()
                return
        if self._out:
            self._transport.write(b"".join(self._out))
            self._out.clear()

    def push(self, message: Words) -> None:
        """What a subscriber is told; at once, so that it keeps its order among the connection's replies."""
        self._out.append(_resp(message))
        if not self._transport.is_closing():
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def _answer(self, words: Words) -> None:
        name = words[0].upper()
        try:
            if name in _PUBSUB:
                self._subscribe(words[0].lower(), words[1:], is_wanted=_PUBSUB[name])
                return
            reply: Any = self._own(name, words)
        except Refused as refused:
            reply = refused
        if self._server.trace is not None:
            self._server.trace(self.name.decode(), f"{shown(words)} → {shown(reply)}")
        self._out.append(_resp(reply))

    def _own(self, name: bytes, words: Words) -> Any:
        """Commands about this connection; everything else is the server's."""
        if name == b"CLIENT":
            if words[1].upper() == b"SETNAME":
                self.name = words[2]
            return Simple(b"OK")
        if name in (b"SELECT", b"AUTH"):
            return Simple(b"OK")
        if self._server.is_loading:
            raise Refused("LOADING Redis is loading the dataset in memory")
        if name == b"PING" and self.channels:
            return [b"pong", b""]
        return self._server.run(words)

    def _subscribe(self, kind: bytes, channels: Words, *, is_wanted: bool) -> None:
        for channel in channels:
            if is_wanted:
                self.channels[channel] = b"smessage" if kind.startswith(b"s" * 2) else b"message"
                self._server.channels.setdefault(channel, {})[self] = None
            else:
                self._server.unsubscribe(self, channel)
            self._out.append(_resp([kind, channel, len(self.channels)]))
            if self._server.trace is not None:
                self._server.trace(self.name.decode(), f"{kind.decode()} {channel.decode()}")


def _resp(reply: Any) -> bytes:
    match reply:
        case None:
            return b"$-1\r\n"
        case Refused():
            return b"-%s\r\n" % str(reply).encode()
        case int():
            return b":%d\r\n" % reply
        case Simple():
            return b"+%s\r\n" % reply
        case bytes():
            return b"$%d\r\n%s\r\n" % (len(reply), reply)
    return b"*%d\r\n%s" % (len(reply), b"".join([_resp(part) for part in reply]))


def shown(value: Any) -> str:
    """The words or the reply, for people: short, and scripts by their names."""
    if isinstance(value, bytes):
        return _script_names().get(value) or value[:100].decode("utf-8", "replace").replace("\n", " ")
    if isinstance(value, list):
        return " ".join(shown(part) for part in value[:24])
    return str(value)


@cache
def _script_names() -> dict[bytes, str]:
    found = [scripts.load(name) for name in scripts.NAMES]
    return {key: f"<{one.name}>" for one in found for key in (one.text, digest(one.text))}
