"""The operators' event log, which is worth a line where it can be had, and no more."""

import logging
from collections.abc import Mapping
from typing import Any

from gateway.backplane.base import Backplane, BackplaneUnavailable

logger = logging.getLogger(__name__)


async def tell(backplane: Backplane, kind: str, fields: Mapping[str, Any]) -> None:
    """Add a line to the event log; while the store is away the line is missing, and nothing else happens."""
    try:
        await backplane.event(kind, fields)
    except BackplaneUnavailable as error:
        logger.debug("event not written", extra={"event": "event_not_written", "kind": kind, "cause": str(error)})
