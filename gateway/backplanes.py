"""Which backplane the settings ask for, picked here alone. Imports no server and none of a worker's rooms."""

import secrets
import socket
from pathlib import Path

from gateway.backplane.base import Backplane
from gateway.settings import Settings


def make_backplane(settings: Settings) -> Backplane:
    """The backplane that the settings ask for, not connected yet."""
    if not settings.redis_url:
        from gateway.backplane.memory import MemoryBackplane, MemoryStore

        return MemoryBackplane(MemoryStore(directory=Path(settings.data_dir)), new_worker_id())
    # redis-py takes a while to import; a home needs none of it.
    from gateway.backplane.keys import Lifetimes
    from gateway.backplane.redis import RedisBackplane, RedisOptions

    lifetimes = Lifetimes.derive(name_hold_seconds=settings.name_hold_seconds, renew_seconds=settings.renew_seconds)
    timeout_seconds, usual = settings.redis_timeout_seconds, RedisOptions()
    options = RedisOptions(
        prefix=settings.redis_prefix,
        timeout_seconds=timeout_seconds,
        patience_seconds=timeout_seconds,
        # Who wants quicker answers wants trouble to be noticed as much earlier; never later.
        ping_seconds=min(usual.ping_seconds, timeout_seconds / 2),
        probe_seconds=min(usual.probe_seconds, timeout_seconds / 2),
        poll_seconds=min(usual.poll_seconds, timeout_seconds / 4),
        lifetimes=lifetimes,
        seen_limit=2 * settings.servers_per_agent,
        envelope_key=settings.envelope_key,
        is_bare=settings.call_records == "bare",
    )
    return RedisBackplane(settings.redis_url, new_worker_id(), options)


def new_worker_id() -> str:
    """An id for one life of a worker: host and chance, so that no successor inherits what a dead one left."""
    host = "".join(c if c.isascii() and (c.isalnum() or c in ".-") else "-" for c in socket.gethostname())[:40]
    return f"{host or 'worker'}-{secrets.token_hex(4)}"
