"""`mcp-gateway pins` as the command line knows it: verbs, arguments, help. What they do is in `pin_command`."""

import argparse
from typing import Any

_PINS = """\
工具的定义在第一次见到时记住；之后变了的、新出现的，在这里查看和批准。
Tools' definitions are pinned when first seen. What has changed since, or is new, is looked at and approved here.

示例 / examples:
  mcp-gateway policy set my-agent pins=block   变了的不列出，直到批准 / what changes is not listed until approved
  mcp-gateway pins show my-agent             哪些变了，变了什么 / which have changed, and what of them
  mcp-gateway pins approve my-agent lamp on off
                                             只批准这些工具 / these tools only
  mcp-gateway pins approve my-agent lamp --offer 3f9a0c11d2e4
                                             只批准看过的那一份 / only what you have looked at
  mcp-gateway pins forget my-agent lamp      下一份列表当作第一份 / its next list counts as its first

两秒内在所有工作进程上生效；见 docs/pins.md / in force on every worker within two seconds; docs/pins.md
GATEWAY_REDIS_URL、GATEWAY_DATA_DIR 与网关相同 / GATEWAY_REDIS_URL and GATEWAY_DATA_DIR as for the gateway"""

_VERBS = {
    "show": "看一个智能体的 / look at an agent's",
    "approve": "批准提供的定义 / take what is offered for good",
    "forget": "忘掉一个工具服务器的 / forget a tool server's",
}


def add_to(commands: Any, common: argparse.ArgumentParser, form: dict[str, Any]) -> None:
    """Add `pins` with its verbs; each sets `operate` to `pins`."""
    pins = commands.add_parser("pins", help="工具的定义变了吗 / have tools' definitions changed?", **form)
    pins.description = _PINS
    verbs = pins.add_subparsers(metavar="VERB", required=True, dest="verb")
    for verb, text in _VERBS.items():
        parser = verbs.add_parser(verb, help=text, parents=[common], **form)
        parser.description = f"{text}\n\n{_PINS}"
        parser.add_argument("agent", metavar="AGENT", help="智能体编号 / the agent's id")
        only = {"nargs": "?", "default": ""} if verb == "show" else {}
        parser.add_argument("server", metavar="SERVER", help="工具服务器的 server_id / the tool server's id", **only)
        if verb == "approve":
            parser.add_argument("tools", nargs="*", metavar="TOOL", help="只这些 / only these (all that is offered)")
            parser.add_argument("--offer", default="", metavar="ID", help="只当提供的正是它 / only if this is offered")
        parser.add_argument("--json", action="store_true", help="给机器 / for machines")
        parser.set_defaults(operate="pins")
