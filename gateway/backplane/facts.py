"""What an operator sees of the cluster, as plain values: read from the shared store, changed by nobody."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from gateway.backplane.base import RobotRow, Snapshot, WorkerRow
from gateway.directory import Row


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """One worker, by its lease and by the list of workers."""

    id: str
    row: WorkerRow | None
    """What it says of itself; None where it has no lease."""
    listed_until_ms: int = 0
    """The end of its lease by the list of workers; 0 where it is not on the list."""
    lease_left_ms: int = 0
    """-1 for a lease that never ends; 0 where there is none."""
    beat_ms: int = 0
    executing: int = 0
    """Calls that its tool servers have in the ledger."""
    owned: int = 0
    """How much it would have to be cleaned of."""
    listeners: int | None = None
    """How many are subscribed to its mailbox; None where nobody may ask."""

    @property
    def state(self) -> str:
        """`up`, `draining` or `stopping` as it says itself; `dead` without a lease."""
        return "dead" if self.row is None else self.row.state


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """One agent. A summary leaves out what it was not asked for."""

    id: str
    """Its own id; the hash that its keys have where nobody has noted the id."""
    tag: str
    snapshot: Snapshot
    changed_ms: int = 0
    """Its last change by the list of agents; 0 where it is not on the list."""
    robots_count: int = 0
    robots: Mapping[str, RobotRow] = field(default_factory=dict)

    @property
    def rows(self) -> Mapping[str, Row]:
        return self.snapshot.rows

    def count(self, state: str) -> int:
        """How many of its tool servers are in this state."""
        return sum(row.state == state for row in self.rows.values())


@dataclass(frozen=True, slots=True)
class CallFacts:
    """One call of the ledger. `state` is empty where only its line in the list is left."""

    id: str
    worker: str
    """Whose tool server executes it."""
    due_ms: int
    state: str = ""
    sender: str = ""
    agent: str = ""
    server_id: str = ""
    tool: str = ""
    sent_ms: int = 0


@dataclass(frozen=True, slots=True)
class EventFacts:
    """One line of the event log."""

    id: str
    at_ms: int
    kind: str
    fields: Mapping[str, str]
    """All of it but the kind, in the order in which it was written."""

    def field(self, name: str) -> str:
        return self.fields.get(name, "")


@dataclass(frozen=True, slots=True)
class AuditFacts:
    """One record of the audit."""

    id: str
    at_ms: int
    fields: Mapping[str, Any]
    """As it was written; empty where that can't be read."""


@dataclass(frozen=True, slots=True)
class BufferFacts:
    """What waits in Redis for one subscriber that has not read it yet."""

    name: str
    waiting_bytes: int
    limit_bytes: int
    """The lower of the two limits; 0: none."""


@dataclass(frozen=True, slots=True)
class MemoryFacts:
    """How full one server is."""

    where: str
    used_bytes: int
    limit_bytes: int
    """0: none."""
    evicted_keys: int


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """Everything that the doctor looks at, read within one look."""

    now_ms: int
    workers: Mapping[str, WorkerFacts] = field(default_factory=dict)
    agents: Sequence[AgentFacts] = ()
    toolsets: Set[str] = frozenset()
    """Those that are there, of those that rows name."""
    calls: Sequence[CallFacts] = ()
    events: Sequence[EventFacts] = ()
    keys_without_end: Sequence[str] = ()
    keys_unknown: Sequence[str] = ()
    """Keys under the prefix that no gateway writes."""
    buffers: Sequence[BufferFacts] = ()
    memory: Sequence[MemoryFacts] = ()
    unread: Mapping[str, str] = field(default_factory=dict)
    """What could not be looked at, by the name of its rule → the command to run by hand, and why if not for a right."""
    is_cut: bool = False
    """There are more keys than were looked at."""
