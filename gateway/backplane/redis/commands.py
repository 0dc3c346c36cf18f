"""A command to Redis, what can become of it, and what carries it."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from gateway.backplane.base import BackplaneUnavailable
from gateway.backplane.redis import scripts
from gateway.meters import Meters

logger = logging.getLogger(__name__)

_OVERHEAD_BYTES = 200


class Unsent(BackplaneUnavailable):
    """The command never left this process."""


class Unanswered(BackplaneUnavailable):
    """The command left this process, and no reply came."""


class Rejected(BackplaneUnavailable):
    """Redis answered with an error."""


class Misdirected(Rejected):
    """The server is not the one to ask, and has done nothing of it."""


_KINDS: dict[type[BackplaneUnavailable], str] = {
    Unsent: "unsent",
    Unanswered: "unanswered",
    Rejected: "refused",
    Misdirected: "misdirected",
}


@dataclass(slots=True, eq=False)
class Command:
    """One command, what becomes of its reply, and whether doing it twice does no harm.

    `on_reply` gets the reply, or one of the exceptions above. With `script`, `args` begin at the number of keys.
    """

    args: tuple[Any, ...]
    on_reply: Callable[[Any], None] = field(default=lambda _reply: None)
    is_repeatable: bool = False
    script: scripts.Script | None = None
    is_spelled_out: bool = False
    """The script is sent as text, as Redis does not know its digest."""
    is_bound: bool = False
    """It means this one server and is never sent to another."""
    is_unsure: bool = False
    """It was written to a connection that was lost before the reply: it may have been executed."""
    attempts: int = 0
    redirects: int = 0
    """How often a Cluster has sent it elsewhere."""
    size: int = field(init=False)
    """About how much memory it takes, in bytes."""

    def __post_init__(self) -> None:
        self.size = _OVERHEAD_BYTES + sum([len(arg) for arg in self.args if type(arg) is bytes or type(arg) is str])

    def words(self) -> tuple[Any, ...]:
        """The command as it is sent."""
        if self.script is None:
            return self.args
        if self.is_spelled_out:
            return ("EVAL", self.script.text, *self.args)
        return ("EVALSHA", self.script.digest, *self.args)


def script_command(
    script: str, keys: Sequence[str], args: Sequence[Any] = (), *, is_repeatable: bool = False
) -> Command:
    """The command that runs a script."""
    return Command((len(keys), *keys, *args), script=scripts.load(script), is_repeatable=is_repeatable)


class CommandLink(ABC):
    """Carries commands to wherever they belong. `run` must be running."""

    up: asyncio.Event
    tried: asyncio.Event
    """The first try to connect has succeeded or failed."""
    gather: Callable[[], None]
    """Called before each batch is made: whoever collects work of the current turn enqueues it now."""
    on_up: Callable[[], None]
    """Called when a connection has been made: what was said on the one before, if any, may be lost."""
    meters: Meters

    @property
    @abstractmethod
    def pending(self) -> int:
        """How many commands wait for their reply, or to be sent."""

    @property
    @abstractmethod
    def trouble(self) -> str:
        """Why Redis can't be reached, or a part of it; empty if it can."""

    @abstractmethod
    async def run(self) -> None:
        """Keep connected and serve, until cancelled. Never raises for anything that Redis does."""

    @abstractmethod
    def wake(self) -> None:
        """There is something to gather."""

    @abstractmethod
    def enqueue(self, command: Command) -> None:
        """Send the command with the next batch. `on_reply` is called later, never from here."""

    @abstractmethod
    async def flush(self) -> None:
        """What was asked for until now has been sent and answered. Raises BackplaneUnavailable."""

    @abstractmethod
    def distrust(self, command: Command, reason: str) -> None:
        """A reply of the command shows that it went to the wrong server: connect anew after it."""

    @abstractmethod
    def drop(self, reason: str) -> None:
        """Connect anew, at once: there is a better server."""

    def fail(self, command: Command, failure: BackplaneUnavailable) -> None:
        """Tell who waits for the reply that there is none."""
        self.meters.redis_command_errors_total.add(_KINDS[type(failure)])
        settle(command, failure)

    async def call(self, *commands: Command) -> list[Any]:
        """The replies of the commands, in order. Raises the first failure, after all have ended."""
        self.gather()
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        replies: list[Any] = [None] * len(commands)
        left = len(commands)

        def keep(reply: Any, at: int) -> None:
            nonlocal left
            replies[at] = reply
            left -= 1
            if left == 0 and not ended.done():
                ended.set_result(None)

        for at, command in enumerate(commands):
            command.on_reply = partial(keep, at=at)
            self.enqueue(command)
        if commands:
            await ended
        for reply in replies:
            if isinstance(reply, BackplaneUnavailable):
                raise reply
        return replies


def nothing() -> None:
    return None


def settle(command: Command, reply: Any) -> None:
    try:
        command.on_reply(reply)
    except Exception:
        # The batch's other replies belong to others; they must not suffer.
        logger.exception("a listener failed on a reply of Redis", extra={"event": "reply_failed"})
