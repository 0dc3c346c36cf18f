"""Turns: everybody's once in a period, a share of them at every beat."""

from collections.abc import Mapping
from typing import Any


class Rounds:
    """Who has a turn at this beat, so that each member has one in every `beats` beats.

    Between two rounds nobody is looked at but those whose turn it is: most members are not in a processor's cache, and
    ten thousand of them would hold the loop up for milliseconds. Who has come meanwhile has the first turn in the next
    round.
    """

    def __init__(self, members: Mapping[str, Any], beats: int) -> None:
        """`members` is looked at again for each round; its values are not touched."""
        self._members = members
        self._beats = max(1, beats)
        self._beat = 0
        self._names: list[str] = []

    def share(self) -> list[str]:
        """Who is it now: called once a beat. Only those that are still members."""
        if self._beat == 0:
            self._names = list(self._members)
        names = self._names[self._beat :: self._beats]
        self._beat = (self._beat + 1) % self._beats
        return [name for name in names if name in self._members]
