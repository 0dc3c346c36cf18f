"""Who takes part in a run and how much they do: the same for every process."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from tests.peers.token import console_token


@dataclass(frozen=True, slots=True)
class Plan:
    """Each agent has all `servers`, each at home on another worker, and robots on every worker."""

    folder: Path
    ports: tuple[int, ...]
    key: str
    call_seconds: float
    agents: tuple[str, ...] = ("alpha", "beta", "gamma")
    servers: tuple[str, ...] = ("s0", "s1", "s2")
    slow_share: float = 0.2
    cancel_share: float = 0.05
    """Of the slow calls."""
    redial_seconds: tuple[float, float] = (0.1, 0.4)
    ping_seconds: float = 2.0
    """Peers ping their worker this often, and leave it when it stays silent for as long again."""

    @property
    def slots(self) -> int:
        return len(self.ports)

    def home(self, agent: str, server: str) -> int:
        """The worker that this tool server dials first."""
        return (self.agents.index(agent) + self.servers.index(server)) % self.slots

    def mcp_url(self, agent: str, server: str, slot: int) -> str:
        return f"{self._url(slot)}/mcp/?token={self._token(agent)}&server_id={server}"

    def call_url(self, agent: str, slot: int) -> str:
        return f"{self._url(slot)}/call/?token={self._token(agent)}"

    def _url(self, slot: int) -> str:
        return f"ws://127.0.0.1:{self.ports[slot]}/mcp_endpoint"

    def _token(self, agent: str) -> str:
        return quote(console_token(agent, self.key), safe="")


def tool_of(server: str) -> str:
    """The one tool of a tool server."""
    return f"work_{server}"


def worker_of(slot: int) -> str:
    """The name of the worker in a slot, in logs and to people."""
    return f"worker-{slot}"
