"""Which node of a Cluster has which slot: what the nodes say, and what is made of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from redis.crc import key_slot

from gateway.backplane.redis.address import Node

SLOTS = 16384

View = Mapping[tuple[int, int], Node]
"""First and last slot → the primary that has them."""


def slot_of(name: str | bytes) -> int:
    """The slot of a key or a sharded channel."""
    return key_slot(name if isinstance(name, bytes) else name.encode())


class Slots:
    """The node of each slot, as well as this worker knows."""

    def __init__(self) -> None:
        self._nodes: list[Node | None] = [None] * SLOTS

    @property
    def nodes(self) -> set[Node]:
        """Everybody who has a slot."""
        return {node for node in self._nodes if node is not None}

    def at(self, slot: int) -> Node | None:
        return self._nodes[slot]

    def of(self, name: str | bytes) -> Node | None:
        return self._nodes[slot_of(name)]

    def take(self, views: Sequence[tuple[Node, View]]) -> bool:
        """Believe what the nodes say, each of which was asked at its own address; whether anything changes."""
        said = {asked: _column(view) for asked, view in views if view}
        if not said:
            return False
        before, self._nodes = self._nodes, _agreed(said)
        return before != self._nodes

    def move(self, slot: int, node: Node) -> bool:
        """One slot has another owner; whether that is news."""
        is_new = self._nodes[slot] != node
        self._nodes[slot] = node
        return is_new


def _column(view: View) -> list[Node | None]:
    nodes: list[Node | None] = [None] * SLOTS
    for (first, last), node in view.items():
        nodes[first : last + 1] = [node] * (last + 1 - first)
    return nodes


def _agreed(said: Mapping[Node, list[Node | None]]) -> list[Node | None]:
    """Who says that a slot is its own is believed before others; of several, the one that most nodes name."""
    columns = list(said.values())
    agreed = list(columns[0])
    for slot, named in enumerate(zip(*columns, strict=True)):
        if named.count(named[0]) != len(named):
            # One that could not be asked yet can't claim anything: it is believed if more name it than the claimant.
            claimed = [node for node in said if said[node][slot] == node]
            if claimed:
                claimed += [node for node in set(named) if node is not None and node not in said]
            agreed[slot] = max(claimed or named, key=named.count)
    return agreed


def read_slots(reply: Any, asked: Node) -> View:
    """The reply to CLUSTER SLOTS or CLUSTER SHARDS, by the node that was asked. Raises ValueError if it is neither."""
    try:
        if reply and isinstance(reply[0][0], bytes):
            return dict(pair for shard in reply for pair in _shard(shard, asked))
        return {(int(first), int(last)): _node(primary[0], primary[1], asked) for first, last, primary, *_ in reply}
    except (TypeError, ValueError, LookupError, AttributeError):
        raise ValueError("no list of slots") from None


def _shard(shard: Sequence[Any], asked: Node) -> list[tuple[tuple[int, int], Node]]:
    said = dict(zip(shard[::2], shard[1::2], strict=True))
    members = [dict(zip(node[::2], node[1::2], strict=True)) for node in said[b"nodes"]]
    (primary,) = [node for node in members if node[b"role"] == b"master" and node.get(b"health") == b"online"]
    port = primary.get(b"tls-port") or primary[b"port"]
    node = _node(primary.get(b"endpoint") or primary[b"ip"], port, asked)
    bounds = said[b"slots"]
    return [((int(first), int(last)), node) for first, last in zip(bounds[::2], bounds[1::2], strict=True)]


def _node(host: bytes | None, port: Any, asked: Node) -> Node:
    """A node that does not know its own address has the one by which it was asked."""
    return Node(host.decode() if host and host != b"?" else asked.host, int(port))
