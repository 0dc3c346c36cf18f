"""An operator's connection to Redis: reads whatever server of the address has a key, and tells when a right is missing.

It needs no right to write and no script; nothing here changes anything, but `tell`, which publishes. Replies come as
text, since people are going to see them.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    ResponseError,
    TryAgainError,
)

from gateway.backplane.base import BackplaneUnavailable
from gateway.backplane.redis import address as addresses
from gateway.backplane.redis.address import Address
from gateway.backplane.redis.connector import Connector
from gateway.backplane.redis.core import SLICE
from gateway.backplane.redis.probe_server import TROUBLE, Server
from gateway.backplane.redis.probe_topology import Member, find
from gateway.backplane.redis.slots import slot_of
from gateway.finding import Finding, Level
from gateway.pace import sliced

Words = Sequence[str | int]
Item = TypeVar("Item")

PAGE = 1000
"""How many fields or keys one step of a scan asks for."""
_TRIES = 4
_PAUSE_SECONDS = 0.1
_MOVING = (MovedError, AskError, TryAgainError, ClusterDownError)
"""A Cluster says so while a slot moves, or when it was somewhere else when we asked last."""


class Refused(BackplaneUnavailable):
    """The user may not run a command that is needed. `command` is what it was, without its arguments."""

    def __init__(self, text: str, command: str) -> None:
        super().__init__(text)
        self.command = command


class Reader:
    """Reads from the primaries of one address. Every method raises BackplaneUnavailable when they can't be reached."""

    def __init__(self, address: Address, timeout_seconds: float) -> None:
        self.address = address
        self.members: Sequence[Member] = ()
        """The servers of the address, replicas included where it names them."""
        self._timeout_seconds = timeout_seconds
        self._stack = AsyncExitStack()

    @property
    def primaries(self) -> list[Member]:
        """The servers that have the keys."""
        return [member for member in self.members if member.is_primary]

    @property
    def is_cluster(self) -> bool:
        return self.address.kind == "cluster"

    async def connect(self) -> None:
        """Find the servers, also once more after something has changed or was lost."""
        await self.close()
        land = await find(self.address, self._timeout_seconds, self._stack)
        self.members = land.members
        if any(finding.level is Level.FAIL for finding in land.findings):
            # Whatever some of several servers have said is why none is of use.
            raise BackplaneUnavailable("\n".join(map(_told, land.findings)))
        for member in self.primaries:
            failure = await member.server.reach()
            if failure is not None:
                raise BackplaneUnavailable(_told(failure))

    async def close(self) -> None:
        """Give all connections back."""
        stack, self._stack, self.members = self._stack, AsyncExitStack(), ()
        await stack.aclose()

    async def ask(self, *words: str | int) -> Any:
        """The reply to one command."""
        return (await self.ask_all([words]))[0]

    async def ask_all(self, commands: Iterable[Words]) -> list[Any]:
        """The replies, in order. Raises Refused where one of them is not allowed."""
        replies: list[Any] = []
        for part in sliced(commands, SLICE):
            replies += await self._patiently(part)
        return replies

    async def tell(self, channel: str, message: str) -> int:
        """Publish; how many heard it, as far as the server knows."""
        return int(await self.ask("SPUBLISH" if self.is_cluster else "PUBLISH", channel, message))

    async def listeners(self, channels: Sequence[str]) -> list[int]:
        """How many are subscribed to each of the channels."""
        verb = "SHARDNUMSUB" if self.is_cluster else "NUMSUB"
        replies = await self.ask_all([("PUBSUB", verb, channel) for channel in channels])
        return [int(reply[1]) for reply in replies]

    async def hashes(self, keys: Sequence[str], limit: int) -> list[dict[str, str]]:
        """The fields of each hash, of a large one about as many as `limit`; read in steps."""
        found: list[dict[str, str]] = [{} for _ in keys]
        left = dict.fromkeys(range(len(keys)), "0")
        while left:
            steps = await self.ask_all([("HSCAN", keys[at], cursor, "COUNT", PAGE) for at, cursor in left.items()])
            for at, (cursor, flat) in zip(list(left), steps, strict=True):
                found[at].update(zip(flat[::2], flat[1::2], strict=True))
                left[at] = cursor
                if cursor == "0" or len(found[at]) >= limit:
                    del left[at]
        return found

    async def scan(self, pattern: str, limit: int) -> list[str]:
        """Names of keys, each once, at most about as many as `limit` of each server."""
        names: dict[str, None] = {}
        for member in self.primaries:
            cursor, before = "0", len(names)
            while True:
                cursor, page = await self._of(member.server, "SCAN", cursor, "MATCH", pattern, "COUNT", PAGE)
                names |= dict.fromkeys(page)
                if cursor == "0" or len(names) - before >= limit:
                    break
        return list(names)

    async def _of(self, server: Server, *words: str | int) -> Any:
        try:
            return await server.ask(*words)
        except TROUBLE as error:
            raise self._failed(server, words, error) from None

    async def _patiently(self, commands: list[Words]) -> list[Any]:
        for attempt in range(_TRIES):
            replies = await self._once(commands)
            moving = [reply for reply in replies if isinstance(reply, _MOVING)]
            if not moving:
                return replies
            await asyncio.sleep(_PAUSE_SECONDS * attempt)
            await self.connect()
        raise BackplaneUnavailable(f"槽正在迁移，稍后再试 / slots are being moved, try again: {moving[0]}")

    async def _once(self, commands: list[Words]) -> list[Any]:
        replies: list[Any] = [None] * len(commands)
        for server, places in self._placed(commands).items():
            answers = await self._batch(server, [commands[at] for at in places])
            for at, answer in zip(places, answers, strict=True):
                if isinstance(answer, Exception) and not isinstance(answer, _MOVING):
                    raise self._failed(server, commands[at], answer)
                replies[at] = answer
        return replies

    def _placed(self, commands: list[Words]) -> Mapping[Server, list[int]]:
        """Which server each of them is for."""
        places: dict[Server, list[int]] = {}
        for at, words in enumerate(commands):
            places.setdefault(self._server_of(words), []).append(at)
        return places

    def _server_of(self, words: Words) -> Server:
        primaries = self.primaries
        if not primaries:
            raise BackplaneUnavailable("没有连接 Redis / not connected to Redis")
        if not self.is_cluster or len(words) == 1:
            return primaries[0].server
        slot = slot_of(str(words[2 if words[0] == "PUBSUB" else 1]))
        for member in primaries:
            if any(first <= slot <= last for first, last in member.slots):
                return member.server
        raise BackplaneUnavailable(f"槽 {slot} 没有节点 / slot {slot} has no node")

    async def _batch(self, server: Server, commands: list[Words]) -> list[Any]:
        pipeline = server.client.pipeline(transaction=False)
        for words in commands:
            pipeline.execute_command(*words)
        try:
            async with asyncio.timeout(self._timeout_seconds * 3):
                answers: list[Any] = await pipeline.execute(raise_on_error=False)
        except TROUBLE as error:
            raise self._failed(server, commands[0], error) from None
        return answers

    def _failed(self, server: Server, words: Words, error: Exception) -> BackplaneUnavailable:
        reason = f"Redis {server.where}: {server.reason(error)}"
        if isinstance(error, NoPermissionError):
            name = " ".join(str(word) for word in words[: 2 if words[0] in ("PUBSUB", "CLIENT", "CONFIG") else 1])
            return Refused(
                f"这个 Redis 用户没有权限 / this Redis user has no right to {name}: {reason}\n→ docs/redis.md, Rights",
                name,
            )
        if isinstance(error, ResponseError):
            return BackplaneUnavailable(f"拒绝 / refuses: {reason} ({' '.join(map(str, words[:2]))})")
        return BackplaneUnavailable(f"无法连接 / can't be reached: {reason}")


@asynccontextmanager
async def reading(url: str, timeout_seconds: float) -> AsyncGenerator[Reader]:
    """A reader that is connected. Raises BackplaneUnavailable, or ValueError where the URL can't be used."""
    Connector(url, "operator", timeout_seconds)  # what the backplane could not use is refused in its words
    reader = Reader(addresses.parse(url), timeout_seconds)
    try:
        await reader.connect()
        yield reader
    finally:
        await reader.close()


def _told(failure: Finding) -> str:
    return f"{failure.text}\n→ {failure.cure}" if failure.cure else failure.text
