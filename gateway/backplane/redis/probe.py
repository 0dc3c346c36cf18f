"""Asks a Redis whether a gateway could work with it, and whether it is set up so that the gateway's promises hold.

One server, Sentinels and what they watch, or a Cluster: reachable, new enough, rights sufficient, and on every server
that is or may become a primary, the settings that matter.
"""

from contextlib import AsyncExitStack

from redis.exceptions import RedisError

from gateway.backplane.keys import Keys
from gateway.backplane.redis import address as addresses
from gateway.backplane.redis.address import Address
from gateway.backplane.redis.connector import Connector
from gateway.backplane.redis.probe_rights import rights
from gateway.backplane.redis.probe_server import Server, paired
from gateway.backplane.redis.probe_settings import settings
from gateway.backplane.redis.probe_topology import Member, find
from gateway.finding import Finding, Level

OLDEST = {"redis": (6, 2), "valkey": (7, 2)}
OLDEST_CLUSTER = {"redis": (7, 0), "valkey": (7, 2)}

_UPGRADE = (
    "需要 Redis 6.2 或 Valkey 7.2 以上，集群需要 Redis 7.0 / "
    "Redis 6.2 or Valkey 7.2 or newer is needed, for a Cluster Redis 7.0"
)


async def probe(url: str, prefix: str, timeout_seconds: float) -> list[Finding]:
    """Return what was found, the most basic first; ends with the first `FAIL` that makes the rest pointless.

    Never raises for anything that Redis does or does not do. Takes at most a few times `timeout_seconds` per server.
    """
    try:
        Connector(url, "check", timeout_seconds)  # what the backplane could not use is refused in its words
        address = addresses.parse(url)
    except ValueError as error:
        return [Finding(Level.FAIL, "Redis", "地址有误 / wrong address", str(error))]
    async with AsyncExitStack() as stack:
        land = await find(address, timeout_seconds, stack)
        findings = land.findings
        if any(finding.level is Level.FAIL for finding in findings):
            return findings
        looked_at = [(member, await _look_at(member, address, Keys(prefix))) for member in land.members]
        return findings + _merged(looked_at)
    raise AssertionError("the stack swallows nothing")


async def _look_at(member: Member, address: Address, keys: Keys) -> list[Finding]:
    server = member.server
    if failure := await server.reach():
        return [failure if member.is_primary else Finding(Level.WARN, failure.subject, failure.text, failure.cure)]
    findings = await _version(server, address, is_primary=member.is_primary)
    if findings[-1].level is Level.FAIL:
        return findings
    if member.is_primary:
        findings += await rights(server, keys, member.slots)
    return findings + await settings(server, member.standing)


async def _version(server: Server, address: Address, *, is_primary: bool) -> list[Finding]:
    try:
        # HELLO needs no special right, INFO does; before 6.2 it demanded an argument.
        hello = paired(await server.ask("HELLO"))
    except RedisError as error:
        text = f"太旧或不是 Redis / too old, or no Redis: {server.reason(error)}"
        return [Finding(Level.FAIL, "版本 version", text, _UPGRADE)]
    engine = "valkey" if str(hello.get("server")).lower() == "valkey" else "redis"
    version = str(hello.get("version", "0"))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    findings = [Finding(Level.OK, "Redis", f"可连接 / reachable, {engine} {version}")]
    oldest = OLDEST_CLUSTER if address.kind == "cluster" else OLDEST
    if numbers < oldest[engine]:
        findings.append(Finding(Level.FAIL, "版本 version", f"{engine} {version} 太旧 / is too old", _UPGRADE))
    if hello.get("mode") != ("cluster" if address.kind == "cluster" else "standalone"):
        findings.append(_wrong_mode(str(hello.get("mode"))))
    if is_primary and hello.get("role") in ("slave", "replica"):
        findings.append(
            Finding(
                Level.FAIL,
                "角色 role",
                f"{server.where} 是只读副本 / is a read-only replica",
                "GATEWAY_REDIS_URL 请指向主节点 / point GATEWAY_REDIS_URL to the primary",
            )
        )
    return findings


def _wrong_mode(mode: str) -> Finding:
    schemes = {"cluster": "redis+cluster://", "sentinel": "redis+sentinel://…/service"}
    scheme = schemes.get(mode, "redis://")
    return Finding(
        Level.FAIL,
        "模式 mode",
        f"这是 {mode} 模式 / this server is a {mode}",
        f"GATEWAY_REDIS_URL 请以 {scheme} 开头 / let GATEWAY_REDIS_URL begin with {scheme}",
    )


def _merged(looked_at: list[tuple[Member, list[Finding]]]) -> list[Finding]:
    """Every finding once, with the servers that it is about where they are several."""
    where: dict[Finding, list[str]] = {}
    for member, findings in looked_at:
        for finding in findings:
            where.setdefault(finding, []).append(member.server.where)
    if len(looked_at) == 1:
        return list(where)
    return [
        Finding(finding.level, finding.subject, f"{finding.text} ({', '.join(servers)})", finding.cure)
        for finding, servers in where.items()
    ]
