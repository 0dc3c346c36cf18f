"""What this worker has seen of agents' pins: so that a store that has lost its data opens no door.

Every snapshot that is acted on passes here. What the store has forgotten is added to it, and whoever commits next
puts it back. Bounded: agents that were not looked at for longest are forgotten first.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from gateway import pins
from gateway.backplane.base import Snapshot
from gateway.directory import Pins

FINGERPRINTS_MAX = 200_000
"""All agents together: some 30 MB."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of one agent, as of a revision of its facts."""

    pins: Mapping[str, Pins] = field(default_factory=dict)
    revision: int = 0
    weight: int = 0


class Pinboard:
    """Agent → server_id → the pins that are to be believed, as far as this worker knows."""

    def __init__(self, fingerprints_max: int = FINGERPRINTS_MAX) -> None:
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._fingerprints = 0
        self._fingerprints_max = fingerprints_max

    def __repr__(self) -> str:
        return f"<Pinboard [{len(self._known)} agents, {self._fingerprints} fingerprints]>"

    @property
    def agents(self) -> list[str]:
        """The agents with pins."""
        return list(self._known)

    def revision(self, agent: str) -> int:
        """As of which revision the agent's pins are known; 0: it has none here."""
        return self._known.get(agent, _Known()).revision

    def recall(self, agent: str, snapshot: Snapshot) -> Snapshot:
        """The snapshot with the pins that the store should have; they are what is known from now on."""
        known = self._known.get(agent)
        if known is None and not snapshot.pins:
            return snapshot
        believed = pins.merged(snapshot.pins, known.pins if known is not None else {})
        self._keep(agent, believed, snapshot.revision)
        return snapshot if believed is snapshot.pins else replace(snapshot, pins=believed)

    def note(self, agent: str, snapshot: Snapshot, change: Mapping[str, Pins | None], revision: int) -> None:
        """What was recalled has been changed so, in the store."""
        if change or agent in self._known:
            told = {name: pins for name, pins in {**snapshot.pins, **change}.items() if pins is not None}
            self._keep(agent, told, revision)

    def _keep(self, agent: str, believed: Mapping[str, Pins], revision: int) -> None:
        weight = sum(1 + len(entry.tools) + len(entry.offered) for entry in believed.values())
        self._fingerprints += weight - self._known.get(agent, _Known()).weight
        self._known[agent] = _Known(believed, revision, weight)
        self._known.move_to_end(agent)
        while self._fingerprints > self._fingerprints_max and len(self._known) > 1:
            _, gone = self._known.popitem(last=False)
            self._fingerprints -= gone.weight
