"""The backplane as the worker sees it: values and a few narrow nouns.

Theory of operation
-------------------
*Directory*: which tool servers an agent has, where each is connected, and who holds which tool name. All of one
agent's facts change together or not at all: a worker reads a `Snapshot`, decides in plain Python
(`gateway.registry`), and offers the decision as a `Change` that is taken only if the agent's revision is still the
one that was read. The policy is thereby one piece of pure code for every backplane, and the shared store needs one
small compare-and-set (ADR 0003).

*Ledger*: which calls are in flight between workers. The record is written before the message is published, so that
a lost message can be found again; `dispatch` answers with a `Verdict` that says how far the call got.

*Mailbox*: every worker has one. Envelopes for it arrive, in order, at the `Listener` of the backplane's session.

*Books*: what people have decided, until they decide otherwise: the only things without an end (ADR 0024). *Buckets*:
what is left of the limits that all workers share.

Methods that begin a thing on the hot path (`dispatch`, `answer`, `withdraw`, `send`, `take_ahead`) return at once and
report by callback: everything that one turn of the event loop asks for travels together. They never raise. All other
methods are coroutines and raise `BackplaneUnavailable` when the shared store can't be reached; nothing was changed
then, or it can't be known whether it was.

Times named `_ms` are milliseconds of the backplane's own clock (`now_ms`), never of this machine's.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol, TypeAlias

from gateway.backplane.envelope import Envelope
from gateway.directory import Claim, Pins, Row, Seen
from gateway.meters import Meters

Tell: TypeAlias = Callable[[], None]


def nothing() -> None:
    """For who need not be told."""


class BackplaneUnavailable(Exception):
    """The shared store can't be reached, or refuses; the text says which and why, without any secret."""


class Verdict(Enum):
    """How far a dispatched call got. Only `OK`, `DUP` and `UNKNOWN` leave room for the tool having run."""

    OK = "ok"  # recorded and received by the worker's subscription
    GONE = "gone"  # the worker has no lease: nothing written, nothing sent
    NOSUB = "nosub"  # nobody is subscribed to the mailbox: what was written has been removed again
    LATE = "late"  # the deadline had passed: nothing written, nothing sent
    DUP = "dup"  # this id is already recorded there: nothing written, nothing sent
    REFUSED = "refused"  # the store refused to write (full, read-only …): nothing sent
    UNAVAILABLE = "unavailable"  # never left this process: nothing written, nothing sent
    UNKNOWN = "unknown"  # left this process, and no reply came back


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that is shared about one agent, read in one instant. `revision` is 0 for an agent nobody knows."""

    revision: int
    now_ms: int
    rows: Mapping[str, Row] = field(default_factory=dict)
    claims: Mapping[str, Claim] = field(default_factory=dict)
    seen: Mapping[str, Seen] = field(default_factory=dict)
    pins: Mapping[str, Pins] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """What one decision changes of an agent: values to put, and None for what goes."""

    rows: Mapping[str, Row | None] = field(default_factory=dict)
    claims: Mapping[str, Claim | None] = field(default_factory=dict)
    seen: Mapping[str, Seen | None] = field(default_factory=dict)
    toolsets: Mapping[str, bytes] = field(default_factory=dict)
    """Digest → tools as JSON text; written before the rows that point to them."""
    pins: Mapping[str, Pins | None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.rows or self.claims or self.seen or self.pins)


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """What a worker says of itself at each beat."""

    host: str
    pid: int
    version: str
    started_ms: int
    state: str = "up"
    robots: int = 0
    tool_servers: int = 0
    calls: int = 0


@dataclass(frozen=True, slots=True)
class Beat:
    """The answer to a beat. `fresh`: the lease had not been there, so the store may have forgotten this worker."""

    fresh: bool
    now_ms: int
    workers: Mapping[str, int] = field(default_factory=dict)
    """Every announced worker → its lease's deadline (ms); one in the past belongs to a worker that may be dead."""


@dataclass(frozen=True, slots=True)
class RobotRow:
    """One robot's connection, for operators and the health answer."""

    worker: str
    client: str
    since: int


@dataclass(frozen=True, slots=True)
class Record:
    """A call as the ledger holds it. `state` is `sent`, `answered`, or `local` (both ends on one worker)."""

    id: str
    state: str
    sender: str
    agent: str
    server_id: str
    tool: str
    sent_ms: int
    message: bytes = b""
    """The whole `req` envelope as it was published, until answered."""
    result: bytes = b""
    """The whole `res` envelope, once answered."""


@dataclass(frozen=True, slots=True)
class Dispatch:
    """One call for another worker: the envelope to deliver, and what the ledger notes beside it."""

    worker: str
    envelope: Envelope
    keep_seconds: float
    """How long the record may outlive everybody (the hard maximum of a call + 30 s)."""


@dataclass(frozen=True, slots=True)
class Overview:
    """The cluster, as far as one health answer shows it."""

    workers: Mapping[str, WorkerRow]
    agents: Mapping[str, Mapping[str, Row]]
    """Agent → its rows, newest change first, at most as many as asked for."""
    robots: Mapping[str, int]
    truncated: bool


BOOKS = ("policy", "revoked")
"""Decisions of people: per agent ("*": for all) what it may do; whose tokens no longer count."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One decision. A higher version is a later one; of equal ones what the store has counts."""

    version: int
    text: bytes
    """A JSON object; empty: the decision was taken back. That is remembered, so that no older one comes back."""


@dataclass(frozen=True, slots=True)
class Edition:
    """A book as the store has it, or what has changed in it. `version` is 0 for a book that nobody has opened yet.

    A store that lost its data looks like that too: whoever has been there before puts back what it knows.
    """

    version: int
    entries: Mapping[str, Entry] = field(default_factory=dict)
    is_whole: bool = True
    """False: only what has changed since the version that was asked for."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """One limit that all workers share, by its name among its owner's. It fills up to `units`."""

    name: str
    units: float
    per_second: float


@dataclass(frozen=True, slots=True)
class Asked:
    """What a worker wants of some buckets of one owner: as much of each, or nothing of any."""

    is_source: bool
    """Whether the owner is the source of handshakes; else it is an agent."""
    owner: str
    buckets: tuple[Bucket, ...]
    want: int
    debt: int = 0
    """What was spent already; it is taken whether there is enough or not."""


@dataclass(frozen=True, slots=True)
class Taken:
    """So many of the wanted units: at most half of what there was. None: there is one after that time."""

    units: int
    wait_seconds: float = 0.0


class Listener(Protocol):
    """Who hears what arrives. Called from the event loop, in order; must not block and must not raise."""

    def on_envelope(self, envelope: Envelope) -> None: ...

    def on_catalog(self, agent: str, revision: int) -> None:
        """The agent's shared facts have reached `revision`."""

    def on_book(self, book: str) -> None:
        """Something has been written into the book. Said at least once, but not for certain: look at beats too."""

    def on_gap(self) -> None:
        """Messages may have been missed, and what was written may be lost.

        A subscription or the connection for commands was made anew without having been asked for, perhaps to another
        server; told when both are there again.
        """


class Directory(Protocol):
    async def snapshot(self, agent: str) -> Snapshot:
        """The agent's rows and claims now, in one instant."""

    async def commit(self, agent: str, expected: int, change: Change) -> int | None:
        """Take the change if the agent's revision is `expected`: the new revision, or None if it was not.

        The new revision is max(expected + 1, now_ms): it never comes twice, also after the store lost everything.
        Rows that name this worker (and are not offline) are noted as owned by it before they are written; rows that
        no longer do are struck off after. Whoever watches the agent hears the new revision, this worker included.
        """

    async def toolsets(self, digests: Collection[str]) -> dict[str, bytes]:
        """The tools (JSON text) of each digest that is there; the others are missing from the answer."""

    async def put_toolsets(self, toolsets: Mapping[str, bytes]) -> None:
        """Write tool sets that have gone missing, and renew the others."""

    async def watch(self, agent: str) -> None:
        """Hear the agent's changes from now on; returns when the subscription is confirmed."""

    async def unwatch(self, agent: str) -> None: ...

    async def changed(self, since_ms: int) -> dict[str, int]:
        """Agents whose revision is at least `since_ms` → revision.

        One that has had only robots so far comes with the time at which it became known.
        """

    async def naming(self, worker: str, agents: Collection[str]) -> list[str]:
        """Those of the agents that have a row which names the worker, in the same order."""

    async def put_robots(self, robots: Mapping[tuple[str, str], RobotRow | None]) -> dict[str, int]:
        """Write (agent, connection) → row, or remove it where None. An unknown agent becomes a known one.

        How many robots the agents of written rows have now, on all workers; of several who write at once one is last.
        """

    async def renew(self, agents: Collection[str]) -> None:
        """Keep the agents' keys alive; called by workers that hold a connection of theirs."""

    async def overview(self, *, limit: int, agent: str | None = None) -> Overview:
        """The cluster as of now; only `agent` where given."""


class Ledger(Protocol):
    def dispatch(self, dispatch: Dispatch, on_verdict: Callable[[Verdict], None]) -> None:
        """Lease → duplicate → deadline → record → publish → nobody there: undo. The verdict comes by callback."""

    def answer(self, to: str, envelope: Envelope, keep_seconds: float = 30.0, on_unheard: Tell = nothing) -> None:
        """Mark this worker's record `envelope.id` answered with the envelope, then publish it to worker `to`.

        Published even where the record is gone or the write is refused. It can arrive twice where the connection
        broke meanwhile: whoever asked settles a call once. `on_unheard` is called, later, if nobody may have heard it.
        """

    def withdraw(self, worker: str, envelope: Envelope) -> None:
        """Delete the record `envelope.id` at `worker` first, then publish the envelope there (a `cancel`)."""

    def drop(self, call_id: str, nack_to: str, envelope: Envelope, on_unheard: Tell = nothing) -> None:
        """Delete this worker's record of a call that it will not run, then publish the `nack` to the sender.

        `on_unheard` as for `answer`.
        """

    def note_local(self, records: Sequence[Record], deadlines_ms: Sequence[int]) -> None:
        """Record calls between two connections of this worker, for operators; late and in bulk."""

    def forget_local(self, call_ids: Sequence[str]) -> None: ...

    async def pending(self) -> list[Record]:
        """The records in state `sent` that wait for this worker."""

    async def read(self, calls: Sequence[tuple[str, str]]) -> list[Record | None]:
        """The record of each (worker, call id), None where there is none."""


class Mailbox(Protocol):
    def send(self, worker: str, envelope: Envelope, on_receivers: Callable[[int], None] | None = None) -> None:
        """Publish to the worker's mailbox. `on_receivers` hears how many were subscribed, -1 if that is unknown."""


class Membership(Protocol):
    async def beat(self, row: WorkerRow, lease_seconds: float) -> Beat:
        """Renew this worker's lease and say what it holds."""

    async def alive(self, workers: Collection[str]) -> set[str]:
        """Which of these workers hold a lease right now (the lease key itself is asked, not the list)."""

    async def owned(self, worker: str) -> list[tuple[str, str, str]]:
        """What the worker must be cleaned of: (kind `server` or `robot`, agent, server_id or connection)."""

    async def bury(self, worker: str, done: Collection[tuple[str, str, str]]) -> None:
        """Strike `done` off the worker's list; forget the worker once nothing is left and its lease is over."""

    async def leave(self) -> None:
        """Give up this worker's lease and mailbox, tell the others (`bye`)."""

    async def event(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Add a line to the capped event log."""

    def note_event(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Add a line to the event log, soon; while the store is away it is missing, and nothing else happens."""

    async def note_audit(self, records: Sequence[bytes], records_max: int, keep_seconds: float) -> None:
        """Add records (JSON text) to the audit, which keeps about so many, and none that is older than that."""


class Books(Protocol):
    async def read_book(self, book: str, since: int = 0) -> Edition:
        """What came into the book after its version `since`; everything where that can't be told, or for 0.

        Raises BackplaneUnavailable also where what is there can't be read as a book.
        """

    async def write_entry(self, book: str, name: str, text: bytes, expected: int | None = None) -> int | None:
        """Write the decision (empty: take it back) and tell everybody; its version: later than all that were there.

        None, and nothing is written, if `expected` no longer is the version of what stands there (0: nothing does).
        Raises ValueError for a text that is no JSON object.
        """

    async def restore_book(self, book: str, entries: Mapping[str, Entry]) -> int:
        """Put decisions back that are newer than what stands there; how many were. The book is open from then on."""

    async def call_for_books(self) -> bool:
        """Ask everybody who knows the books to put them back; True if certainly nobody is there who could."""

    async def prune_book(self, book: str, entries: Mapping[str, int]) -> None:
        """Strike out what nobody needs any more: entries that still have that version. Nobody is told."""


class Buckets(Protocol):
    def take_ahead(self, asked: Asked, on_taken: Callable[[Taken | None], None]) -> None:
        """Take units before they are needed. `on_taken` hears later how many; None if that can't be known."""


class Backplane(Directory, Ledger, Mailbox, Membership, Books, Buckets, Protocol):
    """What a worker is given. `worker_id` is new at every start."""

    worker_id: str
    is_shared: bool
    """False for the memory backplane of one process: there is nobody else to tell."""
    meters: Meters
    """What this worker counts. The backplane is what is built first, so it brings them; all rooms use the same."""

    @property
    def now_ms(self) -> int:
        """The backplane's time, as well as this process knows it between two beats."""

    @property
    def is_connected(self) -> bool:
        """False while the store can't be reached; the reason is in `trouble`."""

    @property
    def trouble(self) -> str: ...

    @property
    def pending_commands(self) -> int:
        """How many commands wait for the store's reply, or to be sent."""

    def session(self, listener: Listener) -> AbstractAsyncContextManager[None]:
        """`async with`: connected, this worker's mailbox subscribed and confirmed; only then may it be announced.

        Entering raises BackplaneUnavailable, with the reason, when the store can't be had; it may be tried again.
        Leaving gives back every connection and task. One session at a time.
        """
