"""The calls in flight: what a robot asked for, and by when it must be answered.

Theory of operation
-------------------
A `Call` is the caller's side: it lives on the robot's worker from the request to its one answer. A `Job` is the
executing side: it lives beside the tool server's connection, under the id that the tool server sees. For a call
between two connections of one worker both are here, and the job points to its call; for a remote one the envelope
stands between them.

Nothing here reads a clock; times are seconds of the event loop.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, Protocol, TypeVar

from gateway import jsonrpc
from gateway.catalog import Route
from gateway.jsonrpc import RpcId
from gateway.rates import Rate
from gateway.results import without_connection_meta

PROGRESS_PER_SECOND = 20.0
UNASKED_PROGRESS_PER_SECOND = 1.0


class Stage(Enum):
    """How far a call has come. Before `SENT` it is certain that no tool server has seen it."""

    WAITING = "waiting"  # for the catalog
    PARKED = "parked"  # for its tool server to come back
    DISPATCHED = "dispatched"  # handed to the backplane; no verdict yet
    SENT = "sent"
    DONE = "done"


@dataclass(slots=True, eq=False)
class Call:
    """One request in flight from a robot to a tool server.

    `id` names it in logs, records and error data. `ledger_id` is that of the present attempt in the backplane; a new
    attempt gets a new one, since a worker refuses an id that it has said it never saw.
    """

    id: str
    robot: str
    rpc_id: RpcId
    agent: str
    name: str
    frame: bytes
    params: dict[str, Any]
    started: float
    deadline: float
    deadline_max: float
    is_extendable: bool
    progress_token: RpcId | None = None
    stage: Stage = Stage.WAITING
    route: Route | None = None
    worker: str = ""
    conn: str = ""
    epoch: int = 0
    ledger_id: str = ""
    job: "Job | None" = None
    """Its execution, where the tool server is connected to this worker."""
    timeout_seconds: float = 0.0
    """Its tool's own; 0: as for any other."""
    result_bytes: int = 0
    """How large its tool's result may be; 0: as any other."""
    attempts: int = 0
    nosubs: int = 0
    ids_given: int = 0
    parked_until: float = 0.0
    parked_at: float = 0.0
    """Since when it waits for its tool server; 0: it does not."""
    span: Any = None
    """The tracer's, where there is one."""
    last_progress: float = -1.0

    @property
    def is_done(self) -> bool:
        return self.stage is Stage.DONE

    @property
    def server_id(self) -> str:
        return self.route.server_id if self.route else ""

    @property
    def original(self) -> str:
        """The tool's name at its tool server."""
        return self.route.original if self.route else self.name

    def new_ledger_id(self) -> str:
        """The id of one more attempt: the call's own for the first, `ID.2`, `ID.3` … for those after it."""
        given = self.ids_given = self.ids_given + 1
        return self.id if given == 1 else f"{self.id}.{given}"

    @property
    def call_seconds(self) -> float:
        return self.deadline - self.started

    def allow(self, timeout_seconds: float) -> None:
        """Its tool may take so long, from the beginning and from each progress notification on."""
        self.timeout_seconds = timeout_seconds
        self.deadline = self.started + timeout_seconds
        if not self.is_extendable:
            self.deadline_max = self.deadline

    def extend(self, now: float, call_seconds: float) -> None:
        """Progress was heard: the deadline moves, never back and never past the hard maximum."""
        if self.is_extendable:
            seconds = self.timeout_seconds or call_seconds
            self.deadline = max(self.deadline, min(now + seconds, self.deadline_max))


@dataclass(slots=True, eq=False)
class Job:
    """One request that a tool server is to execute, and who wants to know what becomes of it."""

    call_id: str
    agent: str
    tool: str
    params: dict[str, Any]
    started: float
    deadline: float
    deadline_max: float
    caller: "Caller"
    origin: str = ""
    """The worker that asked; empty for this one."""
    call: Call | None = None
    """The call itself, where it is at home on this worker."""
    upstream_id: int = -1
    is_done: bool = False
    is_recorded: bool = False
    progress_rate: Rate | None = None
    trace: str = ""
    """The W3C `traceparent` that the tool server is to get in place of the one that came; empty: that one."""
    span: Any = None
    """The tracer's, where there is one."""
    timeout_seconds: float = 0.0
    """The tool's own; 0: as for any other."""

    @property
    def is_sent(self) -> bool:
        """Whether its tool server has been given it, and has neither answered nor gone."""
        return self.upstream_id >= 0 and not self.is_done

    @property
    def has_token(self) -> bool:
        """Whether the robot asked for progress."""
        meta = self.params.get("_meta")
        return type(meta) is dict and meta.get("progressToken") is not None

    def extend(self, now: float, call_seconds: float) -> None:
        seconds = self.timeout_seconds or call_seconds
        self.deadline = max(self.deadline, min(now + seconds, self.deadline_max))

    def may_tell_progress(self, now: float) -> bool:
        """Whether one more progress notification is within bounds; unasked ones only keep deadlines moving."""
        if self.progress_rate is None:
            self.progress_rate = Rate(PROGRESS_PER_SECOND if self.has_token else UNASKED_PROGRESS_PER_SECOND)
        return self.progress_rate.take(now)


def call_of(ledger_id: str) -> str:
    """The id of the call that this is an attempt of."""
    worker, dash, number = ledger_id.rpartition("-")
    return f"{worker}{dash}{number.partition('.')[0]}"


class Caller(Protocol):
    """Who hears of a job: exactly one of `on_answer`, `on_lost`, `on_unsent` is called, unless it was cancelled."""

    def on_answer(self, job: Job, message: dict[str, Any], frame: bytes) -> None:
        """The tool server has answered: `message` is the whole response, `frame` its text."""

    def on_lost(self, job: Job) -> None:
        """It was sent, and no answer can come any more."""

    def on_unsent(self, job: Job) -> None:
        """It was never sent, and won't be: its tool server is gone."""

    def on_progress(self, job: Job, params: dict[str, Any]) -> None: ...


def upstream_frame(job: Job) -> bytes:
    """The request as the tool server gets it: its own name for the tool, our id, a progress token of ours.

    `arguments: null` goes out as absent, everything else in `params` as it came. Raises jsonrpc.Undumpable.
    """
    params = without_connection_meta(job.params)
    meta = params.get("_meta")
    sent = {**params, "name": job.tool, "_meta": {**(meta or {}), "progressToken": job.upstream_id}}
    if job.trace:
        sent["_meta"]["traceparent"] = job.trace
    if "arguments" in sent and sent["arguments"] is None:
        del sent["arguments"]
    return jsonrpc.request(job.upstream_id, "tools/call", sent)


class Timed(Protocol):
    deadline: float


TimedT = TypeVar("TimedT", Call, Job)

SLOT_SECONDS = 0.05


class Deadlines(Generic[TimedT]):
    """Who is due, in slots of 50 ms: adding and discarding cost the same however many wait, and nothing lingers.

    A deadline may move later without telling: the item is looked at when its first one comes, and put where it
    belongs by then.
    """

    def __init__(self) -> None:
        self._slots: dict[int, dict[TimedT, None]] = {}
        self._slot_of: dict[TimedT, int] = {}
        self._next_slot: int | None = None

    def __len__(self) -> int:
        return len(self._slot_of)

    def __iter__(self) -> Iterator[TimedT]:
        return iter(self._slot_of)

    def add(self, item: TimedT) -> None:
        slot = int(item.deadline / SLOT_SECONDS)
        if self._next_slot is None or slot < self._next_slot:
            self._next_slot = slot
        self._slots.setdefault(slot, {})[item] = None
        self._slot_of[item] = slot

    def discard(self, item: TimedT) -> None:
        """The item is done; it need not have been added."""
        slot = self._slot_of.pop(item, None)
        if slot is not None:
            self._slots[slot].pop(item, None)

    def due(self, now: float) -> list[TimedT]:
        """The items whose deadline has come; they are discarded. At most one slot late, never early."""
        last = int(now / SLOT_SECONDS)
        if self._next_slot is None:
            return []
        passed: list[TimedT] = []
        for slot in range(self._next_slot, last):
            passed.extend(self._slots.pop(slot, ()))
        self._next_slot = max(self._next_slot, last)
        due = []
        for item in passed:
            del self._slot_of[item]
            if item.deadline > now:
                self.add(item)
            else:
                due.append(item)
        return due
