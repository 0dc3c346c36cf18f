"""What is asked of a running gateway by those who run it: is it alive, is it ready, what does it measure, may it go?"""

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Said:
    """The answer to a probe: yes or no, and the words for it."""

    is_ok: bool
    text: str


class Instance(Protocol):
    """Who is asked: one worker (`gateway.instance`), or all workers of a supervisor (`gateway.fleet`)."""

    async def livez(self) -> Said:
        """Whether every event loop turns. Nothing outside is asked: a Redis outage must not restart workers."""

    async def readyz(self) -> Said:
        """Whether connections are taken."""

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """Prometheus text and its content type."""

    async def drain(self, *, begins: bool) -> dict[str, Any]:
        """How far the drain is; `begins`: it is to begin, unless that has happened."""
