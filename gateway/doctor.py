"""`mcp-gateway doctor`: what is wrong with the cluster, why, and what to do next.

Theory of operation
-------------------
It looks once; if a rule finds anything worse than a note, it looks again a little later and believes what both looks
have found, since a cluster that works is never still. Each rule gives one finding, an OK where all is well. What could
not be looked at for want of a right is UNKNOWN, with the command that grants it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gateway.backplane.facts import ClusterFacts
from gateway.backplane.redis.examination import examine, server_settings
from gateway.backplane.redis.reading import Refused
from gateway.backplane.redis.window import Window
from gateway.doctor_rules import RULES, Symptom
from gateway.finding import Finding, Level
from gateway.operating import CannotOperate, window_into
from gateway.settings import Settings
from gateway.tables import printable

KEYS_MAX = 500_000
SETTLE_SECONDS = 4.0
"""Longer than a worker needs to notice a deaf mailbox, and two beats."""
_SHOWN = 5

_ORDER = (Level.FAIL, Level.WARN, Level.NOTE)


class Words(NamedTuple):
    """How a rule is told: what it is about, what it means where it strikes, and what to do."""

    subject: str
    text: str
    cure: str


WORDS: Mapping[str, Words] = {
    "orphans": Words(
        "孤儿 orphans",
        "所属工作进程已无租约，没有人清理 / their worker has no lease and nobody cleans up",
        "没有存活的进程就启动一个，它会清理；其余的在该智能体的小智端连接时清理，见 docs/redis.md, Deleting by hand / "
        "if no worker lives, start one: it cleans up within a minute. What stays is cleaned up when a robot of its "
        "agent connects; docs/redis.md, Deleting by hand",
    ),
    "mailboxes": Words(
        "邮箱 mailboxes",
        "有租约，但邮箱没有人听，或不止一个 / a lease, but nobody (or more than one) listens to the mailbox",
        "几秒内应自行恢复；否则看该进程的日志并重启它 / "
        "mends itself within seconds; else read that worker's log, and restart it",
    ),
    "leases": Words(
        "租约 leases",
        "租约与列表不一致 / leases and the list of workers differ",
        "键被淘汰或手工删除？下一次心跳会恢复，见 maxmemory-policy / "
        "evicted, or deleted by hand? The next beat puts them back; look at maxmemory-policy",
    ),
    "beats": Words(
        "心跳 beats",
        "太久没有心跳，或心跳在未来 / the last beat is late, or in the future",
        "该进程忙、被冻结，或到 Redis 的网络慢：看 CPU 和日志 / "
        "the worker is busy or frozen, or its way to Redis is slow: see its CPU and log",
    ),
    "calls": Words(
        "调用 calls",
        "已过时限仍在执行列表 / in flight after their deadline",
        "有进度的调用可以更久；否则工具不回应：mcp-gateway kick，记录会自行过期 / one that reports progress may go on; "
        "else its tool does not answer: mcp-gateway kick. The records expire by themselves",
    ),
    "toolsets": Words(
        "工具列表 toolsets",
        "已连接，但 Redis 里没有它的工具列表 / connected, but its tools are not in Redis",
        "一分钟内应自行恢复；否则 mcp-gateway kick / mends itself within a minute; else mcp-gateway kick",
    ),
    "claims": Words(
        "工具名 names",
        "被不在线的工具服务器占用 / in use by a tool server that is not there",
        "24 小时后自动释放；急用可 HDEL，见 docs/redis.md, Deleting by hand / "
        "freed after a day; if in a hurry HDEL it: docs/redis.md, Deleting by hand",
    ),
    "epochs": Words(
        "时代 epochs",
        "epoch 或时间不合理 / epochs or times that can't be",
        "Redis 的时钟被拨回过？查 NTP；值会自行追上 / "
        "was the clock of Redis set back? See to its NTP; the values are caught up with",
    ),
    "endless": Words(
        "无期限的键 keys without a TTL",
        "不会过期 / will never expire",
        "手工写入的？redis-cli PEXPIRE KEY 90000000，或 DEL / written by hand? redis-cli PEXPIRE KEY 90000000, or DEL",
    ),
    "strangers": Words(
        "陌生的键 unknown keys",
        "不是网关写的 / not written by any gateway of this version",
        "别的程序用了同一前缀？换 GATEWAY_REDIS_PREFIX / does another program share the prefix? GATEWAY_REDIS_PREFIX",
    ),
    "flapping": Words(
        "反复重连 flapping",
        "工具服务器反复上线离线 / tool servers that come and go",
        "看该程序的日志和断开原因；mcp-gateway inspect events --agent ID / "
        "see that program's log, and the cause: mcp-gateway inspect events --agent ID",
    ),
    "twins": Words(
        "争用 server_id twins",
        "两个程序共用一个 server_id，互相踢下线 / two programs share one server_id and throw each other out",
        "停掉一个，或给它自己的 server_id / stop one of them, or give it a server_id of its own",
    ),
    "collisions": Words(
        "重名 names in collision",
        "同名工具，带前缀列出 / equal names, listed with a prefix",
        "正常；想要短名就改其中一个工具的名字 / all is well; rename one of the tools if both shall have short names",
    ),
    "limits": Words(
        "上限 limits",
        "智能体已达上限，新来的被拒绝或不列出 / agents at a limit: what comes now is refused, or not listed",
        "调高该设置，或断开不用的 / raise that setting, or disconnect what is not needed",
    ),
    "versions": Words(
        "版本 versions",
        "几个版本同时运行 / workers of several versions",
        "滚动升级中？完成即可 / a rolling upgrade? Then finish it",
    ),
    "buffers": Words(
        "输出缓冲区 output buffers",
        "订阅者读得太慢，快到上限 / a subscriber reads too slowly and nears the limit",
        "该进程忙？看它的 CPU；client-output-buffer-limit 见 docs/redis.md / "
        "is that worker busy? See its CPU; client-output-buffer-limit: docs/redis.md, Settings for Redis",
    ),
    "memory": Words(
        "内存 memory",
        "Redis 快满了，或淘汰过键 / Redis is nearly full, or has evicted keys",
        "增大 maxmemory，策略用 noeviction；之后 CONFIG RESETSTAT 重新计数 / raise maxmemory; the policy should be "
        "noeviction. Evictions are counted until CONFIG RESETSTAT",
    ),
}


async def diagnose(
    settings: Settings, *, settle_seconds: float = SETTLE_SECONDS, keys_max: int = KEYS_MAX
) -> list[Finding]:
    """Return the verdicts, one or more for each rule. What keeps from looking at all is a FAIL."""
    try:
        async with window_into(settings) as window:
            try:
                facts = await examine(window, keys_max)
            except Refused as refused:
                return [_unreadable(window, refused)]
            found = symptoms(facts, settings)
            if any(one.level in (Level.WARN, Level.FAIL) for several in found.values() for one in several):
                await asyncio.sleep(settle_seconds)
                facts = await examine(window, keys_max)
                found = lasting(found, symptoms(facts, settings))
            return [*overview(facts), *verdicts(found, facts), *await server_settings(window)]
    except CannotOperate as error:
        if not settings.redis_url:
            raise
        return [Finding(Level.FAIL, "Redis", str(error).replace("\n", " "))]


def _unreadable(window: Window, refused: Refused) -> Finding:
    """Nothing can be said of a cluster that the user may not read."""
    text = f"未知：此用户不能读 / unknown: this user may not read the cluster ({refused.command})"
    rights = (f"~{window.keys.prefix}*", "+@read", "+@connection", "-@dangerous", "+pubsub", "+time", "+client|list")
    grant = window.reader.primaries[0].server.grant(*rights)
    return Finding(Level.UNKNOWN, "集群 cluster", text, f"授权 / grant: {grant}；docs/redis.md, Rights")


def symptoms(facts: ClusterFacts, settings: Settings) -> dict[str, list[Symptom]]:
    """What each rule finds."""
    return {name: list(rule(facts, settings)) for name, rule in RULES.items()}


def lasting(
    before: Mapping[str, Sequence[Symptom]], after: Mapping[str, Sequence[Symptom]]
) -> dict[str, list[Symptom]]:
    """What both looks have found, as the second one found it."""
    known = {name: {one.item for one in several} for name, several in before.items()}
    return {name: [one for one in several if one.item in known[name]] for name, several in after.items()}


def verdicts(found: Mapping[str, Sequence[Symptom]], facts: ClusterFacts) -> list[Finding]:
    """One finding for each rule and level that it has found something of, an OK for the others."""
    findings = []
    for name, several in found.items():
        words = WORDS[name]
        for level in _ORDER:
            struck = [one for one in several if one.level is level]
            if struck:
                findings.append(Finding(level, words.subject, f"{words.text}: {_listed(struck)}", words.cure))
        if not several and name not in facts.unread:
            findings.append(Finding(Level.OK, words.subject, "正常 / fine"))
    findings += [
        Finding(
            Level.UNKNOWN,
            WORDS[name].subject,
            "未知（没有权限，或没有回答） / unknown: the user may not look, or there was no answer",
            cure,
        )
        for name, cure in facts.unread.items()
    ]
    return findings


def _listed(struck: Sequence[Symptom]) -> str:
    shown = [f"{one.item} [{one.detail}]" if one.detail else one.item for one in struck[:_SHOWN]]
    more = len(struck) - len(shown)
    return printable("; ".join(shown) + (f"; … 共 / in all {len(struck)}" if more else ""))


def overview(facts: ClusterFacts) -> list[Finding]:
    """What was looked at; that nobody is there at all is the first thing to know."""
    living = sum(worker.row is not None for worker in facts.workers.values())
    up = sum(agent.count("up") for agent in facts.agents)
    robots = sum(agent.robots_count for agent in facts.agents)
    text = (
        f"{living} 个工作进程，{len(facts.agents)} 个智能体，{up} 个工具服务器，{robots} 个小智端 / "
        f"{living} workers, {len(facts.agents)} agents, {up} tool servers, {robots} robots"
    )
    findings = [Finding(Level.OK if living else Level.WARN, "集群 cluster", text, "" if living else _NOBODY)]
    if facts.is_cut:
        cut = "键太多，只看了一部分 / too many keys, only a part was looked at"
        findings.append(Finding(Level.NOTE, "集群 cluster", cut, "mcp-gateway doctor --limit N"))
    return findings


_NOBODY = (
    "没有存活的工作进程；前缀和数据库对吗？GATEWAY_REDIS_PREFIX / "
    "no worker lives; is this the right prefix and database? GATEWAY_REDIS_PREFIX"
)
