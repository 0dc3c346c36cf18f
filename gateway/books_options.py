"""`mcp-gateway books` as the command line knows it: verbs, options, help. What they do is elsewhere."""

import argparse
from typing import Any

_BOOKS = """\
备份和恢复人们的决定：策略（policy）和吊销（revoked）。其中没有密钥和令牌。
Backs up and restores what people have decided: policies and revocations. There is no key and no token in it.

示例 / examples:
  mcp-gateway books export > books.json
  mcp-gateway books import books.json        已有更新的条目不会被覆盖 / what is newer where it is put stays
  mcp-gateway books import - < books.json

两秒内在所有工作进程上生效 / in force on every worker within two seconds
用 Redis 时设置 GATEWAY_REDIS_URL；否则在网关的目录里运行 / with Redis set it; else run it where the gateway runs"""

_VERBS = {
    "export": "写到标准输出 / write them to standard output",
    "import": "放回去 / put them back",
}


def add_to(commands: Any, common: argparse.ArgumentParser, form: dict[str, Any]) -> None:
    """Add `books`; its verbs set `operate`."""
    books = commands.add_parser("books", help="备份、恢复策略和吊销 / back up policies and revocations", **form)
    books.description = _BOOKS
    verbs = books.add_subparsers(metavar="VERB", required=True, dest="verb")
    for verb, text in _VERBS.items():
        parser = verbs.add_parser(verb, help=text, parents=[common], **form)
        parser.description = f"{text}\n\n{_BOOKS}"
        if verb == "import":
            parser.add_argument("file", metavar="FILE", help="export 写的；- = 标准输入 / what export wrote; -: stdin")
        parser.set_defaults(operate="books")
