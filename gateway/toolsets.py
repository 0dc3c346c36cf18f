"""The tool sets that this worker remembers, and how many new ones an agent may bring.

Theory of operation
-------------------
A tool set is known by its digest; equal lists of any number of tool servers are one. What no catalog shows any more is
let go of once enough of that has come together, by number or by size.

Each new set is kept for an hour by the store as well, and a tool server may announce another one at any time. So an
agent has an allowance of bytes for sets that nobody here has seen before: real tool servers come back with the list
that they had, or with one that differs by a tool, and never get near it.
"""

from collections.abc import Collection, Iterator, Mapping

from gateway import pins
from gateway.rates import Allowances
from gateway.tools import Tool

SPARE = 100
SPARE_BYTES = 64 * 1024 * 1024
NEW_SETS = 16
"""Of the largest size, at once and then once more within an hour."""
NEW_SECONDS = 3600.0
AGENTS_MAX = 10_000
"""Whose allowances are kept although they may be whole again."""


class Toolsets(Mapping[str, list[Tool]]):
    """Digest → tools. Nobody changes the tools that are in here."""

    def __init__(self, toolset_bytes: int) -> None:
        self._sets: dict[str, tuple[list[Tool], int]] = {}
        self._fingerprints: dict[str, dict[str, str]] = {}
        """Of the sets whose fingerprints somebody wanted."""
        self._bytes = 0
        self._sets_max, self._bytes_max = SPARE, SPARE_BYTES
        new_bytes = float(NEW_SETS * toolset_bytes)
        self._allowances = Allowances(new_bytes, new_bytes / NEW_SECONDS, names_max=AGENTS_MAX)

    def __getitem__(self, digest: str) -> list[Tool]:
        return self._sets[digest][0]

    def __contains__(self, digest: object) -> bool:
        return digest in self._sets

    def __iter__(self) -> Iterator[str]:
        return iter(self._sets)

    def __len__(self) -> int:
        return len(self._sets)

    def keep(self, digest: str, tools: list[Tool], size_bytes: int) -> None:
        """Remember a set; `size_bytes` is that of its JSON text."""
        if digest not in self._sets:
            self._sets[digest] = tools, size_bytes
            self._bytes += size_bytes

    def fingerprints(self, digest: str) -> Mapping[str, str]:
        """Tool → fingerprint, in the set's order; empty for a set that is not here."""
        known = self._fingerprints.get(digest)
        if known is None and digest in self._sets:
            known = self._fingerprints[digest] = {tool["name"]: pins.fingerprint(tool) for tool in self[digest]}
        return known or {}

    def may_bring(self, agent: str, digest: str, size_bytes: int, now: float) -> bool:
        """Whether the agent may have one more set; what is remembered costs nothing. Counts it if so."""
        if digest in self._sets:
            return True
        return self._allowances.of(agent, now).take(size_bytes, now)

    @property
    def is_due(self) -> bool:
        """Whether so much is remembered that a look at what is shown is worth it."""
        return len(self._sets) > self._sets_max or self._bytes > self._bytes_max

    def let_go(self, shown: Collection[str]) -> None:
        """Forget every set but these."""
        self._sets = {digest: kept for digest, kept in self._sets.items() if digest in shown}
        self._fingerprints = {digest: kept for digest, kept in self._fingerprints.items() if digest in shown}
        self._bytes = sum(size for _, size in self._sets.values())
        self._sets_max, self._bytes_max = 2 * len(self._sets) + SPARE, 2 * self._bytes + SPARE_BYTES
