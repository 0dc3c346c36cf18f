"""One server as a check of the installation talks to it: raw replies, no retries, every wait bounded."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from gateway.backplane.redis.address import Address, Node
from gateway.finding import Finding, Level
from gateway.redaction import redact

TROUBLE = (RedisError, OSError, TimeoutError)
"""What a server that is asked something can raise."""

_LOGIN = ("username", "password", "credential_provider")


class Server:
    """A server of the address: `node`, or the one that the address itself names."""

    def __init__(
        self, address: Address, node: Node | None, timeout_seconds: float, *, is_sentinel: bool = False
    ) -> None:
        self.timeout_seconds = timeout_seconds
        self.node = node
        self._kind = address.connection_class
        self._options = (address.sentinel_options if is_sentinel else address.options) | {
            "protocol": 2,
            "socket_timeout": timeout_seconds,
            "socket_connect_timeout": timeout_seconds,
            "health_check_interval": 0,
            "retry": Retry(NoBackoff(), 0),
            "decode_responses": True,
            "encoding_errors": "replace",  # names are peers' words
        }
        if node is not None:
            self._options |= {"host": node.host, "port": node.port}
        self._secrets = address.secrets
        self.client = self._client(self._options)

    @property
    def where(self) -> str:
        """The address, for people."""
        return str(self._options.get("path", "")) if self.node is None else str(self.node)

    def grant(self, *rights: str) -> str:
        """The command that gives this user the rights."""
        quoted = " ".join(f"'{right}'" if set(right) & set("|*&~") else right for right in rights)
        return f"redis-cli ACL SETUSER {self._options.get('username') or 'default'} {quoted}"

    def stranger(self) -> Redis:
        """A client without user and password."""
        return self._client({name: value for name, value in self._options.items() if name not in _LOGIN})

    def _client(self, options: Mapping[str, Any]) -> Redis:
        client = Redis.from_pool(ConnectionPool(connection_class=self._kind, **options))
        client.response_callbacks.clear()
        return client

    async def ask(self, *words: str | int) -> Any:
        """The reply. Raises one of TROUBLE."""
        return await ask(self.client, *words)

    async def pairs(self, *words: str | int) -> Mapping[str, Any] | None:
        """The reply as a mapping; None where it is refused or unknown. Raises one of TROUBLE for a lost connection."""
        try:
            reply = await self.ask(*words)
        except ResponseError:
            return None
        return paired(reply)

    async def reach(self) -> Finding | None:
        """Connect, with TLS and login where the URL asks for them; what keeps from it."""
        try:
            async with asyncio.timeout(self.timeout_seconds * 3):
                await self.ask("PING")
        except TROUBLE as error:
            text = f"连不上 / can't be reached at {self.where}: {self.reason(error)}"
            return Finding(Level.FAIL, "Redis", text, cure_of(error))
        return None

    def reason(self, error: Exception) -> str:
        """The error for people, without secrets."""
        text = reason_of(error)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    async def close(self) -> None:
        """Give all connections back."""
        await self.client.aclose()


async def ask(client: Redis, *words: str | int) -> Any:
    """The reply. Raises one of TROUBLE."""
    execute: Callable[..., Awaitable[Any]] = client.execute_command  # redis-py leaves it untyped
    return await execute(*words)


def paired(reply: Any) -> Mapping[str, Any]:
    """Name, value, name, value …, as RESP2 has it; empty if it is something else."""
    if isinstance(reply, list):
        return dict(zip(reply[::2], reply[1::2], strict=False))
    return reply if isinstance(reply, Mapping) else {}


def reason_of(error: Exception) -> str:
    """The error for people."""
    if isinstance(error, TimeoutError | RedisTimeoutError) or not str(error):
        return "没有回答 / no answer in time"
    return redact(str(error))


def cure_of(error: Exception) -> str:
    """What to do about a server that can't be reached."""
    text = str(error)
    if isinstance(error, AuthenticationError | NoPermissionError) or "AUTH" in text or "WRONGPASS" in text:
        return (
            "检查 GATEWAY_REDIS_URL 里的用户名和密码（特殊字符须百分号编码） / "
            "check user and password in GATEWAY_REDIS_URL (percent-encode special characters)"
        )
    if isinstance(error.__cause__ or error, ssl.SSLError) or "SSL" in text or "certificate" in text.lower():
        return (
            "检查证书，或加 ?ssl_ca_certs=/路径/ca.pem；服务器没有 TLS 时用 redis:// / "
            "check the certificate, or add ?ssl_ca_certs=/path/ca.pem; use redis:// if the server has no TLS"
        )
    if isinstance(error, ResponseError):
        return "检查服务器的日志和数据库编号 / check the server's log and the database number"
    return (
        "检查地址和端口、防火墙，以及 Redis 是否在运行 / "
        "check the address, the port, firewalls, and that Redis is running"
    )
