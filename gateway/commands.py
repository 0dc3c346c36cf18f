"""The commands for operators as the command line knows them: names, options, help. What they do is elsewhere."""

import argparse
from typing import Any

_LIMIT = 100
_WATCH_SECONDS = 2.0

_NOUNS = {
    "workers": "工作进程、租约、负载 / workers: lease, beat, load",
    "agents": "智能体，最近变化的在前 / agents, the latest change first",
    "agent": "一个智能体：谁连着，为什么没连 / one agent: who is connected, and why not",
    "servers": "工具服务器在哪里，从何时起 / tool servers: where, since when",
    "robots": "小智端 / robots",
    "tools": "一个智能体的工具名 / the tool names of one agent, and who holds them",
    "calls": "正在执行的调用 / calls in flight",
    "events": "最近发生了什么 / what happened lately",
    "audit": "审计：握手、调用、变更 / the audit: handshakes, calls, changes",
}
_OF_ONE_AGENT = ("agent", "tools")
_BY_AGENT = ("servers", "robots", "calls", "events", "audit")

_INSPECT = """\
从 Redis 里看集群，只读；工作进程全部停了也能用。
Looks at the cluster through Redis, and changes nothing; also when every worker is down.

示例 / examples:
  mcp-gateway inspect workers                谁活着，负载多少 / who lives, with how much load
  mcp-gateway inspect agent my-agent         为什么工具端未连接 / why is there no tool server?
  mcp-gateway inspect servers --agent my-agent --json | jq '.servers[].worker'
  mcp-gateway inspect calls --watch          每两秒一次，Ctrl-C 结束 / every 2 s, until Ctrl-C
  mcp-gateway inspect events --limit 20

只需只读用户，见 docs/redis.md 的 Rights / a user that may only read is enough: docs/redis.md, Rights
GATEWAY_REDIS_URL、GATEWAY_REDIS_PREFIX 与网关相同；不需要 GATEWAY_KEY / as for the gateway; no GATEWAY_KEY is needed"""

_DOCTOR = """\
诊断集群：逐项给出结论、原因和下一步；0 = 没有 WARN 和 FAIL，1 = 有。只读。
Examines the cluster: a verdict, the cause and the next step for each; exits 0 without WARN and FAIL, else 1. Read-only.

示例 / examples:
  mcp-gateway doctor
  mcp-gateway doctor --json | jq '.findings[] | select(.level != "OK")'

有可疑之处时过几秒再看一次，只报告两次都在的 / what looks bad is looked at again seconds later; what stays is told.
没有权限看的记为“未知” UNKNOWN，用户见 docs/redis.md 的 Rights / without a right: UNKNOWN; docs/redis.md, Rights
GATEWAY_REDIS_URL、GATEWAY_REDIS_PREFIX 和各项上限与网关相同 / set them, and limits, as for the gateway"""

_DRAIN = """\
让一个工作进程逐个送走连接后结束，如同 SIGTERM；不丢调用（docs/reliability.md）。
Has a worker send its connections away one by one and end, as after SIGTERM; no call is lost (docs/reliability.md).

示例 / examples:
  mcp-gateway inspect workers
  mcp-gateway drain gw-1-c07d4e21            编号的开头即可，如果唯一 / the id, or its beginning if that is unique
  mcp-gateway drain gw-1 --wait              等到它离开 / until it has left
  mcp-gateway drain gw-1 --wait 300          最多 300 秒，否则退出码 1 / at most 300 s, else exits 1

GATEWAY_REDIS_URL 的用户须可发布，见 docs/redis.md 的 Rights / its user must have the right to publish"""

_KICK = """\
断开一个工具服务器的连接（关闭码 1012），它会重连，也许到另一个工作进程；正在执行的调用以“不知道是否已执行”结束。
Closes a tool server's connection (close code 1012); it redials, perhaps to another worker. Its running calls end with
"whether it ran is unknown".

示例 / examples:
  mcp-gateway inspect agent my-agent         有哪些 / which there are
  mcp-gateway kick my-agent lamp
  mcp-gateway kick my-agent lamp --reason '换新版本 / a new version'

事件 kick 记入事件日志 / the event log gets `kick`: mcp-gateway inspect events
GATEWAY_REDIS_URL 的用户须可发布，见 docs/redis.md 的 Rights / its user must have the right to publish"""


def add_to(commands: Any, common: argparse.ArgumentParser, form: dict[str, Any]) -> None:
    """Add `inspect`, `doctor`, `drain` and `kick`; each sets `operate` to its name."""
    options = {"parents": [common], **form}
    inspect = commands.add_parser("inspect", help="看集群里有什么（只读） / look at the cluster", **form)
    inspect.description = _INSPECT
    nouns = inspect.add_subparsers(metavar="WHAT", required=True, dest="noun")
    for noun, text in _NOUNS.items():
        _add_noun(nouns, noun, text, options)

    doctor = commands.add_parser("doctor", help="诊断集群 / what is wrong with the cluster?", **options)
    doctor.description = _DOCTOR
    doctor.add_argument("--json", action="store_true", help="给机器 / for machines")
    doctor.add_argument("--limit", type=count, default=500_000, metavar="N", help="最多看多少个键 / keys to look at")
    doctor.add_argument(
        "--settle", type=seconds, default=4.0, metavar="SECONDS", help="第二次看之前等多久 / until the second look (4)"
    )
    doctor.set_defaults(operate="doctor")

    drain = commands.add_parser("drain", help="让一个工作进程离开 / have a worker leave", **options)
    drain.description = _DRAIN
    drain.add_argument("worker", metavar="WORKER", help="编号或其开头 / its id, or the beginning of it")
    drain.add_argument(
        "--wait", nargs="?", type=seconds, const=0.0, metavar="SECONDS", help="等到它离开 / wait until it has left"
    )
    drain.set_defaults(operate="drain")

    kick = commands.add_parser("kick", help="断开一个工具服务器 / close a tool server's connection", **options)
    kick.description = _KICK
    kick.add_argument("agent", metavar="AGENT", help="智能体编号 / the agent's id")
    kick.add_argument("server", metavar="SERVER", help="工具服务器的 server_id / its server_id")
    kick.add_argument("--reason", default="", help="写进关闭帧和事件 / for the close frame and the event log")
    kick.add_argument(
        "--wait", type=seconds, default=10.0, metavar="SECONDS", help="等结果多久 / how long to wait for it (10)"
    )
    kick.set_defaults(operate="kick")


def _add_noun(nouns: Any, noun: str, text: str, options: dict[str, Any]) -> None:
    parser = nouns.add_parser(noun, help=text, **options)
    parser.description = f"{text}\n\n{_INSPECT}"
    if noun in _OF_ONE_AGENT:
        parser.add_argument("id", metavar="ID", help="智能体编号 / the agent's id")
    if noun in _BY_AGENT:
        parser.add_argument("--agent", default="", metavar="ID", help="只看这个智能体 / of this agent only")
    if noun != "agent":
        parser.add_argument("--limit", type=count, default=_LIMIT, metavar="N", help=f"最多几行 / lines ({_LIMIT})")
    parser.add_argument("--json", action="store_true", help="给机器；与 --watch 一起时每次一行 / for machines")
    parser.add_argument(
        "--watch",
        nargs="?",
        type=seconds,
        const=_WATCH_SECONDS,
        default=0.0,
        metavar="SECONDS",
        help="反复看，Ctrl-C 结束 / again and again, until Ctrl-C (2)",
    )
    parser.set_defaults(operate="inspect")


def count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1_000_000:
        raise ValueError
    return value
