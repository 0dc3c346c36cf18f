"""What the registry is given and what it answers: values, besides the directory's own."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from gateway.backplane.base import Change
from gateway.directory import Claim, Row
from gateway.policy import Policy


@dataclass(frozen=True, slots=True)
class Rules:
    """The limits that the decisions keep; each is a setting (design §9)."""

    hold_ms: int
    handshake_ms: int
    servers_max: int
    tools_max: int
    catalog_bytes: int = 8 * 1024 * 1024
    tells_alike_apart: bool = False
    """Whether a name gives way to one that people or models may take it for, and not only to an equal one."""

    def under(self, policy: Policy, *, has_pins: bool) -> "Rules":
        """These rules with what an agent's people have set."""
        if not policy.limits and has_pins == self.tells_alike_apart:
            return self
        return replace(
            self,
            servers_max=policy.limit("servers_per_agent", self.servers_max),
            tools_max=policy.limit("tools_per_agent", self.tools_max),
            catalog_bytes=policy.limit("catalog_bytes", self.catalog_bytes),
            tells_alike_apart=has_pins,
        )

    @property
    def claims_max(self) -> int:
        return 4 * self.tools_max

    @property
    def seen_max(self) -> int:
        return 2 * self.servers_max


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A tool server whose handshake is done. `server_id` is empty for an anonymous one.

    `trouble` is what is wrong with its list, which is taken as far as it goes.
    """

    worker: str
    conn: str
    server_id: str
    name: str
    version: str
    toolset: str
    originals: tuple[str, ...]
    trouble: str = ""
    toolset_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Admitted:
    """The newcomer is `server_id` now, once the change is taken. `displaced` is the live row that it took over."""

    server_id: str
    row: Row
    change: Change
    displaced: Row | None
    claims: Mapping[str, Claim]

    @property
    def takeovers(self) -> int:
        return len(self.row.takeovers)


@dataclass(frozen=True, slots=True)
class ProbeFirst:
    """A live connection looks exactly like the newcomer: is it a ghost? Ping it, then ask again."""

    server_id: str
    row: Row


@dataclass(frozen=True, slots=True)
class TooMany:
    """A limit stands in the way: `room` tools would still fit (0: the tool server itself does not)."""

    limit: str
    room: int
    room_bytes: int | None = None
    """So many bytes of tools would fit; None: it is not these that stand in the way."""


@dataclass(frozen=True, slots=True)
class Superseded:
    """Somebody newer holds the row: this connection has to go."""

    row: Row


Registration: TypeAlias = Admitted | ProbeFirst | TooMany
