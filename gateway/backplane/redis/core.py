"""What the parts of the Redis backplane share: the link, the keys, and the time as Redis has it."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.backplane.keys import Keys, Lifetimes
from gateway.backplane.redis.commands import Command, CommandLink
from gateway.backplane.redis.outbox import Outbox
from gateway.backplane.redis.subscriber import Subscriptions
from gateway.backplane.seal import Seal
from gateway.pace import sliced

_EXACT_MAX = 2.0**53
_REVISION_DIGITS_MAX = 15  # commit.lua has it too
SLICE = 512
"""How many commands are sent before their replies are awaited, where there may be very many."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What a backplane is made of."""

    worker_id: str
    link: CommandLink
    outbox: Outbox
    subscriber: Subscriptions
    keys: Keys
    lifetimes: Lifetimes
    publish: str = "PUBLISH"
    seen_limit: int = 128
    seal: Seal | None = None
    """Signs and opens what workers say; None: nothing is signed."""
    monotonic: Callable[[], float] = time.monotonic


class Core:
    """The base of the parts."""

    def __init__(self, tools: Tools) -> None:
        self.worker_id = tools.worker_id
        self._tools = tools
        self._link, self._outbox, self._subscriber = tools.link, tools.outbox, tools.subscriber
        self._keys, self._lifetimes = tools.keys, tools.lifetimes
        self._seal = tools.seal
        self._offset_ms = time.time() * 1000 - self._monotonic_ms

    @property
    def _monotonic_ms(self) -> float:
        return self._tools.monotonic() * 1000

    @property
    def now_ms(self) -> int:
        """Redis time, kept going by this machine's monotonic clock since Redis last told it."""
        return int(self._monotonic_ms + self._offset_ms)

    def _learn_time(self, now_ms: int) -> None:
        self._offset_ms = now_ms - self._monotonic_ms

    def _sealed(self, channel: str, message: bytes) -> bytes:
        """The envelope as it may be published on the channel."""
        return message if self._seal is None else self._seal.sign(channel, message)

    def _enqueue(self, command: Command) -> None:
        self._link.enqueue(command)

    async def _call(self, *words: Any, is_repeatable: bool = True) -> Any:
        """One command's reply. Raises BackplaneUnavailable."""
        (reply,) = await self._link.call(Command(words, is_repeatable=is_repeatable))
        return reply

    async def _call_all(self, commands: Iterable[Sequence[Any]]) -> list[Any]:
        """The replies of commands that may be repeated, sent in slices. Raises BackplaneUnavailable."""
        replies: list[Any] = []
        for part in sliced(commands, SLICE):
            replies += await self._link.call(*(Command(tuple(words), is_repeatable=True) for words in part))
        return replies


def paired(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """A reply of alternating names and values."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def whole(score: bytes) -> int:
    """A score of ours, a time in ms or so; 0 for one that is none: infinite, negative, or beyond what is exact."""
    if score.isdigit() and len(score) <= _REVISION_DIGITS_MAX:
        return int(score)
    value = float(score)
    return int(value) if 0 <= value < _EXACT_MAX else 0


def revision_of(text: bytes) -> int:
    """A revision or version as our scripts write it; 0 for anything else."""
    return int(text) if text.isdigit() and len(text) <= _REVISION_DIGITS_MAX else 0


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "replace")
