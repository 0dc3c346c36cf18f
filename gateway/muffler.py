"""Keeps a flood of one kind of thing from filling a log: so many of each source are told, the others counted."""

from collections.abc import Mapping

from gateway.rates import Allowance

SOURCES_MAX = 1000
TELL_SECONDS = 10.0


class Muffler:
    """Decides which of many alike are told, one by one; the rest is owed as a count by word.

    Every source has an allowance of its own, so that a flood of one hides nobody else's line; all of them together
    have another. Sources beyond the number that is kept share one. Times are seconds of any clock.
    """

    __slots__ = ("_all", "_held", "_held_since", "_of", "_others", "_per_second", "_swept_at", "_units")

    def __init__(
        self, units: float = 20, per_second: float = 0.5, *, all_units: float = 200, all_per_second: float = 10
    ) -> None:
        self._units, self._per_second = units, per_second
        self._all = Allowance(all_units, all_per_second)
        self._others = Allowance(units, per_second)
        self._of: dict[str, Allowance] = {}
        self._held: dict[str, int] = {}
        self._held_since = self._swept_at = 0.0

    def __len__(self) -> int:
        return len(self._of)

    def passes(self, source: str, word: str, now: float) -> bool:
        """Whether this one is told. If not it is counted under `word`, of which there must be few."""
        if self._source(source, now).take(1, now) and self._all.take(1, now):
            return True
        if not self._held:
            self._held_since = now
        self._held[word] = self._held.get(word, 0) + 1
        return False

    def owed(self, now: float, *, at_once: bool = False) -> Mapping[str, int]:
        """What was not told since this last said so, by word; empty until that is worth a line. Settles the debt."""
        if not self._held or (now - self._held_since < TELL_SECONDS and not at_once):
            return {}
        held, self._held = self._held, {}
        return held

    def _source(self, source: str, now: float) -> Allowance:
        known = self._of.get(source)
        if known is not None:
            return known
        if len(self._of) >= SOURCES_MAX:
            if now - self._swept_at < 1.0:  # whoever has many addresses must not make us look at all of them each time
                return self._others
            self._swept_at = now
            self._of = {name: kept for name, kept in self._of.items() if not kept.is_whole(now)}
            if len(self._of) >= SOURCES_MAX:
                return self._others
        return self._of.setdefault(source, Allowance(self._units, self._per_second))
