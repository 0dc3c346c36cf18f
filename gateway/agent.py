"""One agent, as a worker looks after it: what is connected here, and what is known of the rest."""

from collections.abc import Set

from gateway.backplane.base import Snapshot
from gateway.calls import Call
from gateway.catalog import Catalog
from gateway.directory import Row
from gateway.policy import UNSET
from gateway.robotlink import RobotLink
from gateway.routing import Lost
from gateway.toollink import ToolLink

ELSEWHERE_SECONDS = 2.0
"""For so long the number of its robots on other workers is believed; then the next one shows."""


class Agent:
    """Is changed by `gateway.agents` and by the rooms; built by `Agents.enter`."""

    __slots__ = (
        *("_elsewhere_until", "_robots_elsewhere", "catalog", "changes_read", "changes_wanted", "facts", "id"),
        *("is_loaded", "is_loading", "is_makeshift", "is_watched", "left_at", "looks_again_at", "lost"),
        *("lost_conns", "noted", "policy", "remembers_until", "robots", "tool_servers", "waiting"),
    )

    def __init__(self, agent_id: str, dead_workers: Set[str]) -> None:
        self.id = agent_id
        self.policy = UNSET
        """What its people have decided, as it is in force here."""
        self.robots: dict[str, RobotLink] = {}
        self.tool_servers: dict[str, ToolLink] = {}
        self._robots_elsewhere, self._elsewhere_until = 0, 0.0
        self.catalog = Catalog()
        self.facts = Snapshot(0, 0)
        """What the catalog was built from."""
        self.remembers_until = 0.0
        """Until when facts are believed that the store has forgotten, in loop time; 0: it has forgotten none."""
        self.looks_again_at = 0.0
        """When to look whether they are back, should nobody say so."""
        self.noted = 0
        """The last revision that somebody has told of: an agent that has only robots has none to be read."""
        self.is_loaded = False
        self.is_makeshift = False
        """The catalog is what this worker knows by itself, and the store is still being asked."""
        self.waiting: dict[Call, None] = {}
        """Calls that wait for the catalog, or for their tool server to come back."""
        self.lost_conns: set[str] = set()
        """Connections of its tool servers that are gone for sure, until their rows say so too."""
        self.lost = Lost(dead_workers, self.lost_conns)
        self.is_watched = False
        self.is_loading = False
        self.changes_wanted = 1
        """Counts the reasons to read its facts again; the catalog that is here answers to `changes_read` of them."""
        self.changes_read = 0
        self.left_at = 0.0
        """When its last connection went."""

    @property
    def is_current(self) -> bool:
        """Whether nothing is known to be shared that the catalog does not say."""
        return self.changes_read == self.changes_wanted

    @property
    def is_settled(self) -> bool:
        """Whether it need not be read again before somebody says that it has changed."""
        return self.is_current and not self.catalog.missing and not self.looks_again_at

    def robots_elsewhere(self, now: float) -> int:
        """How many robots it has on other workers, as far as that is known and not old: 0 otherwise."""
        return self._robots_elsewhere if now < self._elsewhere_until else 0

    def note_robots_elsewhere(self, count: int, now: float) -> None:
        self._robots_elsewhere, self._elsewhere_until = count, now + ELSEWHERE_SECONDS

    @property
    def present_rows(self) -> list[Row]:
        """The rows of tool servers that are not offline; none while nobody here wants the catalog, and it grows old."""
        return [row for row in self.catalog.rows.values() if row.state != "offline"] if self.robots else []

    def __repr__(self) -> str:
        return f"<Agent {self.id} [{len(self.tool_servers)} tool servers, {len(self.robots)} robots]>"
