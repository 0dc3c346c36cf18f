"""`mcp-gateway token` as the command line knows it: verbs, options, help. What they do is elsewhere."""

import argparse
import re
from typing import Any

from gateway.credential import LIFETIME_DAYS_MAX

_DAYS = 365

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}

_TOKEN = """\
令牌和网址 / Tokens, and the URLs that people paste.

示例 / examples:
  mcp-gateway token --agent ID                       旧式令牌，两种角色，不过期 / legacy: both roles, no expiry
  mcp-gateway token --agent ID --role mcp            只给工具服务器和桥接 / for tool servers and bridges only
  mcp-gateway token --agent ID --role mcp --server-id lamp --expires 90d
                                                     只给一个工具服务器 / for one tool server
  mcp-gateway token --agent ID --role call           只给小智端 / for robots only
  mcp-gateway token inspect                          是谁的，还有效吗？从标准输入读 / whose, and is it good? reads stdin
  mcp-gateway token revoke --id TOKEN_ID             吊销一个 / revoke one
  mcp-gateway token revoke --agent ID                吊销一个智能体此前的全部令牌 / all of an agent's until now
  mcp-gateway token restore --agent ID               撤回吊销 / undo it
  mcp-gateway token revoked                          吊销了哪些 / what is revoked

签名令牌有角色、期限和编号；旧式令牌只能按智能体吊销。见 docs/tokens.md
Signed tokens have a role, an expiry and an id; legacy ones can be revoked per agent only. See docs/tokens.md
GATEWAY_KEY 的第一个签发，全部都可验证 / the first of GATEWAY_KEY signs, all verify"""

_INSPECT = """\
令牌是谁的、什么角色、何时过期、哪把密钥签的、是否有效、是否已吊销；0 = 有效，1 = 无效或已吊销。
Whose a token is, its role, expiry and key, whether it is good, whether it is revoked; exits 0 if it is good, else 1.

示例 / examples:
  mcp-gateway token inspect                  粘贴后回车，不显示 / paste it and press Enter; it is not shown
  mcp-gateway token inspect < token.txt
  mcp-gateway token inspect TOKEN            会留在 shell 历史里 / stays in the shell's history

也可以是整个网址 / a whole URL will do. GATEWAY_KEY 与网关相同 / GATEWAY_KEY as for the gateway"""

_REVOKE = """\
吊销令牌：两秒内在所有工作进程上生效，已连接的也会断开（1008）。
Revokes tokens: on every worker within two seconds, those that are connected included (1008).

示例 / examples:
  mcp-gateway token revoke --id 7k2mq0v4x9c1zr8d5hbn --reason 'on a forum'
  mcp-gateway token revoke --token           从标准输入读令牌 / reads the token from stdin
  mcp-gateway token revoke --agent ID        此前签发的全部，旧式的一直拒绝 / all so far; legacy ones for good

用 Redis 时设置 GATEWAY_REDIS_URL；否则在网关的目录里运行 / with Redis set it; else run it where the gateway runs"""

_RESTORE = """\
撤回吊销：那些令牌又有效，包括泄露的。
Undoes a revocation: those tokens are good again, leaked ones included.

示例 / examples:
  mcp-gateway token restore --id 7k2mq0v4x9c1zr8d5hbn
  mcp-gateway token restore --agent ID       旧式令牌又可用 / legacy tokens work again

GATEWAY_REDIS_URL、GATEWAY_DATA_DIR 与网关相同 / as for the gateway"""

_REVOKED = """\
现在吊销了哪些 / What is revoked now.

示例 / examples:
  mcp-gateway token revoked
  mcp-gateway token revoked --json

GATEWAY_REDIS_URL、GATEWAY_DATA_DIR 与网关相同 / as for the gateway"""


def add_to(commands: Any, common: argparse.ArgumentParser, form: dict[str, Any]) -> argparse.ArgumentParser:
    """Add `token` with its verbs, and return its parser; each verb but `issue` sets `operate`."""
    token = commands.add_parser("token", parents=[common], help="令牌和网址 / tokens, and the URLs to paste", **form)
    token.description = _TOKEN
    _add_issue(token, is_required=False)
    verbs = token.add_subparsers(metavar="VERB", dest="verb")
    options = {"parents": [_quiet(common)], **form}

    issue = verbs.add_parser("issue", help="签发（默认） / make one (the default)", **options)
    issue.description = _TOKEN
    _add_issue(issue, is_required=True)

    inspect = verbs.add_parser("inspect", help="看一个令牌 / look at a token", **options)
    inspect.description = _INSPECT
    inspect.add_argument(
        "token", nargs="?", default="-", metavar="TOKEN", help="- 或省略：从标准输入读 / -, or nothing: from stdin"
    )
    inspect.add_argument("--json", action="store_true", help="给机器 / for machines")
    inspect.set_defaults(operate="token", needs_key=True)

    revoke = verbs.add_parser("revoke", help="吊销 / revoke", **options)
    revoke.description = _REVOKE
    which = _add_which(revoke)
    which.add_argument(
        "--token",
        nargs="?",
        const="-",
        metavar="TOKEN",
        help="令牌；没有值：从标准输入读 / a token; from stdin if empty",
    )
    revoke.add_argument("--reason", default="", type=_reason, help="为什么，给后来的人 / why, for those who come later")
    revoke.set_defaults(operate="token")

    restore = verbs.add_parser("restore", help="撤回吊销 / undo a revocation", **options)
    restore.description = _RESTORE
    _add_which(restore)
    restore.set_defaults(operate="token")

    revoked = verbs.add_parser("revoked", help="吊销了哪些 / what is revoked", **options)
    revoked.description = _REVOKED
    revoked.add_argument("--limit", type=_count, default=100, metavar="N", help="最多几行 / lines (100)")
    revoked.add_argument("--json", action="store_true", help="给机器 / for machines")
    revoked.set_defaults(operate="token")
    return token  # type: ignore[no-any-return]  # argparse's own class is not public


def lifetime_ms(text: str) -> int:
    """A length of time: `90d`, `12h`, `1y`. Raises ValueError for what is none, or longer than ten years."""
    found = re.fullmatch(r"(\d{1,9})([smhdwy])", text.strip())
    seconds = int(found[1]) * _SECONDS[found[2]] if found else 0
    if not 0 < seconds <= LIFETIME_DAYS_MAX * 86_400:
        raise ValueError
    return seconds * 1000


def _add_issue(parser: argparse.ArgumentParser, *, is_required: bool) -> None:
    parser.add_argument("--agent", required=is_required, metavar="ID", help="智能体编号 / the agent's id")
    parser.add_argument(
        "--role",
        choices=("mcp", "call"),
        help="签名令牌：mcp = 工具服务器，call = 小智端 / a signed token, for tool servers or robots",
    )
    parser.add_argument("--server-id", metavar="NAME", help="只用于这个工具服务器 / for this tool server only")
    parser.add_argument(
        "--expires", type=lifetime_ms, metavar="TIME", help=f"多久后过期：90d、12h / good for so long ({_DAYS}d)"
    )
    parser.add_argument("--json", action="store_true", help="给机器 / for machines")
    parser.set_defaults(default_ms=_DAYS * 86_400_000)


def _add_which(parser: argparse.ArgumentParser) -> Any:
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--id", default="", metavar="TOKEN_ID", help="令牌编号 / a token's id")
    which.add_argument("--agent", default="", metavar="ID", help="智能体编号 / an agent's id")
    return which


def _quiet(common: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The common options without their defaults: those of a verb would undo what was given before it."""
    quiet = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    for action in common._actions:
        quiet.add_argument(*action.option_strings, dest=action.dest, type=action.type or str, help=action.help)
    return quiet


def _reason(text: str) -> str:
    if len(text) > 200 or not text.isprintable():
        raise ValueError
    return text


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number
