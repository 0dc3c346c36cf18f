"""What the gateway reads from the machine it runs on, made equal in every run: clocks, chance, its own name."""

import dataclasses
import importlib.metadata
import os
import random
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from gateway import lease
from gateway.backplane.redis import RedisBackplane
from tests.simulation.loop import EPOCH_SECONDS, SimLoop

RECONCILE_SECONDS = 6.0


@contextmanager
def machine(loop: SimLoop, seed: int) -> Iterator[None]:
    """Inside, time is the loop's and chance is the seed's."""
    state = random.getstate()
    random.seed(seed)
    try:
        with (
            patch.object(time, "time", lambda: loop.wall_seconds),
            patch.object(time, "monotonic", loop.time),
            patch.object(os, "getpid", lambda: 4711),
            patch.object(socket, "gethostname", lambda: "simulated"),
            # a deleted row comes back within this time, which no setting shortens
            patch.object(lease, "RECONCILE_SECONDS", RECONCILE_SECONDS),
            # redis-py reads its own package's metadata from disk with every connection
            patch.object(importlib.metadata, "version", lambda name: "0"),
        ):
            yield
    finally:
        random.setstate(state)


def set_clock(backplane: RedisBackplane, loop: SimLoop, skew_seconds: float) -> None:
    """Give the backplane the loop's clock, and a clock on the wall that is wrong by so much until Redis tells it."""
    parts: Any = backplane  # no part of the interface: the clock is taken at import
    parts._tools = dataclasses.replace(parts._tools, monotonic=loop.time)
    parts._offset_ms = (EPOCH_SECONDS + skew_seconds) * 1000
    expected_ms = (loop.wall_seconds + skew_seconds) * 1000
    assert abs(backplane.now_ms - expected_ms) <= 1, "the backplane reads another clock than the simulation's"
