"""Whose tokens no longer count, by the book `revoked`.

An entry `agent:<A>` holds from when on the agent's tokens count again (`before_ms`): everything that was issued before
is refused. Tokens of the old kind have no time of issue, so they are refused for as long as the entry stands. An entry
`token:<id>` is about one token, and over when that has expired (`until_ms`; 0: never). What can't be understood
refuses as much as it could mean.
"""

import math
from collections.abc import Iterable, Mapping

import orjson

from gateway.credential import Credential

BOOK = "revoked"
_AGENT, _TOKEN = "agent:", "token:"


def of_agent(agent: str) -> str:
    """The name of the agent's entry."""
    return _AGENT + agent


def of_token(token_id: str) -> str:
    """The name of the token's entry."""
    return _TOKEN + token_id


def named(names: Iterable[str]) -> tuple[set[str], set[str]]:
    """Return the agents and the token ids that entries of these names are about."""
    listed = list(names)
    agents = {name.removeprefix(_AGENT) for name in listed if name.startswith(_AGENT)}
    return agents, {name.removeprefix(_TOKEN) for name in listed if name.startswith(_TOKEN)}


class Revocations:
    """What is revoked now."""

    def __init__(self) -> None:
        self._agents: dict[str, float] = {}
        """Agent → its tokens issued before this time (ms) are revoked."""
        self._tokens: dict[str, float] = {}
        """Token id → the time (ms) at which it has expired anyway."""

    def __len__(self) -> int:
        return len(self._agents) + len(self._tokens)

    def __repr__(self) -> str:
        return f"<Revocations [{len(self._agents)} agents, {len(self._tokens)} tokens]>"

    def is_revoked(self, credential: Credential) -> bool:
        """Return whether the book refuses this credential."""
        if not self._agents and not self._tokens:
            return False
        before_ms = self._agents.get(credential.agent)
        if before_ms is not None and (credential.is_legacy or credential.issued_ms < before_ms):
            return True
        return credential.token_id in self._tokens

    def put(self, name: str, text: bytes | None) -> None:
        """Take over an entry of the book; None: it is no longer there."""
        if name.startswith(_AGENT):
            kept, key, field = self._agents, name.removeprefix(_AGENT), "before_ms"
        else:
            kept, key, field = self._tokens, name.removeprefix(_TOKEN), "until_ms"
        if text is None:
            kept.pop(key, None)
        elif key:  # the old tokens have no id, and are nobody's to revoke by it
            kept[key] = _time(text, field)


def until_ms(name: str, text: bytes) -> float:
    """Return when the entry no longer matters (ms); infinity if it always does."""
    return _time(text, "until_ms") if name.startswith(_TOKEN) and text else math.inf


def _time(text: bytes, field: str) -> float:
    """The time in that field; infinity where there is none."""
    try:
        entry = orjson.loads(text)
    except orjson.JSONDecodeError:
        return math.inf
    value = entry.get(field) if isinstance(entry, Mapping) else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else math.inf
