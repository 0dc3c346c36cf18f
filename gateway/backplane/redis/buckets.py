"""The limits' buckets in Redis: one script, one round trip for all that a turn of the event loop asks for."""

from collections.abc import Callable
from typing import Any

from gateway.backplane.base import Asked, Taken
from gateway.backplane.keys import agent_tag
from gateway.backplane.redis.commands import script_command
from gateway.backplane.redis.core import Core


class Buckets(Core):
    """See `gateway.backplane.base.Buckets`."""

    def take_ahead(self, asked: Asked, on_taken: Callable[[Taken | None], None]) -> None:
        keys = self._keys
        key = keys.source(asked.owner) if asked.is_source else keys.rate(agent_tag(asked.owner))
        args: list[Any] = [self._lifetimes.rate_ms, asked.want, asked.debt]
        for bucket in asked.buckets:
            args += [bucket.name, f"{1_000_000 / bucket.per_second:.6f}", f"{bucket.units:.6f}"]
        command = script_command("take", [key], args)
        command.on_reply = lambda reply: on_taken(_taken(reply))
        self._link.enqueue(command)


def _taken(reply: Any) -> Taken | None:
    if not isinstance(reply, list):
        return None  # refused, or nobody knows
    units, wait_ms = reply
    return Taken(int(units), int(wait_ms) / 1000)
