"""Refusals: what the peer is answered instead of what it asked for, and the log's lines about that, never too many."""

import logging
import math
import time
from collections.abc import Mapping

from gateway.muffler import Muffler
from gateway.sources import source_name

RETRY_SECONDS = 5


class Refused(Exception):
    """The answer to a handshake or a request: an HTTP status, and a text that is the same for all causes of it.

    `kind` is the word under which it is counted (`meters.REFUSALS`); `cause` is for the log alone.
    """

    def __init__(self, status: int, kind: str, text: str, cause: str = "", *, retry_seconds: float = 0.0) -> None:
        super().__init__(text)
        self.status = status
        self.kind = kind
        self.text = text
        self.cause = cause or text
        self.about: dict[str, str] = {}
        """Who it was, as far as that is known, for the log."""
        self._retry_seconds = retry_seconds

    @property
    def headers(self) -> dict[str, str]:
        """The headers that belong to the status: what would open the door, or when to come again."""
        if self.status == 401:
            return {"WWW-Authenticate": "Bearer"}
        if self.status == 405:
            return {"Allow": "GET"}
        if self.status == 503 or self._retry_seconds:
            return {"Retry-After": str(math.ceil(self._retry_seconds) or RETRY_SECONDS)}
        return {}


class RefusalLog:
    """The log's lines about who was refused. Refusing costs a stranger nothing, so most of a flood is only counted."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._muffler = Muffler()

    def tell(self, level: int, text: str, fields: Mapping[str, object], *, event: str) -> None:
        """Log this, unless the `address` or all of them together have been told of too often; then it is counted."""
        now = time.monotonic()
        address = str(fields.get("address"))
        passes = self._muffler.passes(source_name(address) or address, event, now)
        held = self._muffler.owed(now)
        if held:
            extra = {"event": "refusals_suppressed", "refusals": sum(held.values()), "events": dict(held)}
            self._logger.warning("refusals that were not logged one by one", extra=extra)
        if passes:
            self._logger.log(level, text, extra={"event": event, **fields})
