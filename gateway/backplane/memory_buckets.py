"""The limits' buckets of one process: the same arithmetic as the script `take` of the Redis backplane."""

import asyncio
import math
from collections.abc import Callable

from gateway.backplane.base import Asked, Taken
from gateway.backplane.memory_store import MemoryCore

_MOST_WINDOWS = 5.0


class MemoryBuckets(MemoryCore):
    """See `gateway.backplane.base.Buckets`."""

    def take_ahead(self, asked: Asked, on_taken: Callable[[Taken | None], None]) -> None:
        asyncio.get_running_loop().call_soon(on_taken, take(self._store.buckets, asked, self._store.clock()))


def take(full_at: dict[str, float], asked: Asked, now: float) -> Taken:
    """Take from all of the buckets or from none; of each it is kept when it is full again (seconds)."""
    granted, wait_seconds = asked.want, 0.0
    after: dict[str, float] = {}
    for bucket in asked.buckets:
        name = f"{'source' if asked.is_source else 'rate'} {asked.owner} {bucket.name}"
        unit, window = 1 / bucket.per_second, bucket.units / bucket.per_second
        at = min(max(full_at.get(name, 0.0), now) + asked.debt * unit, now + _MOST_WINDOWS * window)
        left = math.floor((now + window - at) / unit + 0.001)
        if left < 1:
            wait_seconds = max(wait_seconds, at + unit - now - window)
        granted = max(0, min(granted, max(math.ceil(left / 2), min(left, 1))))
        after[name] = at
    if granted + asked.debt:
        for bucket, (name, at) in zip(asked.buckets, after.items(), strict=True):
            full_at[name] = at + granted / bucket.per_second
    return Taken(granted, wait_seconds)
