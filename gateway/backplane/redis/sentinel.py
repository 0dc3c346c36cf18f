"""Asks the Sentinels, twice a second and independently of all other connections, which server is the primary.

Theory of operation
-------------------
Each Sentinel has a connection of its own, kept open. What it says counts while it is fresh. The newest configuration
epoch wins, then what most of them say: a Sentinel that was cut off must not send us back to an old primary. An epoch
older than one that was believed before is believed only from most of the Sentinels, or when nothing else was said for
ten seconds (they have been set up anew).
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from gateway.backplane.redis.address import Node
from gateway.backplane.redis.attempts import Attempts
from gateway.backplane.redis.connector import Connector, close, receive, send

logger = logging.getLogger(__name__)

_FRESH_POLLS = 3
_FORGET_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What one Sentinel said of the primary, and when, by the loop's clock."""

    primary: Node
    epoch: int
    at: float


def choose(answers: list[Answer], known: Answer | None, sentinels: int) -> Answer | None:
    """The answer to believe, None if the known one stays. `sentinels` is how many could have answered."""
    if known is not None and are_older(answers, known) and len(answers) <= max(1, sentinels // 2):
        return None
    newest = [answer for answer in answers if answer.epoch == max(answer.epoch for answer in answers)]
    votes = Counter(answer.primary for answer in newest)
    if not votes or (known is not None and votes[known.primary] == max(votes.values())):
        return next((answer for answer in newest if known is not None and answer.primary == known.primary), None)
    return next(answer for answer in newest if answer.primary == votes.most_common(1)[0][0])


def are_older(answers: list[Answer], known: Answer) -> bool:
    """Whether all of them know less than what is known."""
    return all(answer.epoch < known.epoch for answer in answers)


class Sentinels:
    """Knows the primary. `run` must be running; `on_moved` hears of each change."""

    def __init__(self, connector: Connector, *, poll_seconds: float, on_moved: Callable[[Node], None]) -> None:
        address = connector.address
        self._service = address.service
        self._connectors = [connector.to_sentinel(node) for node in address.nodes]
        self._poll_seconds = poll_seconds
        self._on_moved = on_moved
        self._timeout_seconds = min(connector.timeout_seconds, 2 * poll_seconds)
        self._answers: dict[int, Answer] = {}
        self._troubles: dict[int, str] = {}
        self._known: Answer | None = None
        self._doubted_since = 0.0
        self._is_heard = asyncio.Event()
        """Enough of them have answered, or all have been tried."""

    async def locate(self) -> Node:
        """The primary. Raises ConnectionError, with the reason, if no Sentinel knows it."""
        await self._is_heard.wait()
        if self._known is None:
            raise ConnectionError("; ".join(dict.fromkeys(self._troubles.values())))
        return self._known.primary

    async def run(self) -> None:
        """Ask until cancelled."""
        self._answers.clear()
        self._is_heard.clear()
        async with asyncio.TaskGroup() as tasks:
            for at in range(len(self._connectors)):
                tasks.create_task(self._keep_asking(at))

    async def _keep_asking(self, at: int) -> None:
        connector = self._connectors[at]

        async def attempt() -> None:
            connection = await connector.connect("sentinel")
            try:
                while True:
                    async with asyncio.timeout(self._timeout_seconds):
                        answer = await self._ask(connection)
                    self._heard(at, answer)
                    await asyncio.sleep(self._poll_seconds)
            finally:
                await close(connection)

        def on_lost(reason: str) -> None:
            if self._troubles.get(at) is None:
                fields = {"event": "sentinel_unreached", "cause": reason}
                logger.warning("Sentinel 没有回答 / a Sentinel can't be asked: %s", reason, extra=fields)
            self._troubles[at] = reason
            self._look()

        def describe(error: BaseException) -> str:
            return connector.describe(error).replace("Redis ", "Sentinel ", 1)

        await Attempts("the connection to a Sentinel").run(attempt, describe, on_lost)

    async def _ask(self, connection: AbstractConnection) -> Answer:
        await send(connection, [("SENTINEL", verb, self._service) for verb in ("GET-MASTER-ADDR-BY-NAME", "MASTER")])
        place, details = await receive(connection), await receive(connection)
        if isinstance(place, RedisError):
            raise place
        if not isinstance(place, list) or len(place) != 2:
            raise ConnectionError(f"它不认识服务 {self._service} / it knows no service {self._service}")
        primary = Node(place[0].decode(), int(place[1]))
        return Answer(primary, _epoch(details), asyncio.get_running_loop().time())

    def _heard(self, at: int, answer: Answer) -> None:
        self._troubles.pop(at, None)
        self._answers[at] = answer
        self._look()

    def _look(self) -> None:
        oldest = asyncio.get_running_loop().time() - _FRESH_POLLS * self._poll_seconds - self._timeout_seconds
        fresh = [answer for answer in self._answers.values() if answer.at >= oldest]
        chosen = choose(fresh, self._believed(fresh), len(self._connectors))
        if chosen is not None:
            before, self._known = self._known, chosen
            if before is not None and before.primary != chosen.primary:
                fields = {"event": "primary_changed", "address": str(chosen.primary)}
                logger.warning("Redis 主节点已切换 / the primary has changed: %s", chosen.primary, extra=fields)
                self._on_moved(chosen.primary)
        self._note_tried()

    def _believed(self, fresh: list[Answer]) -> Answer | None:
        """What is known, unless nobody has said it for so long that the Sentinels must have been set up anew."""
        now = asyncio.get_running_loop().time()
        if self._known is None or not fresh or not are_older(fresh, self._known):
            self._doubted_since = now
        return self._known if now - self._doubted_since < _FORGET_SECONDS else None

    def _note_tried(self) -> None:
        tried = self._answers.keys() | self._troubles.keys()
        if 2 * len(self._answers) > len(self._connectors) or len(tried) == len(self._connectors):
            self._is_heard.set()


def _epoch(details: Any) -> int:
    if not isinstance(details, list):
        return 0  # not allowed to ask
    said = dict(zip(details[::2], details[1::2], strict=False))
    epoch = said.get(b"config-epoch", b"0")
    return int(epoch) if epoch.isdigit() else 0
