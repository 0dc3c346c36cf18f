"""A Redis Cluster on 127.0.0.1 and of the tests' own: slots can be moved and nodes killed while it is used."""

from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import redis

from tests.support.ports import own_port
from tests.support.redis_sentinel import wait_for
from tests.support.redis_server import RedisServer
from tests.support.tls import server_context
from tests.support.toxics import Toxics

SLOTS = 16384
_MOVED_AT_ONCE = 100
_MIGRATE_MS = 5000


class ClusterNode(RedisServer):
    """One node; its bus has a port of its own choice, since its port and 10,000 is more than there are."""

    def __init__(self, program: str, *options: str, password: str = "", node_timeout_ms: int = 1000) -> None:
        self.bus_port = own_port()
        node = ["--cluster-enabled", "yes", "--cluster-node-timeout", str(node_timeout_ms)]
        bus = ["--cluster-port", str(self.bus_port), "--cluster-announce-ip", "127.0.0.1"]
        steady = ["--cluster-replica-validity-factor", "0", "--cluster-allow-replica-migration", "no"]
        eager = ["--repl-diskless-sync-delay", "0"]
        super().__init__(program, *node, *bus, *steady, *eager, *options, password=password)
        self.id = ""

    def ask(self, *words: str | int) -> Any:
        """What it answers to a command, untouched by redis-py."""
        with self.client(decode_responses=True) as client:
            client.response_callbacks.clear()
            return client.execute_command(*words)

    @property
    def state(self) -> dict[str, str]:
        """What CLUSTER INFO says."""
        return dict(line.split(":", 1) for line in self.ask("CLUSTER", "INFO").split("\r\n") if line)


class ServerCluster:
    """`nodes` primaries with the slots divided equally, and `replicas` for each. Entered, it is complete.

    With `tls`, clients reach every node by TLS; the nodes among themselves go on in plain.
    """

    def __init__(
        self,
        program: str,
        nodes: int = 3,
        replicas: int = 0,
        *,
        password: str = "",
        tls: tuple[Path, Path] | None = None,
        node_timeout_ms: int = 1000,
        options: tuple[str, ...] = (),
    ) -> None:
        self._password, self._tls = password, tls
        self._stack = ExitStack()
        self._fronts: dict[RedisServer, Toxics] = {}
        self.nodes = [
            ClusterNode(program, *options, password=password, node_timeout_ms=node_timeout_ms)
            for _ in range(nodes * (1 + replicas))
        ]
        self._primaries = nodes

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for node in self.nodes:
                stack.callback(node.close)
                node.start()
                node.id = node.ask("CLUSTER", "MYID")
                if self._tls is not None:
                    front = stack.enter_context(Toxics("127.0.0.1", node.port, tls=server_context(*self._tls)))
                    self._fronts[node] = front
                    node.ask("CONFIG", "SET", "cluster-announce-port", front.port)
            self._form()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _form(self) -> None:
        primaries, replicas = self.nodes[: self._primaries], self.nodes[self._primaries :]
        for at, node in enumerate(self.nodes):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", at + 1)
        for at, node in enumerate(primaries):
            first, end = at * SLOTS // len(primaries), (at + 1) * SLOTS // len(primaries)
            node.ask("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        for at, node in enumerate(self.nodes):
            for other in self.nodes[:at]:
                node.ask("CLUSTER", "MEET", "127.0.0.1", other.port, other.bus_port)
        wait_for(lambda: all(self._has_met_all(node) for node in self.nodes), "nodes that have met")
        for at, replica in enumerate(replicas):
            wait_for(partial(_is_taken, replica, primaries[at % len(primaries)]), "a node that becomes a replica")
        wait_for(lambda: all(map(_is_in_sync, replicas)), "replicas in sync")
        self.until_ok()

    def _has_met_all(self, node: ClusterNode) -> bool:
        return int(node.state["cluster_known_nodes"]) == len(self.nodes)

    # -- what clients are told

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where the nodes are, for clients."""
        return [("127.0.0.1", self._port(node)) for node in self.nodes]

    @property
    def url(self) -> str:
        """For GATEWAY_REDIS_URL."""
        hosts = ",".join(f"{host}:{port}" for host, port in self.addresses)
        secret = f":{quote(self._password, safe='')}@" if self._password else ""
        if self._tls is None:
            return f"redis+cluster://{secret}{hosts}"
        return f"rediss+cluster://{secret}{hosts}?ssl_ca_certs={quote(str(self._tls[0]), safe='')}"

    def _port(self, node: RedisServer) -> int:
        return self._fronts[node].port if node in self._fronts else node.port

    # -- who has what

    @property
    def live(self) -> list[ClusterNode]:
        """The nodes that answer."""
        return [node for node in self.nodes if node.is_running]

    @property
    def primaries(self) -> list[ClusterNode]:
        """The live nodes that call themselves primaries."""
        return [node for node in self.live if node.ask("ROLE")[0] == "master"]

    def slot_of(self, key: str) -> int:
        """The key's slot."""
        return int(self.live[0].ask("CLUSTER", "KEYSLOT", key))

    def slot_owner(self, key: str) -> ClusterNode:
        """The primary that has the key's slot, as the first live node sees it."""
        return self.owner(self.slot_of(key))

    def owner(self, slot: int) -> ClusterNode:
        """The primary that has the slot, as the first live node sees it."""
        for first, last, primary, *_ in self.live[0].ask("CLUSTER", "SLOTS"):
            if int(first) <= slot <= int(last):
                return self._by_id(primary[2])
        raise LookupError(f"nobody has slot {slot}")

    def _by_id(self, node_id: str) -> ClusterNode:
        return next(node for node in self.nodes if node.id == node_id)

    def until_ok(self) -> None:
        """Wait until every live node has all slots covered and agrees with the others on their owners."""
        wait_for(self._agrees, "a cluster that agrees")

    def _agrees(self) -> bool:
        with suppress(redis.RedisError):
            if any(node.state["cluster_state"] != "ok" for node in self.live):
                return False
            views = {
                str(sorted([a, b, owner[2]] for a, b, owner, *_ in node.ask("CLUSTER", "SLOTS"))) for node in self.live
            }
            return len(views) == 1
        return False

    # -- faults

    def move_slot(self, slot: int, to: ClusterNode) -> None:
        """Move the slot with its keys, as an operator does it: live."""
        source = self.begin_move(slot, to)
        self.finish_move(slot, source, to)

    def begin_move(self, slot: int, to: ClusterNode) -> ClusterNode:
        """Open the slot for moving; until it is finished, its keys are here and there. Returns where it comes from."""
        source = self.owner(slot)
        to.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", to.id)
        return source

    def finish_move(self, slot: int, source: ClusterNode, to: ClusterNode) -> None:
        """Move what is left and give the slot away."""
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, _MOVED_AT_ONCE):
            secret = ["AUTH", self._password] if self._password else []
            source.ask("MIGRATE", "127.0.0.1", to.port, "", 0, _MIGRATE_MS, "REPLACE", *secret, "KEYS", *keys)
        for node in (to, source, *self.primaries):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", to.id)
        self.until_ok()

    def kill(self, node: ClusterNode) -> None:
        """End it without a word."""
        node.stop()

    def until_replaced(self, victim: ClusterNode) -> None:
        """Wait until a replica has taken the place of a killed primary and all agree."""
        wait_for(lambda: self._has_lost_its_slots(victim), "a replica that takes over", 20.0)
        self.until_ok()

    def _has_lost_its_slots(self, victim: ClusterNode) -> bool:
        return all(owner[2] != victim.id for _, _, owner, *_ in self.live[0].ask("CLUSTER", "SLOTS"))

    def restart(self, node: ClusterNode) -> None:
        """Bring a killed node back, empty, and wait until all is well."""
        node.start()
        if node in self._fronts:
            node.ask("CONFIG", "SET", "cluster-announce-port", self._port(node))
        self.until_ok()

    def flushall(self) -> None:
        """Every primary loses its keys."""
        for node in self.primaries:
            node.ask("FLUSHALL")

    def mend(self) -> None:
        """Thaw and start whoever needs it, and wait until all is well."""
        for node in self.nodes:
            if node.is_running:
                node.thaw()
            else:
                self.restart(node)
        self.until_ok()


def _is_taken(replica: ClusterNode, primary: ClusterNode) -> bool:
    # Refused until the replica-to-be has heard of its primary.
    with suppress(redis.ResponseError):
        replica.ask("CLUSTER", "REPLICATE", primary.id)
        return True
    return False


def _is_in_sync(replica: ClusterNode) -> bool:
    return "master_link_status:up" in replica.ask("INFO", "replication")
