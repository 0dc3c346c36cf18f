"""Doing one thing for many: where one of them fails, the others still get theirs."""

import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")


def for_each(items: Iterable[T], act: Callable[[T], None], what: str) -> None:
    """Call `act` with every item. A failure is logged with `what` could not be done, and the next one is taken."""
    for item in items:
        try:
            act(item)
        except Exception:
            # Calls of different people wait side by side: none may go without an answer because of another's.
            text = "failed for one of several, going on with the others: %s"
            logger.exception(text, what, extra={"event": "item_failed"})
