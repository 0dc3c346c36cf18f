"""What a test of the cluster may see of a worker besides its sockets."""

from typing import Any

from tests.support import running
from tests.support.gateway import Gateway


def served(gateway: Gateway) -> running.Worker:
    """The worker with its server, as the tests started it."""
    assert isinstance(gateway.worker, running.Worker)
    return gateway.worker


def worker_of(gateway: Gateway) -> Any:
    """The worker itself; without a type, since tests look into rooms that are nobody else's business."""
    return served(gateway).room


def id_of(gateway: Gateway) -> str:
    return served(gateway).id


def is_connected(gateway: Gateway) -> bool:
    """Whether it believes that it can reach the store."""
    return bool(worker_of(gateway).backplane.is_connected)
