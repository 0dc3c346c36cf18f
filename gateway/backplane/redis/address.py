"""What a URL of Redis says: one server, one that Sentinels name, or a Cluster; how to connect, and what is secret."""

import re
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qsl, urlencode

from redis.asyncio.connection import AbstractConnection, Connection, parse_url

Kind = Literal["single", "sentinel", "cluster"]

REDIS_PORT = 6379
SENTINEL_PORT = 26379

_SECRETS = ("password", "ssl_password")
_SENTINEL_LOGIN = {"sentinel_username": "username", "sentinel_password": "password"}
_MANY = re.compile(
    r"(?P<secure>rediss?)\+(?P<kind>sentinel|cluster)://((?P<login>[^@/?#]*)@)?(?P<hosts>[^@/?#]+)"
    r"(/(?P<path>[^?#]*))?(\?(?P<query>[^#]*))?"
)
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\[\]\s]+)(:(?P<port>[0-9]{1,5}))?")
_PATH = {"sentinel": re.compile(r"(?P<service>[^/]+)(/(?P<db>[0-9]*))?"), "cluster": re.compile(r"(?P<db>0?)")}


class Node(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Address:
    """A URL, taken apart. `options` are keywords of redis-py's connection class, without host and port."""

    kind: Kind
    connection_class: type[AbstractConnection]
    options: dict[str, Any]
    nodes: tuple[Node, ...] = ()
    """The server; or the Sentinels, or some servers of the Cluster, to be asked. None for a Unix socket."""
    service: str = ""
    """What the Sentinels call the primary."""
    sentinel_options: dict[str, Any] = field(default_factory=dict)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never be told."""
        every = (options.get(name) for options in (self.options, self.sentinel_options) for name in _SECRETS)
        return tuple(str(secret) for secret in every if secret)


def parse(url: str) -> Address:
    """The address. Raises ValueError, with a text that has no part of the URL in it, where it can't be used."""
    try:
        many = _MANY.fullmatch(url)
        return _one(url) if many is None else _many(many)
    except ValueError:
        # The text of the ValueError can quote a password that was not percent-encoded.
        raise ValueError(
            "GATEWAY_REDIS_URL 无法识别，例如应写 redis://:password@host:6379/0，密码中的特殊字符须用 %XX 编码 / "
            "GATEWAY_REDIS_URL can't be read; examples: redis://:password@host:6379/0, rediss://host:6380, "
            "unix:///run/redis.sock, redis+sentinel://host1:26379,host2:26379/service, redis+cluster://host:6379 "
            "(special characters of a password as %XX)"
        ) from None


def _one(url: str) -> Address:
    options: dict[str, Any] = dict(parse_url(url))
    node = Node(options.pop("host", "localhost"), options.pop("port", REDIS_PORT))
    nodes = () if "path" in options else (node,)
    return Address("single", _kind(options), _usable(options), nodes)


def _many(parts: re.Match[str]) -> Address:
    kind: Kind = "sentinel" if parts["kind"] == "sentinel" else "cluster"
    path = _PATH[kind].fullmatch(parts["path"] or "")
    if path is None:
        raise ValueError("path")
    query = parse_qsl(parts["query"] or "", keep_blank_values=True)
    login = {_SENTINEL_LOGIN[name]: value for name, value in query if name in _SENTINEL_LOGIN and value}
    rest = urlencode([pair for pair in query if pair[0] not in _SENTINEL_LOGIN])
    of_redis = f"{parts['secure']}://{parts['login'] or ''}@host:1/{path['db'] or 0}?{rest}"
    options: dict[str, Any] = dict(parse_url(of_redis))
    if options.pop("host") != "host" or (kind == "cluster" and (login or options.get("db"))):
        raise ValueError("options")
    options.pop("port")
    connection_class = _kind(options)
    default_port = SENTINEL_PORT if kind == "sentinel" else REDIS_PORT
    return Address(
        kind,
        connection_class,
        _usable(options),
        tuple(_node(host, default_port) for host in parts["hosts"].split(",")),
        path["service"] if kind == "sentinel" else "",
        {**{name: value for name, value in options.items() if name.startswith("ssl_")}, **login},
    )


def _kind(options: dict[str, Any]) -> type[AbstractConnection]:
    kind: type[AbstractConnection] = options.pop("connection_class", Connection)
    return kind


def _usable(options: dict[str, Any]) -> dict[str, Any]:
    """Without what only a pool of connections understands."""
    return {name: value for name, value in options.items() if name not in ("max_connections", "timeout")}


def _node(text: str, default_port: int) -> Node:
    parts = _HOST.fullmatch(text)
    if parts is None or not 0 < int(parts["port"] or default_port) < 65536:
        raise ValueError("host")
    return Node(parts["host"].strip("[]"), int(parts["port"] or default_port))
