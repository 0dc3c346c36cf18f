"""Asks a Redis whether a gateway could work with it: reachable, new enough, rights sufficient, memory policy harmless.

What is tried here is what the backplane uses, on throw-away keys of a worker that does not exist, all with a time to
live and removed at the end.
"""

import asyncio
import contextlib
import secrets
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

from gateway.backplane.keys import Keys
from gateway.backplane.redis.connector import Connector
from gateway.finding import Finding, Level
from gateway.redaction import redact

OLDEST = {"redis": (6, 2), "valkey": (7, 2)}

ACL = "~{prefix}* &{prefix}* -@all +@read +@write +@pubsub +@scripting +@connection +time -@dangerous"

_TTL_MS = 30_000

# What the backplane's scripts do, in small: time, a write with a time to live, a publish at the end.
_SCRIPT = """
-- KEYS[1] hash   KEYS[2] zset   ARGV[1] channel   ARGV[2] ms to live   returns the number of receivers
local now = redis.call('TIME')
redis.call('HSET', KEYS[1], 'state', 'sent')
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('ZADD', KEYS[2], now[1], 'call')
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return redis.call('PUBLISH', ARGV[1], 'probe')
"""


async def probe(url: str, prefix: str, timeout_seconds: float) -> list[Finding]:
    """Return what was found, the most basic first; ends with the first `FAIL` that makes the rest pointless.

    Never raises for anything that Redis does or does not do. Takes at most a few times `timeout_seconds`.
    """
    try:
        Connector(url, "check", timeout_seconds)  # what the backplane could not use is refused in its words
    except ValueError as error:
        return [_failed("Redis", "地址有误 / wrong address", str(error))]
    client = Redis.from_url(
        url,
        protocol=2,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        health_check_interval=0,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
    )
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(client.aclose)
        if failure := await _reach(client, url, timeout_seconds):
            return [failure]
        findings = await _version(client)
        if findings[-1].level is not Level.FAIL:
            findings += await _rights(client, Keys(prefix), timeout_seconds)
            findings += await _memory_policy(client)
        return findings
    raise AssertionError("the stack swallows nothing")


async def _reach(client: Redis, url: str, timeout_seconds: float) -> Finding | None:
    # `client` is lazy: this opens the first connection, with TLS, AUTH and SELECT where the URL asks for them.
    try:
        async with asyncio.timeout(timeout_seconds * 3):
            await client.ping()
    except (RedisError, OSError, TimeoutError) as error:
        return _failed("Redis", f"连不上 / can't be reached at {_place(url)}: {_reason(error)}", _cure(error))
    return None


async def _version(client: Redis) -> list[Finding]:
    try:
        # HELLO needs no special right, INFO does; before 6.2 it demanded an argument.
        hello = _pairs(await _command(client, "HELLO"))
    except RedisError as error:
        return [_failed("版本 version", f"太旧或不是 Redis / too old, or no Redis: {_reason(error)}", _UPGRADE)]
    engine = "valkey" if str(hello.get("server")).lower() == "valkey" else "redis"
    version = str(hello.get("version", "0"))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    findings = [Finding(Level.OK, "Redis", f"可连接 / reachable, {engine} {version}")]
    if numbers < OLDEST[engine]:
        findings.append(_failed("版本 version", f"{engine} {version} 太旧 / is too old", _UPGRADE))
    if hello.get("mode") == "cluster":
        findings.append(
            _failed(
                "集群 Cluster",
                "尚不支持 Redis Cluster / Redis Cluster is not supported yet",
                "请用单机 Redis 或 Valkey / use a standalone Redis or Valkey",
            )
        )
    if hello.get("role") in ("slave", "replica"):
        findings.append(
            _failed(
                "角色 role",
                "这是只读副本 / this is a read-only replica",
                "GATEWAY_REDIS_URL 请指向主节点 / point GATEWAY_REDIS_URL to the primary",
            )
        )
    return findings


async def _rights(client: Redis, keys: Keys, timeout_seconds: float) -> list[Finding]:
    worker = f"check-{secrets.token_hex(4)}"
    cure = "授予这些权限 / grant: ACL SETUSER <user> " + ACL.format(prefix=keys.prefix)
    refused = await _refused_commands(client, keys, worker)
    if refused:
        return [_failed("权限 rights", f"缺少权限 / not allowed: {', '.join(refused)}", cure)]
    try:
        async with asyncio.timeout(timeout_seconds * 3):
            receivers, has_arrived = await _round_trip(client, keys, worker)
    except (RedisError, OSError, TimeoutError) as error:
        return [_failed("脚本和订阅 scripts and subscriptions", _reason(error), cure)]
    finally:
        with contextlib.suppress(RedisError, OSError):  # they have a time to live anyway
            await client.delete(*(keys.call(worker, kind) for kind in _KINDS))
    if not has_arrived:
        return [
            _failed(
                "订阅 subscriptions",
                f"发布的消息没有收到，{receivers} 个接收者 / "
                f"a published message did not arrive, it had {receivers} receivers",
                "地址后面是否是几个不同的 Redis？ / does the address lead to several different Redis servers?",
            )
        ]
    return [Finding(Level.OK, "权限 rights", "读写、脚本、发布和订阅都可以 / reads, writes, scripts and pub/sub work")]


_KINDS = ("hash", "set", "zset", "stream", "string")


async def _refused_commands(client: Redis, keys: Keys, worker: str) -> list[str]:
    hashes, sets, zsets, stream, string = (keys.call(worker, kind) for kind in _KINDS)
    commands: tuple[tuple[str | int, ...], ...] = (
        ("TIME",),
        ("SET", string, "1", "PX", _TTL_MS),
        ("GET", string),
        ("MGET", string),
        ("EXISTS", string),
        ("HSET", hashes, "a", "1"),
        ("PEXPIRE", hashes, _TTL_MS),
        ("HGET", hashes, "a"),
        ("HGETALL", hashes),
        ("HDEL", hashes, "b"),
        ("SADD", sets, "a"),
        ("PEXPIRE", sets, _TTL_MS),
        ("SMEMBERS", sets),
        ("SREM", sets, "b"),
        ("ZADD", zsets, 1, "a"),
        ("PEXPIRE", zsets, _TTL_MS),
        ("ZRANGE", zsets, 0, -1),
        ("ZRANGEBYSCORE", zsets, 0, 1),
        ("ZREM", zsets, "b"),
        ("XADD", stream, "MAXLEN", "~", 10, "*", "kind", "check"),
        ("PEXPIRE", stream, _TTL_MS),
        ("DEL", hashes, sets, zsets, stream, string),
        ("SCRIPT", "LOAD", _SCRIPT),
        ("PUBLISH", keys.mailbox(worker), "check"),
    )
    refused = []
    for command in commands:
        try:
            await _command(client, *command)
        except (RedisError, OSError) as error:
            name = " ".join(str(part) for part in command[: 2 if command[0] == "SCRIPT" else 1])
            # Only the reason is of interest where it is another one than the missing right.
            refused.append(name if isinstance(error, NoPermissionError) else f"{name} ({_reason(error)})")
    return refused


async def _round_trip(client: Redis, keys: Keys, worker: str) -> tuple[int, bool]:
    channel = keys.mailbox(worker)
    async with client.pubsub() as subscription:
        await subscription.subscribe(channel)
        await subscription.get_message(timeout=None)  # the confirmation
        digest = await client.script_load(_SCRIPT)
        receivers = int(
            await client.evalsha(digest, 2, keys.call(worker, "hash"), keys.call(worker, "zset"), channel, _TTL_MS)
        )
        message = await subscription.get_message(timeout=None) if receivers else None
    return receivers, message is not None and message["type"] == "message"


async def _memory_policy(client: Redis) -> list[Finding]:
    try:
        policy = (await client.info("memory")).get("maxmemory_policy", "")
    except RedisError:
        # INFO counts as dangerous to many access lists; the gateway itself does not need it.
        return []
    if not str(policy).startswith("allkeys"):
        return []
    return [
        Finding(
            Level.WARN,
            "内存策略 maxmemory-policy",
            f"{policy} 会在内存不足时删除网关的租约 / {policy} may evict the gateway's leases when memory is short",
            "redis-cli CONFIG SET maxmemory-policy noeviction (或 or volatile-ttl)",
        )
    ]


_UPGRADE = "需要 Redis 6.2 或 Valkey 7.2 以上 / Redis 6.2 or Valkey 7.2 or newer is needed"


async def _command(client: Redis, *parts: str | int) -> Any:
    execute: Callable[..., Awaitable[Any]] = client.execute_command  # redis-py leaves it untyped
    return await execute(*parts)


def _failed(subject: str, text: str, cure: str) -> Finding:
    return Finding(Level.FAIL, subject, text, cure)


def _pairs(answer: Any) -> Mapping[Any, Any]:
    if isinstance(answer, list):  # RESP2: name, value, name, value …
        return dict(zip(answer[::2], answer[1::2], strict=False))
    return answer if isinstance(answer, Mapping) else {}


def _place(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError) or not str(error):
        return "没有回答 / no answer in time"
    return redact(str(error))


def _cure(error: Exception) -> str:
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
