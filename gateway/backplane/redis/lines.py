"""What a backplane speaks and hears through, made for the kind of Redis that the URL names."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from gateway.backplane.redis.address import Node
from gateway.backplane.redis.cluster_link import ClusterLink
from gateway.backplane.redis.cluster_subscriber import ClusterSubscriber
from gateway.backplane.redis.commands import CommandLink
from gateway.backplane.redis.connector import Connector
from gateway.backplane.redis.link import Link
from gateway.backplane.redis.sentinel import Sentinels
from gateway.backplane.redis.subscriber import Subscriber, Subscriptions
from gateway.backplane.redis.topology import Topology


@dataclass(frozen=True, slots=True)
class Timing:
    """How long things may take, and how often they are looked at (see `RedisOptions`)."""

    patience_seconds: float
    ping_seconds: float
    poll_seconds: float
    topology_seconds: float


@dataclass(frozen=True, slots=True)
class Hearing:
    """What is heard, and who hears it. The mailbox comes first."""

    channels: tuple[str, ...]
    on_message: Callable[[bytes, bytes], None]
    on_gap: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Lines:
    """The link and the subscriptions; all of `runs` must be running."""

    link: CommandLink
    subscriber: Subscriptions
    runs: tuple[Callable[[], Coroutine[Any, Any, None]], ...]
    publish: str = "PUBLISH"


def make_lines(connector: Connector, timing: Timing, home: str, hearing: Hearing) -> Lines:
    """What fits the address. `home` is a key of this worker, whose slot matters most in a Cluster."""
    if connector.address.kind == "cluster":
        return _cluster(connector, timing, home, hearing)
    link = Link(connector, patience_seconds=timing.patience_seconds)
    subscriber = Subscriber(
        connector,
        hearing.channels,
        on_message=hearing.on_message,
        on_gap=hearing.on_gap,
        ping_seconds=timing.ping_seconds,
    )
    if connector.address.kind == "single":
        return Lines(link, subscriber, (link.run, subscriber.run))

    def on_moved(primary: Node) -> None:
        for line in (link, subscriber):
            line.drop(f"主节点现在是 {primary} / the primary is {primary} now")

    sentinels = Sentinels(connector, poll_seconds=timing.poll_seconds, on_moved=on_moved)
    connector.locate = sentinels.locate
    return Lines(link, subscriber, (sentinels.run, link.run, subscriber.run))


def _cluster(connector: Connector, timing: Timing, home: str, hearing: Hearing) -> Lines:
    topology = Topology(connector, poll_seconds=timing.topology_seconds)
    link = ClusterLink(connector, topology, home, patience_seconds=timing.patience_seconds)
    subscriber = ClusterSubscriber(
        connector,
        topology,
        hearing.channels,
        on_message=hearing.on_message,
        on_gap=hearing.on_gap,
        ping_seconds=timing.ping_seconds,
    )
    return Lines(link, subscriber, (link.run, subscriber.run), publish="SPUBLISH")
