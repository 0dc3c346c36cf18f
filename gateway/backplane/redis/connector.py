"""How a connection to Redis is made: our settings on top of the URL's, the right server, errors without secrets.

Everything that redis-py would decide by itself is set here: no retries (one stalled publish would be delivered
twice), no timeouts of its own (ours are around whole batches), RESP2 (RESP3 costs twice the time for each message
received), and a kernel that notices a peer that has silently gone. Each new connection is asked what it leads to: a
replica takes subscriptions and publishes without an error, and nobody ever hears them.
"""

import asyncio
import copy
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import hiredis
from redis.asyncio.connection import AbstractConnection, DefaultParser, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, BusyLoadingError, RedisError, ResponseError

from gateway.backplane.redis import address as addresses
from gateway.backplane.redis.address import Address, Node

TROUBLE = (RedisError, OSError, TimeoutError, EOFError, hiredis.HiredisError)
"""What a connection that does not work can raise."""

_REPLIES = (ResponseError, BusyLoadingError, AuthenticationError)
_FAREWELL_SECONDS = 0.2
_GONE_AFTER_MS = 5000
_KEEPALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": _GONE_AFTER_MS}


class WrongServer(ConnectionError):
    """The connection leads to a server that is not the one to be used; the text says why."""


class Meter:
    """How often something came in, be it only a part of a message."""

    __slots__ = ("reads",)

    def __init__(self) -> None:
        self.reads = 0


class _MeteredParser(DefaultParser):  # type: ignore[misc, valid-type]
    """redis-py's parser, which also counts."""

    def __init__(self, meter: Meter, socket_read_size: int) -> None:
        super().__init__(socket_read_size=socket_read_size)
        self._meter = meter

    async def read_from_socket(self) -> Any:
        read = await super().read_from_socket()
        self._meter.reads += 1
        return read


class Connector:
    """Makes connections to one server, which may be another one each time: `locate` is asked first, where given.

    Raises ValueError, with a text that has no part of the URL in it, where the URL can't be used.
    """

    def __init__(self, url: str | Address, client_name: str, timeout_seconds: float) -> None:
        address = addresses.parse(url) if isinstance(url, str) else url
        self.address = address
        self.timeout_seconds = timeout_seconds
        self.locate: Callable[[], Awaitable[Node]] | None = None
        self._client_name = client_name
        self._mode = "cluster" if address.kind == "cluster" else "standalone"
        self._node = address.nodes[0] if address.nodes and address.kind != "sentinel" else None
        self._options = address.options | _our_options(address, timeout_seconds)
        try:
            self._make("check")
        except (TypeError, ValueError, RedisError):
            raise ValueError(
                "GATEWAY_REDIS_URL 含有无法识别的选项，例如应写 redis://host:6379/0 / "
                "GATEWAY_REDIS_URL has an option that is not known or has a bad value; example: redis://host:6379/0"
            ) from None

    def at(self, node: Node) -> "Connector":
        """The same for another server."""
        other = copy.copy(self)
        other._node, other.locate = node, None
        return other

    def to_sentinel(self, node: Node) -> "Connector":
        """The same for one of the Sentinels that are to be asked."""
        other = self.at(node)
        options = {name: value for name, value in self._options.items() if name not in self.address.options}
        other._options = options | self.address.sentinel_options
        other._mode = "sentinel"
        return other

    @property
    def node(self) -> Node:
        """The server that is meant. Raises LookupError for a Unix socket, or where it is not known yet."""
        if self._node is None:
            raise LookupError("no host and port")
        return self._node

    @property
    def where(self) -> str:
        """The address, for people."""
        return str(self._options.get("path", self.address.service) if self._node is None else self._node)

    async def connect(self, role: str, meter: Meter | None = None, *, is_any_role: bool = False) -> AbstractConnection:
        """A connection that is authenticated and named, to a primary unless `is_any_role`. Raises one of TROUBLE."""
        async with asyncio.timeout(self.timeout_seconds):
            if self.locate is not None:
                self._node = await self.locate()
            connection = self._make(role, meter)
            try:
                await connection.connect()  # type: ignore[no-untyped-call]
                await self._check(connection, is_any_role=is_any_role)
            except BaseException:
                await close(connection)
                raise
        return connection

    async def _check(self, connection: AbstractConnection, *, is_any_role: bool) -> None:
        """Refuse a server that would take what we say, and do nothing of it.

        HELLO tells what ROLE tells, and needs no right.
        """
        await send(connection, [("HELLO", "2")])
        reply = await receive(connection)
        if isinstance(reply, (BusyLoadingError, AuthenticationError)):
            raise reply
        said = dict(zip(reply[::2], reply[1::2], strict=False)) if isinstance(reply, list) else {}
        mode, role = _text(said.get(b"mode")), _text(said.get(b"role"))
        if mode and mode != self._mode:
            raise WrongServer(_wrong_mode(mode))
        if role in ("slave", "replica") and not is_any_role:
            raise WrongServer("这是只读副本，不是主节点 / this is a replica, not the primary")
        if self._mode == "cluster" and not _knows_shards(_text(said.get(b"version"))):
            raise WrongServer("Cluster 需要 Redis 7 或 Valkey / a Cluster must be of Redis 7 or newer, or Valkey")

    def describe(self, error: BaseException) -> str:
        """The error in one sentence, without any secret."""
        return f"Redis {self.where}: {self.redact(str(error)) or _nameless(error)}"

    def redact(self, text: str) -> str:
        """The text without the URL's passwords in it."""
        for secret in self.address.secrets:
            text = text.replace(secret, "***")
        return " ".join(text.split())

    def _make(self, role: str, meter: Meter | None = None) -> AbstractConnection:
        options = self._options | ({} if self._node is None else self._node._asdict())
        if meter is not None:
            options["parser_class"] = partial(_MeteredParser, meter)
        return self.address.connection_class(client_name=f"{self._client_name}:{role}", **options)


async def send(connection: AbstractConnection, commands: Sequence[tuple[Any, ...]]) -> None:
    """Write the commands at once. Never lets redis-py reconnect by itself: a lost connection raises."""
    if not connection.is_connected:
        raise ConnectionResetError("the connection was lost")
    packed = [hiredis.pack_command(command) for command in commands]
    try:
        await connection.send_packed_command(packed, check_health=False)
    except RuntimeError as error:  # uvloop's, for a transport that was reset in this very turn of the loop
        raise ConnectionResetError("the connection was lost") from error


async def receive(connection: AbstractConnection) -> Any:
    """The next reply. An error that is the server's answer is returned; one of the connection is raised."""
    try:
        return await connection.read_response(disable_decoding=True, disconnect_on_error=False)
    except _REPLIES as error:
        return error


async def close(connection: AbstractConnection) -> None:
    """Give the connection back, whatever state it is in."""
    with suppress(*TROUBLE):
        # A frozen peer takes no farewell, and the next connection must not wait for it.
        async with asyncio.timeout(_FAREWELL_SECONDS):
            await connection.disconnect()


def _our_options(address: Address, timeout_seconds: float) -> dict[str, Any]:
    ours: dict[str, Any] = {
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_timeout": False,
        "health_check_interval": 0,
        "socket_timeout": None,
        "socket_connect_timeout": timeout_seconds,
        "decode_responses": False,
    }
    if not issubclass(address.connection_class, UnixDomainSocketConnection):
        ours["socket_keepalive"] = True
        ours["socket_keepalive_options"] = _keepalive_options()
    return ours


def _keepalive_options() -> dict[int, int]:
    return {getattr(socket, name): value for name, value in _KEEPALIVE.items() if hasattr(socket, name)}


def _wrong_mode(mode: str) -> str:
    match mode:
        case "cluster":
            return "这是 Cluster，请用 redis+cluster://… / this is a Cluster; its URL begins with redis+cluster://"
        case "sentinel":
            return (
                "这是 Sentinel，请用 redis+sentinel://…/服务名 / "
                "this is a Sentinel; the URL is redis+sentinel://host:26379/service"
            )
    return "不是 Cluster，也不是 Sentinel，请用 redis://… / this is an ordinary server; its URL begins with redis://"


def _knows_shards(version: str) -> bool:
    """Whether it has SPUBLISH (Redis 7)."""
    major = version.split(".", 1)[0]
    return not major.isdigit() or int(major) >= 7


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""


def _nameless(error: BaseException) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
