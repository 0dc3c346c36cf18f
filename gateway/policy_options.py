"""`mcp-gateway policy` as the command line knows it: verbs, options, help. What they do is elsewhere."""

import argparse
from typing import Any

_POLICY = """\
一个智能体可以用哪些工具服务器和工具，多久，多大：两秒内在所有工作进程上生效。
What an agent may use of tool servers and tools, for how long and how much of it: everywhere within two seconds.

示例 / examples:
  mcp-gateway policy set my-agent tools.deny='delete_*,lamp/*'
                                             不列出，也不能调用 / neither listed nor called
  mcp-gateway policy set my-agent servers.allow=lamp,calc
                                             只用这些工具服务器 / only these tool servers
  mcp-gateway policy set --default timeouts.'calc/*'=5 result_bytes.'*'=64KiB
                                             所有智能体 / for every agent that doesn't say otherwise
  mcp-gateway policy set my-agent tools.deny=
                                             取消这一项 / takes this field back
  mcp-gateway policy test my-agent lamp/off  允许吗？哪条规则？ / allowed? by which rule?
  mcp-gateway policy show my-agent           它自己的，以及生效的 / its own, and what is in force
  mcp-gateway policy show my-agent --json > home.json; mcp-gateway policy apply my-agent home.json
  mcp-gateway policy reset my-agent          什么都不限制 / as if there had never been one

见 docs/policy.md / see docs/policy.md
用 Redis 时设置 GATEWAY_REDIS_URL；否则在网关的目录里运行 / with Redis set it; else run it where the gateway runs"""

_SET = """\
改几项，其余不变；两个人同时改，都算数。
Changes some fields and leaves the others; of two people who do so at once nobody's change is lost.

  servers.allow servers.deny tools.allow tools.deny    通配符，逗号分隔 / globs, comma-separated
  timeouts.GLOB=SECONDS  result_bytes.GLOB=SIZE        对匹配的工具 / for the tools that match
  duplicates=prefix|hide|prefix_all                    重名的工具 / tools of one name
  pins=off|warn|block  legacy_tokens=all|mcp|call|none 代替设置 / in place of the settings
  limits.NAME=NUMBER                                   代替设置：calls_per_second … / in place of the settings

  KEY=VALUE 设 / sets     KEY= 取消 / takes back     KEY+=VALUE KEY-=VALUE 列表中加、减 / adds to, takes off a list

示例 / examples:
  mcp-gateway policy set my-agent tools.deny+=off servers.deny=
  mcp-gateway policy set my-agent tools.allow='[]'   什么都不允许 / allows nothing
  mcp-gateway policy set my-agent limits.calls_per_second=20 timeouts.'slow_*'=120

GATEWAY_REDIS_URL、GATEWAY_DATA_DIR 与网关相同 / as for the gateway"""

_APPLY = """\
整个换掉。文件是 policy show --json 写的（别人此后改过则拒绝），或只有策略本身的 JSON。
Puts a whole policy in place of the old one. The file is what `policy show --json` wrote (refused if somebody has
changed it since), or the policy alone, as JSON.

示例 / examples:
  mcp-gateway policy apply my-agent home.json
  echo '{"tools":{"deny":["off"]}}' | mcp-gateway policy apply my-agent -

GATEWAY_REDIS_URL、GATEWAY_DATA_DIR 与网关相同 / as for the gateway"""

_TEST = """\
这个工具允许吗，哪条规则决定，多久，多大；0 = 允许，1 = 不允许。
Is the tool allowed, which rule says so, how long and how much may it take; exits 0 if it is allowed, else 1.

示例 / examples:
  mcp-gateway policy test my-agent lamp/off   工具服务器/工具 / tool server and tool
  mcp-gateway policy test my-agent off        不看工具服务器的规则 / rules on tool servers are left out

GATEWAY_REDIS_URL、GATEWAY_DATA_DIR 与网关相同 / as for the gateway"""

_VERBS = {
    "list": ("谁有策略 / who has one", _POLICY),
    "show": ("看一个 / look at one", _POLICY),
    "set": ("改几项 / change some fields", _SET),
    "apply": ("整个换掉 / put a whole one in place", _APPLY),
    "reset": ("取消 / take it back", _POLICY),
    "test": ("允许这个工具吗？ / is this tool allowed?", _TEST),
}
_WORDS: dict[str, tuple[tuple[str, ...], str]] = {
    "list": ((), ""),
    "show": (("AGENT",), "智能体编号 / the agent's id"),
    "set": (("AGENT", "KEY=VALUE"), "智能体编号，然后各项 / the agent's id, then fields"),
    "apply": (("AGENT", "FILE"), "智能体编号，然后文件，- 是标准输入 / the agent's id, then a file; - is stdin"),
    "reset": (("AGENT",), "智能体编号 / the agent's id"),
    "test": (("AGENT", "TOOL"), "智能体编号，然后工具 / the agent's id, then a tool"),
}


def add_to(commands: Any, common: argparse.ArgumentParser, form: dict[str, Any]) -> None:
    """Add `policy` with its verbs; each sets `operate` to `policy`."""
    policy = commands.add_parser("policy", help="一个智能体可以用什么 / what an agent may use", **form)
    policy.description = _POLICY
    verbs = policy.add_subparsers(metavar="VERB", required=True, dest="verb")
    for verb, (text, description) in _VERBS.items():
        parser = verbs.add_parser(verb, help=text, parents=[common], **form)
        parser.description = description
        names, words = _WORDS[verb]
        if names:
            parser.add_argument("words", nargs="*", metavar=names[0], help=words)
            parser.usage = _usage(verb, names)
            parser.add_argument(
                "--default",
                action="store_true",
                help="代替 AGENT：所有智能体的默认策略 / in place of AGENT: everybody's",
            )
        parser.add_argument("--json", action="store_true", help="给机器 / for machines")
        parser.set_defaults(operate="policy", parser=parser, names=names)


def _usage(verb: str, names: tuple[str, ...]) -> str:
    rest = "".join(f" {name} [{name} ...]" if "=" in name else f" {name}" for name in names[1:])
    options = "[-h] [--json] [--env-file ENV_FILE] [--redis-url REDIS_URL]"
    return f"mcp-gateway policy {verb} {options} (AGENT | --default){rest}"


def agent_and_rest(parsed: argparse.Namespace, default: str) -> tuple[str, list[str]]:
    """The name that the words are about, and the words behind it; ends with the usage where some are missing."""
    words = [default, *parsed.words] if parsed.default else list(parsed.words)
    wanted = len(parsed.names)
    is_many = parsed.names[-1] == "KEY=VALUE"
    if len(words) < wanted or (len(words) > wanted and not is_many):
        parsed.parser.error(f"要 / it takes: {' '.join(parsed.names)}")
    return words[0], words[1:]
