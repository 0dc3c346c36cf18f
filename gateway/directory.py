"""The facts that workers share about one agent's tool servers, as plain values."""

from dataclasses import dataclass
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
