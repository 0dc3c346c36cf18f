"""Every key and channel of the Redis backplane, spelled here and nowhere else, and how long each is kept.

`{…}` are hash tags: keys that one script touches share a tag, so that they share a slot in a Cluster.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import NewType

_PLAIN_AGENT = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_PLAIN = re.compile(r"[A-Za-z0-9._?-]{1,160}", re.ASCII)
_PLAIN_TOGETHER = re.compile(r"[A-Za-z0-9._?-]{0,320}", re.ASCII)

DURABLE = ("policy", "revoked", "pins")
"""First words of the keys that have no TTL, by intent: people wrote them, and only people remove them."""

_RENEWALS = 3
_MINUTE_MS = 60_000
_HOUR_MS = 60 * _MINUTE_MS


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long keys are kept after they were last written or renewed (ms): at least three renewals each."""

    agent_ms: int = 25 * _HOUR_MS
    """Revision, rows, claims and the list of agents: as long as names are held, and an hour."""
    seen_ms: int = 7 * 24 * _HOUR_MS
    robots_ms: int = 30 * _MINUTE_MS
    toolset_ms: int = _HOUR_MS
    owned_ms: int = 30 * _MINUTE_MS
    workers_ms: int = _HOUR_MS
    events_ms: int = 7 * 24 * _HOUR_MS
    rate_ms: int = 6 * _MINUTE_MS
    """Buckets of limits: an untouched one is full again by then, and as good as none."""
    changes_ms: int = _HOUR_MS
    """How long what changed in a book is listed; who asks for older changes reads all of it."""
    call_spare_ms: int = 30_000
    """How long a call's record may outlive the call's deadline."""

    @classmethod
    def derive(cls, *, name_hold_seconds: float, renew_seconds: float) -> "Lifetimes":
        """The lifetimes that fit these settings."""
        renewals_ms = int(_RENEWALS * renew_seconds * 1000)
        return cls(
            agent_ms=max(int(name_hold_seconds * 1000) + _HOUR_MS, renewals_ms),
            robots_ms=max(30 * _MINUTE_MS, renewals_ms),
            toolset_ms=max(_HOUR_MS, renewals_ms),
        )


AgentTag = NewType("AgentTag", str)
"""An agent as it appears in keys."""


def agent_tag(agent: str) -> AgentTag:
    """The agent itself where that is plain, else `h-` and 32 hex of its SHA-256."""
    if _PLAIN_AGENT.fullmatch(agent) and not is_hashed(agent):
        return AgentTag(agent)
    return AgentTag("h-" + hashlib.sha256(agent.encode("utf-8", "surrogatepass")).hexdigest()[:32])


def is_hashed(tag: str) -> bool:
    """Whether it has a hash's form. An agent whose own id has it is hashed too: no two agents ever share keys."""
    return tag.startswith("h-") and len(tag) == 34


def is_plain(*ids: str) -> bool:
    """Whether ids of workers, connections, calls or tool sets, that others have written, may become part of a key.

    Whatever they are made of: an empty one is none, and a long one or one with braces is somebody's attack.
    """
    return all(map(_PLAIN.fullmatch, ids))


def are_plain(*ids: str) -> bool:
    """As `is_plain`, looked at together since every envelope has some; one that is left out may be empty."""
    return _PLAIN_TOGETHER.fullmatch("".join(ids)) is not None


class Keys:
    """The keys of one deployment, all under one prefix."""

    def __init__(self, prefix: str = "mcpgw:") -> None:
        self.prefix = prefix
        self.workers = f"{prefix}workers"
        self.agents = f"{prefix}agents"
        self.events = f"{prefix}events"
        self.audit = f"{prefix}audit"
        self.ctl = f"{prefix}ctl"

    def worker(self, worker: str) -> str:
        return f"{self.prefix}worker:{{{worker}}}"

    def owned(self, worker: str) -> str:
        return f"{self.prefix}owned:{{{worker}}}"

    def inflight(self, worker: str) -> str:
        return f"{self.prefix}inflight:{{{worker}}}"

    def call(self, worker: str, call_id: str) -> str:
        return f"{self.prefix}call:{{{worker}}}:{call_id}"

    def mailbox(self, worker: str) -> str:
        return f"{self.prefix}in:{{{worker}}}"

    def revision(self, tag: AgentTag) -> str:
        return f"{self.prefix}rev:{{{tag}}}"

    def servers(self, tag: AgentTag) -> str:
        return f"{self.prefix}servers:{{{tag}}}"

    def names(self, tag: AgentTag) -> str:
        return f"{self.prefix}names:{{{tag}}}"

    def seen(self, tag: AgentTag) -> str:
        return f"{self.prefix}seen:{{{tag}}}"

    def pins(self, tag: AgentTag) -> str:
        return f"{self.prefix}pins:{{{tag}}}"

    def robots(self, tag: AgentTag) -> str:
        return f"{self.prefix}robots:{{{tag}}}"

    def rate(self, tag: AgentTag) -> str:
        """The buckets of an agent's limits."""
        return f"{self.prefix}rate:{{{tag}}}"

    def source(self, name: str) -> str:
        """The bucket of an IPv4 address, or of an IPv6 network."""
        return f"{self.prefix}source:{name}"

    def catalog(self, tag: AgentTag) -> str:
        return f"{self.prefix}catalog:{{{tag}}}"

    def toolset(self, digest: str) -> str:
        return f"{self.prefix}toolset:{digest}"

    def book(self, book: str) -> str:
        return f"{self.prefix}{book}"

    def changes(self, book: str) -> str:
        """What changed in a book; the tag is the book's whole key, so that both share a slot."""
        return f"{self.prefix}changes:{{{self.book(book)}}}"

    def is_durable(self, key: str) -> bool:
        """Whether the key is meant to have no TTL: a book, or the pins of one agent."""
        if not key.startswith(self.prefix):
            return False
        name, _, rest = key.removeprefix(self.prefix).partition(":")
        return name in DURABLE and bool(rest) is (name == "pins")
