"""Shows out whose credential no longer holds: revoked, expired, or of a kind that was switched off.

Theory of operation
-------------------
Who is let in is decided in the handshake. This room looks at those that are in: at the ones concerned when a book has
changed, at a newcomer once it is in (its token may have been revoked while it was being accepted), and at everybody as
often as a beat comes for what has expired: by this worker's clock, whether the store is there or not. Thousands at once
are closed in slices, so that the worker goes on working.
"""

import logging
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from gateway import revocations
from gateway.connection import Connection
from gateway.errors import CloseCode
from gateway.hub import Hub
from gateway.policies import DEFAULT
from gateway.rulebook import Rulebook
from gateway.settings import Settings
from gateway.tokens import takes_legacy
from gateway.toollink import ToolLink

logger = logging.getLogger(__name__)

CLOSED_PER_TICK = 500
FORGOTTEN_MIN = 100


@dataclass(frozen=True, slots=True)
class Ground:
    """Why somebody has to go: one word for the log, a sentence for the close frame."""

    cause: str
    reason: str


REVOKED = Ground("revoked", "令牌已吊销 / token revoked")
EXPIRED = Ground("expired", "令牌已过期 / token expired")
LEGACY_OFF = Ground("legacy_off", "旧式令牌已停用 / tokens of the old kind are switched off")


class Bouncer:
    """Who has to leave this worker, and when."""

    def __init__(self, settings: Settings, hub: Hub, rulebook: Rulebook) -> None:
        self._settings, self._hub, self._rulebook = settings, hub, rulebook
        self._due: deque[str] = deque()
        self._closing: set[str] = set()
        self._look_every_ms = 1000 * settings.beat_seconds
        self._looked_ms = 0
        self._expiring: list[tuple[int, str]] = []
        """When whose token expires, as a heap; with some connections in it that have gone meanwhile."""

    def ground(self, connection: Connection, now_ms: int) -> Ground | None:
        """Return why the connection has to go; None: it may stay."""
        credential = connection.credential
        if self._rulebook.revocations.is_revoked(credential):
            return REVOKED
        if 0 < credential.expires_ms <= now_ms:
            return EXPIRED
        if credential.is_legacy and not self._takes_legacy(connection):
            return LEGACY_OFF
        return None

    def _takes_legacy(self, connection: Connection) -> bool:
        policy = self._rulebook.policies.of(connection.agent)
        return takes_legacy(policy.legacy_tokens_mode(self._settings.legacy_tokens), connection.kind.value)

    def note(self, connection: Connection, now_ms: int) -> None:
        """Somebody is just in: see whether he may stay, and until when."""
        self._remember(connection)
        if self.ground(connection, now_ms) is not None:
            self._show_out((connection,), now_ms)

    def _remember(self, connection: Connection) -> None:
        expires_ms = connection.credential.expires_ms
        if expires_ms:
            heappush(self._expiring, (expires_ms, connection.id))
        if len(self._expiring) > 2 * len(self._hub) + FORGOTTEN_MIN:
            self._expiring = [entry for entry in self._expiring if self._hub.find(entry[1])]
            heapify(self._expiring)

    def _look_at_expired(self, now_ms: int) -> None:
        while self._expiring and self._expiring[0][0] <= now_ms:
            link = self._hub.find(heappop(self._expiring)[1])
            if link is not None:
                self._show_out((link.connection,), now_ms)

    def on_change(self, book: str, names: Collection[str], now_ms: int) -> None:
        """Something was decided: entries of these names are others now."""
        agents, token_ids = revocations.named(names) if book == revocations.BOOK else (set(names), set[str]())
        are_all = book != revocations.BOOK and DEFAULT in agents
        self._show_out(
            (
                one
                for one in self._hub.connections
                if are_all or one.agent in agents or one.credential.token_id in token_ids
            ),
            now_ms,
        )

    def tick(self, now_ms: int) -> None:
        """Close some of those that have to go; now and then, look whose time is over."""
        if not 0 <= now_ms - self._looked_ms < self._look_every_ms:  # the store's clock may be set back
            self._looked_ms = now_ms
            self._look_at_expired(now_ms)
        if not self._due:
            return
        counts: dict[str, int] = {}
        for _ in range(min(len(self._due), CLOSED_PER_TICK)):
            cause = self._close(self._due.popleft(), now_ms)
            counts[cause] = counts.get(cause, 0) + 1
        for cause, count in counts.items():
            if cause:
                fields = {"event": "shown_out", "cause": cause, "connections": count}
                logger.info("connections closed: their tokens no longer count", extra=fields)

    def _show_out(self, connections: Iterable[Connection], now_ms: int) -> None:
        found = [one.id for one in connections if self.ground(one, now_ms) and one.id not in self._closing]
        self._due.extend(found)
        self._closing.update(found)

    def _close(self, connection_id: str, now_ms: int) -> str:
        """Return the cause; empty where there is none (any more)."""
        self._closing.discard(connection_id)
        link = self._hub.find(connection_id)
        ground = self.ground(link.connection, now_ms) if link is not None else None
        if link is None:
            return ""
        if ground is None:
            self._remember(link.connection)  # the clock was set back
            return ""
        if isinstance(link, ToolLink):
            link.close(CloseCode.POLICY, ground.reason, ground.reason)
        else:
            link.connection.wire.close(int(CloseCode.POLICY), ground.reason)
        return ground.cause
