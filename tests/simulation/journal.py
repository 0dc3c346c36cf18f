"""What robots and tool servers saw: the only witness that the checker believes."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from tests.simulation.loop import SimLoop


@dataclass(slots=True, eq=False)
class Request:
    """One call of one robot."""

    number: int
    robot: str
    rpc_id: int
    tool: str
    worker: str
    sent_at: float
    deadline: float
    answers: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    cancelled_at: float | None = None
    robot_gone_at: float | None = None

    def __str__(self) -> str:
        return f"call {self.number} ({self.tool}, by {self.robot} on {self.worker} at {self.sent_at:.3f})"


@dataclass(slots=True)
class Execution:
    at: float
    device: str
    connection: str


class Journal:
    """Every request, answer and execution of a run, and a trace of everything if wanted."""

    def __init__(self, loop: SimLoop, *, is_traced: bool) -> None:
        self.requests: dict[int, Request] = {}
        self.executions: dict[int, list[Execution]] = defaultdict(list)
        self.complaints: list[str] = []
        """What peers found wrong at once."""
        self.lines: list[str] = []
        self.is_traced = is_traced
        self._loop = loop

    def new_request(self, robot: str, rpc_id: int, tool: str, worker: str, seconds: float) -> Request:
        number, now = len(self.requests) + 1, self._loop.time()
        request = self.requests[number] = Request(number, robot, rpc_id, tool, worker, now, now + seconds)
        return request

    def execute(self, number: int, device: str, connection: str) -> None:
        self.executions[number].append(Execution(self._loop.time(), device, connection))

    def complain(self, text: str) -> None:
        self.complaints.append(f"{self._loop.time():.3f} {text}")
        self.note("!", text)

    def note(self, who: str, text: str) -> None:
        """Add a line to the trace."""
        if self.is_traced:
            self.lines.append(f"{self._loop.time() - 1000:9.4f}  {who:<14} {text}")
