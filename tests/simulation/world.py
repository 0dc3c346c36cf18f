"""Everything of one run: a Redis, workers, tool servers, robots, and the network between them."""

import logging
from random import Random

from tests.simulation.journal import Journal
from tests.simulation.loop import Process, SimLoop
from tests.simulation.mini_redis import MiniRedis
from tests.simulation.net import Net
from tests.simulation.node import SETTINGS, Node
from tests.simulation.peers import Device, Robot
from tests.simulation.sockets import Peer, Socket
from tests.simulation.store import Hash

NODES = 2
AGENT = "agent"
BANNED = b"agent:banned"
"""An entry that stands in the book of revocations from the beginning."""


class World:
    """`random` decides about peers and places; the network and the nemesis have chances of their own."""

    def __init__(self, seed: int, *, is_traced: bool) -> None:
        self.loop = SimLoop()
        self.journal = Journal(self.loop, is_traced=is_traced)
        self.random = Random(f"{seed} world")
        self.net = Net(self.loop, Random(f"{seed} net"))
        self.loop.net = self.net
        self.redis = MiniRedis(self.loop, self.net, self.journal.note if is_traced else None)
        self._decide()
        self.outside = Process(self.loop, "outside")
        self.nodes: list[Node] = []
        self.past_nodes: list[Node] = []
        self.devices: list[Device] = []
        self.robots: list[Robot] = []
        self._count = 0

    def note(self, text: str) -> None:
        self.journal.note("nemesis", text)

    def _decide(self) -> None:
        """Somebody has revoked an agent's tokens, long ago."""
        for book, entries in (("policy", {}), ("revoked", {BANNED: b'{"version":5,"before_ms":1}'})):
            self.redis.store.values[f"mcpgw:{book}".encode()] = Hash({b"": b"7", **entries})

    # Workers

    def start_node(self) -> Node:
        self._count += 1
        skew_seconds = self.random.choice((0.0, 0.0, -40.0, 4000.0))
        node = Node(self.loop, self.net, self.journal, f"w{self._count}", skew_seconds)
        self.nodes.append(node)
        return node

    def retire(self, node: Node) -> None:
        """The node is no part of the cluster any more."""
        if node in self.nodes:
            self.nodes.remove(node)
            self.past_nodes.append(node)

    def node(self, name: str) -> Node:
        return next(node for node in (*self.nodes, *self.past_nodes) if node.process.name == name)

    # Peers

    def dial(self, peer: Peer, kind: str, agent: str, server_id: str) -> Socket | None:
        """What a load balancer does."""
        node = self._ready_node()
        return node.accept(self.outside, peer, kind, agent, server_id) if node else None

    def _ready_node(self) -> Node | None:
        ready = [node for node in self.nodes if node.takes_connections]
        return self.random.choice(ready) if ready else None

    def add_device(self, name: str, server_id: str) -> Device:
        device = Device(self.journal, self.outside, self.dial, self.random, AGENT, name, server_id)
        self.devices.append(device)
        self.outside.soon(device.dial)
        return device

    def new_robot(self, node: Node | None = None) -> Robot:
        """A robot that has not dialled yet; with a node it comes to that one."""

        def dial(peer: Peer, kind: str, agent: str, server_id: str) -> Socket | None:
            place = node or self._ready_node()
            return place.accept(self.outside, peer, kind, agent, server_id) if place else None

        self._count += 1
        name = f"robot{self._count}"
        return Robot(self.journal, self.outside, dial, self.random, AGENT, name, SETTINGS.call_seconds)

    def add_robot(self) -> Robot:
        robot = self.new_robot()
        self.robots.append(robot)
        self.outside.soon(robot.dial)
        return robot

    # The end

    def close(self) -> None:
        """Let everything come to its end, unheard."""
        logging.disable(logging.CRITICAL)
        try:
            self.redis.stop(keeps_data=False)
            processes = [self.redis.process, self.outside]
            processes += [node.process for node in (*self.nodes, *self.past_nodes)]
            self.loop.wind_up(processes)
            self.loop.close()
        finally:
            logging.disable(logging.NOTSET)
