"""What tests do to a worker from outside: find its loop, set its clock, close its ear, change its envelopes."""

import asyncio
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson

from gateway import worker as worker_module
from gateway.backplane import envelope as envelopes
from gateway.backplane.base import BackplaneUnavailable
from gateway.backplane.envelope import Envelope
from gateway.backplane.redis import RedisBackplane

GOSSIP_SECONDS = 0.2


@dataclass(slots=True)
class Clock:
    """What `time.time` says beyond the truth."""

    offset_seconds: float = 0.0


@dataclass(slots=True)
class Ear:
    """What arrives while it is deaf is lost."""

    is_deaf: bool = False


CLOCK, EAR = Clock(), Ear()
_LOOPS: list[asyncio.AbstractEventLoop] = []


def loop_of_the_worker() -> asyncio.AbstractEventLoop | None:
    """The loop, once it turns."""
    return _LOOPS[0] if _LOOPS else None


def install() -> None:
    """Make the worker answer to the orders of `tests.chaos.worker`."""
    true_time = time.time
    time.time = lambda: true_time() + CLOCK.offset_seconds
    on_message = RedisBackplane._on_message

    def heard(self: RedisBackplane, channel: bytes, message: bytes) -> None:
        if not EAR.is_deaf:
            on_message(self, channel, message)

    RedisBackplane._on_message = heard  # type: ignore[method-assign]
    tick = worker_module.Worker._tick

    async def noted(self: worker_module.Worker) -> None:
        _LOOPS.append(asyncio.get_running_loop())
        await tick(self)

    worker_module.Worker._tick = noted  # type: ignore[method-assign]


def replace_everywhere(name: str, old: Any, new: Any) -> None:
    """Put something else in the place of a function, in every module that has imported it by name."""
    for module_name, module in list(sys.modules.items()):
        if module_name.startswith("gateway") and getattr(module, name, None) is old:
            setattr(module, name, new)


def _with_more_to_say(header: dict[str, Any]) -> dict[str, Any]:
    return {**header, "hops": 3, "trace": {"id": "0af7651916cd43dd", "sampled": True}, "zone": "东"}


def _of_version_2(header: dict[str, Any]) -> dict[str, Any]:
    return {**header, "v": envelopes.VERSION + 1}


def _rewrite_headers(change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    encode = envelopes.encode

    def encoded(envelope: Envelope) -> bytes:
        head, _, body = encode(envelope).partition(b"\n")
        return orjson.dumps(change(orjson.loads(head))) + b"\n" + body

    replace_everywhere("encode", encode, encoded)


def speak_newer() -> None:
    """Header fields that nobody knows yet, and now and then a message of a type from the future to every worker."""
    _rewrite_headers(_with_more_to_say)
    tick = worker_module.Worker._tick

    async def gossiping(self: worker_module.Worker) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_gossip(self))
            await tick(self)

    worker_module.Worker._tick = gossiping  # type: ignore[method-assign]


async def _gossip(worker: worker_module.Worker) -> None:
    while True:
        await asyncio.sleep(GOSSIP_SECONDS)
        with suppress(BackplaneUnavailable):
            for other in (await worker.backplane.overview(limit=1)).workers:
                worker.backplane.send(other, Envelope("gossip", id="g", body=b"{}"))


def speak_version_2() -> None:
    """An incompatible version: neither side understands the other."""
    _rewrite_headers(_of_version_2)
    Envelope.is_supported = property(  # type: ignore[method-assign,assignment]
        lambda self: self.version in (envelopes.VERSION + 1,) and self.type in envelopes.TYPES
    )


VERSIONS: dict[str, Callable[[], None]] = {"newer": speak_newer, "version 2": speak_version_2}
