"""How a connection to Redis is made: the URL, our settings on top of it, and errors told without its password.

Everything that redis-py would decide by itself is set here: no retries (one stalled publish would be delivered
twice), no timeouts of its own (ours are around whole batches), RESP2 (RESP3 costs twice the time for each message
received), and a kernel that notices a peer that has silently gone.
"""

import asyncio
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import hiredis
from redis.asyncio.connection import AbstractConnection, Connection, UnixDomainSocketConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, BusyLoadingError, RedisError, ResponseError

TROUBLE = (RedisError, OSError, TimeoutError, EOFError, hiredis.HiredisError)
"""What a connection that does not work can raise."""

_REPLIES = (ResponseError, BusyLoadingError, AuthenticationError)
_GONE_AFTER_MS = 5000
_KEEPALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": _GONE_AFTER_MS}


class Connector:
    """Makes connections to one Redis, given by URL.

    Raises ValueError, with a text that has no part of the URL in it, where the URL can't be used.
    """

    def __init__(self, url: str, client_name: str, timeout_seconds: float) -> None:
        self.timeout_seconds = timeout_seconds
        self._client_name = client_name
        self._kind, self._options = _read_url(url)
        if not issubclass(self._kind, UnixDomainSocketConnection):
            self._options["socket_keepalive"] = True
            self._options["socket_keepalive_options"] = _keepalive_options()
        self._options |= {
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),
            "retry_on_timeout": False,
            "health_check_interval": 0,
            "socket_timeout": None,
            "socket_connect_timeout": timeout_seconds,
            "decode_responses": False,
        }
        try:
            self._make("check")
        except (TypeError, ValueError, RedisError):
            raise ValueError(
                "GATEWAY_REDIS_URL 含有无法识别的选项，例如应写 redis://host:6379/0 / "
                "GATEWAY_REDIS_URL has an option that is not known or has a bad value; example: redis://host:6379/0"
            ) from None

    @property
    def where(self) -> str:
        """The address, for people."""
        if "path" in self._options:
            return str(self._options["path"])
        return f"{self._options.get('host', 'localhost')}:{self._options.get('port', 6379)}"

    async def connect(self, role: str) -> AbstractConnection:
        """A connection that is authenticated and named. Raises one of TROUBLE."""
        connection = self._make(role)
        async with asyncio.timeout(self.timeout_seconds):
            await connection.connect()  # type: ignore[no-untyped-call]
        return connection

    def describe(self, error: BaseException) -> str:
        """The error in one sentence, without any secret."""
        return f"Redis {self.where}: {self.redact(str(error)) or _nameless(error)}"

    def redact(self, text: str) -> str:
        """The text without the URL's passwords in it."""
        for option in ("password", "ssl_password"):
            secret = self._options.get(option)
            if secret:
                text = text.replace(str(secret), "***")
        return " ".join(text.split())

    def _make(self, role: str) -> AbstractConnection:
        return self._kind(client_name=f"{self._client_name}:{role}", **self._options)


async def send(connection: AbstractConnection, commands: Sequence[tuple[Any, ...]]) -> None:
    """Write the commands at once. Never lets redis-py reconnect by itself: a lost connection raises."""
    if not connection.is_connected:
        raise ConnectionResetError("the connection was lost")
    await connection.send_packed_command([hiredis.pack_command(command) for command in commands], check_health=False)


async def receive(connection: AbstractConnection) -> Any:
    """The next reply. An error that is the server's answer is returned; one of the connection is raised."""
    try:
        return await connection.read_response(disable_decoding=True, disconnect_on_error=False)
    except _REPLIES as error:
        return error


async def close(connection: AbstractConnection) -> None:
    """Give the connection back, whatever state it is in."""
    with suppress(*TROUBLE):
        await connection.disconnect()


def _read_url(url: str) -> tuple[type[AbstractConnection], dict[str, Any]]:
    try:
        options: dict[str, Any] = dict(parse_url(url))
    except ValueError:
        # The text of the ValueError can quote a password that was not percent-encoded.
        raise ValueError(
            "GATEWAY_REDIS_URL 无法识别，例如应写 redis://:password@host:6379/0，密码中的特殊字符须用 %XX 编码 / "
            "GATEWAY_REDIS_URL can't be read; examples: redis://:password@host:6379/0, rediss://host:6380, "
            "unix:///run/redis.sock (special characters of a password as %XX)"
        ) from None
    options.pop("max_connections", None)
    options.pop("timeout", None)
    return options.pop("connection_class", Connection), options


def _keepalive_options() -> dict[int, int]:
    return {getattr(socket, name): value for name, value in _KEEPALIVE.items() if hasattr(socket, name)}


def _nameless(error: BaseException) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
