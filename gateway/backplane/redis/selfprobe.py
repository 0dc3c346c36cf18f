"""Finds a subscription that is dead without a sign: the worker sends itself a message now and then.

Theory of operation
-------------------
A server can answer pings and take commands, and still never pass on what is published: one that was demoted, that
was cut off, or quite another one. So, when a mailbox has got nothing for an interval, a tiny message is published to
it on the way that all messages go. If Redis took it and it does not arrive within two intervals, or if Redis says
that nobody listens, the subscription is made anew. A publish that fails is the command connection's trouble and says
nothing; a busy mailbox is never probed; while a long message is coming in nothing is judged.
"""

import asyncio
import logging
from functools import partial
from typing import Any

from gateway.backplane.redis.commands import Command, CommandLink
from gateway.backplane.redis.subscriber import Subscriptions

logger = logging.getLogger(__name__)

MESSAGE = b'{"v":1,"t":"probe","reason":"self","len":0}\n'
"""What a worker tells itself; nobody else ever gets it."""

_PATIENT_LOOKS = 2
_OWN_READS = 2
"""What comes in per interval on an idle connection: the answer to a ping, and perhaps another one."""


class SelfProbe:
    """Watches over one channel. `heard` is called by whoever gets its messages."""

    def __init__(
        self,
        link: CommandLink,
        subscriber: Subscriptions,
        channel: str,
        *,
        publish: str,
        seconds: float,
    ) -> None:
        self.has_heard = False
        """Set whenever a message came on the channel."""
        self._link, self._subscriber = link, subscriber
        self._channel, self._publish, self._seconds = channel, publish, seconds
        self._round = 0
        self._receivers: int | None = None
        """Who got the probe of this round, once Redis has said so."""
        self._looks = 0

    async def run(self) -> None:
        """Watch until cancelled."""
        reads = 0
        while True:
            await asyncio.sleep(self._seconds)
            reads, before = self._subscriber.reads(self._channel), reads
            if self.has_heard or not self._subscriber.hears(self._channel):
                self.has_heard = False
                self._begin_again()
            elif self._receivers is None:
                self._send()
            elif self._receivers == 0:
                self._restart("nobody is subscribed, says the server")
            elif reads - before <= _OWN_READS:
                self._looks += 1
                if self._looks >= _PATIENT_LOOKS:
                    self._restart("what is published does not arrive")

    def _begin_again(self) -> None:
        self._round += 1
        self._receivers = None
        self._looks = 0

    def _send(self) -> None:
        if self._link.up.is_set():
            told = partial(self._on_reply, self._round)
            self._link.enqueue(Command((self._publish, self._channel, MESSAGE), told))

    def _on_reply(self, of_round: int, reply: Any) -> None:
        # The message may have been heard before the reply to its publish was: that round is over.
        if of_round == self._round and isinstance(reply, int):
            self._receivers = reply

    def _restart(self, reason: str) -> None:
        self._subscriber.meters.redis_probe_failures_total.add()
        text = "the subscription is silently dead (%s); making it anew"
        logger.warning(text, reason, extra={"event": "subscription_dead", "cause": reason})
        self._begin_again()
        self._subscriber.drop(f"the subscription is silently dead: {reason}", self._channel)
