"""Keeps track of which node of a Cluster has which slots.

Every few seconds, and whenever somebody has a reason to doubt it, all nodes that can be asked are asked. What a node
says of itself holds, then what most of them say. As long as none is connected, the nodes of the URL and those known
before are dialled in turn.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from redis.exceptions import RedisError

from gateway.backplane.redis.address import Node
from gateway.backplane.redis.connector import TROUBLE, Connector, close, receive, send
from gateway.backplane.redis.slots import Slots, View, read_slots

logger = logging.getLogger(__name__)

QUESTIONS = (("CLUSTER", "SLOTS"), ("CLUSTER", "SHARDS"))

_PAUSE_SECONDS = 0.1
"""Between two rounds of questions, however many doubts there are."""

_HURRIED_POLL_SECONDS = 0.5


class Topology:
    """The slots, and who wants to hear of changes. `run` must be running."""

    def __init__(self, connector: Connector, *, poll_seconds: float) -> None:
        self.slots = Slots()
        self.trouble = "Redis: not connected yet"
        self.tried = asyncio.Event()
        self.listeners: list[Callable[[bool], None]] = []
        """Called whenever the nodes were asked; the argument says whether anything has changed."""
        self.ask_connected: Callable[[], Awaitable[list[tuple[Node, Any]]]] = _nobody
        """Puts `QUESTIONS[0]` to all nodes that are connected."""
        self._connector = connector
        self._seeds = connector.address.nodes
        self._poll_seconds = poll_seconds
        self._doubt = asyncio.Event()

    def doubt(self) -> None:
        """What is known may be wrong: ask soon."""
        self._doubt.set()

    def move(self, slot: int, node: Node) -> None:
        """A node has said where that slot is."""
        self._doubt.set()
        if self.slots.move(slot, node):
            self._tell(is_new=True)

    async def run(self) -> None:
        """Ask until cancelled."""
        self.tried.clear()
        while True:
            self._doubt.clear()
            views = await self._views()
            self._tell(is_new=self.slots.take(views))
            self.tried.set()
            await asyncio.sleep(_PAUSE_SECONDS)
            # As long as somebody is missing, somebody else may take its place at any time.
            is_complete = 0 < len(self.slots.nodes) <= len(views)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_seconds if is_complete else _HURRIED_POLL_SECONDS):
                    await self._doubt.wait()

    def _tell(self, *, is_new: bool) -> None:
        for listener in self.listeners:
            listener(is_new)

    async def _views(self) -> list[tuple[Node, View]]:
        views = []
        for node, reply in await self.ask_connected():
            try:
                views.append((node, read_slots(reply, node)))
            except ValueError:
                fields = {"event": "slots_unknown", "address": str(node)}
                logger.warning("Redis %s does not say who has which slots", node, extra=fields)
        return views or await self._dial()

    async def _dial(self) -> list[tuple[Node, View]]:
        for node in dict.fromkeys((*self.slots.nodes, *self._seeds)):
            connector = self._connector.at(node)
            try:
                view = await _ask(connector)
                if view:
                    self.trouble = ""
                    return [(node, view)]
                self.trouble = f"Redis {node}: 没有分配槽 / the Cluster has no slots assigned"
            except TROUBLE as error:
                self.trouble = connector.describe(error)
            except ValueError as error:
                self.trouble = f"Redis {node}: {error}"
        return []


async def _ask(connector: Connector) -> View:
    """What the node says. Raises one of TROUBLE, or ValueError."""
    connection = await connector.connect("topology", is_any_role=True)
    try:
        async with asyncio.timeout(connector.timeout_seconds):
            for question in QUESTIONS:
                await send(connection, [question])
                reply = await receive(connection)
                if not isinstance(reply, RedisError):
                    return read_slots(reply, connector.node)
    finally:
        await close(connection)
    raise reply


async def _nobody() -> list[tuple[Node, Any]]:
    return []
