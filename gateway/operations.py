"""Runs a command for operators to its end: from parsed arguments to what is written and the exit code.

Each imports what it needs itself: people wait for it, and half a second of imports is most of what they would wait.
"""

import asyncio
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Awaitable, Callable, Mapping

from gateway.inspecting import Terminal
from gateway.settings import Settings

INTERRUPTED = 128 + signal.SIGINT
"""As shells have it."""
_AGENT_LIMIT = 1000


def run(settings: Settings, arguments: Namespace, terminal: Terminal) -> int:
    """Return the exit code: 0 done, 1 it is not as it should be, 130 interrupted. Raises CannotOperate.

    Ctrl-C ends it quietly; only what would go on for ever is done then.
    """
    try:
        return asyncio.run(_run(settings, arguments, terminal))
    except KeyboardInterrupt:
        return 0 if getattr(arguments, "watch", 0) else INTERRUPTED
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0 if arguments.operate == "inspect" else 1


async def _run(settings: Settings, arguments: Namespace, terminal: Terminal) -> int:
    return await _COMMANDS[arguments.operate](settings, arguments, terminal)


async def _inspect(settings: Settings, arguments: Namespace, terminal: Terminal) -> int:
    from gateway.inspecting import inspect
    from gateway.look import Wish

    wish = Wish(
        noun=arguments.noun,
        id=getattr(arguments, "id", ""),
        agent=getattr(arguments, "agent", ""),
        limit=getattr(arguments, "limit", _AGENT_LIMIT),
        grace_seconds=settings.grace_seconds,
        pins=settings.pins,
    )
    await inspect(settings, wish, terminal, as_json=arguments.json, watch_seconds=arguments.watch)
    return 0


async def _doctor(settings: Settings, arguments: Namespace, terminal: Terminal) -> int:
    from gateway import finding
    from gateway.doctor import diagnose
    from gateway.tables import as_json

    findings = await diagnose(settings, settle_seconds=arguments.settle, keys_max=arguments.limit)
    is_well = finding.is_well(findings)
    if arguments.json:
        data = {"ok": is_well, "findings": finding.as_data(findings)}
        terminal.write(as_json(data))
    else:
        verdict = "一切正常 / all is well" if is_well else "需要处理，见上 / see WARN and FAIL above"
        terminal.write("\n".join([*finding.as_lines(findings), verdict]) + "\n")
    return 0 if is_well else 1


async def _drain(settings: Settings, arguments: Namespace, terminal: Terminal) -> int:
    from gateway.orders import drain

    is_done = await drain(settings, arguments.worker, _sayer(terminal), arguments.wait)
    return 0 if is_done else 1


async def _kick(settings: Settings, arguments: Namespace, terminal: Terminal) -> int:
    from gateway.orders import kick

    wish = arguments.agent, arguments.server
    is_done = await kick(settings, *wish, _sayer(terminal), arguments.wait, arguments.reason)
    return 0 if is_done else 1


async def _token(settings: Settings, arguments: Namespace, terminal: Terminal) -> int:
    from gateway import token_command

    return await token_command.run(settings, arguments, terminal.write, terminal.warn)


async def _policy(settings: Settings, arguments: Namespace, terminal: Terminal) -> int:
    from gateway import policy_command

    return await policy_command.run(settings, arguments, terminal.write)


async def _pins(settings: Settings, arguments: Namespace, terminal: Terminal) -> int:
    from gateway import pin_command

    return await pin_command.run(settings, arguments, terminal.write)


async def _books(settings: Settings, arguments: Namespace, terminal: Terminal) -> int:
    from gateway import books_command

    return await books_command.run(settings, arguments, terminal.write)


def _sayer(terminal: Terminal) -> Callable[[str], None]:
    return lambda line: terminal.write(f"{line}\n")


_COMMANDS: Mapping[str, Callable[[Settings, Namespace, Terminal], Awaitable[int]]] = {
    "inspect": _inspect,
    "doctor": _doctor,
    "drain": _drain,
    "kick": _kick,
    "token": _token,
    "policy": _policy,
    "books": _books,
    "pins": _pins,
}
