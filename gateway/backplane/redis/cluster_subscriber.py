"""Subscriptions in a Redis Cluster: sharded channels, each on the node that has its slot.

Theory of operation
-------------------
A node with wanted channels has one connection, which is an ordinary `Subscriber` with the sharded verbs. When slots
change, their channels move to the subscriber of the new node; when all that have moved are confirmed there, that was
a gap. A node that has given a slot away says so by unsubscribing us, or answers MOVED: the slots are asked for again.
The worker counts as reachable (`up`) while its mailbox is heard.
"""

import asyncio
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from redis.exceptions import MovedError, RedisError

from gateway.backplane.redis.address import Node
from gateway.backplane.redis.connector import Connector
from gateway.backplane.redis.slots import slot_of
from gateway.backplane.redis.subscriber import Subscriber, Subscriptions, Waiters
from gateway.backplane.redis.topology import Topology
from gateway.meters import Meters


class _NodeSubscriber(Subscriber):
    """The channels on one node."""

    verbs = ("SSUBSCRIBE", "SUNSUBSCRIBE")
    batch_channels = 1  # those of one command must share a slot

    def __init__(
        self,
        connector: Connector,
        *,
        on_confirmed: Callable[[bytes], None],
        on_ended: Callable[[bytes], None],
        on_moved: Callable[[MovedError], None],
        **others: Any,
    ) -> None:
        super().__init__(connector, (), **others)
        self._on_confirmed, self._on_ended, self._on_moved = on_confirmed, on_ended, on_moved

    @property
    def is_idle(self) -> bool:
        return not self._wanted

    def _begin(self) -> None:
        """What is wanted was said before."""

    def _subscribed(self, name: bytes) -> None:
        super()._subscribed(name)
        if name in self._confirmed:
            self._on_confirmed(name)

    def _refused(self, error: RedisError) -> None:
        if not isinstance(error, MovedError):
            raise error
        for name in [name for name in self._asked if slot_of(name) == int(error.slot_id)]:
            del self._asked[name]
        self._on_moved(error)

    def _ended(self, name: bytes) -> None:
        self._forget(name)
        self._missing.discard(name)
        self._on_ended(name)


class ClusterSubscriber(Subscriptions):
    """Channels wherever they are. The first of `channels` is the mailbox."""

    def __init__(
        self,
        connector: Connector,
        topology: Topology,
        channels: Collection[str],
        *,
        on_message: Callable[[bytes, bytes], None],
        on_gap: Callable[[], None],
        ping_seconds: float = 1.0,
    ) -> None:
        self.up = asyncio.Event()
        self.tried = asyncio.Event()
        self.meters = Meters()
        self._connector = connector
        self._topology = topology
        self._on_message, self._on_gap = on_message, on_gap
        self._ping_seconds = ping_seconds
        self._first = [channel.encode() for channel in channels]
        self._wanted: set[bytes] = set()
        self._places: dict[bytes, Node] = {}
        """Where each channel is wanted at the moment."""
        self._unplaced: set[bytes] = set()
        self._moving: set[bytes] = set()
        """Were heard elsewhere, and are not confirmed yet where they are now."""
        self._waiters = Waiters()
        self._nodes: dict[Node, _NodeSubscriber] = {}
        self._tasks: dict[Node, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        topology.listeners.append(self._arrange)

    @property
    def trouble(self) -> str:
        home = self._of(self._first[0])
        if home is None:
            return self._topology.trouble or "Redis: 没有节点负责本进程的槽 / no node has this worker's slot"
        return home.trouble or next((node.trouble for node in self._nodes.values() if node.trouble), "")

    # -- for callers

    def want(self, name: bytes) -> None:
        self._wanted.add(name)
        self._place(name)

    def discard(self, channel: str) -> None:
        name = channel.encode()
        self._wanted.discard(name)
        self._take_away(name)
        self._moving.discard(name)
        self._unplaced.discard(name)
        self._look()

    def hears(self, channel: str) -> bool:
        node = self._of(channel.encode())
        return node is not None and node.hears(channel)

    def reads(self, channel: str) -> int:
        node = self._of(channel.encode())
        return 0 if node is None else node.reads(channel)

    def drop(self, reason: str, channel: str | None = None) -> None:
        self._topology.doubt()
        for subscriber in self._nodes.values():
            if channel is None or subscriber is self._of(channel.encode()):
                subscriber.drop(reason)

    def _of(self, name: bytes) -> _NodeSubscriber | None:
        node = self._places.get(name)
        return None if node is None else self._nodes.get(node)

    # -- the task

    async def run(self) -> None:
        self._wanted = set(self._first)
        try:
            async with asyncio.TaskGroup() as self._group:
                self._arrange(True)
                await self._topology.tried.wait()
                home = self._of(self._first[0])
                if home is not None:
                    await home.tried.wait()
                self.tried.set()
                # Without a task of its own the group would end with the last node that is left.
                await asyncio.get_running_loop().create_future()
        finally:
            self._group = None
            self.up.clear()
            self._nodes.clear()
            self._tasks.clear()
            self._places.clear()
            self._unplaced.clear()
            self._moving.clear()

    # -- who is where

    def _arrange(self, is_new: bool) -> None:
        """The slots have changed: every channel to where it belongs."""
        for name in list(self._wanted if is_new else self._unplaced):
            self._place(name)
        self._look()

    def _place(self, name: bytes) -> None:
        node = self._topology.slots.of(name)
        if self._group is None or node is None:
            self._unplaced.add(name)
            return
        self._unplaced.discard(name)
        if self._places.get(name) == node:
            return
        if self._take_away(name):
            self._moving.add(name)
        self._places[name] = node
        if node not in self._nodes:
            self._open(self._group, node)
        self._nodes[node].want(name)

    def _take_away(self, name: bytes) -> bool:
        """Whether it was somewhere."""
        node = self._places.pop(name, None)
        if node is None:
            return False
        self._nodes[node].discard(name.decode())
        self._close_idle(node)
        return True

    def _close_idle(self, node: Node) -> None:
        """A connection on which nothing is wanted is not needed."""
        if node in self._nodes and self._nodes[node].is_idle:
            del self._nodes[node]
            self._tasks.pop(node).cancel()

    def _open(self, group: asyncio.TaskGroup, node: Node) -> None:
        self._nodes[node] = subscriber = _NodeSubscriber(
            self._connector.at(node),
            on_confirmed=self._on_confirmed,
            on_ended=partial(self._on_ended, node),
            on_moved=partial(self._on_moved, node),
            on_message=self._on_message,
            on_gap=self._on_node_gap,
            ping_seconds=self._ping_seconds,
        )
        subscriber.on_lost = self._on_lost
        subscriber.meters = self.meters
        self._tasks[node] = group.create_task(subscriber.run())

    # -- what the nodes say

    def _on_confirmed(self, name: bytes) -> None:
        self._waiters.release(name)
        self._look()
        if name in self._moving:
            self._moving.discard(name)
            if not self._moving or name == self._first[0]:
                self._on_gap()

    def _on_ended(self, node: Node, name: bytes) -> None:
        """The node has given the slot away; to whom is known when the nodes have been asked."""
        self._places.pop(name, None)
        self._close_idle(node)
        self._moving.add(name)
        self._unplaced.add(name)
        self._look()
        self._topology.doubt()

    def _on_moved(self, node: Node, error: MovedError) -> None:
        self._topology.move(int(error.slot_id), Node(error.host or node.host, int(error.port)))

    def _on_lost(self) -> None:
        self._topology.doubt()
        self._look()

    def _on_node_gap(self) -> None:
        self._look()
        self._on_gap()

    def _look(self) -> None:
        """Can this worker be reached?"""
        if self.hears(self._first[0].decode()):
            self.up.set()
        else:
            self.up.clear()
