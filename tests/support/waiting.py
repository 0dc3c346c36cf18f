"""Waiting for a condition instead of sleeping: bounded, and a failure says what was waited for."""

import asyncio
from collections.abc import Callable
from inspect import isawaitable
from typing import Any

_PAUSE_SECONDS = 0.01


async def wait_until(predicate: Callable[[], Any], description: str, seconds: float = 5.0) -> Any:
    """The first true value of the predicate (plain or async), asked every 10 ms; AssertionError after `seconds`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        answer = predicate()
        value = await answer if isawaitable(answer) else answer
        if value:
            return value
        if loop.time() >= deadline:
            raise AssertionError(f"waited {seconds} s in vain: {description} (the last answer was {value!r})")
        await asyncio.sleep(_PAUSE_SECONDS)
