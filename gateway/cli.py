"""The command `mcp-gateway`: serve, make tokens, check the installation; what is for operators is in `commands`.

Nothing that takes long to import is imported before the command is known: `--help` and `token` answer at once.
"""

import argparse
import dataclasses
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gateway import __version__, books_options, pin_options, policy_options, token_options
from gateway import commands as operators
from gateway.settings import Settings, env_name, specs

_DESCRIPTION = """\
小智 MCP 网关：工具服务器和小智端拨入，调用找到去路。
The MCP gateway of the xiaozhi world: tool servers and robots dial in, calls find their way."""

_EXAMPLES = """\
示例 / examples:
  mcp-gateway serve                          启动，端口 8004 / start on port 8004, no Redis needed
  mcp-gateway serve --port 9000              换端口 / another port
  mcp-gateway serve --workers 4 --redis-url redis://127.0.0.1:6379
                                             四个进程，经 Redis 协作 / four processes that share a Redis
  mcp-gateway token --agent single_module    令牌和网址 / a token, and the URLs to paste
  mcp-gateway token revoke --agent my-agent  令牌泄露了 / a token has leaked
  mcp-gateway policy set my-agent tools.deny='delete_*'
                                             禁用工具 / forbid tools
  mcp-gateway pins show my-agent             工具的定义变了吗 / have tools' definitions changed?
  mcp-gateway check                          检查配置和 Redis / is everything as it must be?
  mcp-gateway inspect workers                看集群里有什么 / look at the cluster, through Redis
  mcp-gateway inspect agent single_module    为什么工具端未连接 / why is there no tool server?
  mcp-gateway doctor                         诊断集群 / what is wrong with the cluster, and what to do
  mcp-gateway drain gw-1 --wait              让一个工作进程离开 / have a worker leave in peace
  mcp-gateway kick single_module lamp        断开一个工具服务器 / close a tool server's connection

设置 / settings: GATEWAY_* 环境变量或 .env，见 .env.example
                 GATEWAY_* in the environment or in .env, all of them are in .env.example"""

_NO_KEY = "0" * 32
_CANNOT_START = 2  # as for a command line that can't be understood
_INTERRUPTED = 130  # as shells have it

_log = logging.getLogger("gateway.cli")


class _CannotStart(Exception):
    """The text says why, for people."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0 done, 1 a check failed, 2 it can't be done as asked, 130 Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without Chinese must not stop the start
    arguments = _parser().parse_args(argv)
    if getattr(arguments, "json", False) and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8")  # JSON is that everywhere; a `?` in a name would be another name
    run: Callable[[argparse.Namespace], int] = getattr(arguments, "run", _operate)
    try:
        return run(arguments)
    except _CannotStart as error:
        sys.stderr.write(f"{str(error).rstrip()}\n")
        return _CANNOT_START
    except KeyboardInterrupt:  # while what the command needs is being imported
        return _INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    form: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser("mcp-gateway", description=_DESCRIPTION, epilog=_EXAMPLES, **form)
    parser.add_argument("--version", action="version", version=f"mcp-gateway {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--env-file", type=Path, help="代替 .env 的文件 / read this file instead of ./.env")
    common.add_argument("--redis-url", help="GATEWAY_REDIS_URL；会出现在进程列表里 / (visible in the process list)")

    serve = commands.add_parser("serve", parents=[common], help="启动网关 / start the gateway", **form)
    serve.description = "启动网关，直到 Ctrl-C 或 SIGTERM / Serve until Ctrl-C or SIGTERM."
    serve.epilog = _EXAMPLES
    serve.add_argument("--host", help="GATEWAY_HOST，监听地址 / address to listen on (0.0.0.0)")
    serve.add_argument("--port", help="GATEWAY_PORT，端口 / port (8004; 0 takes a free one)")
    serve.add_argument("--workers", help="GATEWAY_WORKERS，进程数 / processes (1; more need Redis)")
    serve.set_defaults(run=_serve)

    token = token_options.add_to(commands, common, form)
    token.set_defaults(run=_token, parser=token)

    check = commands.add_parser("check", parents=[common], help="检查配置和 Redis / check the installation", **form)
    check.description = (
        "检查配置和 Redis；0 = 可以启动，1 = 不能 / Check settings and Redis; exits 0 if usable, else 1."
    )
    check.add_argument("--json", action="store_true", help="给机器 / for machines")
    check.set_defaults(run=_check)

    operators.add_to(commands, common, form)
    policy_options.add_to(commands, common, form)
    pin_options.add_to(commands, common, form)
    books_options.add_to(commands, common, form)
    return parser


def _serve(arguments: argparse.Namespace) -> int:
    from gateway import logs, tracing
    from gateway.listening import ListenError, listen, reserve

    settings, warnings = _load(arguments)
    logs.set_up(settings.log_level, settings.log_format)
    for warning in warnings:
        _log.warning(warning, extra={"event": "settings_doubtful"})
    settings = _with_key(settings)
    try:
        tracing.require(settings)
    except tracing.TracingUnavailable as error:
        raise _CannotStart(str(error)) from None
    open_socket = listen if settings.workers == 1 else reserve
    try:
        opened = open_socket(settings.host, settings.port)
    except ListenError as error:
        raise _CannotStart(str(error)) from None
    settings = dataclasses.replace(settings, port=opened.getsockname()[1])
    if settings.workers > 1:
        from gateway import supervisor
        from gateway.banner import show

        show(settings)
        with opened:  # it keeps the port while workers come and go
            return supervisor.run(settings, os.environ)
    from gateway import app

    return app.run(settings, [opened], banner=True)


def _token(arguments: argparse.Namespace) -> int:
    if getattr(arguments, "operate", ""):
        return _operate(arguments)
    if arguments.agent is None:
        arguments.parser.error("the following arguments are required: --agent")
    from gateway import issuing

    settings, warnings = _load(arguments)
    settings = _with_key(settings)
    try:
        answer = issuing.issue(settings, arguments)
    except ValueError as error:
        raise _CannotStart(str(error)) from None
    for warning in dict.fromkeys([*warnings, *issuing.warnings(settings, answer)]):
        sys.stderr.write(f"! {warning}\n")
    if arguments.json:
        _write_json(answer)
    else:
        sys.stdout.write(issuing.as_text(answer))
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from gateway import check
    from gateway.configuration import SettingsError

    try:
        findings = check.examine(*_loaded(arguments))
    except SettingsError as error:
        findings = check.failed(error.problems, error.warnings)
    if arguments.json:
        _write_json(check.as_json(findings))
    else:
        sys.stdout.write(check.as_text(findings))
    return 0 if check.is_usable(findings) else 1


def _operate(arguments: argparse.Namespace) -> int:
    from gateway import operations
    from gateway.inspecting import Terminal
    from gateway.operating import CannotOperate

    # With Redis a key is demanded of who serves; who only looks needs none, and need not be told it.
    needs_key = getattr(arguments, "needs_key", False) or bool(getattr(arguments, "token", ""))
    settings, warnings = _load(arguments) if needs_key else _load(arguments, GATEWAY_KEY=_NO_KEY)
    settings = _with_kept_key(settings) if needs_key else settings
    for warning in warnings:
        sys.stderr.write(f"! {warning}\n")
    try:
        return operations.run(settings, arguments, Terminal(_write, _warn))
    except CannotOperate as error:
        raise _CannotStart(str(error)) from None


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _warn(text: str) -> None:
    sys.stderr.write(text)


def _load(arguments: argparse.Namespace, **over: str) -> tuple[Settings, list[str]]:
    from gateway.configuration import SettingsError

    try:
        return _loaded(arguments, **over)
    except SettingsError as error:
        raise _CannotStart(str(error)) from None


def _loaded(arguments: argparse.Namespace, **over: str) -> tuple[Settings, list[str]]:
    from gateway.configuration import load

    cwd = Path.cwd()
    flags = {env_name(name): value for name, value in vars(arguments).items() if name in specs() and value is not None}
    env_file: Path | None = arguments.env_file
    if env_file is None and (cwd / ".env").is_file():
        env_file = cwd / ".env"
    return load(dict(os.environ) | flags | over, dotenv=env_file, cwd=cwd)


def _with_key(settings: Settings) -> Settings:
    from gateway import keyfile

    if settings.key:
        return settings
    directory = Path(settings.data_dir)
    try:
        key, is_new = keyfile.read_or_create(directory)
    except keyfile.KeyFileError as error:
        raise _CannotStart(str(error)) from None
    if is_new:
        sys.stderr.write(f"已生成密钥，保存在 {directory} / a key was generated and is kept in {directory}\n")
    return dataclasses.replace(settings, key=(key,))


def _with_kept_key(settings: Settings) -> Settings:
    """As `_with_key`, for who looks at what was made with the key: none is made for that."""
    from gateway import keyfile

    try:
        key = settings.key[0] if settings.key else keyfile.read(Path(settings.data_dir))
    except keyfile.KeyFileError as error:
        raise _CannotStart(str(error)) from None
    if not key:
        raise _CannotStart(
            f"没有密钥：{settings.data_dir} 里没有，GATEWAY_KEY 也没有设置。请在网关的目录里运行，或设置 GATEWAY_KEY / "
            f"there is no key in {settings.data_dir}, and GATEWAY_KEY is not set: run this where the gateway runs"
        )
    return settings if settings.key else dataclasses.replace(settings, key=(key,))


def _write_json(value: dict[str, Any]) -> None:
    from gateway.tables import as_json

    sys.stdout.write(as_json(value))


if __name__ == "__main__":
    sys.exit(main())
