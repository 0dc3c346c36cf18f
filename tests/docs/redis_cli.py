"""`redis-cli` as the recipes of docs/redis.md use it: the command line is read, and the reply is written, as there."""

import asyncio
import re
import shlex
from collections.abc import Awaitable, Callable
from typing import Any

import redis

Provoke = Callable[[], Awaitable[None]]


def split(line: str) -> tuple[list[str], bool]:
    """The command's words, and whether the reply is wanted raw."""
    program, *words = shlex.split(line)
    assert program == "redis-cli", line
    is_raw = words[0] == "--raw"
    return words[is_raw:], is_raw


def client(port: int, **options: str) -> redis.Redis:
    """A client that hands out replies as they come over the wire."""
    made = redis.Redis(host="127.0.0.1", port=port, protocol=2, **options)  # type: ignore[arg-type]
    made.response_callbacks.clear()
    return made


def execute(connection: redis.Redis, *words: str) -> Any:
    """The reply to one command."""
    return connection.execute_command(*words)  # type: ignore[no-untyped-call]


def run(connection: redis.Redis, line: str) -> str:
    """What `redis-cli` would print."""
    words, is_raw = split(line)
    reply = execute(connection, *words)
    return raw(reply) if is_raw else formatted(reply)


async def listen(connection: redis.Redis, line: str, provoke: Provoke) -> str:
    """What `redis-cli SUBSCRIBE …` would print until the first message, which `provoke` causes."""
    (verb, channel), _ = split(line)
    assert verb == "SUBSCRIBE"
    with connection.pubsub() as subscription:  # type: ignore[no-untyped-call]
        subscription.subscribe(channel)
        said = [subscription.get_message(timeout=5)]
        await provoke()
        said.append(await asyncio.to_thread(subscription.get_message, timeout=5))
    replies = [[one[part] for part in ("type", "channel", "data")] for one in said if one is not None]
    return "\n".join(
        formatted([word.encode() if isinstance(word, str) else word for word in reply]) for reply in replies
    )


def raw(reply: Any) -> str:
    if isinstance(reply, list):
        return "\n".join(map(raw, reply))
    return reply.decode() if isinstance(reply, bytes) else str(reply)


def formatted(reply: Any, indentation: str = "") -> str:
    """Lists numbered, with the numbers of one list in one column; texts in quotes."""
    match reply:
        case []:
            return "(empty array)"
        case list():
            width = len(str(len(reply)))
            lines: list[str] = []
            for number, entry in enumerate(reply, 1):
                head = f"{number:>{width}}) "
                inner = formatted(entry, indentation + " " * len(head))
                lines.append((indentation if lines else "") + head + inner)
            return "\n".join(lines)
        case bytes() if b"\n" in reply or reply == b"OK":
            return reply.decode().rstrip()  # a text of many lines, or a status
        case bytes():
            return '"' + reply.decode().replace("\\", "\\\\").replace('"', '\\"') + '"'
        case int():
            return f"(integer) {reply}"
        case None:
            return "(nil)"
    raise AssertionError(f"a reply of an unknown kind: {reply!r}")


def matches(told: str, real: str) -> bool:
    """Whether an output has the documented shape: numbers of two digits or more may differ, and so may `…`.

    The order of lines doesn't count, and neither do the numbers that `redis-cli` puts in front of them. A line that
    is nothing but `…` stands for any more lines.
    """
    told_lines, real_lines = _lines(told), _lines(real)
    is_excerpt = "…" in told_lines
    for line in [line for line in told_lines if line != "…"]:
        pattern = re.compile(".*".join(map(re.escape, line.split("…"))))
        found = next((other for other in real_lines if pattern.fullmatch(other)), None)
        if found is None:
            return False
        real_lines.remove(found)
    return is_excerpt or not real_lines


def _lines(text: str) -> list[str]:
    bare = (re.sub(r"^( *\d+\))+ ?", "", line) for line in text.splitlines())
    return [re.sub(r"\d{2,}", "#", line) for line in bare]
