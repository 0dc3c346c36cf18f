"""`mcp-gateway books export | import`: a copy of what people have decided, and back."""

import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import orjson

from gateway.bookkeeping import checked, opened
from gateway.operating import CannotOperate
from gateway.settings import Settings
from gateway.tables import as_json


async def run(settings: Settings, arguments: Namespace, write: Callable[[str], None]) -> int:
    """Return the exit code: 0, done. Raises CannotOperate."""
    if arguments.verb == "import":
        entries = _read(arguments.file)
        async with opened(settings) as books:
            count = await books.restore(entries)
        write(f"放回 / put back: {count}；其余已有同样或更新的 / the others are there already, or newer\n")
        return 0
    async with opened(settings) as books:
        text = as_json(await books.export())
    write(text)
    return 0


def _read(name: str) -> dict[str, dict[str, object]]:
    try:
        content = orjson.loads(sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes())
        checked(content)
    except (OSError, ValueError) as error:
        raise CannotOperate(f"读不出 / can't read {name}: {error}") from None
    found: dict[str, dict[str, object]] = content
    return found
