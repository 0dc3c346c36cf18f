"""Tries on a server what the backplane does there: on throw-away keys of a worker that does not exist.

All of them have a time to live and are removed at the end.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Sequence
from typing import Any

from redis.asyncio.client import PubSub
from redis.crc import key_slot
from redis.exceptions import NoPermissionError, ResponseError

from gateway.backplane.keys import Keys
from gateway.backplane.redis.probe_server import TROUBLE, Server
from gateway.finding import Finding, Level

ACL = "~{prefix}* &{prefix}* -@all +@read +@write +@pubsub +@scripting +@connection +time -@dangerous +info +role"
ACL_CLUSTER = f"{ACL} +cluster|slots"

SlotRanges = Sequence[tuple[int, int]]
"""First and last slot of each range that the server has; empty outside a Cluster."""

_WRITES = frozenset({"SET", "HSET", "SADD", "ZADD", "XADD", "DEL"})
"""Who may do none of these is somebody who looks, not a worker with too few rights."""
_KINDS = ("hash", "set", "zset", "stream", "string")
_TTL_MS = 30_000
_MOST_NAMES = 1_000_000

# What the backplane's scripts do, in small: time, a write with a time to live, a publish at the end.
_SCRIPT = """
-- KEYS[1] hash   KEYS[2] zset   ARGV[1] channel   ARGV[2] ms to live   ARGV[3] verb   returns the number of receivers
local now = redis.call('TIME')
redis.call('HSET', KEYS[1], 'state', 'sent')
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('ZADD', KEYS[2], now[1], 'call')
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return redis.call(ARGV[3], ARGV[1], 'probe')
"""

# First words of refusals that no right would end → what does.
_CURES = {
    "NOREPLICAS": "主节点的副本不足 min-replicas-to-write，请检查副本 / "
    "the primary has fewer good replicas than min-replicas-to-write; see to the replicas",
    "OOM": "内存已满：增大 maxmemory 或清理 / memory is full: raise maxmemory, or remove what is not needed",
    "READONLY": "请指向主节点 / point to the primary",
    "MISCONF": "持久化失败，检查磁盘和服务器日志 / saving to disk fails; see to the disk and the server's log",
    "CLUSTERDOWN": "集群不可用：redis-cli --cluster check / the Cluster is down: redis-cli --cluster check",
    "没有回答": "检查服务器的负载，以及 CLIENT PAUSE / see to the server's load, and to CLIENT PAUSE",
    "LOADING": "Redis 正在载入数据，请稍后再试 / Redis is loading its data; try again later",
}


async def rights(server: Server, keys: Keys, slots: SlotRanges = ()) -> list[Finding]:
    """Return the verdict on reading, writing, scripts, publishing and subscribing. Leaves nothing behind."""
    worker = _worker(keys, slots)
    acl = (ACL_CLUSTER if slots else ACL).format(prefix=keys.prefix)
    cure = f"授予这些权限 / grant: {server.grant(*acl.split())}"
    refused = await _refused_commands(server, keys, worker, is_cluster=bool(slots))
    if set(refused) >= _WRITES:
        text = (
            "未知：这个用户只能看，没有试过工作进程需要的权限 / "
            "unknown: this user may only look, so what workers need was not tried"
        )
        cure = f"用工作进程的地址再运行，或授予 / run it with the workers' URL, or grant: {server.grant(*acl.split())}"
        return [Finding(Level.UNKNOWN, "权限 rights", text, cure)]
    if refused:
        text = f"被拒绝 / not allowed: {', '.join(refused)}"
        cures = [told for word, told in _CURES.items() if any(f"({word} " in one for one in refused)]
        return [Finding(Level.FAIL, "权限 rights", text, cures[0] if cures else cure)]
    try:
        async with asyncio.timeout(server.timeout_seconds * 3):
            receivers, has_arrived = await _round_trip(server, keys, worker, is_cluster=bool(slots))
    except TROUBLE as error:
        return [Finding(Level.FAIL, "脚本和订阅 scripts and subscriptions", server.reason(error), cure)]
    finally:
        with contextlib.suppress(*TROUBLE):  # they have a time to live anyway
            await server.ask("DEL", *(keys.call(worker, kind) for kind in _KINDS))
    if not has_arrived:
        return [
            Finding(
                Level.FAIL,
                "订阅 subscriptions",
                f"发布的消息没有收到，{receivers} 个接收者 / "
                f"a published message did not arrive, it had {receivers} receivers",
                "地址后面是否是几个不同的 Redis？ / does the address lead to several different Redis servers?",
            )
        ]
    return [Finding(Level.OK, "权限 rights", "读写、脚本、发布和订阅都可以 / reads, writes, scripts and pub/sub work")]


def _worker(keys: Keys, slots: SlotRanges) -> str:
    """A worker's id whose keys are in one of the slots."""
    for _ in range(_MOST_NAMES):
        worker = f"check-{secrets.token_hex(4)}"
        slot = key_slot(keys.mailbox(worker).encode())
        if not slots or any(first <= slot <= last for first, last in slots):
            return worker
    raise AssertionError("a slot in a million tries")


async def _refused_commands(server: Server, keys: Keys, worker: str, *, is_cluster: bool) -> list[str]:
    refused = []
    for command in _commands(keys, worker, is_cluster=is_cluster):
        try:
            await server.ask(*command)
        except TROUBLE as error:
            name = " ".join(str(part) for part in command[: 2 if command[0] in ("SCRIPT", "CLUSTER") else 1])
            # Only the reason is of interest where it is another one than the missing right.
            refused.append(name if isinstance(error, NoPermissionError) else f"{name} ({_told(server, error)})")
            if not isinstance(error, ResponseError):
                break  # each of the others would take as long to stay without an answer
    return refused


def _told(server: Server, error: Exception) -> str:
    """redis-py cuts off the first word where it has a class of its own for it."""
    word = {"ReadOnlyError": "READONLY ", "OutOfMemoryError": "OOM ", "BusyLoadingError": "LOADING "}
    return word.get(type(error).__name__, "") + server.reason(error)


def _commands(keys: Keys, worker: str, *, is_cluster: bool) -> list[tuple[str | int, ...]]:
    hashes, sets, zsets, stream, string = (keys.call(worker, kind) for kind in _KINDS)
    commands: list[tuple[str | int, ...]] = [
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
    ]
    publish = "SPUBLISH" if is_cluster else "PUBLISH"
    commands.append((publish, keys.mailbox(worker), "check"))
    if is_cluster:
        commands.append(("CLUSTER", "SLOTS"))
    return commands


async def _round_trip(server: Server, keys: Keys, worker: str, *, is_cluster: bool) -> tuple[int, bool]:
    channel = keys.mailbox(worker)
    verb = "SPUBLISH" if is_cluster else "PUBLISH"
    async with server.client.pubsub() as subscription:
        await (subscription.ssubscribe(channel) if is_cluster else subscription.subscribe(channel))
        await _next(subscription)  # the confirmation
        places = (keys.call(worker, "hash"), keys.call(worker, "zset"))
        digest = await server.ask("SCRIPT", "LOAD", _SCRIPT)
        receivers = int(await server.ask("EVALSHA", digest, 2, *places, channel, _TTL_MS, verb))
        message = await _next(subscription) if receivers else None
    return receivers, message is not None and message["type"] in ("message", "smessage")


async def _next(subscription: PubSub) -> Any:
    return await subscription.get_message(timeout=None)
