"""The facts that workers share about one agent's tool servers, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

State = Literal["handshake", "up", "offline"]


@dataclass(frozen=True, slots=True)
class Row:
    """One tool server of an agent. `handshake` rows are kept under `~<conn>` until the tool server is known.

    All times are milliseconds of the backplane's clock.
    """

    state: State
    worker: str
    conn: str
    since: int
    epoch: int = 0
    anonymous: bool = False
    name: str = ""
    version: str = ""
    toolset: str = ""
    tools: int = 0
    offline_since: int = 0
    cause: str = ""
    takeovers: tuple[int, ...] = ()
    toolset_bytes: int = 0
    """The size of its tool set's JSON text; 0 where an older worker has registered it."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Who holds a listed name: tool `original` of tool server `server`, since `claimed`, free after `until`."""

    server: str
    original: str
    claimed: int
    until: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What is remembered of a tool server after it has gone."""

    connected: int = 0
    disconnected: int = 0
    cause: str = ""
    error: str = ""
    """What went wrong last in a handshake, or with its list."""
    failed: int = 0
    """When that was."""


@dataclass(frozen=True, slots=True)
class Pins:
    """What a tool server's tools were when they were first seen, or last approved: never more than people know of.

    `tools` and `offered` map a tool (`pins.pin_key`) to its fingerprint, as `gateway.pins` makes it.
    """

    since: int = 0
    """When its first list was pinned; 0: nothing is pinned, it was forgotten by hand."""
    decided: int = 0
    """When somebody approved or forgot something last; 0: never."""
    tools: Mapping[str, str] = field(default_factory=dict)
    offered: Mapping[str, str] = field(default_factory=dict)
    """Of the list that it has now: what is not as it is pinned, or not pinned at all. Waits for approval."""

    @property
    def is_forgotten(self) -> bool:
        """Whether this only says that there are none any more: its next list is pinned as its first."""
        return self.since == 0

    def outranks(self, other: "Pins") -> bool:
        """Whether this is to be believed rather than `other`, of the same tool server.

        What people decided later goes before what they decided earlier. Where nobody decided anything since, the
        older pins are right: newer ones can only have been made by somebody who did not know them.
        """
        if self.decided != other.decided:
            return self.decided > other.decided
        if self.since == other.since:
            return False
        return other.is_forgotten or 0 < self.since < other.since
