"""Commands to a Redis Cluster: one link for each primary, each command on the one that has its key's slot.

Theory of operation
-------------------
A node that refuses a command because its slot is elsewhere has not executed it, so it is sent there: for good
(MOVED, which is remembered) or this time only (ASK). While a slot is being moved, or nobody has it, the command waits
a little and tries again, as long as patience lasts. What a node has not been sent yet goes another way when the
slots change. A node that is lost takes only its own slots with it: the link as a whole is `up` while this worker's
own slot can be reached.
"""

import asyncio
from functools import partial
from typing import Any

from redis.exceptions import AskError, ClusterDownError, MasterDownError, MovedError, RedisError, TryAgainError

from gateway.backplane.base import BackplaneUnavailable
from gateway.backplane.redis.address import Node
from gateway.backplane.redis.commands import Command, CommandLink, Rejected, Unsent, nothing
from gateway.backplane.redis.connector import Connector
from gateway.backplane.redis.link import Link
from gateway.backplane.redis.slots import slot_of
from gateway.backplane.redis.topology import QUESTIONS, Topology
from gateway.meters import Meters

_ASK_SECONDS = 0.5
"""How long a frozen node may keep us from hearing what the others say of it."""

_PAUSE_SECONDS = 0.05
_AT_ONCE = 3
"""How often a command follows MOVED and ASK without a pause."""


class ClusterLink(CommandLink):
    """Commands to a Cluster. `home` is the key whose slot decides whether the link counts as up."""

    def __init__(self, connector: Connector, topology: Topology, home: str, *, patience_seconds: float) -> None:
        self.up = asyncio.Event()
        self.tried = asyncio.Event()
        self.gather = nothing
        self.on_up = nothing
        self.meters = Meters()
        self._connector = connector
        self._topology = topology
        self._home = slot_of(home)
        self._patience_seconds = patience_seconds
        self._most_redirects = _AT_ONCE + int(patience_seconds / _PAUSE_SECONDS)
        self._links: dict[Node, Link] = {}
        self._tasks: dict[Node, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._is_waking = False
        topology.listeners.append(self._arrange)
        topology.ask_connected = self._ask_connected

    @property
    def trouble(self) -> str:
        if not self._links:
            return self._topology.trouble
        return next((link.trouble for link in self._links.values() if link.trouble), "")

    @property
    def pending(self) -> int:
        return sum(link.pending for link in self._links.values())

    # -- the nodes

    async def run(self) -> None:
        self._topology.tried.clear()
        try:
            async with asyncio.TaskGroup() as self._group:
                self._group.create_task(self._topology.run())
                self._arrange(True)
                await self._topology.tried.wait()
                for link in list(self._links.values()):
                    await link.tried.wait()
                self.tried.set()
        finally:
            self._group = None
            self._links.clear()
            self._tasks.clear()
            self._look()

    def _arrange(self, is_new: bool) -> None:
        """A link for each node that has slots, and none for others; what waits is sent by what is known now."""
        if self._group is None or not is_new:
            return
        nodes = self._topology.slots.nodes
        waiting = [command for link in self._links.values() for command in link.take_waiting()]
        for node in self._links.keys() - nodes:
            waiting += self._links.pop(node).abandon(f"Redis {node}: 不再有槽 / it has no slots any more")
            self._tasks.pop(node).cancel()
        for node in nodes - self._links.keys():
            self._open(self._group, node)
        for command in waiting:
            self.enqueue(command)
        self._look()

    def _open(self, group: asyncio.TaskGroup, node: Node) -> Link:
        link = Link(self._connector.at(node), patience_seconds=self._patience_seconds)
        link.gather = self._gather
        link.on_redirect = partial(self._on_redirect, node)
        link.on_lost = self._on_lost
        link.on_up = self._on_link_up
        link.meters = self.meters
        link.expect()
        self._links[node] = link
        self._tasks[node] = group.create_task(link.run())
        return link

    def _on_lost(self) -> None:
        self._topology.doubt()
        self._look()

    def _on_link_up(self) -> None:
        self._look()
        self.on_up()

    def _look(self) -> None:
        """Is this worker's own slot to be reached?"""
        node = self._topology.slots.at(self._home)
        link = None if node is None else self._links.get(node)
        if link is not None and link.up.is_set():
            self.up.set()
        else:
            self.up.clear()

    async def _ask_connected(self) -> list[tuple[Node, Any]]:
        return await self._put_to_all(QUESTIONS[0], min(_ASK_SECONDS, self._connector.timeout_seconds / 2))

    async def _put_to_all(self, words: tuple[Any, ...], seconds: float) -> list[tuple[Node, Any]]:
        """What the connected nodes reply within that time."""
        replies: list[tuple[Node, Any]] = []

        def ask(node: Node, link: Link) -> asyncio.Future[None]:
            heard: asyncio.Future[None] = asyncio.get_running_loop().create_future()

            def keep(reply: Any) -> None:
                if not isinstance(reply, BackplaneUnavailable):
                    replies.append((node, reply))
                if not heard.done():
                    heard.set_result(None)

            link.enqueue(Command(words, keep, is_bound=True))
            return heard

        asked = [ask(node, link) for node, link in self._links.items() if link.up.is_set()]
        if asked:
            await asyncio.wait(asked, timeout=seconds)
        return list(replies)

    # -- the commands

    def wake(self) -> None:
        if not self._is_waking:
            self._is_waking = True
            asyncio.get_running_loop().call_soon(self._gather)

    def _gather(self) -> None:
        self._is_waking = False
        self.gather()

    def enqueue(self, command: Command) -> None:
        node = self._topology.slots.of(_key(command))
        link = None if node is None else self._links.get(node)
        if link is None:
            self._try_later(command, Unsent(self.trouble))
        else:
            link.enqueue(command)

    async def flush(self) -> None:
        self.gather()
        await self._put_to_all(("PING",), self._connector.timeout_seconds)

    def distrust(self, command: Command, reason: str) -> None:
        node = self._topology.slots.of(_key(command))
        link = None if node is None else self._links.get(node)
        if link is not None:
            link.distrust(command, reason)

    def drop(self, reason: str) -> None:
        for link in self._links.values():
            link.drop(reason)

    def _on_redirect(self, node: Node, command: Command, error: RedisError) -> bool:
        """What a node refuses as not its own has not been executed."""
        if isinstance(error, MasterDownError):
            return False
        if isinstance(error, MovedError):
            self._topology.move(int(error.slot_id), _named(error, node))
        elif not isinstance(error, (AskError, TryAgainError, ClusterDownError)):
            return False
        command.attempts -= 1
        if isinstance(error, (TryAgainError, ClusterDownError)) or command.redirects >= _AT_ONCE:
            self._topology.doubt()
            self._try_later(command, Rejected(f"Redis {node}: {error.status_code} {error}"))
            return True
        command.redirects += 1
        if isinstance(error, AskError) and not isinstance(error, MovedError):
            self._ask_there(command, _named(error, node))
        else:
            self.enqueue(command)
        return True

    def _ask_there(self, command: Command, node: Node) -> None:
        """This once, the command is for a node that does not have the slot yet."""
        link = self._links.get(node)
        if link is None:
            # A node without slots so far: by the time it is known, it will have this one.
            self._topology.doubt()
            self._try_later(command, Rejected(f"Redis {node}: 槽正在迁入 / a slot is being moved there"))
            return
        link.enqueue(Command(("ASKING",), is_bound=True))
        link.enqueue(command)

    def _try_later(self, command: Command, failure: BackplaneUnavailable) -> None:
        command.redirects += 1
        loop = asyncio.get_running_loop()
        if self._group is None or command.redirects > self._most_redirects:
            loop.call_soon(self.fail, command, failure)
        else:
            loop.call_later(_PAUSE_SECONDS, self.enqueue, command)


def _key(command: Command) -> str | bytes:
    """The first key; all others of the command share its slot."""
    key: str | bytes = command.args[1]
    return key


def _named(error: AskError, by: Node) -> Node:
    """Where a redirection points to; without a host it means the one that said so."""
    return Node(error.host or by.host, int(error.port))
