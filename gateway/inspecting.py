"""`mcp-gateway inspect`: looks once, or again and again, and writes what it saw."""

import asyncio
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass

import orjson

from gateway.ages import iso
from gateway.backplane.base import BackplaneUnavailable
from gateway.backplane.redis.window import Window
from gateway.inspection import look
from gateway.look import Look, Wish
from gateway.operating import CannotOperate, window_into
from gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class Terminal:
    """Where answers and troubles go."""

    write: Callable[[str], None]
    warn: Callable[[str], None]


_CLEAR = "\x1b[H\x1b[2J"


async def inspect(settings: Settings, wish: Wish, terminal: Terminal, *, as_json: bool, watch_seconds: float) -> None:
    """Write what is seen; with `watch_seconds` again after each of that many seconds, until cancelled.

    Raises CannotOperate. While watching, a Redis that is away or was emptied is said, and waited for.
    """
    write, warn = terminal.write, terminal.warn
    async with window_into(settings) as window:
        seen = await _look(window, wish)
        if not watch_seconds:
            write(_json(seen, orjson.OPT_INDENT_2) if as_json else seen.as_text(width()))
            return
        while not _is_cancelled():
            write(_json(seen) if as_json else _screen(seen.as_text(width())))
            seen = await _next(window, wish, watch_seconds, warn)
        raise asyncio.CancelledError


async def _next(window: Window, wish: Wish, pause_seconds: float, warn: Callable[[str], None]) -> Look:
    while True:
        await asyncio.sleep(pause_seconds)
        try:
            if not window.reader.members:
                await window.reader.connect()
            return await _look(window, wish)
        except BackplaneUnavailable as error:
            await window.reader.close()
            warn(f"! {error}\n")
        except CannotOperate as error:  # emptied, perhaps: workers put back what they have
            warn(f"! {error}\n")


def _is_cancelled() -> bool:
    """Whether somebody has pressed Ctrl-C.

    `asyncio.wait_for`, through which redis-py writes, may lose that before Python 3.12 (python/cpython#86296).
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _look(window: Window, wish: Wish) -> Look:
    seen = await look(window, wish)
    if seen is None:
        agent = wish.id or wish.agent
        raise CannotOperate(
            f"不认识智能体 {agent}：从未连接，或已过期。已知的见 mcp-gateway inspect agents / "
            f"agent {agent} is not known: it was never here, or so long ago that it was forgotten. "
            "mcp-gateway inspect agents lists those that are"
        )
    return seen


def width() -> int:
    """The terminal's, as COLUMNS or the terminal itself tells it; 0 for a file or a pipe."""
    return shutil.get_terminal_size(fallback=(0, 0)).columns


def _screen(text: str) -> str:
    return f"{_CLEAR}{text}" if sys.stdout.isatty() else f"{text}\n"


def _json(seen: Look, option: int = 0) -> str:
    return orjson.dumps({"time": iso(seen.now_ms), **seen.data}, option=option).decode() + "\n"
