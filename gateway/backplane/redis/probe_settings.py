"""What an operator must set in Redis so that the gateway's promises hold, compared with what is set.

Reading it needs rights that the gateway itself does not: where they are refused the verdict is "unknown", with the
command that grants them and the one to look by hand.
"""

import ipaddress
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError

from gateway.backplane.redis.probe_server import TROUBLE, Server, ask
from gateway.finding import Finding, Level

BUFFER = "256mb 64mb 60"
"""The recommended `client-output-buffer-limit pubsub`."""

_MB = 1024 * 1024
_RECOMMENDED_BYTES, _RECOMMENDED_SOFT_BYTES = 256 * _MB, 64 * _MB
_USUAL_BYTES, _USUAL_SOFT_BYTES = 32 * _MB, 8 * _MB
_KEEPALIVE_SECONDS, _KEEPALIVE_WORST_SECONDS = 60, 300
_CLOCK_SECONDS = 1.0

_NAMES = ("maxmemory-policy", "client-output-buffer-limit", "min-replicas-to-write", "tcp-keepalive")


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the server stands among others."""

    replicas: int | None = None
    """How many it has, None where nobody says so."""
    is_watched: bool = False
    """Sentinels may put another one into its place."""
    is_in_cluster: bool = False


async def settings(server: Server, standing: Standing) -> list[Finding]:
    """Return the verdicts. Never raises for anything that Redis does or does not do."""
    try:
        values = {name: await config(server, name) for name in _NAMES}
        if values["maxmemory-policy"] is None:
            values["maxmemory-policy"] = (await info(server, "memory")).get("maxmemory_policy")
        if standing.replicas is None:
            standing = Standing(await _replicas(server), standing.is_watched, standing.is_in_cluster)
        findings = [
            *_policy(values["maxmemory-policy"]),
            *_buffer(values["client-output-buffer-limit"]),
            *_fence(values["min-replicas-to-write"], standing),
            *_keepalive(values["tcp-keepalive"]),
        ]
        findings += _unknown(server, [name for name in _NAMES if values[name] is None and _is_asked(name, standing)])
        return [*findings, *await _open_door(server), *await _clock(server)]
    except NoPermissionError as error:
        text = f"未知（没有权限） / unknown, the user may not: {server.reason(error)}"
        return [Finding(Level.UNKNOWN, "设置 settings", text, f"授权 / grant: {server.grant('+time')}")]
    except TROUBLE as error:
        return [Finding(Level.WARN, "设置 settings", f"未检查 / not checked: {server.reason(error)}", "")]


async def config(server: Server, name: str) -> str | None:
    """The value; None where it may not be read, or where a provider has taken CONFIG away."""
    answer = await server.pairs("CONFIG", "GET", name)
    return None if answer is None or name not in answer else str(answer[name])


async def info(server: Server, section: str) -> Mapping[str, str]:
    """What INFO says; empty where it may not be read."""
    answer = await _refusable(server, "INFO", section)
    lines = str(answer or "").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


async def _replicas(server: Server) -> int | None:
    count = (await info(server, "replication")).get("connected_slaves")
    return None if count is None else int(count)


async def _refusable(server: Server, *words: str) -> Any:
    try:
        return await server.ask(*words)
    except ResponseError:
        return None


def _is_asked(name: str, standing: Standing) -> bool:
    if name != "min-replicas-to-write":
        return True
    return not standing.is_in_cluster and (standing.is_watched or standing.replicas != 0)


def _unknown(server: Server, names: list[str]) -> list[Finding]:
    if not names:
        return []
    by_hand = " ; ".join(f"redis-cli CONFIG GET {name}" for name in names)
    return [
        Finding(
            Level.UNKNOWN,
            "设置 settings",
            f"未知（没有权限） / unknown, the user may not read them: {', '.join(names)}",
            f"授权 / grant: {server.grant('+config|get', '+info')}；"
            f"或手动查看 / or look by hand: {by_hand}；docs/redis.md, Settings for Redis",
        )
    ]


def _policy(value: str | None) -> list[Finding]:
    subject = "内存策略 maxmemory-policy"
    if value is None:
        return []
    if value in ("noeviction", "volatile-ttl"):
        return [Finding(Level.OK, subject, value)]
    if value.startswith("allkeys"):
        text = f"{value} 会在内存不足时删除网关的租约 / {value} may evict the gateway's leases when memory is short"
    else:
        text = f"{value} 可能先删除租约 / {value} may evict leases before what is about to expire anyway"
    return [Finding(Level.WARN, subject, text, "redis-cli CONFIG SET maxmemory-policy noeviction (或 or volatile-ttl)")]


def _buffer(value: str | None) -> list[Finding]:
    subject = "订阅缓冲区 client-output-buffer-limit pubsub"
    if value is None:
        return []
    words = value.split()
    hard, soft, seconds = (int(word) for word in words[words.index("pubsub") + 1 :][:3])
    cure = f"redis-cli CONFIG SET client-output-buffer-limit 'pubsub {BUFFER}'"
    told = f"{hard // _MB}mb {soft // _MB}mb {seconds}"
    # 0 is without a limit.
    if _least(hard) >= _RECOMMENDED_BYTES and (_least(soft) >= _RECOMMENDED_SOFT_BYTES or not seconds):
        return [Finding(Level.OK, subject, told)]
    if _least(hard) >= _USUAL_BYTES and (not soft or (soft >= _USUAL_SOFT_BYTES and seconds >= 60)):
        return [
            Finding(
                Level.WARN,
                subject,
                f"{told} 对大规模部署偏小：读得慢的 worker 会被断开 / "
                f"{told} is little for a large fleet: a worker that reads slowly is cut off, and recovers",
                cure,
            )
        ]
    return [
        Finding(
            Level.WARN,
            subject,
            f"{told} 太小：一条大消息就可能断开 worker，调用因此变慢或中断 / {told} is too small: "
            "a single large message can cut a worker off, over and over; its calls then wait or end in errors",
            cure,
        )
    ]


def _least(size_bytes: int) -> float:
    return size_bytes or float("inf")


def _fence(value: str | None, standing: Standing) -> list[Finding]:
    subject = "副本 min-replicas-to-write"
    if value is None or not _is_asked("min-replicas-to-write", standing):
        return []
    needed, replicas = int(value), standing.replicas
    if needed == 0 and not standing.is_watched and not replicas:
        return []
    second = (
        "请先增加第二个副本，否则切换后无人可写 / add a second replica first, or nobody takes writes after a failover"
    )
    if needed == 0:
        cure = "redis-cli CONFIG SET min-replicas-to-write 1 ; redis-cli CONFIG SET min-replicas-max-lag 10"
        return [
            Finding(
                Level.WARN,
                subject,
                "0：被隔离的主节点会继续接受写入，之后全部丢失 / "
                "0: an isolated primary goes on taking writes that will be lost",
                cure if replicas is not None and replicas > 1 else f"{cure} ({second})",
            )
        ]
    if standing.is_watched and replicas is not None and needed >= replicas:
        return [
            Finding(
                Level.WARN,
                subject,
                f"{needed}，但只有 {replicas} 个副本：故障切换后新主节点会拒绝写入 / {needed} of {replicas} replicas: "
                "after a failover the new primary has too few and refuses all writes (NOREPLICAS)",
                "增加副本，或降低该值 / add a replica, or lower it",
            )
        ]
    return [Finding(Level.OK, subject, f"{needed}")]


def _keepalive(value: str | None) -> list[Finding]:
    subject = "保活 tcp-keepalive"
    if value is None:
        return []
    seconds = int(value)
    if 0 < seconds <= _KEEPALIVE_SECONDS:
        return [Finding(Level.OK, subject, f"{seconds} s")]
    is_bad = seconds == 0 or seconds > _KEEPALIVE_WORST_SECONDS
    return [
        Finding(
            Level.WARN if is_bad else Level.NOTE,
            subject,
            f"{seconds} s：消失的 worker 会长时间被当作订阅者 / "
            f"{seconds} s: a worker whose host has vanished counts as listening for long, and its connection is kept",
            f"redis-cli CONFIG SET tcp-keepalive {_KEEPALIVE_SECONDS}",
        )
    ]


async def _open_door(server: Server) -> list[Finding]:
    subject = "访问控制 access"
    lets_in = await _lets_strangers_in(server)
    if lets_in is None:
        return [Finding(Level.NOTE, subject, "未检查：没有回答 / not checked: no answer")]
    if not lets_in:
        return [Finding(Level.OK, subject, "需要密码 / a password is needed")]
    if server.node is None or _is_loopback(server.node.host):
        bind, protected = await config(server, "bind"), await config(server, "protected-mode")
        if bind is None or not is_exposed(bind, protected or ""):
            return []
    return [
        Finding(
            Level.WARN,
            subject,
            "default 用户没有密码，其他主机也能连接：可读取和伪造所有调用 / "
            "the user `default` has no password and other hosts can connect: whoever does reads and forges every call",
            "另建用户，然后 / make a user of its own for the gateway, then: redis-cli ACL SETUSER default off；"
            "docs/redis.md, Rights",
        )
    ]


async def _lets_strangers_in(server: Server) -> bool | None:
    """None where that could not be found out."""
    client = server.stranger()
    try:
        await ask(client, "PING")
    except (AuthenticationError, NoPermissionError):
        return False
    except TROUBLE as error:
        return False if "DENIED" in str(error) else None
    finally:
        await client.aclose()
    return True


def is_exposed(bind: str, protected_mode: str) -> bool:
    """True if other hosts can reach a server with these settings and no password."""
    return protected_mode != "yes" and not all(_is_loopback(place.removeprefix("-")) for place in bind.split())


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _clock(server: Server) -> list[Finding]:
    before = time.time()
    seconds, micros = await server.ask("TIME")
    here = (before + time.time()) / 2
    apart = int(seconds) + int(micros) / 1e6 - here
    if abs(apart) <= _CLOCK_SECONDS:
        return []
    return [
        Finding(
            Level.NOTE,
            "时钟 clock",
            f"与本机相差 {apart:+.1f} s，网关只用 Redis 的时间，仅日志对不上 / "
            f"{apart:+.1f} s from this host's; the gateway goes by Redis' alone, only logs don't match",
        )
    ]
